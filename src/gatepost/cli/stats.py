"""`gatepost stats`: the counters of every process, the supervisor's among them."""

from __future__ import annotations

import click

from gatepost.cli.ask import ask_or_exit
from gatepost.cli.options import config_option, json_option
from gatepost.cli.output import emit


@click.command()
@config_option
@json_option
def stats(config_path: str, as_json: bool) -> None:
    """Print the counters of every process."""
    answer = ask_or_exit(config_path, "stats")
    lines = [
        f"{name:<16}{counter:<28}{value}"
        for name, counters in sorted(answer.items())
        for counter, value in counters.items()
        if isinstance(value, (int, float, str))
    ]
    emit(answer, as_json, lines)
