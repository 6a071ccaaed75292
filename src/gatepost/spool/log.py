"""The outcome log at work: lines in, group commit, rotation, and removal of files that no line needs any more.

Order is everything here. A file is removed only after the line that made it superfluous is durable; an older journal only after
the snapshot that replaces it is durable; and the names removed are made durable before a snapshot forgets them. A snapshot is
written in small steps while the queue goes on: an entry that changes before its turn is written first, as it was at the start
of the snapshot (`touch`). A journal whose fsync failed is replaced by a new one from memory, which has everything.

Threads: `lock` guards all state; whoever changes the queue holds it. `commit` may run in any thread, one at a time.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable

from gatepost.spool.entry import Entry
from gatepost.spool.errors import SpoolError, SpoolFull, SpoolUnhealthy
from gatepost.spool.journal import JournalFile, Kind
from gatepost.spool.layout import create_file, disk_error, journal_path, sync_directory
from gatepost.spool.replay import entry_line

ROTATE_BYTES = 32 * 1024 * 1024
STEP = 256  # entries of a snapshot written with the lock held once


class OutcomeLog:
    """One journal, and what waits for it to be durable."""

    def __init__(
        self,
        root: str,
        describe: Callable[[list[str]], tuple[object, ...]],
        snapshot: Callable[[], Iterable[Entry]],
        sync_first: Callable[[], None],
    ) -> None:
        """`describe` gives the BEGIN line, `snapshot` the entries; `sync_first` makes durable what `add_later` lines tell of."""
        self.root = root
        self.lock = threading.RLock()
        self.rotate_bytes = ROTATE_BYTES
        self.epoch = 0
        self.trouble = ""  # why the last write or sync was refused; empty: all is well
        self._describe = describe
        self._snapshot = snapshot
        self._sync_first = sync_first
        self._commit_mutex = threading.Lock()
        self._number = 0
        # The last one is written; others stay until a snapshot replaced them. Before `start` lines go nowhere.
        self._files = [JournalFile(-1, 0)]
        self._snapshot_bytes = 0
        self._later: list[tuple[object, ...]] = []
        self._doomed: list[str] = []
        self._removing: list[str] = []  # doomed files of the commit under way
        self._unlinked: set[str] = set()  # directories with removals that are not durable yet

    def start(self, last_number: int) -> None:
        """Begin a new file behind `last_number` with a snapshot of everything, and remove the older ones."""
        self._number = last_number
        self.rotate()

    def rotate(self) -> None:
        """Go on in a new journal file now; every line up to now is durable then. SpoolError: it is not, or not yet."""
        with self._commit_mutex:
            self._rotate()

    def touch(self, entry: Entry) -> None:
        """Must be called, with the lock held, before an entry changes or goes."""
        if entry.epoch != self.epoch:
            entry.epoch = self.epoch
            self._files[-1].add(entry_line(entry))

    def add(self, line: tuple[object, ...]) -> None:
        """Queue a line; it is written by the next `flush` or `write`."""
        self._files[-1].add(line)

    def write(self, line: tuple[object, ...]) -> None:
        """Write a line at once. A refusal is kept as `trouble`: memory has the line, and each later write tries again."""
        journal = self._files[-1]
        journal.add(line)
        try:
            journal.flush()
        except SpoolError as error:
            self.trouble = str(error)

    def add_later(self, line: tuple[object, ...]) -> None:
        """Queue a line that must not be durable before what `sync_first` makes durable."""
        self._later.append(line)

    def doom(self, path: str) -> None:
        """Have a file removed once the lines up to now are durable; `path` is absolute."""
        self._doomed.append(path)

    def doom_all(self, paths: list[str]) -> None:
        """The same for several; takes the lock."""
        with self.lock:
            self._doomed += paths

    def spare(self, paths: set[str]) -> None:
        """These files have become those of live messages: whatever doomed them before was about an earlier try."""
        if self._doomed or self._removing:
            self._doomed = [path for path in self._doomed if path not in paths]
            self._removing = [path for path in self._removing if path not in paths]

    def commit(self) -> None:
        """Make every line up to now durable, then remove the files that they free. SpoolFull, SpoolUnhealthy: it is not."""
        with self._commit_mutex:
            try:
                self._commit()
            except SpoolFull as error:
                self.trouble = str(error)
                raise
            except (SpoolError, OSError) as error:
                self.trouble = str(error)
                raise SpoolUnhealthy(str(error)) from error
            self.trouble = ""

    def _commit(self) -> None:
        with self.lock:
            later, self._later = self._later, []
            self._removing, self._doomed = self._doomed, []
        try:
            self._sync_first()
            with self.lock:
                journal = self._files[-1]
                for line in later:
                    journal.add(line)
                later = []
                journal.flush()
                files = list(self._files)
            try:
                for journal in files:
                    journal.sync()
            except SpoolError:
                self._rotate()
            self._remove(self._removing)
        except BaseException:
            with self.lock:
                self._later[:0] = later
                self._doomed[:0] = self._removing
                self._removing = []
            raise
        self._removing = []
        current = self._files[-1]
        if len(self._files) > 1 or current.length > self._snapshot_bytes + max(self.rotate_bytes, self._snapshot_bytes):
            # What is asked for is durable already; a rotation that is refused is tried again by the next commit.
            with contextlib.suppress(SpoolFull):
                self._rotate()

    def _remove(self, paths: list[str]) -> None:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
                self._unlinked.add(os.path.dirname(path))

    def _rotate(self) -> None:
        try:
            for directory in sorted(self._unlinked):
                sync_directory(directory)
            self._unlinked.clear()
            number = self._number + 1
            fd = create_file(journal_path(self.root, number), os.O_RDWR)
            self._number = number
            new = JournalFile(fd, number)
            sync_directory(f"{self.root}/journal")
        except OSError as error:
            raise disk_error(error, "new journal") from error
        entries = self._switch(new)
        for start in range(0, len(entries), STEP):
            with self.lock:
                for entry in entries[start : start + STEP]:
                    self.touch(entry)
                new.flush()
        with self.lock:
            new.add((Kind.END,))
            new.flush()
        new.sync()
        with self.lock:
            old, self._files = self._files[:-1], [new]
            self._snapshot_bytes = new.length
        for journal in old:
            journal.close()
        self._remove_older(number)

    def _switch(self, new: JournalFile) -> list[Entry]:
        """Let lines go to the new file from now on, and return the entries that its snapshot must hold."""
        with self.lock:
            if self._later:
                self._sync_first()
            old = self._files[-1]
            for line in self._later:
                old.add(line)
            # If they cannot be written there, the snapshot has what they say.
            with contextlib.suppress(SpoolError):
                old.flush()
            old.drop_waiting()
            self._later.clear()
            gone = [path[len(self.root) + 1 :] for path in self._removing + self._doomed]
            new.add(self._describe(gone))
            self._files.append(new)
            self.epoch += 1
            return list(self._snapshot())

    def _remove_older(self, number: int) -> None:
        directory = f"{self.root}/journal"
        for name in os.listdir(directory):
            stem, _, kind = name.partition(".")
            if kind == "log" and stem.isdigit() and int(stem) < number:
                self._remove([f"{directory}/{name}"])

    def close(self) -> None:
        for journal in self._files:
            journal.close()
