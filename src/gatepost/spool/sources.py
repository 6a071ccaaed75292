"""Descriptors for reading message contents, opened once and kept while they are of use.

Belongs to the queue's loop thread. A descriptor that is no longer wanted is only retired: it is closed when the loop asks which
sources are closed, so that a descriptor number just given away cannot mean another file already.
"""

from __future__ import annotations

import os
from collections import OrderedDict

from gatepost.spool.layout import close_anyway


class Sources:
    """Open files by path; those used longest ago go first when there are more than `limit`."""

    def __init__(self, limit: int = 256) -> None:
        self.limit = limit
        self._open: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._retired: list[tuple[int, int]] = []
        self._next = 1

    def get(self, path: str) -> tuple[int, int]:
        """Source number and descriptor of a file; OSError if it cannot be opened."""
        known = self._open.get(path)
        if known is not None:
            self._open.move_to_end(path)
            return known
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        known = self._open[path] = (self._next, fd)
        self._next += 1
        if len(self._open) > self.limit:
            self._retired.append(self._open.popitem(last=False)[1])
        return known

    def retire(self, path: str) -> None:
        """The file will not be asked for again. Any thread, under the spool's lock."""
        known = self._open.pop(path, None)
        if known is not None:
            self._retired.append(known)

    def closed(self) -> list[int]:
        """Close the retired descriptors and return their source numbers."""
        if not self._retired:
            return []
        retired, self._retired = self._retired, []
        for _, fd in retired:
            close_anyway(fd)
        return [number for number, _ in retired]

    def close(self) -> None:
        """Close all."""
        self._retired += self._open.values()
        self._open.clear()
        self.closed()
