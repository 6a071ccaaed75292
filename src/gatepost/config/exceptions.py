"""`[[exceptions]]`: a path that may be as it is, because a person answers for it until a day.

Each names one path, never what lies below it, and there is no switch for all. `owner` is a person, `until` a date that is at most a year
away, `reason` a sentence; all of them stand in `gatepost check` and `gatepost status` as long as the exception is in force.
Behind its date it is an error at start, so that nobody forgets it; a gateway that runs goes on and tells it.
"""

from __future__ import annotations

import datetime
import os

from gatepost.config.errors import Findings, KeyPath
from gatepost.config.schema import PathException

KEYS = ("path", "owner", "until", "reason")
LONGEST = datetime.timedelta(days=366)

_EXAMPLE = (
    'write path, owner, until and reason, such as: path = "/srv/mail", owner = "Anna Muster <anna@example.net>", '
    'until = 2027-03-31, reason = "moves to a disk of its own"'
)


def read_exceptions(value: object, findings: Findings, directory: str, today: datetime.date) -> list[dict[str, str]]:
    """The good exceptions of a configuration; errors are noted in `findings`."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        findings.add(("exceptions",), "a list of tables is wanted", "write [[exceptions]] and its keys below it")
        return []
    good: list[dict[str, str]] = []
    for index, item in enumerate(value):
        found = _read_one(item, ("exceptions", index), findings, directory, today)
        if found is not None and any(found["path"] == other["path"] for other in good):
            findings.add(("exceptions", index), f'"{found["path"]}" has an exception already', "remove one of the two")
        elif found is not None:
            good.append(found)
    return good


def is_expired(exception: PathException, today: datetime.date) -> bool:
    """Whether the last day of an exception is over."""
    return datetime.date.fromisoformat(exception.until) < today


def _read_one(
    item: dict[str, object], here: KeyPath, findings: Findings, directory: str, today: datetime.date
) -> dict[str, str] | None:
    before = len(findings.errors)
    for name in item:
        if name not in KEYS:
            findings.add((*here, name), "there is no such key", _EXAMPLE)
    for name in KEYS:
        if name not in item:
            findings.add(here, f"{name} is missing", _EXAMPLE)
    texts = {name: str(item.get(name, "")).strip() for name in KEYS}
    for name in ("path", "owner", "reason"):
        if name in item and (not isinstance(item[name], str) or not texts[name] or not texts[name].isprintable()):
            findings.add((*here, name), "text in quotes is wanted, without control characters", _EXAMPLE)
    if "until" in item:
        _check_until(texts["until"], (*here, "until"), findings, today)
    if len(findings.errors) > before:
        return None
    texts["path"] = os.path.normpath(os.path.join(directory, texts["path"]))
    return texts


def _check_until(text: str, here: KeyPath, findings: Findings, today: datetime.date) -> None:
    try:
        until = datetime.date.fromisoformat(text)
    except ValueError:
        findings.add(here, f'"{text}" is no date', "write the last day on which it holds, such as until = 2027-03-31")
        return
    if until - today > LONGEST:
        findings.add(here, f"{text} is more than a year away", "name a day within a year; it can be renewed")
