"""Group commit of a receiver: every message that waits goes to disk with one writev and one fdatasync, and only then is acknowledged.

While one commit is under way in its thread, the messages that end meanwhile gather for the next one: the slower the disk, the
larger the groups. Body files of large messages are synced before the record that names them is written.

After a failed write nothing of the group is acknowledged; after a failed fdatasync the segment is given up (the kernel may have dropped
the pages) and sealed at what was durable before.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Any

from gatepost.ipc.messages import Accepted
from gatepost.model import Envelope
from gatepost.smtp.reply import Reply
from gatepost.spool.errors import SpoolError, SpoolFull
from gatepost.spool.segment import AppendOnlyWriter, Record, SegmentWriter

MAX_GROUP = 512
FULL = Reply(452, "3.1", "Insufficient system storage, try again later")
UNHEALTHY = Reply(451, "3.0", "Mail system trouble, try again later")


class Pending:
    """A message that waits for its commit; `done(None)` means durable, `done(reply)` what to say instead of 250."""

    __slots__ = ("body_descriptor", "body_file", "content_bytes", "done", "envelope", "record")

    def __init__(
        self,
        record: Record,
        envelope: Envelope,
        content_bytes: int,
        done: Callable[[Reply | None], None],
        body_file: int = 0,
        body_descriptor: int = -1,
    ) -> None:
        self.record = record
        self.envelope = envelope
        self.content_bytes = content_bytes
        self.done = done
        self.body_file = body_file
        self.body_descriptor = body_descriptor


class GroupCommit:
    """Owns the receiver's segment. `accepted` tells the queue of one durable message; `sealed` that a segment is finished.

    `need_segment` is called whenever there is no segment left; `use` gives one.
    """

    def __init__(
        self,
        loop: Any,
        *,
        segment_bytes: int,
        accepted: Callable[[Accepted], None],
        sealed: Callable[[int, int], None],
        need_segment: Callable[[], None],
        trouble: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._segment_bytes = segment_bytes
        self._accepted = accepted
        self._sealed = sealed
        self._need_segment = need_segment
        self._trouble = trouble
        self._writer: SegmentWriter | None = None
        self._spare: SegmentWriter | None = None
        self._waiting: list[Pending] = []
        self._busy = False
        self._scheduled = False
        self._renew = False
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.groups = 0
        self.committed = 0

    @property
    def is_ready(self) -> bool:
        """Whether there is a segment to write to."""
        return self._writer is not None

    @property
    def has_segments(self) -> bool:
        """Whether segments of before are still to be given up."""
        return self._writer is not None or self._spare is not None

    @property
    def waiting(self) -> int:
        return len(self._waiting) + self._busy

    def start(self) -> None:
        """Start the commit thread; after the lock-in, so that its filter covers the thread."""
        self._thread = threading.Thread(target=self._run, name="commit", daemon=True)
        self._thread.start()

    def use(self, number: int, descriptor: int) -> None:
        """A new segment has come."""
        writer = AppendOnlyWriter(descriptor, number)
        if self._writer is None:
            self._writer = writer
            self._schedule()
            self._need_segment()  # one to spare, so that the change to the next never waits
        elif self._spare is None:
            self._spare = writer
        else:
            self._sealed(number, 0)
            writer.close()

    def renew(self) -> None:
        """Give up the present segments, because the queue that opened them is gone, as soon as no commit is under way.

        The caller asks for new ones, when `has_segments` has become false.
        """
        self._renew = True
        self._schedule()

    def add(self, pending: Pending) -> None:
        """Commit this message with the next group."""
        self._waiting.append(pending)
        if not self._scheduled and not self._busy:
            self._scheduled = True
            self._loop.call_soon(self._begin)

    def fail_waiting(self, reply: Reply) -> None:
        """Refuse everything that waits (there is no segment, and none comes)."""
        waiting, self._waiting = self._waiting, []
        for pending in waiting:
            pending.done(reply)

    # --- one group --------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._scheduled and not self._busy:
            self._scheduled = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._scheduled = False
        if self._busy:
            return
        if self._renew:
            self._give_up_segments()
        if not self._waiting or self._writer is None:
            return
        group = self._waiting[:MAX_GROUP]
        del self._waiting[:MAX_GROUP]
        self._busy = True
        writer = self._writer
        if any(p.body_descriptor >= 0 for p in group):
            self._work.put(lambda: self._commit_with_bodies(writer, group))
            return
        try:
            offsets = writer.append([p.record for p in group])
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits is answered
            self._finish(writer, group, [], _as_trouble(writer, error))
            return
        self._work.put(lambda: self._commit(writer, group, offsets))

    def _run(self) -> None:
        while True:
            self._work.get()()

    def _commit(self, writer: SegmentWriter, group: list[Pending], offsets: list[int]) -> None:
        error = None
        try:
            writer.sync()
        except Exception as caught:  # noqa: BLE001 - else the thread ended, and nobody would be answered again
            error = _as_trouble(writer, caught)
        self._loop.call_soon_threadsafe(self._finish, writer, group, offsets, error)

    def _commit_with_bodies(self, writer: SegmentWriter, group: list[Pending]) -> None:
        """Body files first: their records must never be durable without them."""
        error: SpoolError | None = None
        offsets: list[int] = []
        try:
            for pending in group:
                if pending.body_descriptor >= 0:
                    os.fdatasync(pending.body_descriptor)
            offsets = writer.append([p.record for p in group])
            writer.sync()
        except OSError as caught:
            error = SpoolError(f"body file: {caught.strerror}")
        except Exception as caught:  # noqa: BLE001 - as in _commit
            error = _as_trouble(writer, caught)
        self._loop.call_soon_threadsafe(self._finish, writer, group, offsets, error)

    def _finish(
        self, writer: SegmentWriter, group: list[Pending], offsets: list[int], error: SpoolError | None
    ) -> None:
        self._busy = False
        if error is not None:
            self._trouble(str(error))
            if writer.poisoned:
                self._retire(writer)
            reply = FULL if isinstance(error, SpoolFull) else UNHEALTHY
            for pending in group:
                self._answer(pending, reply)
        else:
            self.groups += 1
            self.committed += len(group)
            number = writer.number
            for pending, offset in zip(group, offsets, strict=True):
                record = pending.record
                self._accepted(
                    Accepted(
                        number,
                        offset,
                        offset + record.length,
                        pending.envelope,
                        offset + record.content_start if pending.body_file == 0 else 0,
                        pending.content_bytes,
                        pending.body_file,
                    )
                )
                self._answer(pending, None)
            if writer.length >= self._segment_bytes:
                self._retire(writer)
        if self._waiting or self._renew:
            self._schedule()

    def _answer(self, pending: Pending, reply: Reply | None) -> None:
        """A bug in the session of one must not keep the others of its group from their answer and the queue from their messages."""
        try:
            pending.done(reply)
        except Exception as error:  # noqa: BLE001
            self._loop.call_exception_handler({"message": "answering a message", "exception": error})

    def _retire(self, writer: SegmentWriter) -> None:
        """Seal this segment and go on with the spare one."""
        if writer is not self._writer:
            return
        self._sealed(writer.number, writer.synced)
        writer.close()
        self._writer, self._spare = self._spare, None
        self._need_segment()

    def _give_up_segments(self) -> None:
        self._renew = False
        for writer in (self._writer, self._spare):
            if writer is not None:
                self._sealed(writer.number, writer.synced)
                writer.close()
        self._writer = self._spare = None
        with_bodies = [p for p in self._waiting if p.body_descriptor >= 0]
        self._waiting = [p for p in self._waiting if p.body_descriptor < 0]
        for pending in with_bodies:  # the next queue does not know these body files
            pending.done(UNHEALTHY)


def _as_trouble(writer: SegmentWriter, error: Exception) -> SpoolError:
    """What else goes wrong than a disk (no memory, a bug) leaves a segment of which nothing is known: it is given up."""
    if isinstance(error, SpoolError):
        return error
    writer.poisoned = True
    return SpoolError(f"segment {writer.number}: {type(error).__name__}: {error}")
