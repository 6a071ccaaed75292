"""`gatepost reload`: the running gateway takes its configuration anew."""

from __future__ import annotations

import click

from gatepost.cli.ask import ask_or_exit
from gatepost.cli.options import config_option, json_option
from gatepost.cli.output import complain, emit
from gatepost.config.errors import ConfigErrors
from gatepost.config.load import load_config


@click.command()
@config_option
@json_option
def reload(config_path: str, as_json: bool) -> None:
    """Take the configuration anew, without losing a connection.

    A new generation of processes starts with it; the old one finishes its sessions. A bad configuration changes nothing: all its
    errors are printed and the exit status is 2. It is 1 if the gateway refuses it for another reason, or does not run.
    """
    try:
        load_config(config_path)  # the gateway would refuse it, and the place of each error is said best here
        answer = ask_or_exit(config_path, "reload")
    except ConfigErrors:
        complain("gatepost: not reloaded, everything goes on as before:")
        raise
    errors = answer["errors"]
    if as_json:
        emit(answer, True, "")
    elif errors:
        complain("gatepost: not reloaded, everything goes on as before:", *(f"  {error}" for error in errors))
    else:
        emit(answer, False, "reloaded")
        for one in ask_or_exit(config_path, "recipients_lists")["held"]:
            complain(
                f"gatepost: {one['name']}: {one['gone']} of {one['kept']} recipients are gone from its file; the list of before "
                "holds until gatepost recipients confirm"
            )
    if errors:
        raise click.exceptions.Exit(1)
