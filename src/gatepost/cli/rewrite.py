"""`gatepost rewrite`: what addresses become in each part of a message, and by which rules; nothing is sent."""

from __future__ import annotations

import ipaddress
import time
from typing import Any

import click

from gatepost.cli.asked import AskedAnswers
from gatepost.cli.options import config_option, json_option
from gatepost.cli.output import complain, emit
from gatepost.cli.rewriting import NO_SECRETS, prepare
from gatepost.config.load import load_config
from gatepost.policy.engine import Engine
from gatepost.policy.rewriting import InvalidMailbox, RewriteFailed, Rewriting, SrsRefused, parse_mailbox
from gatepost.routing.rewrite import PARTS
from gatepost.routing.table import TableUnavailable


@click.command()
@config_option
@json_option
@click.option("--ip", "client", metavar="ADDRESS", default="", help="The client's IP address, for rules with networks.")
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
def rewrite(config_path: str, as_json: bool, client: str, addresses: tuple[str, ...]) -> None:
    """Print what addresses become in each part of a message, and by which rules.

    Outbound is mail from clients with a right of their own, inbound all other. A return address of ours (SRS) is turned back.
    """
    config = load_config(config_path)
    if client:
        try:
            ipaddress.ip_address(client)
        except ValueError:
            complain(f"gatepost: --ip {client} is not an IP address")
            raise click.exceptions.Exit(2) from None
    engine = Engine(config, answers=AskedAnswers(config))
    note = prepare(engine, config)
    rewriting = engine.rewriting or Rewriting(config)
    data = [_one(rewriting, text, client, bool(note)) for text in addresses]
    lines = [line for one in data for line in _lines(one)]
    emit(data, as_json, lines)
    if any("error" in row for one in data for row in one["rows"]):
        raise click.exceptions.Exit(1)


def _one(rewriting: Rewriting, text: str, client: str, no_secrets: bool) -> dict[str, Any]:
    try:
        address = parse_mailbox(text, utf8=True)
    except InvalidMailbox as error:
        complain(f"gatepost: <{text}> is not an address: {error}")
        raise click.exceptions.Exit(2) from None
    rows: list[dict[str, Any]] = []
    for direction in ("outbound", "inbound"):
        for part in PARTS:
            row: dict[str, Any] = {"direction": direction, "part": part, "address": address.text}
            try:
                found = rewriting.rewrite(part, direction == "outbound", client, address)
                row |= {"address": found.address.text, "changes": found.changes}
            except (RewriteFailed, TableUnavailable) as error:
                row |= {"error": str(error.args[0])}
            rows.append(row)
    told: dict[str, Any] = {"address": address.text, "rows": rows}
    if rewriting.is_bounce_address(address):
        try:
            told["stands_for"] = rewriting.original(address, time.time()).text
        except SrsRefused as error:
            told["refused"] = NO_SECRETS if no_secrets else str(error.args[0])
    return told


def _lines(told: dict[str, Any]) -> list[str]:
    lines = [f"<{told['address']}>"]
    if "stands_for" in told:
        lines.append(f"  a return address of ours: bounces go to <{told['stands_for']}>")
    elif "refused" in told:
        lines.append(f"  a return address that is refused: {told['refused']}")
    for row in told["rows"]:
        where = f"  {row['direction']:8} {row['part']:17}"
        if "error" in row:
            lines.append(f"{where} put off (451 4.3.0): {row['error']}")
            continue
        rules = " + ".join(change.rule + (" (shadow)" if change.is_shadow else "") for change in row["changes"])
        stays = row["address"] == told["address"]
        lines.append(f"{where} {'stays' if stays else '<' + row['address'] + '>'}" + (f"  by {rules}" if rules else ""))
    return lines
