"""Moving messages from segments to files of their own, in batches.

So segments are short-lived and never need compaction. The files and their names are durable before the journal says that the
messages are there, and the segment goes only after that line is durable: a crash in between leaves the message in both places,
never in none. The entries may be delivered while they are moved; those that finished meanwhile lose their new files again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING
from zlib import crc32

from gatepost.spool.deferred import Batch
from gatepost.spool.entry import IN_BODY_FILE, IN_DEFERRED, IN_SEGMENT, Entry
from gatepost.spool.errors import MessageDamaged, SpoolError
from gatepost.spool.journal import Kind
from gatepost.spool.layout import (
    DEFERRED_DIRECTORIES,
    body_path,
    deferred_path,
    disk_error,
    segment_path,
    sync_directory,
)
from gatepost.spool.segment import content_crc, read_content

if TYPE_CHECKING:
    from gatepost.spool.embedded import JournalSpool


def to_defer(spool: JournalSpool, limit: int) -> list[Entry]:
    """Entries that lie in a segment for longer than the configuration allows, oldest first."""
    cutoff = spool.clock() - spool.config.defer_after_s
    with spool.lock:
        old = (
            entry
            for segment in list(spool.segments.values())
            for entry in _received_before(segment.live.values(), cutoff)
            if entry.pending
        )
        return list(islice(old, limit))


def _received_before(entries: Iterable[Entry], cutoff: float) -> Iterable[Entry]:
    for entry in entries:
        if entry.received_s > cutoff:
            return
        yield entry


def defer_to_file(spool: JournalSpool, entries: Sequence[Entry]) -> list[Entry]:
    """Move a batch into one directory of the deferred store, the next one, and return those whose content is damaged."""
    spool.deferred_directory = directory = (spool.deferred_directory + 1) % DEFERRED_DIRECTORIES
    batch = Batch(spool.root, directory)
    moved: list[tuple[Entry, int]] = []
    damaged: list[Entry] = []
    try:
        make_directory(spool, directory)
        with _Files() as files:
            for entry in entries:
                with spool.lock:
                    if spool.entries.get(entry.id) is not entry or entry.place == IN_DEFERRED:
                        continue
                    place = entry.place
                try:
                    content = _read(spool, entry, place, files)
                except (MessageDamaged, FileNotFoundError):
                    damaged.append(entry)
                    continue
                moved.append((entry, batch.add(entry, content, body_path(spool.root, entry.body_file))))
        batch.sync()
    except OSError as error:
        spool.log.doom_all(batch.abandon())
        raise disk_error(error, "deferred store") from error
    _relocate(spool, moved, directory)
    return damaged


class _Files(contextlib.ExitStack):
    """Files of a batch, opened once each."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[str, int] = {}

    def get(self, path: str) -> int:
        fd = self._open.get(path)
        if fd is None:
            fd = self._open[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            self.callback(os.close, fd)
        return fd


def _read(spool: JournalSpool, entry: Entry, place: int, files: _Files) -> bytes | None:
    """The verified content; None if it lies in a body file, which is linked. MessageDamaged, OSError."""
    spool.load_crc(entry)
    try:
        if place == IN_BODY_FILE:
            fd = os.open(body_path(spool.root, entry.body_file), os.O_RDONLY | os.O_CLOEXEC)
            try:
                good = entry.verified or content_crc(fd, 0, entry.content_bytes) == entry.crc
                good = good and os.fstat(fd).st_size == entry.content_bytes
            finally:
                os.close(fd)
            content = None
        else:
            segment = files.get(segment_path(spool.root, entry.segment))
            content = read_content(segment, entry.content_offset, entry.content_bytes)
            good = crc32(content) == entry.crc
    except SpoolError as error:
        raise MessageDamaged(f"{entry.id}: {error}") from error
    if not good:
        raise MessageDamaged(f"{entry.id}: the content does not have its checksum")
    return content


def _relocate(spool: JournalSpool, moved: list[tuple[Entry, int]], directory: int) -> None:
    """The files are durable: from now on the messages are there."""
    rows = []
    with spool.lock:
        for entry, crc in moved:
            if spool.entries.get(entry.id) is not entry:
                path = deferred_path(spool.root, directory, entry.id)
                spool.log.doom(path)
                spool.log.doom(path[:-3] + "json")
                continue
            spool.log.touch(entry)
            if entry.place in (IN_SEGMENT, IN_BODY_FILE):
                spool.leave_segment(entry)
            if entry.place == IN_BODY_FILE:
                spool.sources.retire(body_path(spool.root, entry.body_file))
                spool.log.doom(body_path(spool.root, entry.body_file))
            entry.pack()
            entry.place, entry.deferred_dir, entry.crc = IN_DEFERRED, directory, crc
            entry.segment = entry.offset = entry.content_offset = entry.body_file = 0
            rows.append((entry.id, crc, entry.content_bytes, bytes(entry.states), entry.packed_envelope))
        if rows:
            spool.log.spare(
                {deferred_path(spool.root, directory, row[0], kind) for row in rows for kind in ("eml", "json")}
            )
            spool.log.write((Kind.DEFERRED, directory, rows))


def keep_in_files(spool: JournalSpool, contents: Sequence[tuple[Entry, bytes]]) -> None:
    """Put messages whose segment cannot be trusted into deferred files, from memory. SpoolError: they stay where they are."""
    batch = Batch(spool.root, 0)
    try:
        make_directory(spool, 0)
        moved = [(entry, batch.add(entry, content)) for entry, content in contents if entry.id in spool.entries]
        batch.sync()
    except OSError as error:
        spool.log.doom_all(batch.abandon())
        raise disk_error(error, "deferred store") from error
    _relocate(spool, moved, 0)


def make_directory(spool: JournalSpool, directory: int) -> None:
    """Have a directory of the deferred store, its name durable: also one whose maker died, or was refused, before it was."""
    if directory in spool.deferred_directories:
        return
    with contextlib.suppress(FileExistsError):
        os.mkdir(f"{spool.root}/deferred/{directory:02x}", 0o700)
    sync_directory(f"{spool.root}/deferred")
    spool.deferred_directories.add(directory)
