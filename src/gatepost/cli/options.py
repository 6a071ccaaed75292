"""Options that several commands share, so that they are spelled and explained alike."""

from __future__ import annotations

import click

DEFAULT_CONFIG = "/etc/gatepost/gatepost.toml"

config_option = click.option(
    "--config",
    "config_path",
    metavar="FILE",
    envvar="GATEPOST_CONFIG",
    default=DEFAULT_CONFIG,
    show_default=True,
    show_envvar=True,
    help="The configuration file.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
