"""`gatepost status`: the running gateway on one page. Exit status 0 if all is well, 1 if something is not."""

from __future__ import annotations

from typing import Any

import click

from gatepost.cli.ask import ask_or_exit
from gatepost.cli.options import config_option, json_option
from gatepost.cli.output import emit

_LEDGER = ("accepted", "delivered", "bounced", "expired", "discarded", "queued")


@click.command()
@config_option
@json_option
def status(config_path: str, as_json: bool) -> None:
    """Print how the running gateway is.

    Version, generation, processes, queue, spool, sandbox, the last comparison with the table of roles, exceptions in force. The exit status
    is 1 if a process is not ready, the spool takes no mail, or a process differs from the table of roles.
    """
    state = collect_status(config_path)
    emit(state, as_json, status_lines(state))
    if state["problems"]:
        raise click.exceptions.Exit(1)


def collect_status(config_path: str) -> dict[str, Any]:
    """Everything that `gatepost status --json` prints."""
    state: dict[str, Any] = ask_or_exit(config_path, "status")
    roles = ask_or_exit(config_path, "roles")
    stats = ask_or_exit(config_path, "stats")
    state["roles"] = [{key: row[key] for key in ("role", "instance", "generation", "pid", "state")} for row in roles]
    state["ledger"] = ask_or_exit(config_path, "ledger")
    queue = state["queue"] = stats.get("queue/0", {})
    state["spool"] = {"accepting": queue.get("accepting"), "reason": queue.get("health", "")}
    state["dane"] = stats.get("resolver/0", {}).get("dane", "")
    state["counters"] = stats
    state["problems"] = find_problems(state)
    return state


def find_problems(state: dict[str, Any]) -> list[str]:
    """What an operator has to look at."""
    problems = [
        f"{row['role']}/{row['instance']} (generation {row['generation']}) is {row['state']}"
        for row in state["roles"]
        if row["state"] not in ("ready", "draining")
    ]
    if state["spool"]["accepting"] is False:
        problems.append(f"the spool takes no mail: {state['spool']['reason']}")
    differences: list[str] = state["attestation"]["differences"]
    return problems + differences


def status_lines(state: dict[str, Any]) -> list[str]:
    """The page as text."""
    seen = state["attestation"]
    lines = [
        (
            f"Gatepost {state['version']}, configuration {state['generation']}, up {_duration(state['uptime_s'])}, "
            f"listens on {', '.join(state['listen'])}"
        ),
        "",
    ]
    lines += [
        f"  {row['role']}/{row['instance']:<4}".ljust(18) + f"{row['state']:<10}pid {row['pid']}"
        + (f"  generation {row['generation']}" if row["role"] != "queue" else "")
        for row in state["roles"]
    ]  # fmt: skip
    accepting = {True: "takes mail", False: "takes NO mail", None: "no answer yet"}[state["spool"]["accepting"]]
    why = f": {state['spool']['reason']}" if state["spool"]["reason"] else ""
    queue = state["queue"]
    lines += [
        "",
        "ledger       " + ", ".join(f"{name} {state['ledger'].get(name, 0)}" for name in _LEDGER),
        f"queue        {queue.get('entries', '?')} messages, {queue.get('active', '?')} recipients under way",
        f"spool        {accepting}{why}",
        f"DANE         {state['dane'] or 'no answer'}",
        f"sandbox      {state['sandbox']}" + (", DEBUG: logs only" if state["sandbox_debug"] != "off" else ""),
        f"attestation  {_attested(seen)}",
    ]
    lines += [
        f"exception    {e['path']} until {e['until']}: {e['reason']} ({e['owner']})" for e in state["exceptions"]
    ] or ["exceptions   none"]
    lines += [f"note         {note}" for note in state["notes"]]
    lines += ["", *(f"PROBLEM      {problem}" for problem in state["problems"])] if state["problems"] else []
    return lines


def _attested(seen: dict[str, Any]) -> str:
    if not seen["checks"]:
        return "not looked at yet" if seen["every_s"] else "switched off (processes.recheck_s = 0)"
    result = "as declared" if seen["as_declared"] else f"{len(seen['differences'])} differences from the table of roles"
    every = f"every {_duration(seen['every_s'])}" if seen["every_s"] else "switched off now"
    unread = f"; not compared, for root only: {', '.join(seen['not_compared'])}" if seen["not_compared"] else ""
    return f"{result} at {seen['checked_at']} ({seen['processes']} processes, check {seen['checks']}, {every}{unread})"


def _duration(seconds: float) -> str:
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds:.3g} s"
