"""What a fuzz target is: a function of octets that must hold for all of them, with octets to begin from.

A target ends without a word or with an AssertionError; any other exception is a finding too. It is the same function for
hypothesis in `make test`, and for atheris (coverage-guided) there and in `make fuzz`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Target(NamedTuple):
    """One parser. `seeds` are whole inputs, `tokens` pieces of the language that mutations put together."""

    name: str
    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    tokens: tuple[bytes, ...] = ()
    max_bytes: int = 2048


def _break(data: bytes) -> None:
    assert not data, "always breaks"


# In no list, for whoever asks by its name: shows that a finding is told.
BREAKS = Target("breaks", _break, (b"x",))


def cuts_of(data: bytes) -> list[int]:
    """Places to cut an input at, that depend on nothing but the input."""
    return [octet * 7 % (len(data) + 1) for octet in data[:6]] if data else []
