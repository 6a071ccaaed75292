"""A search filter of a configuration (RFC 4515) with placeholders, as a tree.

Read once, when the configuration is loaded. Placeholders may stand in assertion values only; for a look-up they become octets of
the value (`lookup/ldapwire.py`), so that no escaping is left to be forgotten. Extensible matches and options are not taken.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gatepost.config.pieces import Pieces, parse_pieces
from gatepost.config.values import InvalidValue

MAX_DEPTH = 20
_ATTRIBUTE = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,99}|[0-9]+(?:\.[0-9]+)+")
_ITEM = re.compile(r"(?P<name>[^=<>~:()*{}]*)(?P<kind>>=|<=|~=|=)(?P<value>[^()]*)")
_BAD_ESCAPE = re.compile(r"\\(?![0-9a-fA-F]{2})")
_ESCAPE = re.compile(rb"\\([0-9a-fA-F]{2})")
_TAGS = {"=": 0xA3, ">=": 0xA5, "<=": 0xA6, "~=": 0xA8}
_EXAMPLE = 'write one such as "(&(objectClass=person)(mail={key}))"'


class Filter(NamedTuple):
    """A node: `tag` of its element, with `parts` for and, or, not; `name` and `pieces` for the rest."""

    tag: int
    parts: tuple[Filter, ...] = ()
    name: str = ""
    pieces: tuple[tuple[int, Pieces], ...] = ()


def parse_filter(text: str) -> Filter:
    """Raises InvalidValue."""
    found, end = _parse(text.strip(), 0, 0)
    if end != len(text.strip()):
        raise InvalidValue(f'"{text}" goes on behind its last parenthesis', _EXAMPLE)
    return found


def _parse(text: str, at: int, depth: int) -> tuple[Filter, int]:
    if text[at : at + 1] != "(":
        raise InvalidValue(f'"{text}" lacks a parenthesis at "{text[at : at + 10]}"', _EXAMPLE)
    if depth > MAX_DEPTH:
        raise InvalidValue("the filter is nested too deeply", "write it with fewer parentheses")
    operator = text[at + 1 : at + 2]
    if operator in ("&", "|", "!"):
        parts = []
        at += 2
        while text[at : at + 1] == "(":
            part, at = _parse(text, at, depth + 1)
            parts.append(part)
        if not parts or (operator == "!" and len(parts) != 1) or text[at : at + 1] != ")":
            raise InvalidValue(f'"{text}" is not complete behind "{operator}"', _EXAMPLE)
        return Filter({"&": 0xA0, "|": 0xA1, "!": 0xA2}[operator], tuple(parts)), at + 1
    match = _ITEM.match(text, at + 1)
    if match is None or text[match.end() : match.end() + 1] != ")":
        raise InvalidValue(f'"{text}" is not a filter at "{text[at : at + 20]}"', _EXAMPLE)
    return _item(match["name"], match["kind"], match["value"]), match.end() + 1


def _item(name: str, kind: str, value: str) -> Filter:
    if _ATTRIBUTE.fullmatch(name) is None:
        raise InvalidValue(f'"{name}" is not the name of an attribute', _EXAMPLE)
    if kind == "=" and value == "*":
        return Filter(0x87, (), name)
    texts = value.split("*") if kind == "=" else [value]
    if len(texts) == 1:
        return Filter(_TAGS[kind], (), name, ((0x04, _value(texts[0])),))
    last = len(texts) - 1
    pieces = [
        (0x80 if index == 0 else 0x82 if index == last else 0x81, _value(part))
        for index, part in enumerate(texts)
        if part
    ]
    return Filter(0xA4, (), name, tuple(pieces))


def _value(text: str) -> Pieces:
    """`\\2a` and the like are what RFC 4515 3 says; everything else is itself."""
    if _BAD_ESCAPE.search(text):
        raise InvalidValue(f'"{text}" has a backslash without two hexadecimal digits', "write \\\\2a for *")
    try:
        return Pieces(tuple((_unescaped(literal), name) for literal, name in parse_pieces(text).parts))
    except UnicodeDecodeError:
        raise InvalidValue(f'"{text}" is not UTF-8', "write the octets of UTF-8") from None


def _unescaped(literal: str) -> str:
    return _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), literal.encode()).decode()
