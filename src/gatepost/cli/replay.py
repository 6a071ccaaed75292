"""`gatepost replay`: decides the recorded facts of past traffic again under a new configuration."""

from __future__ import annotations

import re
import time

import click

from gatepost.cli.asked import AskedAnswers
from gatepost.cli.believed import believe
from gatepost.cli.main import EXIT_FAILED
from gatepost.cli.options import config_option, json_option
from gatepost.cli.output import complain, emit
from gatepost.cli.records import key_of, read_records
from gatepost.config.load import load_config
from gatepost.policy.replay import Replay

_SPAN = re.compile(r"([0-9]{1,9})([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_span(text: str) -> float:
    """`14d`, `6h`, `30m` as seconds."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f'"{text}" is not a time span: write one such as 14d, 6h or 30m')
    return float(int(match[1]) * _UNITS[match[2]])


@click.command()
@config_option
@json_option
@click.option("--since", metavar="SPAN", default="14d", show_default=True, help="How far back: 14d, 6h, 30m.")
@click.option("--spool", metavar="DIR", default=None, help="The spool with the facts, if it is not that of FILE.")
@click.pass_context
def replay(ctx: click.Context, config_path: str, as_json: bool, since: str, spool: str | None) -> None:
    """Decide the recorded facts of past traffic again under a new configuration, and print what would change.

    Ends 0 if nothing would change, 1 if something would, 2 for a bad configuration.
    """
    since_s = time.time() - parse_span(since)
    config = load_config(config_path)
    spool = spool or config.spool
    config, believed = believe(config, spool)
    complain(*(f"gatepost: {note}" for note in believed.notes))
    key = key_of(spool)
    difference = Replay(config, key, AskedAnswers(config, hashed=key != b"")).compare(read_records(spool, since_s))
    emit(difference, as_json, difference.lines())
    ctx.exit(EXIT_FAILED if difference.changes else 0)
