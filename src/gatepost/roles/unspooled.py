"""What the queue could not spool because there was no room: tried again, in order, until there is none once more.

In memory only. A bounce is not lost with it: recovery finds whose failure is in no DSN. A notice of success is, if the role dies while
the disk is full; so those are bounded. An ordinary end tries once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ROOM_S = 1.0
MAX_SUCCESSES = 1000


class Unspooled:
    """`call_later` is that of the loop."""

    def __init__(self, call_later: Callable[..., Any]) -> None:
        self._call_later = call_later
        self._waiting: dict[str, Callable[[], bool]] = {}
        self._is_due = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: str, attempt: Callable[[], bool]) -> None:
        """Have `attempt` made until it returns True: that it is done, or not wanted any more."""
        self._waiting[key] = attempt
        if not self._is_due:
            self._is_due = True
            self._call_later(ROOM_S, self._again)

    def _again(self) -> None:
        self._is_due = False
        for key, attempt in list(self._waiting.items()):
            if not attempt():
                self._is_due = True
                self._call_later(ROOM_S, self._again)
                return
            del self._waiting[key]

    def try_all(self) -> int:
        """One more attempt for each, now; how many have still no room."""
        for key, attempt in list(self._waiting.items()):
            if attempt():
                del self._waiting[key]
        return len(self._waiting)
