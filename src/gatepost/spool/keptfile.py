"""A small file of records by key that is written as a whole: what is worth keeping over a restart, and no mail depends on.

It is held in memory, bounded in records and octets, and replaced on disk (a new file, synced, renamed) when it has changed. A file that
cannot be read as it was written counts as empty. What the records mean is whoever puts them there.
"""

from __future__ import annotations

import contextlib
import os
from zlib import crc32

import msgspec

from gatepost.spool.layout import create_file, disk_error, sync_directory

DIRECTORY = "tls"
MAGIC = b"GPKEPT01"
MAX_KEY_CHARACTERS = 512
_decode = msgspec.msgpack.Decoder(dict[str, bytes]).decode


class KeptFile:
    """`path` is below the spool. Not thread safe but for `write`, which gets all it needs."""

    def __init__(self, root: str, name: str, max_records: int, max_bytes: int, directory: str = DIRECTORY) -> None:
        self._directory = f"{root}/{directory}"
        self._path = f"{self._directory}/{name}"
        self.max_records = max_records
        self._max_bytes = max_bytes
        self._bytes = 0
        self.records: dict[str, bytes] = {}
        self.is_changed = False

    def load(self) -> None:
        """Read what is there. Raises SpoolError if the disk refuses, ValueError if the file is damaged."""
        try:
            with open(self._path, "rb") as file:
                data = file.read(4 * self._max_bytes)
        except FileNotFoundError:
            return
        except OSError as error:
            raise disk_error(error, self._path) from error
        body = data[len(MAGIC) + 4 :]
        if data[: len(MAGIC)] != MAGIC or data[len(MAGIC) : len(MAGIC) + 4] != crc32(body).to_bytes(4, "little"):
            raise ValueError(f"{self._path} is damaged")
        for key, record in _decode(body).items():
            self.put(key, record)
        self.is_changed = False

    def put(self, key: str, record: bytes) -> bool:
        """Keep a record, an empty one to forget it; False if there is no room, or the key cannot be."""
        if len(key) > MAX_KEY_CHARACTERS or not key:
            return False
        old = self.records.pop(key, b"")
        self._bytes -= len(old) and len(old) + len(key)
        self.is_changed = self.is_changed or old != record
        if not record:
            return True
        size = len(record) + len(key)
        if len(self.records) >= self.max_records or self._bytes + size > self._max_bytes:
            return False
        self.records[key] = record
        self._bytes += size
        return True

    def encoded(self) -> bytes:
        """The file as it is to be; from now on it counts as unchanged."""
        self.is_changed = False
        body = msgspec.msgpack.encode(self.records)
        return MAGIC + crc32(body).to_bytes(4, "little") + body

    def write(self, data: bytes) -> None:
        """Replace the file, durably; raises SpoolError. Slow: for a worker thread."""
        new = f"{self._path}.new"
        with contextlib.suppress(OSError):
            os.unlink(new)
        descriptor = create_file(new, os.O_WRONLY)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
            os.rename(new, self._path)
            sync_directory(self._directory)
        except OSError as error:
            raise disk_error(error, self._path) from error
        finally:
            os.close(descriptor)
