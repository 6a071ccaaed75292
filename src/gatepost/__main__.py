"""`python -m gatepost` is the command `gatepost`."""

from __future__ import annotations

from gatepost.cli.main import main

main()
