"""`gatepost recipients ...`: lists of recipients that are held back, and the snapshot of what tables over the network have found."""

from __future__ import annotations

import time
from typing import Any

import click

from gatepost.cli.ask import ask_or_exit
from gatepost.cli.options import config_option, json_option
from gatepost.cli.output import complain, emit, printable
from gatepost.config.values import InvalidValue, parse_domain


@click.group()
def recipients() -> None:
    """Say where it is known from who exists, confirm that recipients are gone, and forget what was known."""


@recipients.command()
@config_option
@json_option
def status(config_path: str, as_json: bool) -> None:
    """Show lists in files, the snapshot of each table that is asked over the network, and what is not believed.

    The exit status is 1 if something waits for `gatepost recipients confirm`.
    """
    lists = ask_or_exit(config_path, "recipients_lists")
    found = ask_or_exit(config_path, "recipients_status")
    answer = {
        "lists": lists["lists"],
        "held": lists["held"],
        "tables": found["tables"],
        "takes_all": found["takes_all"],
    }
    emit(
        answer,
        as_json,
        [printable(line) for line in _lines(answer)] or ["no lists in files, and no tables that are asked"],
    )
    if answer["held"] or any(row["doubted"] or row["held"] for row in answer["tables"]):
        raise click.exceptions.Exit(1)


@recipients.command()
@config_option
@json_option
@click.argument("names", metavar="[DOMAIN|TABLE]...", nargs=-1)
def confirm(config_path: str, as_json: bool, names: tuple[str, ...]) -> None:
    """Confirm that recipients are rightly gone: from lists in files, which are read anew, and from tables.

    Without names everything that is held. A table is believed for a day, whatever it denies.
    """
    wanted = [_canonical(name) for name in names]
    lists = ask_or_exit(config_path, "recipients_lists", confirm=True, names=wanted)["confirmed"]
    tables = ask_or_exit(config_path, "recipients_confirm", names=wanted)
    if tables and not wanted:  # now by name: receivers may not have their doubts yet
        ask_or_exit(config_path, "recipients_confirm", names=tables)
    errors = ask_or_exit(config_path, "reload")["errors"] if lists else []
    answer = {"lists": lists, "tables": tables, "errors": errors}
    emit(answer, as_json, [f"{name}: confirmed" for name in [*lists, *tables]] or ["nothing is held"])
    unwritten = ask_or_exit(config_path, "recipients_lists")["unwritten"] if lists and not errors else ""
    if unwritten:
        complain(
            f"gatepost: confirmed, but the disk refuses to keep that ({unwritten}): a restart would hold them back again"
        )
    if errors:
        complain("gatepost: the lists were not read anew:", *(f"  {error}" for error in errors))
    missing = [name for name in wanted if name not in lists and name not in tables]
    if missing:
        complain(*(f"gatepost: nothing of {name} is held" for name in missing))
    if errors or missing or unwritten:
        raise click.exceptions.Exit(1)


@recipients.command()
@config_option
@json_option
@click.argument("names", metavar="ADDRESS|TABLE...", nargs=-1, required=True)
def forget(config_path: str, as_json: bool, names: tuple[str, ...]) -> None:
    """Forget what tables over the network have said of addresses, or all that a table has said: it is asked anew."""
    count = ask_or_exit(config_path, "recipients_forget", names=[_canonical(name) for name in names])
    emit({"forgotten": count}, as_json, f"{count} recipients of the snapshot are forgotten")


def _canonical(name: str) -> str:
    """Addresses and domains as they are compared; names of tables stay."""
    if ":" in name:
        return name
    local, at, domain = name.rpartition("@")
    dot = "." if not at and domain.startswith(".") else ""
    try:
        return f"{local.lower()}{at}{dot}{parse_domain(domain.removeprefix('.'))}"
    except InvalidValue as error:
        raise click.UsageError(str(error)) from None


def _lines(answer: dict[str, Any]) -> list[str]:
    held = {row["name"]: row for row in answer["held"]}
    lines = []
    for row in answer["lists"]:
        lines.append(f"{row['list']}: {row['recipients']} recipients in a file")
        one = held.get(row["list"])
        if one is not None:
            sample = ", ".join(one["sample"])
            lines.append(
                f"  HELD: the file now has {one['found']}, and {one['gone']} are gone ({sample} ...); the list of before holds"
            )
            lines.append(f"  look at the file; if it is right: gatepost recipients confirm {row['list']}")
    for row in answer["tables"]:
        lines.append(
            f"{row['table']}: {row['known']} recipients in the snapshot, each for {row['stale_s'] / 86400:g} days"
        )
        if row["listed_s"]:
            when = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(row["listed_s"]))
            lines.append(f"  {row['listed']} by its list query, last at {when}")
        if one := row["held"]:
            sample = ", ".join(one["sample"])
            lines.append(
                f"  HELD: its list now has {one['found']}, and {one['gone']} are gone ({sample} ...); the list of before holds"
            )
            lines.append(f"  look at it; if it is right: gatepost recipients confirm {row['table']}")
        if row["failure"]:
            lines.append(f"  gives no answer ({row['failure']}): the snapshot answers, others get 451")
        if row["doubted"]:
            lines.append(
                f"  NOT BELIEVED: it denies {row['vanished']} of {row['asked']} that it had named; the snapshot holds"
            )
            lines.append(f"  look at it; if it is right: gatepost recipients confirm {row['table']}")
        if row["confirmed"]:
            lines.append("  confirmed: whatever it denies is believed today")
    lines += [
        f"{place.replace(' ', ' for ')}: takes every recipient, so its yes says nothing"
        for place in answer["takes_all"]
    ]
    return lines
