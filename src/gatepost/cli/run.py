"""`gatepost run`: the gateway in the foreground, until SIGTERM."""

from __future__ import annotations

import os
import sys

import click

from gatepost import __version__
from gatepost.cli.options import config_option
from gatepost.cli.output import complain
from gatepost.config.load import load_config
from gatepost.config.paths import inspect_paths
from gatepost.privsep.attest import notes
from gatepost.privsep.listeners import ListenError
from gatepost.privsep.proving import refutation_of
from gatepost.privsep.supervisor import Supervisor
from gatepost.spool.errors import SpoolRefused


@click.command()
@config_option
def run(config_path: str) -> None:
    """Run the gateway in the foreground.

    Prints one line when it is ready. SIGTERM or Ctrl-C: finish the messages under way, then end with exit status 0. SIGHUP: take the
    configuration anew. Refuses to start (exit status 2) with a bad configuration or with files that others could write to.
    """
    config_path = os.path.abspath(config_path)
    config = load_config(config_path)
    problems = inspect_paths(config, config_path)
    if problems:
        complain("gatepost: not started:", *(f"  {problem}" for problem in problems))
        sys.exit(2)
    if refutation := refutation_of(config):
        complain("gatepost: not started:", *(f"  {line}" for line in refutation))
        sys.exit(2)

    complain(*(f"gatepost: note: {note}" for note in notes(config)))

    def on_ready(addresses: list[str]) -> None:
        click.echo(f"gatepost {__version__} ready on {', '.join(addresses)}")
        sys.stdout.flush()

    try:
        status = Supervisor(config_path, config, on_ready=on_ready).run()
    except SpoolRefused as error:
        complain("gatepost: not started:", f"  {error.problem}", f"  {error.advice}")
        status = 2
    except (ListenError, OSError) as error:
        complain(f"gatepost: not started: {error}")
        status = 2
    sys.exit(status)
