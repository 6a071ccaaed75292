"""LMDB files (data format version 1, 64 bits), read only: the main database of the newest of the two meta pages.

A reader of pages without mmap, locks or C: the supervisor may run as root, and what it parses there should not be able to
hurt it (docs/decisions/). The tree is walked from its root; each page is visited once at most, so that a damaged file ends
in `BadFile` and not in a circle. Named databases and duplicate values are refused: postmap writes neither.
"""

from __future__ import annotations

import struct

from gatepost.routing.tables.berkeley import BadFile

_MAGIC = 0xBEEFC0DE
_VERSION = 1
_HEADER = 16
_BRANCH, _LEAF, _OVERFLOW = 0x01, 0x02, 0x04
_BIG, _SUB, _DUPLICATES = 0x01, 0x02, 0x04
_NONE = (1 << 64) - 1


def parse_lmdb(data: bytes) -> list[tuple[bytes, bytes]]:
    """Keys and values, in the order of the keys; raises BadFile."""
    try:
        return _Reader(data).records()
    except (struct.error, IndexError):
        raise BadFile("it is cut off or damaged") from None


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = next((order for order in "<>" if self._is_meta(order, 0)), "")
        if not self.order:
            raise BadFile("it is not an LMDB file of format version 1")
        (page_size,) = struct.unpack_from(self.order + "I", data, 40)
        if page_size not in (1 << power for power in range(9, 17)):
            raise BadFile("its page size is not one of LMDB's")
        self.page_size = page_size
        self.seen: set[int] = set()
        self.room = 2 * len(data)  # bytes that keys and values may have in all
        metas = [at for at in (0, page_size) if self._is_meta(self.order, at)]
        newest = max(metas, key=lambda at: struct.unpack_from(self.order + "Q", data, at + 144))
        (self.flags,) = struct.unpack_from(self.order + "H", data, newest + 88 + 4)
        (self.root,) = struct.unpack_from(self.order + "Q", data, newest + 88 + 40)

    def _is_meta(self, order: str, at: int) -> bool:
        if len(self.data) < at + 152:
            return False
        return struct.unpack_from(order + "II", self.data, at + 16) == (_MAGIC, _VERSION)

    def records(self) -> list[tuple[bytes, bytes]]:
        if self.flags & _DUPLICATES:
            raise BadFile("its keys have several values each")
        found: list[tuple[bytes, bytes]] = []
        waiting = [] if self.root == _NONE else [self.root]
        while waiting:
            number = waiting.pop()
            flags, nodes = self._page(number)
            if flags & _BRANCH:
                waiting.extend(reversed([self._child(at) for at in nodes]))
            elif flags & _LEAF:
                found.extend(self._record(at) for at in nodes)
            else:
                raise BadFile(f"page {number} is not part of a tree")
        return found

    def _page(self, number: int) -> tuple[int, list[int]]:
        if number in self.seen:
            raise BadFile("its pages point to each other in a circle")
        self.seen.add(number)
        start = number * self.page_size
        if start + self.page_size > len(self.data):
            raise BadFile(f"it points to page {number}, which is not there")
        flags, lower = struct.unpack_from(self.order + "HH", self.data, start + 10)
        count = (lower - _HEADER) // 2
        if not _HEADER <= lower <= self.page_size:
            raise BadFile(f"page {number} is damaged")
        offsets = struct.unpack_from(f"{self.order}{count}H", self.data, start + _HEADER)
        if any(not lower <= offset <= self.page_size - 8 for offset in offsets):
            raise BadFile(f"page {number} is damaged")
        return flags, [start + offset for offset in offsets]

    def _child(self, at: int) -> int:
        low, high, top = struct.unpack_from(self.order + "HHH", self.data, at)
        if self.order == ">":
            low, high = high, low
        return int(low | high << 16 | top << 32)

    def _record(self, at: int) -> tuple[bytes, bytes]:
        low, high, flags, key_length = struct.unpack_from(self.order + "HHHH", self.data, at)
        if self.order == ">":
            low, high = high, low
        if flags & (_SUB | _DUPLICATES):
            raise BadFile("it holds named databases, or several values for a key")
        length = low | high << 16
        key_at = at + 8
        value_at = key_at + key_length
        if flags & _BIG:
            (page,) = struct.unpack_from(self.order + "Q", self.data, value_at)
            if page >= len(self.data) // self.page_size:
                raise BadFile(f"it points to page {page}, which is not there")
            value_at = page * self.page_size + _HEADER
            (kind,) = struct.unpack_from(self.order + "H", self.data, page * self.page_size + 10)
            if not kind & _OVERFLOW:
                raise BadFile(f"page {page} is not the rest of a value")
        key, value = self.data[key_at : key_at + key_length], self.data[value_at : value_at + length]
        self.room -= key_length + length
        if len(key) != key_length or len(value) != length or self.room < 0:
            raise BadFile("a record is longer than the file, or records overlap")
        return key, value
