"""The ring of recorded facts: files of a fixed size below `facts/`, the oldest removed when there are too many or too old.

Batches of bytes in, batches out; what is in them is `policy/record.py`'s. Nothing is synced: facts explain, and nothing depends on
them. A frame is its length, the CRC-32 of its bytes and the bytes; a torn frame ends its file for a reader. A disk that refuses costs
facts, never mail.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from zlib import crc32

from gatepost.spool.layout import close_anyway

RING_NAME = re.compile(r"([0-9]{8,})\.ring")
DIRECTORY = "facts"
FILES = 16  # of which the ring consists
MIN_FILE_BYTES = 64 * 1024
MAX_FRAME_BYTES = 16 * 1024 * 1024
MAGIC = b"GPFACTS1"
_HEAD = struct.Struct("<II")


class FactRing:
    """The writing side, of the queue role. `root` is the spool."""

    def __init__(self, root: str, keep_bytes: int, keep_days: int) -> None:
        self._directory = f"{root}/{DIRECTORY}"
        self._fd = -1
        self._size = 0
        self._number = 0
        self.dropped = 0  # batches that the disk refused
        self.reconfigure(keep_bytes, keep_days)

    def reconfigure(self, keep_bytes: int, keep_days: int) -> None:
        """New limits; they hold from the next batch on."""
        self._keep_bytes = keep_bytes
        self._keep_s = keep_days * 86400.0
        self._file_bytes = max(MIN_FILE_BYTES, keep_bytes // FILES)

    def append(self, data: bytes, now_s: float) -> None:
        """Write a batch. Never raises: what the disk refuses is counted."""
        if not self._keep_bytes or len(data) > MAX_FRAME_BYTES:
            return
        frame = _HEAD.pack(len(data), crc32(data)) + data
        try:
            if self._fd < 0 or self._size + len(frame) > self._file_bytes:
                self._begin(now_s)
            written = os.write(self._fd, frame)
            self._size += written
            if written != len(frame):
                self._end()
                self.dropped += 1
        except OSError:
            self._end()
            self.dropped += 1

    def expire(self, now_s: float) -> None:
        """Remove what is too old or too much."""
        try:
            numbers = _numbers(self._directory)
            for number in numbers[: -max(1, self._keep_bytes // self._file_bytes)]:
                os.unlink(self._path(number))
            for number in numbers:
                if number != self._number and os.stat(self._path(number)).st_mtime < now_s - self._keep_s:
                    os.unlink(self._path(number))
        except OSError:
            return

    def close(self) -> None:
        """No more batches."""
        self._end()

    def _begin(self, now_s: float) -> None:
        self._end()
        numbers = _numbers(self._directory)
        self._number = (numbers[-1] if numbers else 0) + 1
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._path(self._number), flags, 0o600)
        self._size = os.write(self._fd, MAGIC)
        self.expire(now_s)

    def _end(self) -> None:
        if self._fd >= 0:
            close_anyway(self._fd)
            self._fd = -1

    def _path(self, number: int) -> str:
        return f"{self._directory}/{number:08d}.ring"


def read_batches(root: str, since_s: float = 0.0) -> Iterator[bytes]:
    """The batches of a spool, oldest first, of files that were written to since then. Raises OSError if it may not be read."""
    directory = f"{root}/{DIRECTORY}"
    for number in _numbers(directory):
        try:
            fd = os.open(f"{directory}/{number:08d}.ring", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:  # the ring has gone on meanwhile
            continue
        with os.fdopen(fd, "rb") as file:
            if os.fstat(fd).st_mtime < since_s:
                continue
            data = file.read()
        yield from _frames(data)


def _frames(data: bytes) -> Iterator[bytes]:
    at = len(MAGIC)
    if data[:at] != MAGIC:
        return
    while at + _HEAD.size <= len(data):
        length, checksum = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        frame = data[at : at + length]
        if len(frame) != length or crc32(frame) != checksum:
            return
        yield frame
        at += length


def _numbers(directory: str) -> list[int]:
    return sorted(int(match[1]) for name in os.listdir(directory) if (match := RING_NAME.fullmatch(name)))
