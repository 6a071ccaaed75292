"""`gatepost queue ...`: the operator's view of the queue, and fsck of a stopped one."""

from __future__ import annotations

import sys
from typing import Any

import click

from gatepost.cli.ask import ask_or_exit
from gatepost.cli.options import config_option, json_option
from gatepost.cli.output import complain, emit
from gatepost.config.load import load_config
from gatepost.spool.errors import SpoolError
from gatepost.spool.fsck import fsck as check_spool


@click.group()
def queue() -> None:
    """List, show, retry and remove queued messages; check the spool."""


@queue.command("list")
@config_option
@json_option
@click.option(
    "--limit",
    metavar="NUMBER",
    default=1000,
    type=click.IntRange(min=0),
    show_default=True,
    help="Show at most so many messages.",
)
@click.option("--next-hop", metavar="HOP", help="Only messages that wait for this next hop.")
@click.option("--recipient", metavar="ADDRESS|DOMAIN", help="Only messages to this address or domain.")
@click.option(
    "--from", "reverse_path", metavar="ADDRESS", help="Only messages with this reverse-path; '' is the null one."
)
def list_messages(
    config_path: str, as_json: bool, limit: int, next_hop: str | None, recipient: str | None, reverse_path: str | None
) -> None:
    """List the messages that wait, and the state of their next hops."""
    answer = ask_or_exit(
        config_path, "list", limit=limit, next_hop=next_hop, recipient=recipient, reverse_path=reverse_path
    )
    emit(answer, as_json, list_lines(answer))


def list_lines(answer: dict[str, Any]) -> list[str]:
    """The answer to "list", for people."""
    if not answer["messages"]:
        return ["the queue is empty" if not answer["total"] else f"none of {answer['total']} messages fits"]
    lines = []
    for row in answer["messages"]:
        state = "held" if row["held"] else f"due {row['due']}" if row["due"] else "under way"
        tried = "1 attempt" if row["attempts"] == 1 else f"{row['attempts']} attempts"
        lines.append(
            f"{row['id']}  {row['received']}  {row['bytes']:>9} bytes  <{row['reverse_path']}>  {state}, {tried}"
        )
        lines += [f"    {recipient}" for recipient in row["recipients"]]
        if row["waiting"] > len(row["recipients"]):
            lines.append(f"    and {row['waiting'] - len(row['recipients'])} more")
        if row["reason"]:
            lines.append(f"    ({row['reason']})")
    lines.append("")
    for hop in answer["next_hops"]:
        lines.append(
            f"{hop['next_hop']}: {hop['state']}, {hop['waiting']} waiting, {hop['active']} under way"
            + (f" ({hop['reason']})" if hop["reason"] else "")
        )
    lines.append(f"{answer['total']} messages in the queue, {len(answer['messages'])} shown")
    return lines


@queue.command()
@config_option
@json_option
@click.argument("message_id", metavar="ID")
def show(config_path: str, as_json: bool, message_id: str) -> None:
    """Show one message: envelope, what was tried for each recipient, header."""
    answer = ask_or_exit(config_path, "show", id=message_id)
    emit(answer, as_json, _show_lines(answer))


def _show_lines(answer: dict[str, Any]) -> list[str]:
    keys = ("id", "session", "received", "client", "helo", "permit", "bytes", "body_type", "attempts", "due", "held")
    said = answer | {
        "held": "yes" if answer["held"] else "no",
        "due": answer["due"] or ("" if answer["held"] else "under way"),
    }
    lines = [f"{key:<12}{said[key]}".rstrip() for key in keys]
    if answer["asked"]:
        lines.append(f"{'asked':<12}{answer['asked']}")
    lines.append(f"{'from':<12}<{answer['reverse_path']}>")
    for recipient in answer["recipients"]:
        lines.append(f"{'to':<12}<{recipient['address']}>  {recipient['state']}, by {recipient['next_hop']}")
        if recipient["text"]:
            reply = recipient["text"]  # of a peer verbatim, code and status first; else our own words
            if not recipient["code"]:
                reply = f"{recipient['status']} {reply}"
            lines.append(f"{'':<12}{reply}" + (f" ({recipient['host']})" if recipient["host"] else ""))
    return [*lines, "", *(line.expandtabs() for line in answer["header"].splitlines())]


def _selection(command: Any) -> Any:
    command = click.argument("ids", metavar="[ID]...", nargs=-1)(command)
    return click.option("--all", "all_messages", is_flag=True, help="All messages in the queue.")(command)


def _act(
    config_path: str, as_json: bool, verb: str, ids: tuple[str, ...], all_messages: bool, done: str, **more: Any
) -> None:
    if not ids and not all_messages and not any(more.values()):
        raise click.UsageError("name messages by ID, or say --all")
    answer = ask_or_exit(config_path, verb, ids=list(ids), all=all_messages, **more)
    emit(answer, as_json, f"{answer['count']} {'message' if answer['count'] == 1 else 'messages'} {done}")
    if ids and not answer["count"]:
        raise click.exceptions.Exit(1)


@queue.command()
@config_option
@json_option
@_selection
@click.option("--next-hop", metavar="HOP", help="All messages that wait for this next hop.")
def retry(config_path: str, as_json: bool, ids: tuple[str, ...], all_messages: bool, next_hop: str | None) -> None:
    """Attempt messages now, whatever their back-off says."""
    _act(config_path, as_json, "retry", ids, all_messages, "due now", next_hop=next_hop)


@queue.command()
@config_option
@json_option
@_selection
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(config_path: str, as_json: bool, ids: tuple[str, ...], all_messages: bool, yes: bool) -> None:
    """Remove messages for good; nobody is told."""
    if all_messages and not yes:
        click.confirm("Remove ALL messages from the queue?", abort=True)
    _act(config_path, as_json, "remove", ids, all_messages, "removed")


@queue.command()
@config_option
@json_option
@_selection
def hold(config_path: str, as_json: bool, ids: tuple[str, ...], all_messages: bool) -> None:
    """Keep messages in the queue without attempts, until released."""
    _act(config_path, as_json, "hold", ids, all_messages, "held")


@queue.command()
@config_option
@json_option
@_selection
def release(config_path: str, as_json: bool, ids: tuple[str, ...], all_messages: bool) -> None:
    """Let held messages go on; those whose next hop was refused by their ID only."""
    _act(config_path, as_json, "release", ids, all_messages, "released")


@queue.command()
@config_option
@json_option
@click.option("--repair", is_flag=True, help="Put aside what belongs to nothing; nothing is deleted.")
def fsck(config_path: str, as_json: bool, repair: bool) -> None:
    """Check every file of the spool. The gateway must be stopped.

    Exit status 0: nothing to report. 1: damage or leftovers were found.
    """
    config = load_config(config_path)
    try:
        report = check_spool(config.spool, repair=repair)
    except (SpoolError, OSError) as error:
        complain(f"gatepost: {error}")
        sys.exit(1)
    emit(report, as_json, report.lines())
    sys.exit(0 if report.is_clean else 1)
