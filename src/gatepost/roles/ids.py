"""Session and message ids: unique over processes, generations and restarts, sortable by time, letters and digits only."""

from __future__ import annotations

import time

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class IdMaker:
    """Calling it gives the next id: 14 hexadecimal digits of microseconds, then generation and instance.

    Two processes of the same generation and instance never live at the same time; a clock that was set back is waited out by
    counting on from the last id given.
    """

    __slots__ = ("_last", "_suffix")

    def __init__(self, generation: int, instance: int) -> None:
        self._last = 0
        self._suffix = _DIGITS[generation % 36] + _DIGITS[instance % 36]

    def __call__(self) -> str:
        now = time.time_ns() // 1000
        last = self._last
        self._last = now = now if now > last else last + 1
        return f"{now:014X}{self._suffix}"
