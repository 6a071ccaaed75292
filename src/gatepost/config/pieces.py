"""Texts of a configuration with places for parts of a key: `{key}`, `{local}`, `{domain}`.

A text is read once into pieces, and filled by whoever knows how a value is written there: as octets, as a bound parameter, with
percent signs. A key is an address, "@domain", a domain, ".domain" or "*".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from gatepost.config.values import InvalidValue

PLACES = ("key", "local", "domain")
_PLACE = re.compile(r"\{([^{}]*)\}")


class Pieces(NamedTuple):
    """A text as pairs: what stands there, and the place behind it ("" behind the last)."""

    parts: tuple[tuple[str, str], ...]

    @property
    def places(self) -> list[str]:
        """The places in order."""
        return [name for _, name in self.parts if name]

    def fill(self, values: Mapping[str, str], write: Callable[[str], str] = str) -> str:
        """The text for a key; `write` says how a value is written."""
        return "".join(literal + (write(values[name]) if name else "") for literal, name in self.parts)


def parse_pieces(text: str) -> Pieces:
    """Raises InvalidValue."""
    parts = []
    at = 0
    for match in _PLACE.finditer(text):
        if match[1] not in PLACES:
            raise InvalidValue(f'"{text}" names "{match[0]}"', "write {key}, {local} or {domain}")
        parts.append((text[at : match.start()], match[1]))
        at = match.end()
    parts.append((text[at:], ""))
    if any("{" in literal or "}" in literal for literal, _ in parts):
        raise InvalidValue(f'"{text}" has a brace without its partner', "write {key}, {local} or {domain}")
    return Pieces(tuple(parts))


def values_of(key: str) -> dict[str, str]:
    """What stands in each place for a key."""
    local, at, domain = key.rpartition("@")
    return {"key": key, "local": local, "domain": domain if at else key}
