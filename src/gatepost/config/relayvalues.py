"""Single values of a relay rule: patterns of domains and of reverse-paths, and the day on which it ends.

Pure, canonical text out, `InvalidValue` for what is wrong. A pattern never has a wildcard inside a label, so that each of
them is one look-up in a dictionary (`policy/relayrules.py`).
"""

from __future__ import annotations

import datetime

from gatepost.config.values import InvalidValue, parse_domain

OURS = "ours"
NULL_PATH = "<>"


def parse_domain_pattern(text: str) -> str:
    """`example.net`, `.example.net` for all that is below it, or `ours`."""
    stripped = text.strip()
    if stripped == OURS:
        return OURS
    if stripped in ("*", ".", "@"):
        advice = "leave domains out for every domain that is not ours"
        raise InvalidValue(f'"{text}" would be every domain', advice)
    if stripped.startswith("."):
        return "." + parse_domain(stripped[1:])
    return parse_domain(stripped)


def parse_reverse_pattern(text: str) -> str:
    """`user@example.net`, `@example.net`, `@.example.net` for all that is below it, or `<>`; lower case."""
    stripped = text.strip()
    if stripped == NULL_PATH:
        return NULL_PATH
    local, at, domain = stripped.rpartition("@")
    if not at:
        advice = f'write "@{stripped}" for a domain, "user@{stripped}" for an address, "<>" for the null reverse-path'
        raise InvalidValue(f'"{text}" is not an address', advice)
    prefix = "." if domain.startswith(".") else ""
    if prefix and local:
        raise InvalidValue(f'"{text}" mixes a local part with all names below a domain', f'write "@{domain}"')
    return f"{local.lower()}@{prefix}{parse_domain(domain.removeprefix('.'))}"


def parse_day(text: str) -> str:
    """A date as YYYY-MM-DD."""
    try:
        return datetime.date.fromisoformat(text.strip()).isoformat()
    except ValueError:
        raise InvalidValue(f'"{text}" is not a date', 'write the last day, such as "2027-12-31"') from None


def end_of_day_s(day: str) -> float:
    """The first second (UTC, since the epoch) that no longer belongs to a day."""
    date = datetime.datetime.fromisoformat(day).replace(tzinfo=datetime.UTC)
    return (date + datetime.timedelta(days=1)).timestamp()
