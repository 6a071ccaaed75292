"""What the lines of the journal mean: from lines to the state of the queue.

Pure: it sees lines, not files; recovery, fsck and the tests share it. A line may be missing (damage, or a power cut that kept
later lines only), so each states a result, never a difference: states of all recipients, not what changed. A message that is
named before it was introduced becomes a stub with what is known. Counters are derived while replaying, from the same lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from gatepost.model import Outcome
from gatepost.spool.entry import IN_BODY_FILE, IN_DEFERRED, IN_SEGMENT, NOWHERE, Entry, State
from gatepost.spool.journal import Gap, Kind

VERSION = 1

# Counters, in recipients: accepted, then one for each State but PENDING, then these.
ACCEPTED = 0
LOST = 6
MESSAGES_ACCEPTED = 7
MESSAGES_FINISHED = 8
COUNTERS = 9

_ENTRY = int(Kind.ENTRY)


def ledger_of(counters: list[int], queued: int, messages_queued: int) -> dict[str, int]:
    """The ledger, from the counters and what lies in the queue (`queued` in recipients)."""
    return {
        "accepted": counters[ACCEPTED],
        "delivered": counters[State.DELIVERED],
        "bounced": counters[State.FAILED],
        "expired": counters[State.EXPIRED],
        "discarded": counters[State.DISCARDED] + counters[State.REMOVED],
        "removed_by_operator": counters[State.REMOVED],
        "lost_to_damage": counters[LOST],
        "queued": queued,
        "messages_accepted": counters[MESSAGES_ACCEPTED],
        "messages_finished": counters[MESSAGES_FINISHED],
        "messages_queued": messages_queued,
    }


class SegmentState:
    """A segment as the journal knows it: who appends, its sealed length (-1: open), and how far it was looked at."""

    __slots__ = ("known_end", "live", "number", "owner", "sealed")

    def __init__(self, number: int, owner: str, sealed: int = -1, known_end: int = 0) -> None:
        self.number = number
        self.owner = owner
        self.sealed = sealed
        self.known_end = known_end
        self.live: dict[str, Entry] = {}  # in the order of their offsets


def entry_line(entry: Entry) -> tuple[object, ...]:
    """The line that holds a whole entry; the envelope only if no segment has it."""
    envelope = entry.packed_envelope if entry.place == IN_DEFERRED else b""
    flags = entry.held | entry.delay_notified << 1 | entry.refused << 2
    return (
        _ENTRY, entry.id, entry.place, entry.segment, entry.offset, entry.content_offset, entry.content_bytes,
        entry.body_file, entry.deferred_dir, entry.crc, bytes(entry.states), entry.attempts, entry.next_due_s,
        entry.received_s, flags, entry.noticed, entry.last, envelope, entry.released_s,
    )  # fmt: skip


class Replay:
    """Applies lines in order; see the attributes for what comes of it."""

    def __init__(self) -> None:
        self.counters = [0] * COUNTERS
        self.next_segment = 1
        self.next_body = 1
        self.segments: dict[int, SegmentState] = {}
        self.bodies: dict[int, str] = {}  # handed out, not yet named by a message: number -> owner
        self.gone: set[str] = set()  # paths below the spool that were to be removed
        self.live: dict[str, Entry] = {}
        self.finished: set[str] = set()
        # FLAGS of messages of our own whose TAKEN is a line behind, or was lost
        self.early: dict[str, tuple[bool, bool, float, float]] = {}
        self.lines = 0
        self.complete = False  # the snapshot at the beginning was whole
        self.unknown = 0  # lines that made no sense
        self._shared: dict[bytes, tuple[Outcome, ...]] = {}
        self._handlers: dict[Kind, Callable[..., None]] = {
            Kind.BEGIN: self._begin,
            Kind.END: self._end,
            Kind.TAKEN: self._taken,
            Kind.OUTCOME: self._outcome,
            Kind.SETTLED: self._settled,
            Kind.FINISHED: self._finished,
            Kind.DEFERRED: self._deferred,
            Kind.NOTICE: self._notice,
            Kind.FLAGS: self._flags,
            Kind.OPENED: self._opened,
            Kind.SEALED: self._sealed,
            Kind.BODIES: self._bodies,
            Kind.KNOWN: self._known,
            Kind.ENTRY: self._entry,
            Kind.LOST: self._lost,
        }

    def apply(self, lines: Iterable[list[Any] | Gap], *, base: bool) -> list[Gap]:
        """Apply the lines of one file. `base`: its snapshot counts; otherwise it was never completed, and is passed over."""
        gaps = []
        skipped = () if base else (Kind.BEGIN, Kind.END, Kind.ENTRY)
        for line in lines:
            if isinstance(line, Gap):
                gaps.append(line)
                continue
            kind = line[0]
            if kind in skipped:
                continue
            self.lines += 1
            try:
                self._handlers[kind](*line[1:])
            except (KeyError, TypeError, ValueError, IndexError):
                self.unknown += 1
        return gaps

    def _begin(
        self, version: int, counters: list[int], next_segment: int, next_body: int, segments: list[list[Any]],
        bodies: list[tuple[int, str]], gone: list[str], *_: object,
    ) -> None:  # fmt: skip
        if version != VERSION:
            raise ValueError(f"journal version {version}")
        self.counters = [*counters, *[0] * (COUNTERS - len(counters))]
        self.next_segment = next_segment
        self.next_body = next_body
        self.segments = {row[0]: SegmentState(*row[:4]) for row in segments}
        self.bodies = {row[0]: row[1] for row in bodies}
        self.gone = set(gone)

    def _end(self, *_: object) -> None:
        self.complete = True

    def _entry(
        self, id: str, place: int, segment: int, offset: int, content_offset: int, content_bytes: int, body_file: int,
        deferred_dir: int, crc: int, states: bytes, attempts: int, next_due_s: float, received_s: float, flags: int,
        noticed: bytes, last: list[Any], envelope: bytes, released_s: float = 0.0, *_: object,
    ) -> None:  # fmt: skip
        entry = Entry(envelope, id, received_s, len(states))
        entry.place, entry.segment, entry.offset = place, segment, offset
        entry.content_offset, entry.content_bytes = content_offset, content_bytes
        entry.body_file, entry.deferred_dir, entry.crc = body_file, deferred_dir, crc
        entry.states = bytearray(states)
        entry.pending = states.count(State.PENDING)
        entry.attempts, entry.next_due_s = attempts, next_due_s
        entry.held, entry.delay_notified, entry.refused = bool(flags & 1), bool(flags & 2), bool(flags & 4)
        entry.noticed, entry.released_s = noticed, released_s
        entry.verified = False
        if last:
            entry.last = self._share(last)
        self.live[id] = entry
        self._finish_if_delivered(entry)

    def _share(self, last: list[Any]) -> tuple[Outcome, ...]:
        outcomes = msgspec.convert(last, tuple[Outcome, ...])
        if len(outcomes) != 1:
            return outcomes
        key = msgspec.msgpack.encode(outcomes[0])
        return self._shared.setdefault(key, outcomes)

    def _introduce(self, id: str, recipients: int, received_s: float) -> Entry:
        entry = Entry(b"", id, received_s, recipients)
        entry.place = NOWHERE
        entry.verified = False
        self.live[id] = entry
        self.counters[ACCEPTED] += recipients
        self.counters[MESSAGES_ACCEPTED] += 1
        return entry

    def _taken(
        self, id: str, segment: int, offset: int, end: int, content_offset: int, content_bytes: int, body_file: int,
        recipients: int, received_s: float, held: bool = False, refused: bool = False, *_: object,
    ) -> None:  # fmt: skip
        state = self.segments.get(segment)
        if state is None:
            state = self.segments[segment] = SegmentState(segment, "")
            self.next_segment = max(self.next_segment, segment + 1)
        if offset == state.known_end:  # else a line before this one is missing: recovery must look from there on
            state.known_end = end
        self.bodies.pop(body_file, None)
        self.next_body = max(self.next_body, body_file + 1)
        if id in self.finished:
            return
        entry = self.live.get(id) or self._introduce(id, recipients, received_s)
        if entry.place != NOWHERE:
            return
        entry.place = IN_BODY_FILE if body_file else IN_SEGMENT
        entry.segment, entry.offset, entry.body_file = segment, offset, body_file
        entry.content_offset, entry.content_bytes, entry.received_s = content_offset, content_bytes, received_s
        entry.held, entry.refused = bool(held), bool(refused)  # its first line; a release is a line behind it

    def _change(self, id: str, states: bytes) -> Entry | None:
        """Bring the states of a message up to date; None if it is finished."""
        if id in self.finished:
            return None
        entry = self.live.get(id) or self._introduce(id, len(states), 0.0)
        for index, state in enumerate(states):
            if state and not entry.states[index]:
                self.counters[state] += 1
                entry.states[index] = state
                entry.pending -= 1
        return entry

    def _outcome(
        self, id: str, states: bytes, attempts: int, next_due_s: float, outcomes: list[Any], *_: object
    ) -> None:
        entry = self._change(id, states)
        if entry is None:
            return
        entry.attempts = attempts
        entry.next_due_s = next_due_s
        if entry.pending or len(states) > 1 or states[0] != State.DELIVERED:
            entry.last = merge_outcomes(entry.last, self._share(outcomes))
        self._finish_if_delivered(entry)

    def _finish_if_delivered(self, entry: Entry) -> None:
        if not entry.pending and entry.states.count(State.DELIVERED) == len(entry.states):
            self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        del self.live[entry.id]
        self.finished.add(entry.id)
        self.counters[MESSAGES_FINISHED] += 1

    def _settled(self, id: str, states: bytes, *_: object) -> None:
        self._change(id, states)

    def _finished(self, id: str, states: bytes, *_: object) -> None:
        entry = self._change(id, states)
        if entry is not None:
            self._forget(entry)

    def _deferred(self, directory: int, rows: list[list[Any]], *_: object) -> None:
        for id, crc, content_bytes, states, envelope, *_rest in rows:
            entry = self._change(id, states)
            if entry is None:
                continue
            entry._envelope = envelope
            if entry.place == NOWHERE:
                entry.take_from_envelope()
            entry.place, entry.deferred_dir, entry.crc = IN_DEFERRED, directory, crc
            entry.content_offset, entry.content_bytes = 0, content_bytes
            entry.segment = entry.offset = entry.body_file = 0

    def _notice(self, about: str, noticed: bytes, *_: object) -> None:
        entry = self.live.get(about)
        if entry is not None:
            entry.noticed = noticed

    def _flags(
        self, id: str, held: bool, delay_notified: bool, next_due_s: float, released_s: float = 0.0,
        refused: bool = False, *_: object,
    ) -> None:  # fmt: skip
        entry = self.live.get(id)
        if entry is not None:
            self.early.pop(id, None)
            entry.held, entry.delay_notified, entry.next_due_s = bool(held), bool(delay_notified), next_due_s
            entry.released_s, entry.refused = released_s, bool(refused)
        elif id not in self.finished:
            self.early[id] = (bool(held), bool(delay_notified), next_due_s, released_s)

    def settle_early(self, entries: dict[str, Entry]) -> None:
        """What the operator said of a message of our own before the line that introduces it was written (`add_later`)."""
        for id, (held, delay_notified, next_due_s, released_s) in self.early.items():
            if (entry := entries.get(id)) is None:
                continue
            entry.held, entry.delay_notified, entry.released_s = held, delay_notified, released_s
            entry.refused = entry.refused and held
            if not entry.attempts:
                entry.next_due_s = next_due_s

    def _opened(self, segment: int, owner: str, *_: object) -> None:
        self.segments[segment] = SegmentState(segment, owner)
        self.next_segment = max(self.next_segment, segment + 1)

    def _sealed(self, segment: int, length: int, *_: object) -> None:
        state = self.segments.setdefault(segment, SegmentState(segment, ""))
        state.sealed = length

    def _known(self, segment: int, offset: int, end: int, *_: object) -> None:
        state = self.segments.setdefault(segment, SegmentState(segment, ""))
        if offset == state.known_end:
            state.known_end = end

    def _bodies(self, owner: str, numbers: list[int], *_: object) -> None:
        for number in numbers:
            self.bodies[number] = owner
            self.next_body = max(self.next_body, number + 1)

    def _lost(self, id: str, pending: int, *_: object) -> None:
        entry = self.live.get(id)
        if entry is not None:
            self.counters[LOST] += pending
            self._forget(entry)


def merge_outcomes(old: tuple[Outcome, ...], new: tuple[Outcome, ...]) -> tuple[Outcome, ...]:
    """The last outcome of each recipient: those of `new`, and of `old` for the others."""
    if len(new) >= len(old) and (not old or len(old) == 1 and old[0].recipient == new[0].recipient):
        return new
    fresh = {outcome.recipient for outcome in new}
    return (*(outcome for outcome in old if outcome.recipient not in fresh), *new)
