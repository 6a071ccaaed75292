"""What the two append-only files of the spool share: how far they are durable, and that a failed fsync is the end of a file."""

from __future__ import annotations

import os

from gatepost.spool.errors import SpoolError
from gatepost.spool.layout import close_anyway


class SyncedFile:
    """A file that one writer appends to. `length` is the end of what is whole in it, `synced` how far it is durable.

    `sync` may run in another thread than the one that appends. A poisoned file refuses everything: a second fsync would succeed
    without the pages that the first one lost having been written.
    """

    __slots__ = ("fd", "length", "number", "poisoned", "synced")
    KIND = "file"  # as errors name it

    def __init__(self, fd: int, number: int, length: int = 0) -> None:
        self.fd = fd
        self.number = number
        self.length = length
        self.synced = length
        self.poisoned = False

    def sync(self) -> None:
        """Make everything written before this call durable; SpoolError if not, and then never again."""
        self.refuse_poisoned()
        length = self.length
        if length == self.synced:
            return
        try:
            os.fdatasync(self.fd)
        except OSError as error:
            self.poisoned = True
            raise SpoolError(f"{self.KIND} {self.number}: {error.strerror} in fdatasync") from error
        self.synced = length

    def refuse_poisoned(self) -> None:
        """SpoolError if nothing may be written any more."""
        if self.poisoned:
            raise SpoolError(f"{self.KIND} {self.number} is poisoned")

    def close(self) -> None:
        """Close the descriptor; again is harmless."""
        if self.fd >= 0:
            close_anyway(self.fd)
            self.fd = -1
            self.poisoned = True
