"""`gatepost version`."""

from __future__ import annotations

import platform

import click

from gatepost import __version__
from gatepost.cli.options import json_option
from gatepost.cli.output import emit


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print the version."""
    data = {"gatepost": __version__, "python": platform.python_version()}
    emit(data, as_json, f"gatepost {__version__} (Python {data['python']})")
