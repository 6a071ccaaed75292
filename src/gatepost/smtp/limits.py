"""Limits that a server announces with LIMITS (RFC 9422): built for ours, read from others'.

A value is 1 to 6 digits; what is malformed or unknown is as if it were not there. Zero stands for no limit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_VALUE = re.compile(r"[1-9][0-9]{0,5}", re.ASCII).fullmatch


class Limits(NamedTuple):
    """What a client may do: transactions in a session, recipients, and different domains of them, in a transaction."""

    mailmax: int = 0
    rcptmax: int = 0
    rcptdomainmax: int = 0

    def count_fitting(self, domains: Sequence[str]) -> int:
        """How many recipients, from the first on, one transaction may have; at least one. `domains` are theirs."""
        count = min(len(domains), self.rcptmax or len(domains))
        if self.rcptdomainmax:
            seen: set[str] = set()
            for index in range(count):
                seen.add(domains[index])
                if len(seen) > self.rcptdomainmax:
                    return index
        return count


def build_limits(limits: Limits) -> str:
    """The argument of the keyword LIMITS."""
    return " ".join(
        f"{name.upper()}={value}" for name, value in zip(limits._fields, limits, strict=True) if 0 < value < 1_000_000
    )


def parse_limits(argument: str) -> Limits | None:
    """What stands behind the keyword LIMITS; None if nothing of it is known here."""
    found: dict[str, int] = {}
    for item in argument.split(" "):
        name, _, value = item.partition("=")
        if name.lower() in Limits._fields and _VALUE(value):
            found.setdefault(name.lower(), int(value))
    return Limits(**found) if found else None
