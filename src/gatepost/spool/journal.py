"""The outcome log: append-only files of checksummed msgpack lines, and how to read them back.

A line is in the file before the call that wrote it returns, so it survives a SIGKILL; it is durable after `sync`. Each file
begins with a snapshot of everything (BEGIN, ENTRY ..., END), so that older files can go once it is durable. Space is reserved
ahead, so that outcomes can still be logged on a full disk. What the lines mean is in `replay.py`; here are their frames only.

A frame is two marker bytes, the length, a CRC-32 of length and payload, and the payload, an array that begins with its Kind.
The first marker byte occurs in no UTF-8 text, so that no address or remote reply can pose as a line behind damage.
"""

from __future__ import annotations

import enum
import errno
import os
import struct
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import msgspec

from gatepost.spool.errors import SpoolError, SpoolFull
from gatepost.spool.syncedfile import SyncedFile

MARK = b"\xc1J"
_HEAD = struct.Struct("<2sII")
_LENGTH = struct.Struct("<I")
MAX_LINE_BYTES = 64 * 1024 * 1024
RESERVE_BYTES = 1 << 20

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


class Kind(enum.IntEnum):
    """First element of a line; the others in order. The numbers are on disk: never reuse one."""

    # version, counters, next segment, next body, [[segment, owner, sealed, known end]], [[body, owner]], gone
    BEGIN = 0
    END = 1  # the snapshot is complete
    # id, segment, offset, end, content offset, content bytes, body file, recipients, received_s, held, refused
    TAKEN = 2
    OUTCOME = 3  # id, states, attempts, next_due_s, outcomes; finishes the message if all states are DELIVERED
    SETTLED = 4  # id, states
    FINISHED = 5  # id, states
    DEFERRED = 6  # directory, [[id, crc, content bytes, states, envelope]]
    NOTICE = 7  # id of the message reported on, noticed
    FLAGS = 8  # id, held, delay_notified, next_due_s, released_s, refused
    OPENED = 9  # segment, owner
    SEALED = 10  # segment, length
    BODIES = 11  # owner, numbers
    KNOWN = 12  # segment, offset, end: looked at, and no message there
    ENTRY = 13  # see entry_line in replay.py
    LOST = 14  # id, recipients that were pending: damage took the message


class JournalFile(SyncedFile):
    """The journal file that is being written. Not thread-safe but for `sync`.

    Lines are kept until they are written, so that a refused write loses nothing: the next one tries again.
    """

    __slots__ = ("_reserved", "_waiting")
    KIND = "journal"

    def __init__(self, fd: int, number: int) -> None:
        super().__init__(fd, number)
        self._reserved = 0
        self._waiting: list[bytes] = []

    def add(self, line: tuple[object, ...]) -> None:
        """Queue a line for the next `flush`."""
        payload = _encode(line)
        length = len(payload)
        self._waiting.append(_HEAD.pack(MARK, length, crc32(payload, length)) + payload)

    def flush(self) -> None:
        """Write the waiting lines. SpoolFull, SpoolError: none of them counts as written, all go on waiting."""
        waiting = self._waiting
        if not waiting:
            return
        data = waiting[0] if len(waiting) == 1 else b"".join(waiting)
        end = self.length + len(data)
        try:
            if end + RESERVE_BYTES > self._reserved:
                self._reserve(end)
            written = os.pwrite(self.fd, data, self.length)
            while written < len(data):
                count = os.pwrite(self.fd, memoryview(data)[written:], self.length + written)
                if count == 0:
                    raise OSError(errno.EIO, "write of no bytes")
                written += count
        except OSError as error:
            kind = SpoolFull if error.errno in _FULL else SpoolError
            raise kind(f"journal {self.number}: {error.strerror}") from error
        self._waiting = []
        self.length = end

    def _reserve(self, end: int) -> None:
        """Reserve space beyond `end`; while there is some left, a refusal does not matter yet."""
        wanted = end + 4 * RESERVE_BYTES
        try:
            os.posix_fallocate(self.fd, 0, wanted)
        except OSError:
            if end > self._reserved:
                raise
        else:
            self._reserved = wanted

    def drop_waiting(self) -> None:
        """Forget lines that could not be written: a snapshot elsewhere has what they say."""
        self._waiting = []


class Gap(msgspec.Struct):
    """Bytes of a journal file that are no line; `torn` if nothing good follows."""

    offset: int
    end: int
    torn: bool


def read_lines(data: bytes) -> Iterator[list[Any] | Gap]:
    """Yield the lines of a whole journal file, and the gaps between them. The zeros reserved at the end are neither."""
    offset = 0
    used = len(data.rstrip(b"\0"))
    while offset < used:
        found = _line_at(data, offset)
        if found is None:
            start = offset
            offset = _next_line(data, start + 1, used)
            torn = offset >= used
            # A good line may end in zeros, which rstrip took for reserved space; a bad one is the torn tail of a crash.
            yield Gap(start, len(data) if torn else offset, torn)
            continue
        line, offset = found
        yield line


def _line_at(data: bytes, offset: int) -> tuple[list[Any], int] | None:
    if data[offset : offset + 2] != MARK or len(data) - offset < _HEAD.size:
        return None
    _, length, crc = _HEAD.unpack_from(data, offset)
    start = offset + _HEAD.size
    if length > MAX_LINE_BYTES or start + length > len(data):
        return None
    payload = data[start : start + length]
    if crc32(payload, length) != crc:
        return None
    try:
        line = _decode(payload)
    except msgspec.MsgspecError:
        return None
    return (line, start + length) if type(line) is list and line else None


def _next_line(data: bytes, offset: int, used: int) -> int:
    at = data.find(MARK, offset)
    while 0 <= at < used:
        if _line_at(data, at) is not None:
            return at
        at = data.find(MARK, at + 1)
    return used
