"""What became of every construct of a configuration that was imported: exact, approximated, refused or unused, by file and line.

Nothing is dropped in silence: whoever reads a file tells of each of its lines here. Neighbouring lines with the same result are one
item. Secrets never come here: readers mask them (`masked`). Pure data; how it is printed is in `cli/import_.py`.
"""

from __future__ import annotations

import enum
import re

import msgspec

_SECRET = re.compile(
    r"""("[PR][:=]|(?:passw(?:or)?d|secret|bindpw|bind_pw)\s*[:=]\s*)([^"\s]+|"[^"]*")""", re.IGNORECASE
)
_AUTHINFO = re.compile(r"(authinfo:\S*)\s.*", re.IGNORECASE | re.DOTALL)
MAX_TEXT = 160


class Result(enum.Enum):
    """How a construct was taken over."""

    EXACT = "exact"
    APPROXIMATED = "approximated"
    REFUSED = "refused"
    UNUSED = "unused"


class Item(msgspec.Struct, frozen=True):
    """One construct: where it stands, what it says, what became of it, why, and what to do instead."""

    file: str
    line: int
    last_line: int
    construct: str
    result: Result
    note: str = ""
    advice: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        if self.last_line > self.line:
            place += f"-{self.last_line}"
        note = f": {self.note}" if self.note else ""
        advice = f"; {self.advice}" if self.advice else ""
        return f"{place}: {self.result.value}: {self.construct}{note}{advice}"


class Report:
    """The items of one import, in the order of files and lines."""

    def __init__(self) -> None:
        self._items: list[Item] = []

    def add(
        self,
        file: str,
        line: int,
        construct: str,
        result: Result,
        note: str = "",
        advice: str = "",
        last_line: int = 0,
    ) -> None:
        """Tell of one construct."""
        text = masked(" ".join(construct.split()))[:MAX_TEXT]
        self._items.append(Item(file, line, max(line, last_line), text, result, masked(note), masked(advice)))

    def exact(self, file: str, line: int, construct: str, note: str = "", last_line: int = 0) -> None:
        """It means the same here."""
        self.add(file, line, construct, Result.EXACT, note, "", last_line)

    def approximated(
        self, file: str, line: int, construct: str, how: str, advice: str = "", last_line: int = 0
    ) -> None:
        """Something near to it was taken; `how` says what differs."""
        self.add(file, line, construct, Result.APPROXIMATED, how, advice, last_line)

    def refused(self, file: str, line: int, construct: str, why: str, advice: str, last_line: int = 0) -> None:
        """It was not taken; `advice` is the safe alternative."""
        self.add(file, line, construct, Result.REFUSED, why, advice, last_line)

    def unused(self, file: str, line: int, construct: str, why: str, last_line: int = 0) -> None:
        """It has no meaning for a gateway of this kind."""
        self.add(file, line, construct, Result.UNUSED, why, "", last_line)

    def items(self) -> list[Item]:
        """All of them, neighbours with the same result joined."""
        joined: list[Item] = []
        for item in sorted(
            dict.fromkeys(self._items), key=lambda item: (item.file, item.line, item.last_line, item.construct)
        ):
            before = joined[-1] if joined else None
            if before is not None and _may_join(before, item):
                joined[-1] = msgspec.structs.replace(before, last_line=item.last_line)
            else:
                joined.append(item)
        return joined

    def counts(self) -> dict[str, int]:
        """How many constructs there are of each result."""
        found = {result.value: 0 for result in Result}
        for item in set(self._items):
            found[item.result.value] += 1
        return found

    def covers(self, file: str, line: int) -> bool:
        """Whether something is told of a line."""
        return any(item.file == file and item.line <= line <= item.last_line for item in self._items)


def masked(text: str) -> str:
    """The text without what looks like a password."""
    return _SECRET.sub(lambda match: match.group(1) + "***", _AUTHINFO.sub(r"\1 ***", text))


def _may_join(before: Item, item: Item) -> bool:
    """Lines of a table that say the same of themselves; their texts need not be printed."""
    return (
        before.file == item.file
        and item.line <= before.last_line + 1
        and before.result is item.result
        and item.result in (Result.EXACT, Result.APPROXIMATED)
        and before.advice == item.advice
        and before.note == item.note != ""
    )
