"""The segment that the queue itself appends to: messages the gateway makes, which are DSNs.

They become durable with the next commit. Until then their records are kept in memory, so that a refused fsync, after which the
segment can never be trusted again, costs nothing: they are written to deferred files instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatepost.spool import deferral
from gatepost.spool.entry import Entry
from gatepost.spool.errors import SpoolError
from gatepost.spool.segment import Record, SegmentWriter

if TYPE_CHECKING:
    from gatepost.spool.embedded import JournalSpool

OWNER = "queue"


class OwnSegment:
    """Belongs to one spool, and uses its lock."""

    def __init__(self, spool: JournalSpool) -> None:
        self.awaited_by: set[str] = set()  # ids whose end may not be logged before their notice is durable
        self.successes: set[str] = set()  # of those: whose delivery the notice tells of, so that no outcome may
        # not durable yet: notice -> whom it is about, whether of success
        self._notices: dict[str, tuple[str, bool]] = {}
        self._spool = spool
        self._writer: SegmentWriter | None = None
        self._unsynced: list[tuple[Entry, Record]] = []

    def append(self, entry: Entry, record: Record) -> None:
        """Append the record of a new entry and take it in; the spool's lock is held. SpoolFull, SpoolError: neither."""
        writer = self._writer
        if writer is None or writer.poisoned or writer.length >= self._spool.config.segment_bytes:
            self.sync()
            writer = self._next()
        entry.offset = writer.append([record])[0]
        entry.content_offset = entry.offset + record.content_start
        self._unsynced.append((entry, record))
        self._spool.admit(entry, self._spool.segments[writer.number], writer.length, later=True)

    def awaits(self, about: str, notice: str, is_success: bool) -> None:
        """The message `about` has a notice that is not durable yet; the lock is held."""
        self._notices[notice] = about, is_success
        self.awaited_by.add(about)
        if is_success:
            self.successes.add(about)

    def _next(self) -> SegmentWriter:
        number, fd = self._spool.new_segment(OWNER)
        old, self._writer = self._writer, SegmentWriter(fd, number)
        if old is not None:
            self._spool.seal(old.number, old.synced)
            old.close()
        return self._writer

    def sync(self) -> None:
        """Make everything appended before this call durable, one way or the other. SpoolError: it is not."""
        with self._spool.lock:
            writer = self._writer
            unsynced = list(self._unsynced)
        if writer is None or not unsynced:
            return
        try:
            writer.sync()
        except SpoolError:
            with self._spool.lock:
                unsynced = list(self._unsynced)
                kept = [(entry, b"".join(record.iov)[record.content_start :]) for entry, record in unsynced]
                deferral.keep_in_files(self._spool, kept)
        with self._spool.lock:
            done = {entry.id for entry, _ in unsynced}
            self._unsynced = [pair for pair in self._unsynced if pair[0].id not in done]
            for notice in done & self._notices.keys():
                del self._notices[notice]
            self.awaited_by = {about for about, _ in self._notices.values()}
            self.successes = {about for about, is_success in self._notices.values() if is_success}

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
