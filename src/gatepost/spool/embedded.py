"""The spool of one machine: segments, body files, deferred files and a journal on a local file system.

`JournalSpool` is the state of the queue and every change of it; how it comes back after a crash is in `recovery.py`, what may
lie on disk in the table of `spool.py`. Contract, errors and threads: see there.

Invariants: an entry that is live has its content in a file that is not doomed. A change is in memory and in the journal before
the method returns; nothing is removed before the line that allows it is durable (`log.py`). What a receiver says is checked:
it may be broken into, so it can name only its own segments and body files, and only bytes nobody named before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence

from gatepost.config import schema
from gatepost.ipc.messages import Accepted
from gatepost.model import Envelope, Outcome
from gatepost.spool import deferral, recovery
from gatepost.spool.disk import Disk
from gatepost.spool.entry import IN_BODY_FILE, IN_DEFERRED, IN_SEGMENT, STATE_OF_RESULT, Entry, State
from gatepost.spool.errors import AlreadyGone, MessageDamaged, SpoolError
from gatepost.spool.journal import Kind
from gatepost.spool.layout import (
    body_path,
    close_anyway,
    create_file,
    deferred_path,
    disk_error,
    is_id,
    put_aside,
    segment_path,
    sync_directory,
)
from gatepost.spool.log import OutcomeLog
from gatepost.spool.own import OWNER, OwnSegment
from gatepost.spool.replay import (
    ACCEPTED,
    COUNTERS,
    MESSAGES_ACCEPTED,
    MESSAGES_FINISHED,
    VERSION,
    SegmentState,
    ledger_of,
    merge_outcomes,
)
from gatepost.spool.segment import Damage, Found, build_record, content_crc, is_possible, read_record
from gatepost.spool.sources import Sources
from gatepost.spool.spool import DamageReport, Health, Recovery, Source

MAX_SHARED_OUTCOMES = 4096

_TAKEN, _OUTCOME, _SETTLED, _FINISHED = int(Kind.TAKEN), int(Kind.OUTCOME), int(Kind.SETTLED), int(Kind.FINISHED)
_DELIVERED = int(State.DELIVERED)
_NUMBER_OF_RESULT = {result: int(state) for result, state in STATE_OF_RESULT.items()}


class JournalSpool:
    """See `spool.Spool` for what each method promises."""

    def __init__(self, path: str, *, config: schema.Queue, clock: Callable[[], float] = time.time) -> None:
        self.root = path.rstrip("/")  # "" when the queue is chrooted into the spool
        self.config = config
        self.clock = clock
        self.entries: dict[str, Entry] = {}
        self.damage: list[DamageReport] = []  # found since recovery; the queue reports and clears them
        self.counters = [0] * COUNTERS
        self.segments: dict[int, SegmentState] = {}
        self.bodies: dict[int, str] = {}  # handed out, not yet named by a message: number -> owner
        self.next_segment = 1
        self.next_body = 1
        self.permits: Callable[[Envelope], bool] = lambda envelope: True  # asked in any thread of what a receiver wrote
        self._own = OwnSegment(self)
        self.log = OutcomeLog(self.root, self._describe, self.entries.values, self._own.sync)
        self.lock = self.log.lock
        self.sources = Sources()
        self.lock_fd = -1
        self._shared: dict[tuple[object, ...], tuple[Outcome, ...]] = {}
        self.deferred_directory = 0  # of the last batch
        self.deferred_directories: set[int] = set()  # those whose names are known to be durable
        self._disk = Disk(self.root or "/", config)
        self._names_trouble = ""  # a refused fsync of a directory

    def recover(self) -> Recovery:
        return recovery.recover(self)

    def _describe(self, gone: list[str]) -> tuple[object, ...]:
        """The BEGIN line of a journal file."""
        segments = [(state.number, state.owner, state.sealed, state.known_end) for state in self.segments.values()]
        bodies = list(self.bodies.items())
        return (Kind.BEGIN, VERSION, self.counters, self.next_segment, self.next_body, segments, bodies, gone)

    # --- files for receivers ----------------------------------------------------------------------------------------

    def new_segment(self, owner: str) -> tuple[int, int]:
        with self.lock:
            number = self.next_segment
            self.next_segment += 1
        fd = create_file(segment_path(self.root, number), os.O_WRONLY | os.O_APPEND)
        self._sync_names("segments", [fd])
        with self.lock:
            self.segments[number] = SegmentState(number, owner)
            self.log.write((Kind.OPENED, number, owner))
        return number, fd

    def new_body_files(self, count: int, owner: str = "") -> list[tuple[int, int]]:
        with self.lock:
            first = self.next_body
            self.next_body += count
        files: list[tuple[int, int]] = []
        try:
            for number in range(first, first + count):
                files.append((number, create_file(body_path(self.root, number), os.O_RDWR)))
        except SpoolError:
            for number, fd in files:
                close_anyway(fd)
                os.unlink(body_path(self.root, number))
            raise
        self._sync_names("bodies", [fd for _, fd in files])
        with self.lock:
            self.bodies.update((number, owner) for number, _ in files)
            self.log.write((Kind.BODIES, owner, [number for number, _ in files]))
        return files

    def _sync_names(self, directory: str, fds: list[int]) -> None:
        try:
            sync_directory(f"{self.root}/{directory}")
        except OSError as error:
            for fd in fds:
                close_anyway(fd)
            self._names_trouble = f"{directory}: {error.strerror} in fsync"
            raise disk_error(error, directory) from error
        self._names_trouble = ""

    def body_unused(self, number: int) -> None:
        with self.lock:
            if self.bodies.pop(number, None) is not None:
                self.log.doom(body_path(self.root, number))

    def seal(self, number: int, length: int) -> list[Entry]:
        with self.lock:
            segment = self.segments.get(number)
            if segment is None or segment.sealed >= 0:
                return []
            entries = self._look_for(segment, length) if length > segment.known_end else []
            segment.sealed = length
            self.log.write((Kind.SEALED, number, length))
            if not segment.live:
                self._drop_segment(segment)
            return entries

    def owner_gone(self, owner: str) -> list[Entry]:
        with self.lock:
            segments = [state for state in self.segments.values() if state.owner == owner and state.sealed < 0]
        entries: list[Entry] = []
        for segment in segments:
            # What it had not synced yet it had not acknowledged; but it is there, so it is kept, and made durable.
            length = recovery.sync_segment(self, segment.number)
            with self.lock:
                entries += self._look_for(segment, length, acknowledged=False)
                self.seal(segment.number, segment.known_end)
        with self.lock:
            for number in [number for number, holder in self.bodies.items() if holder == owner]:
                self.body_unused(number)
        return entries

    # --- messages come ----------------------------------------------------------------------------------------------

    def take(self, accepted: Accepted, owner: str | None = None) -> list[Entry]:
        segment = self.segments.get(accepted.segment)
        if segment is None:
            if accepted.segment < self.next_segment:
                return []  # removed: everything in it was known
            raise SpoolError(f"segment {accepted.segment} was never handed out")
        with self.lock:
            offset = accepted.offset
            if offset < segment.known_end:
                return []
            self._check_claim(accepted, segment, owner)
            earlier = self._look_for(segment, offset) if offset > segment.known_end else []
            envelope = accepted.envelope
            entry = Entry(envelope, envelope.id, envelope.received_s, len(envelope.recipients))
            entry.offset = offset
            entry.content_offset = accepted.content_offset
            entry.content_bytes = accepted.content_bytes
            entry.body_file = accepted.body_file
            self.admit(entry, segment, accepted.end)
        return [*earlier, entry] if earlier else [entry]

    def _check_claim(self, accepted: Accepted, segment: SegmentState, owner: str | None) -> None:
        """SpoolError if a receiver claims what it cannot have written."""
        message_id = accepted.envelope.id
        if owner is not None and segment.owner != owner or segment.sealed >= 0:
            raise SpoolError(f"{owner} names segment {segment.number}, which is not its own")
        if not is_id(message_id) or message_id in self.entries:
            raise SpoolError(f"{message_id!r} cannot be the id of a new message")
        if accepted.body_file:
            if self.bodies.get(accepted.body_file) not in (segment.owner, ""):
                raise SpoolError(f"{segment.owner} names body file {accepted.body_file}, which is not its own")
        elif not accepted.offset < accepted.content_offset <= accepted.end - accepted.content_bytes:
            raise SpoolError(f"the content of {message_id} lies outside its record")
        if accepted.end <= accepted.offset or accepted.content_bytes < 0 or not accepted.envelope.recipients:
            raise SpoolError(f"the record of {message_id} is empty")
        if not is_possible(accepted.envelope):
            raise SpoolError(f"the envelope of {message_id} holds what nobody in order writes")

    def admit(self, entry: Entry, segment: SegmentState, end: int, later: bool = False) -> None:
        """A message is in the queue from here on."""
        recipients = len(entry.states)
        entry.epoch = self.log.epoch
        entry.segment = segment.number
        if entry.body_file:
            entry.place = IN_BODY_FILE
            self.bodies.pop(entry.body_file, None)
        if segment.owner != OWNER and not self.permits(entry.envelope):
            entry.refuse()
        segment.known_end = end
        segment.live[entry.id] = entry
        self.entries[entry.id] = entry
        self.counters[ACCEPTED] += recipients
        self.counters[MESSAGES_ACCEPTED] += 1
        line = (
            _TAKEN, entry.id, segment.number, entry.offset, end, entry.content_offset, entry.content_bytes,
            entry.body_file, recipients, entry.received_s, entry.held, entry.refused,
        )  # fmt: skip
        # Not written at once: if it is lost, recovery finds the record itself.
        (self.log.add_later if later else self.log.add)(line)

    def admit_found(self, found: Found, segment: SegmentState) -> Entry | None:
        """Take in a record that was found by looking; None if the message is known."""
        envelope = found.envelope
        if not is_id(envelope.id) or envelope.id in self.entries or not envelope.recipients:
            return None
        entry = Entry(envelope, envelope.id, envelope.received_s, len(envelope.recipients))
        entry.offset, entry.content_offset, entry.content_bytes = (
            found.offset,
            found.content_offset,
            found.content_bytes,
        )
        entry.body_file, entry.crc = found.body_file, found.crc
        self.admit(entry, segment, found.end)
        return entry

    def _look_for(self, segment: SegmentState, end: int, acknowledged: bool = True) -> list[Entry]:
        """Records below `end` that the receiver never told of."""
        entries, reports, _ = recovery.look_for(self, segment, end, acknowledged=acknowledged)
        self.damage += reports
        return entries

    def store(
        self, envelope: Envelope, content: list[bytes], about: Entry | None = None, recipients: Sequence[int] = ()
    ) -> Entry:
        size = sum(map(len, content))
        record = build_record(envelope, b"", content, size)
        with self.lock:
            entry = Entry(envelope, envelope.id, envelope.received_s, len(envelope.recipients))
            entry.content_bytes = size
            self._own.append(entry, record)
            if about is not None and about.id in self.entries:
                self._own.awaits(about.id, entry.id, not recipients)
                self.log.add_later(self._notice_line(about, recipients))
        return entry

    def _notice_line(self, about: Entry, recipients: Sequence[int]) -> tuple[object, ...]:
        self.log.touch(about)
        noticed = bytearray(about.noticed or len(about.states))
        for index in recipients:
            noticed[index] = 1
        about.noticed = bytes(noticed)
        return (Kind.NOTICE, about.id, about.noticed)

    def mark_reported(self, entry: Entry, recipients: Sequence[int]) -> None:
        with self.lock:
            self._expect(entry)
            self.log.add(self._notice_line(entry, recipients))

    def reconfigure(self, config: schema.Queue) -> None:
        self.config = config
        self._disk.reconfigure(config)

    # --- messages are tried and go ----------------------------------------------------------------------------------

    def source(self, entry: Entry) -> Source:
        with self.lock:
            self._expect(entry)
            path = self.content_path(entry)
            try:
                number, fd = self.sources.get(path)
                if not entry.verified:
                    self._verify(entry, fd)
            except FileNotFoundError as error:
                self._give_up(entry, "the file with its content is missing", "")
                raise MessageDamaged(f"{entry.id}: {path} is missing") from error
            except OSError as error:
                raise disk_error(error, path) from error
            return Source(number, fd, entry.content_offset, entry.content_bytes)

    def content_path(self, entry: Entry) -> str:
        """The file that holds the content now."""
        if entry.place == IN_SEGMENT:
            return segment_path(self.root, entry.segment)
        if entry.place == IN_BODY_FILE:
            return body_path(self.root, entry.body_file)
        return deferred_path(self.root, entry.deferred_dir, entry.id)

    def closed_sources(self) -> list[int]:
        with self.lock:
            return self.sources.closed()

    def load_crc(self, entry: Entry) -> None:
        """Have the content's checksum in the entry, from its record if need be. MessageDamaged, OSError."""
        if entry.crc >= 0:
            return
        fd = os.open(segment_path(self.root, entry.segment), os.O_RDONLY | os.O_CLOEXEC)
        try:
            record = read_record(fd, entry.offset, os.fstat(fd).st_size, verify=False)
        finally:
            os.close(fd)
        if isinstance(record, Damage) or record.envelope.id != entry.id:
            raise MessageDamaged(f"{entry.id}: its record cannot be read")
        entry.crc = record.crc

    def _verify(self, entry: Entry, fd: int) -> None:
        try:
            self.load_crc(entry)
            good = content_crc(fd, entry.content_offset, entry.content_bytes) == entry.crc
        except MessageDamaged:
            good = False
        if not good:
            end = entry.content_offset + entry.content_bytes
            kept_as = put_aside(self.root, f"message-{entry.id}.eml", fd, entry.content_offset, end)
            self._give_up(entry, "the content does not have its checksum", kept_as)
            raise MessageDamaged(f"{entry.id}: the content does not have its checksum")
        entry.verified = True

    def _give_up(self, entry: Entry, reason: str, kept_as: str) -> None:
        report = DamageReport(self.content_path(entry), reason, kept_as, entry.id)
        if report not in self.damage:
            self.damage.append(report)

    def _expect(self, entry: Entry) -> None:
        if self.entries.get(entry.id) is not entry:
            raise AlreadyGone(f"{entry.id} is finished")

    def record(self, entry: Entry, outcomes: Sequence[Outcome], next_due_s: float) -> None:
        with self.lock:
            self._expect(entry)
            log, states, counters = self.log, entry.states, self.counters
            log.touch(entry)
            keep = len(states) > 1
            for outcome in outcomes:
                state = _NUMBER_OF_RESULT[outcome.result]
                if state and not states[outcome.recipient]:
                    states[outcome.recipient] = state
                    entry.pending -= 1
                    counters[state] += 1
                if state != _DELIVERED:
                    keep = True
            entry.attempts += 1
            entry.next_due_s = next_due_s
            if keep:
                entry.last = self._share(entry.last, outcomes)
            # Not durable before the notice of its success is: else a power cut could leave this and take that.
            write = log.add_later if entry.id in self._own.successes else log.write
            write((_OUTCOME, entry.id, bytes(states), entry.attempts, next_due_s, outcomes if keep else ()))

    def _share(self, last: tuple[Outcome, ...], outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
        """Equal outcomes of many messages are kept once: 100,000 messages for a dead next hop all have the same."""
        if len(outcomes) != 1 or len(last) > 1:
            return merge_outcomes(last, tuple(outcomes))
        one = outcomes[0]
        key = (one.recipient, one.result, one.stage, one.code, one.status, one.text, one.host, one.dsn_passed)
        shared = self._shared.get(key)
        if shared is None:
            if len(self._shared) >= MAX_SHARED_OUTCOMES:
                self._shared.clear()
            shared = self._shared[key] = (one,)
        return merge_outcomes(last, shared)

    def settle(self, entry: Entry, recipients: Iterable[int], state: State) -> None:
        with self.lock:
            self._expect(entry)
            self.log.touch(entry)
            for index in recipients:
                if not entry.states[index]:
                    entry.states[index] = state
                    entry.pending -= 1
                    self.counters[state] += 1
            self.log.write((_SETTLED, entry.id, bytes(entry.states)))

    def finish(self, entry: Entry) -> None:
        with self.lock:
            self._expect(entry)
            if entry.pending:
                raise ValueError(f"{entry.id} has {entry.pending} recipients that are not settled")
            self.log.touch(entry)
            states = bytes(entry.states)
            if entry.id in self._own.awaited_by:
                self.log.add_later((_FINISHED, entry.id, states))
            elif states.count(_DELIVERED) != len(states):  # else its last OUTCOME says it
                self.log.write((_FINISHED, entry.id, states))
            del self.entries[entry.id]
            self.counters[MESSAGES_FINISHED] += 1
            self._drop_content(entry)

    def _drop_content(self, entry: Entry) -> None:
        if entry.place == IN_DEFERRED:
            path = deferred_path(self.root, entry.deferred_dir, entry.id)
            self.sources.retire(path)
            self.log.doom(path)
            self.log.doom(path[:-3] + "json")
            return
        if entry.place == IN_BODY_FILE:
            path = body_path(self.root, entry.body_file)
            self.sources.retire(path)
            self.log.doom(path)
        self.leave_segment(entry)

    def leave_segment(self, entry: Entry) -> None:
        """The entry needs its segment no more."""
        segment = self.segments[entry.segment]
        del segment.live[entry.id]
        if segment.sealed >= 0 and not segment.live:
            self._drop_segment(segment)

    def _drop_segment(self, segment: SegmentState) -> None:
        del self.segments[segment.number]
        path = segment_path(self.root, segment.number)
        self.sources.retire(path)
        self.log.doom(path)

    def mark_delay_notified(self, entry: Entry) -> None:
        self._flag(entry, delay_notified=True)

    def hold(self, entry: Entry) -> None:
        self._flag(entry, held=True)

    def release(self, entry: Entry, next_due_s: float) -> None:
        self._flag(entry, held=False, refused=False, next_due_s=next_due_s, released_s=next_due_s)

    def retry(self, entry: Entry, next_due_s: float) -> None:
        self._flag(entry, write=self.log.add, next_due_s=next_due_s)

    def _flag(
        self, entry: Entry, write: Callable[[tuple[object, ...]], None] | None = None, **changes: bool | float
    ) -> None:
        with self.lock:
            self._expect(entry)
            self.log.touch(entry)
            for name, value in changes.items():
                setattr(entry, name, value)
            flags = entry.held, entry.delay_notified, entry.next_due_s, entry.released_s, entry.refused
            (write or self.log.write)((Kind.FLAGS, entry.id, *flags))

    def remove(self, entry: Entry) -> None:
        with self.lock:
            self.settle(entry, list(entry.waiting()), State.REMOVED)
            self.finish(entry)

    # --- messages wait ----------------------------------------------------------------------------------------------

    def to_defer(self, limit: int) -> list[Entry]:
        return deferral.to_defer(self, limit)

    def defer_to_file(self, entries: Sequence[Entry]) -> list[Entry]:
        return deferral.defer_to_file(self, entries)

    # --- the whole --------------------------------------------------------------------------------------------------

    def commit(self) -> None:
        self.log.commit()

    def ledger(self) -> dict[str, int]:
        return ledger_of(self.counters, sum(entry.pending for entry in self.entries.values()), len(self.entries))

    def health(self) -> Health:
        trouble = self.log.trouble or self._names_trouble or self._disk.trouble()
        if not trouble and len(self.entries) >= self.config.max_messages:
            trouble = f"{len(self.entries)} messages are in the queue (queue.max_messages)"
        return Health(not trouble, trouble)

    def close(self) -> None:
        try:
            self.commit()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let the spool go as a crash would: close descriptors, write nothing."""
        self._own.close()
        self.sources.close()
        self.log.close()
        if self.lock_fd >= 0:
            os.close(self.lock_fd)
            self.lock_fd = -1
