"""What commands print: text for people or JSON for programs, and nothing that a terminal would obey.

Addresses, replies and subjects come from strangers. Every character that is not a plain visible one is escaped before it
reaches a terminal: control characters, the C1 range, direction overrides, line and paragraph separators, lone surrogates.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable

import click
import msgspec

_HARMFUL = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def printable(text: str) -> str:
    """`text` on one line, with every control or invisible character written as \\xNN, \\uNNNN or \\UNNNNNNNN."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _HARMFUL:
        return character
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def emit(data: object, as_json: bool, text: str | Iterable[str]) -> None:
    """Print `data` as JSON, or else `text` (one string, or lines); structs of msgspec may stand in `data`."""
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(data), indent=2, ensure_ascii=True))
        return
    lines = text.split("\n") if isinstance(text, str) else text
    for line in lines:
        click.echo(printable(line))


def complain(*lines: str) -> None:
    """Print lines to standard error."""
    for line in lines:
        click.echo(printable(line), err=True)
