"""Berkeley DB files, read only: hash (versions 8 to 10) and btree (versions 8 to 10), as libdb 4 and 5.3 write them.

A reader of pages, not a database: every page that holds records is read once, in the order of the file, and gives its keys
and values; there is no cursor, no locking, no writing. Both byte orders, items on overflow pages, duplicates on the page and
in a tree of their own. Whatever the bytes are, the answer is records or `BadFile`, in time and memory bounded by the length
of the file: chains of pages count their pages. Encrypted files, checksums, several databases in one file, record numbers and
the old format 1.85 are refused by name. Layout: Berkeley DB's published page formats.
"""

from __future__ import annotations

import struct

MAGIC_HASH = 0x061561
MAGIC_BTREE = 0x053162
VERSIONS = {MAGIC_HASH: (8, 9, 10), MAGIC_BTREE: (8, 9, 10)}

_PAGE_HEADER = 26
_FLAG_CHECKSUM = 0x01
_BTREE_SUBDATABASES = 0x20
_BTREE_RECORD_NUMBERS = 0x08

_OLD_HASH, _INTERNAL, _RECNO_INTERNAL, _BTREE_LEAF = 2, 3, 4, 5
_RECNO_LEAF, _OVERFLOW, _DUPLICATE_LEAF, _HASH = 6, 7, 12, 13

_H_KEYDATA, _H_DUPLICATE, _H_OFFPAGE, _H_OFFDUP = 1, 2, 3, 4
_B_KEYDATA, _B_DUPLICATE, _B_OVERFLOW, _B_DELETED = 1, 2, 3, 0x80


class BadFile(Exception):
    """The bytes are not a file of this kind, or a damaged one; `args[0]` says how."""


def parse_berkeley(data: bytes) -> list[tuple[bytes, bytes]]:
    """Keys and values of a Berkeley DB hash or btree file; raises BadFile."""
    try:
        return _Reader(data).records()
    except (struct.error, IndexError):
        raise BadFile("it is cut off or damaged") from None


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        if len(data) < 512:
            raise BadFile("it is too short for a Berkeley DB file")
        self.order, magic = _order_and_magic(data)
        _, _, _, version, page_size, encryption, _, flags = self._unpack("QIIIIBBB", 0)
        if version not in VERSIONS[magic]:
            raise BadFile(f"its format has version {version}, and only {VERSIONS[magic][0]} to 10 can be read")
        if encryption or flags & _FLAG_CHECKSUM:
            raise BadFile("it is encrypted or has checksums")
        if page_size not in (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536) or len(data) < page_size:
            raise BadFile("its page size is not one of Berkeley DB's")
        self.page_size = page_size
        self.pages = len(data) // page_size
        (database_flags,) = self._unpack("I", 48)
        self.is_btree = magic == MAGIC_BTREE
        if self.is_btree and database_flags & (_BTREE_SUBDATABASES | _BTREE_RECORD_NUMBERS):
            raise BadFile("it holds several databases, or record numbers")
        self.budget = 4 * self.pages + 16  # pages that chains may visit in all
        self.room = 2 * len(data)  # bytes that items of btree pages may have in all

    def records(self) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        for number in range(1, self.pages):
            kind = self.data[number * self.page_size + 25]
            if self.is_btree and kind == _BTREE_LEAF:
                self._btree_page(number, found)
            elif not self.is_btree and kind in (_HASH, _OLD_HASH):
                self._hash_page(number, found)
        return found

    def _unpack(self, form: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(self.order + form, self.data, at)

    def _header(self, number: int) -> tuple[int, int, int, int]:
        """next page, entries, offset or length, type; raises for a page that is not there."""
        if not 0 < number < self.pages:
            raise BadFile(f"it points to page {number}, which is not there")
        self.budget -= 1
        if self.budget < 0:
            raise BadFile("its pages point to each other in a circle")
        following, entries, offset, _, kind = self._unpack("IHHBB", number * self.page_size + 16)
        return following, entries, offset, kind

    def _offsets(self, number: int, entries: int) -> tuple[int, ...]:
        if _PAGE_HEADER + 2 * entries > self.page_size:
            raise BadFile(f"page {number} is damaged")
        offsets = self._unpack(f"{entries}H", number * self.page_size + _PAGE_HEADER)
        if any(not _PAGE_HEADER <= offset < self.page_size for offset in offsets):
            raise BadFile(f"page {number} is damaged")
        return offsets

    # --- hash -------------------------------------------------------------------------------------------------------

    def _hash_page(self, number: int, found: list[tuple[bytes, bytes]]) -> None:
        _, entries, _, _ = self._header(number)
        offsets = self._offsets(number, entries)
        if entries % 2:
            raise BadFile(f"page {number} has a key without a value")
        start = number * self.page_size
        ends = (self.page_size, *offsets)[:entries]
        items = []
        for offset, end in zip(offsets, ends, strict=True):
            if end <= offset:
                raise BadFile(f"page {number} is damaged")
            items.append(self.data[start + offset : start + end])
        for index in range(0, entries, 2):
            keys = self._hash_item(items[index])
            if len(keys) != 1:
                raise BadFile(f"page {number} has a key that is no key")
            found.extend((keys[0], value) for value in self._hash_item(items[index + 1]))

    def _hash_item(self, item: bytes) -> list[bytes]:
        kind = item[0]
        if kind == _H_KEYDATA:
            return [item[1:]]
        if kind == _H_DUPLICATE:
            return self._inline_duplicates(item)
        if kind == _H_OFFPAGE:
            page, length = struct.unpack_from(self.order + "II", item, 4)
            return [self._overflow(page, length)]
        if kind == _H_OFFDUP:
            (page,) = struct.unpack_from(self.order + "I", item, 4)
            return self._duplicate_tree(page)
        raise BadFile(f"it has an item of the unknown type {kind}")

    def _inline_duplicates(self, item: bytes) -> list[bytes]:
        """length, data, length for each."""
        values = []
        at = 1
        while at < len(item):
            (length,) = struct.unpack_from(self.order + "H", item, at)
            value = item[at + 2 : at + 2 + length]
            if len(value) != length:
                raise BadFile("a set of duplicates is damaged")
            values.append(value)
            at += length + 4
        return values

    # --- btree ------------------------------------------------------------------------------------------------------

    def _btree_page(self, number: int, found: list[tuple[bytes, bytes]]) -> None:
        _, entries, _, _ = self._header(number)
        offsets = self._offsets(number, entries)
        if entries % 2:
            raise BadFile(f"page {number} has a key without a value")
        start = number * self.page_size
        key_at, key = -1, b""
        for index in range(0, entries, 2):
            kind = self.data[start + offsets[index + 1] + 2]
            if kind & _B_DELETED:
                continue
            if offsets[index] != key_at:  # duplicates on the page share the key
                key_at = offsets[index]
                key = self._btree_item(start + key_at, start + self.page_size)
            at = start + offsets[index + 1]
            if kind == _B_DUPLICATE:
                (page,) = self._unpack("I", at + 4)
                found.extend((key, value) for value in self._duplicate_tree(page))
            else:
                found.append((key, self._btree_item(at, start + self.page_size)))

    def _btree_item(self, at: int, end: int) -> bytes:
        length, kind = self._unpack("HB", at)
        kind &= ~_B_DELETED
        if kind == _B_KEYDATA:
            self.room -= length
            if at + 3 + length > end or self.room < 0:
                raise BadFile("an item is longer than its page, or items overlap")
            return self.data[at + 3 : at + 3 + length]
        if kind == _B_OVERFLOW:
            page, total = self._unpack("II", at + 4)
            return self._overflow(page, total)
        raise BadFile(f"it has an item of the unknown type {kind}")

    # --- what lies on other pages -----------------------------------------------------------------------------------

    def _overflow(self, page: int, total: int) -> bytes:
        if total > len(self.data):
            raise BadFile("an item is longer than the file")
        parts: list[bytes] = []
        size = 0
        while page and size < total:
            following, _, length, kind = self._header(page)
            if kind != _OVERFLOW or _PAGE_HEADER + length > self.page_size or length == 0:
                raise BadFile(f"page {page} is not the rest of an item")
            start = page * self.page_size + _PAGE_HEADER
            parts.append(self.data[start : start + length])
            size += length
            page = following
        if size != total:
            raise BadFile("an item is cut off")
        return b"".join(parts)

    def _duplicate_tree(self, page: int) -> list[bytes]:
        """The values of a key that has a tree of them: down to the first leaf, then along the leaves."""
        _, entries, _, kind = self._header(page)
        while kind in (_INTERNAL, _RECNO_INTERNAL):
            (first,) = self._offsets(page, max(entries, 1))[:1]
            at = page * self.page_size + first
            (page,) = self._unpack("I", at + (4 if kind == _INTERNAL else 0))
            _, entries, _, kind = self._header(page)
        values: list[bytes] = []
        while page:
            following, entries, _, kind = self._header(page)
            if kind not in (_DUPLICATE_LEAF, _RECNO_LEAF):  # sorted, or in the order in which they came
                raise BadFile(f"page {page} is not a leaf of duplicates")
            start = page * self.page_size
            for offset in self._offsets(page, entries):
                if not self.data[start + offset + 2] & _B_DELETED:
                    values.append(self._btree_item(start + offset, start + self.page_size))
            page = following
        return values


def _order_and_magic(data: bytes) -> tuple[str, int]:
    for order in ("<", ">"):
        (magic,) = struct.unpack_from(order + "I", data, 12)
        if magic in VERSIONS:
            return order, magic
        (old,) = struct.unpack_from(order + "I", data, 0)
        if old in VERSIONS:
            raise BadFile("it has the old format 1.85; make it anew with a present makemap or postmap")
    raise BadFile("it is not a Berkeley DB hash or btree file")
