"""Session and message ids: unique over processes, generations and restarts, sortable by time, letters and digits only."""

from __future__ import annotations

import os
import time

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NOTICES, REPORTS = 64, 65  # makers of the queue; receivers have their instance, 0 to 63


class IdMaker:
    """Calling it gives the next id: 14 hexadecimal digits of microseconds, a digit of the generation, two of the maker, three of chance.

    Two of the same generation and maker never live at the same time. A clock that is set back is waited out by counting on from the last
    id given; where it was set back between two lives, chance keeps the ids of the second from those of the first, which may be queued.
    """

    __slots__ = ("_last", "_suffix")

    def __init__(self, generation: int, maker: int) -> None:
        self._last = 0
        chance = int.from_bytes(os.urandom(8), "big")
        self._suffix = "".join(
            _DIGITS[number % 36] for number in (generation, maker // 36, maker, chance, chance // 36, chance // 36**2)
        )

    def __call__(self) -> str:
        now = time.time_ns() // 1000
        last = self._last
        self._last = now = now if now > last else last + 1
        return f"{now:014X}{self._suffix}"
