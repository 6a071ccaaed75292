"""The command line: one file for each command group, loaded when it is asked for."""

from __future__ import annotations

from gatepost.cli.main import main

__all__ = ["main"]
