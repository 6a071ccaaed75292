"""The items of one next hop that have a priority (RFC 6710): those above 0 go before the others, those below 0 after them.

Pure, and part of the scheduler: it exists for a next hop only while there is such an item. Neither kind starves the other: every fourth
place goes past the urgent ones, every sixteenth past the ordinary ones.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import Any

ORDINARY_EVERY = 4
LATE_EVERY = 16


class Ranked:
    """`ready` are due, highest priority first and in order of arrival; `later` wait for their time.

    Whether an entry still stands for an item is for `items` of the next hop to say: `fresh` there, or the very entry.
    """

    __slots__ = ("_number", "_takes", "later", "ranks", "ready")

    def __init__(self) -> None:
        self.ranks: dict[str, int] = {}
        self.ready: list[tuple[int, int, str]] = []
        self.later: list[tuple[float, str]] = []
        self._number = 0
        self._takes = 0

    def due(self) -> float:
        """When the first is due: -inf for now, inf for never."""
        if self.ready:
            return -math.inf
        return self.later[0][0] if self.later else math.inf

    def put(self, key: str, items: dict[str, Any], due_s: float, now_s: float, fresh: object) -> None:
        """Let an item wait until it is due."""
        if due_s <= now_s:
            items[key] = fresh
            self._put_ready(key)
        else:
            items[key] = entry = (due_s, key)
            heappush(self.later, entry)

    def _put_ready(self, key: str) -> None:
        self._number += 1
        heappush(self.ready, (-self.ranks[key], self._number, key))

    def wake(self, items: dict[str, Any], now_s: float, fresh: object) -> int:
        """Let time pass; returns how many entries turned out to stand for nothing."""
        shells = 0
        while self.later and self.later[0][0] <= now_s:
            entry = heappop(self.later)
            if items.get(entry[1]) is entry and entry[1] in self.ranks:
                items[entry[1]] = fresh
                self._put_ready(entry[1])
            else:
                shells += 1
        while self.ready and not self._is_live(self.ready[0][2], items, fresh):
            heappop(self.ready)
            shells += 1
        return shells

    def _is_live(self, key: str, items: dict[str, Any], fresh: object) -> bool:
        return items.get(key) is fresh and key in self.ranks

    def is_first(self) -> bool:
        """Whether the next place is for one of these, if an ordinary item is due as well; counts the places."""
        self._takes += 1
        if not self.ready:
            return False
        if self.ready[0][0] < 0:
            return self._takes % ORDINARY_EVERY != 0
        return self._takes % LATE_EVERY == 0

    def pop(self) -> str | None:
        """The first that is due; behind `wake`."""
        return heappop(self.ready)[2] if self.ready else None

    def compact(self, items: dict[str, Any], fresh: object) -> None:
        """Sweep out what stands for nothing."""
        self.ready = [entry for entry in self.ready if self._is_live(entry[2], items, fresh)]
        self.later = [entry for entry in self.later if items.get(entry[1]) is entry]
        heapify(self.ready)
        heapify(self.later)
