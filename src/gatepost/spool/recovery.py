"""Coming back: from what a crash left on disk to the live entries.

Order: journal (its newest whole snapshot and every line after it), then segments (live records by their offsets, and whatever
lies behind what the journal knew), then names of deferred and body files. Files of live deferred messages are not opened: the
journal has their envelopes. Content that was known before the crash is verified when it is next read; content found behind the
journal's knowledge is verified here, since it may have been written in part. What cannot be used is copied to damaged/.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from gatepost.spool.deferred import list_deferred, read_description
from gatepost.spool.entry import IN_BODY_FILE, IN_DEFERRED, IN_SEGMENT, NOWHERE, Entry
from gatepost.spool.errors import SpoolError
from gatepost.spool.journal import Gap, Kind, read_lines
from gatepost.spool.layout import (
    BODY_NAME,
    JOURNAL_NAME,
    SEGMENT_NAME,
    body_path,
    deferred_path,
    disk_error,
    journal_path,
    lock_spool,
    numbered,
    put_aside,
    segment_path,
    sync_directory,
)
from gatepost.spool.own import OWNER
from gatepost.spool.replay import ACCEPTED, LOST, MESSAGES_ACCEPTED, MESSAGES_FINISHED, Replay, SegmentState
from gatepost.spool.segment import Damage, Found, content_crc, read_record, scan_segment
from gatepost.spool.spool import DamageReport, Recovery

if TYPE_CHECKING:
    from gatepost.spool.embedded import JournalSpool


def recover(spool: JournalSpool) -> Recovery:
    """Fill an empty spool object from disk."""
    started = time.monotonic()
    result = Recovery()
    spool.lock_fd = lock_spool(spool.root)
    try:
        replay, last_number = replay_journal(spool.root, result)
        _adopt(spool, replay)
        leftovers = _Leftovers(spool, replay, result)
        _recover_segments(spool, leftovers, result)
        _recover_deferred(spool, leftovers, result)
        _recover_bodies(spool, leftovers)
        replay.settle_early(spool.entries)
        leftovers.remove()
        spool.log.start(last_number)
        for number in [n for n, state in spool.segments.items() if state.owner in (OWNER, "") and state.sealed < 0]:
            spool.seal(number, spool.segments[number].known_end)
        spool.commit()
    except OSError as error:
        raise disk_error(error, f"recovery of {spool.root or '/'}") from error
    result.live = len(spool.entries)
    result.deferred = sum(entry.place == IN_DEFERRED for entry in spool.entries.values())
    result.from_segments = result.live - result.deferred
    owners = {state.owner for state in spool.segments.values() if state.sealed < 0} | set(spool.bodies.values())
    result.owners = sorted(owners - {OWNER, ""})
    result.unreported = [entry.id for entry in spool.entries.values() if entry.unreported()]
    result.seconds = time.monotonic() - started
    return result


def replay_journal(root: str, result: Recovery, keep: bool = True) -> tuple[Replay, int]:
    """Replay the newest file with a whole snapshot, and the files after it; and the number of the last file there is.

    Damage goes to `result`, and, if `keep`, to damaged/.
    """
    numbers = numbered(root, "journal", JOURNAL_NAME)
    grades = {number: _grade_snapshot(root, number) for number in numbers}
    base = max(numbers, key=lambda number: (grades[number], number if grades[number] else -number), default=0)
    replay = Replay()
    for number in numbers:
        if number < base:
            continue
        result.journal_files += 1
        path = journal_path(root, number)
        with open(path, "rb") as file:
            gaps = replay.apply(read_lines(file.read()), base=number == base)
            for gap in gaps:
                if gap.torn and number == numbers[-1]:
                    result.torn_tails += 1
                    continue
                name = f"journal-{number:08d}-{gap.offset}.bin"
                kept_as = put_aside(root, name, file.fileno(), gap.offset, gap.end) if keep else ""
                result.damage.append(DamageReport(f"{path} at {gap.offset}", "lines of the journal", kept_as))
    if replay.unknown:
        result.damage.append(DamageReport(f"{root}/journal", f"{replay.unknown} lines of an unknown form"))
    result.journal_lines = replay.lines
    return replay, numbers[-1] if numbers else 0


def _grade_snapshot(root: str, number: int) -> int:
    """2: the snapshot is whole. 1: it was, but is damaged now, or its end reached the disk before the rest. 0: it has no end."""
    grade = 2
    with open(journal_path(root, number), "rb") as file:
        for line in read_lines(file.read()):
            if isinstance(line, Gap):
                grade = 1
            elif line[0] == Kind.END:
                return grade
    return 0


def _adopt(spool: JournalSpool, replay: Replay) -> None:
    spool.entries.update(replay.live)
    spool.counters[:] = replay.counters
    spool.segments.update(replay.segments)
    spool.bodies.update(replay.bodies)
    spool.next_segment = max([replay.next_segment, *(n + 1 for n in numbered(spool.root, "segments", SEGMENT_NAME))])
    spool.next_body = max([replay.next_body, *(n + 1 for n in numbered(spool.root, "bodies", BODY_NAME))])


class _Leftovers:
    """Files that the journal wanted removed, or that nothing refers to."""

    def __init__(self, spool: JournalSpool, replay: Replay, result: Recovery) -> None:
        self.root = spool.root
        self.gone = replay.gone
        self.finished = replay.finished
        self.result = result
        self._paths: list[str] = []

    def is_gone(self, path: str) -> bool:
        return path[len(self.root) + 1 :] in self.gone

    def add(self, path: str) -> None:
        self._paths.append(path)

    def remove(self) -> None:
        """Durably: the next journal does not know of them any more."""
        for path in self._paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        for directory in sorted({os.path.dirname(path) for path in self._paths}):
            sync_directory(directory)


def _recover_segments(spool: JournalSpool, leftovers: _Leftovers, result: Recovery) -> None:
    present = set(numbered(spool.root, "segments", SEGMENT_NAME))
    wanted: dict[int, list[Entry]] = {}
    for entry in spool.entries.values():
        if entry.place not in (IN_DEFERRED, NOWHERE):
            wanted.setdefault(entry.segment, []).append(entry)
    for number in sorted(present | set(spool.segments) | set(wanted)):
        path = segment_path(spool.root, number)
        if number not in present:
            spool.segments.pop(number, None)
            for entry in wanted.get(number, []):
                result.damage.append(DamageReport(path, "the segment of a live message is missing", "", entry.id))
                entry.place = NOWHERE
        elif leftovers.is_gone(path):
            leftovers.add(path)
        else:
            _recover_segment(spool, number, wanted.get(number, []), leftovers, result)


def _recover_segment(
    spool: JournalSpool, number: int, wanted: list[Entry], leftovers: _Leftovers, result: Recovery
) -> None:
    state = spool.segments.setdefault(number, SegmentState(number, ""))
    _read_live_records(spool, state, wanted, result)
    sync_segment(spool, number)
    end = state.sealed if state.sealed >= 0 else 1 << 62
    entries, reports, torn = look_for(spool, state, end, acknowledged=state.sealed >= 0, finished=leftovers.finished)
    result.never_told += len(entries)
    result.torn_tails += torn
    result.damage += reports
    if not state.live and (state.sealed >= 0 or state.owner in (OWNER, "")):
        del spool.segments[number]
        leftovers.add(segment_path(spool.root, number))


def _read_live_records(spool: JournalSpool, state: SegmentState, wanted: list[Entry], result: Recovery) -> None:
    """Give the entries that the journal knows their envelopes; those without one stay without a place."""
    path = segment_path(spool.root, state.number)
    with open(path, "rb") as file:
        fd = file.fileno()
        size = os.fstat(fd).st_size
        for entry in sorted(wanted, key=lambda entry: entry.offset):
            record = read_record(fd, entry.offset, size, verify=False) if entry.offset < size else None
            if isinstance(record, Found) and record.envelope.id == entry.id:
                entry._envelope = record.envelope
                entry.crc = record.crc
                state.live[entry.id] = entry
                continue
            end = min(size, max(entry.offset, entry.content_offset) + entry.content_bytes)
            kept_as = put_aside(spool.root, f"segment-{state.number:08d}-{entry.offset}.bin", fd, entry.offset, end)
            report = DamageReport(f"{path} at {entry.offset}", "the record of a known message", kept_as, entry.id)
            result.damage.append(report)
            entry.place = NOWHERE
            if entry.body_file:
                with contextlib.suppress(OSError):
                    os.link(body_path(spool.root, entry.body_file), f"{spool.root}/damaged/message-{entry.id}.eml")


def sync_segment(spool: JournalSpool, number: int) -> int:
    """Make durable what is there, whoever wrote it, and return the length."""
    path = segment_path(spool.root, number)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.fdatasync(fd)
            return os.fstat(fd).st_size
        finally:
            os.close(fd)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise disk_error(error, path) from error


def look_for(
    spool: JournalSpool,
    state: SegmentState,
    end: int,
    *,
    acknowledged: bool,
    finished: AbstractSet[str] = frozenset(),
) -> tuple[list[Entry], list[DamageReport], int]:
    """Take in the records of a segment from its known end up to `end`; returns entries, damage, and the torn tails seen.

    `acknowledged` says that everything there was: then a message whose content is damaged becomes an entry all the same, so that
    its sender hears of it.
    """
    entries: list[Entry] = []
    reports: list[DamageReport] = []
    torn = 0
    path = segment_path(spool.root, state.number)
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; the with statement would hide which open failed
    except FileNotFoundError:
        return [], [DamageReport(path, "the segment is missing")], 0
    with file:
        fd = file.fileno()
        for piece in scan_segment(fd, state.known_end, end):
            if isinstance(piece, Found) and not _has_body(spool, piece, finished):
                piece = Damage(piece.offset, piece.end, "its body file does not have its checksum")
            if isinstance(piece, Found) and _is_other(spool, piece, state):
                piece = Damage(piece.offset, piece.end, f"another message has its id, {piece.envelope.id}")
            if isinstance(piece, Found):
                entry = _take_in(spool, piece, state, finished)
            elif piece.torn and not acknowledged:
                torn += 1  # its receiver may live, and be in the middle of it: the known end stays before it
                break
            else:
                name = f"segment-{state.number:08d}-{piece.offset}.bin"
                kept_as = put_aside(spool.root, name, fd, piece.offset, piece.end)
                message_id = piece.envelope.id if piece.envelope else ""
                reports.append(DamageReport(f"{path} at {piece.offset}", piece.reason, kept_as, message_id))
                entry = _despite_damage(spool, fd, piece, state) if piece.envelope and acknowledged else None
                if entry is None:
                    spool.log.add((Kind.KNOWN, state.number, piece.offset, piece.end))
            if entry is not None:
                entry.verified = isinstance(piece, Found)
                entries.append(entry)
            state.known_end = max(state.known_end, piece.end)
    if acknowledged and state.known_end < end:
        reports.append(DamageReport(path, f"the segment ends at {state.known_end}, but {end} bytes were acknowledged"))
        state.known_end = end
    return entries, reports, torn


def _take_in(spool: JournalSpool, found: Found, state: SegmentState, finished: AbstractSet[str]) -> Entry | None:
    """The entry of a good record, or None if its message is known."""
    known = spool.entries.get(found.envelope.id)
    if known is None:
        return None if found.envelope.id in finished else spool.admit_found(found, state)
    if known.place != NOWHERE:
        return None
    # The journal named the message, but the line with its place was lost: here it is.
    known._envelope = found.envelope
    known.take_from_envelope()
    known.place = IN_BODY_FILE if found.body_file else IN_SEGMENT
    known.segment, known.offset, known.body_file, known.crc = state.number, found.offset, found.body_file, found.crc
    known.content_offset, known.content_bytes = found.content_offset, found.content_bytes
    state.live[known.id] = known
    return known


def _is_other(spool: JournalSpool, found: Found, state: SegmentState) -> bool:
    """Whether a live message of another record has the id of this one: no receiver gives one twice, but a lost message must be told of."""
    known = spool.entries.get(found.envelope.id)
    is_elsewhere = known is not None and (known.segment, known.offset) != (state.number, found.offset)
    return is_elsewhere and known.place in (IN_SEGMENT, IN_BODY_FILE)  # type: ignore[union-attr]


def _despite_damage(spool: JournalSpool, fd: int, damage: Damage, state: SegmentState) -> Entry | None:
    record = read_record(fd, damage.offset, damage.end, verify=False)
    return spool.admit_found(record, state) if isinstance(record, Found) else None


def _has_body(spool: JournalSpool, found: Found, finished: AbstractSet[str]) -> bool:
    """Whether the content of a new message is whole: of its body file and its record, the record may be durable first."""
    known = spool.entries.get(found.envelope.id)
    if not found.body_file or found.envelope.id in finished or (known is not None and known.place != NOWHERE):
        return True
    try:
        with open(body_path(spool.root, found.body_file), "rb") as file:
            return content_crc(file.fileno(), 0, found.content_bytes) == found.crc
    except FileNotFoundError:
        return False


def _recover_deferred(spool: JournalSpool, leftovers: _Leftovers, result: Recovery) -> None:
    missing = {entry.id for entry in spool.entries.values() if entry.place == IN_DEFERRED}
    for directory, message_id, kinds in list_deferred(spool.root):
        entry = spool.entries.get(message_id)
        eml = deferred_path(spool.root, directory, message_id)
        if entry is not None and entry.place == IN_DEFERRED and entry.deferred_dir == directory:
            if "eml" in kinds:
                missing.discard(message_id)
        elif entry is not None and entry.place == NOWHERE and kinds == {"eml", "json"}:
            _take_over(spool, entry, directory, result)
        elif entry is not None or message_id in leftovers.finished or leftovers.is_gone(eml) or "eml" not in kinds:
            leftovers.add(eml)
            leftovers.add(eml[:-3] + "json")
        else:
            _adopt_unknown(spool, directory, message_id, result)
    for message_id in sorted(missing):
        entry = spool.entries[message_id]
        where = deferred_path(spool.root, entry.deferred_dir, message_id)
        result.damage.append(DamageReport(where, "the file of a deferred message is missing", "", message_id))
    _give_up_nowhere(spool, result)


def _take_over(spool: JournalSpool, entry: Entry, directory: int, result: Recovery) -> None:
    """The message has no readable record, but a deferred file that the journal does not tell of."""
    try:
        described = read_description(spool.root, directory, entry.id)
    except SpoolError as error:
        result.damage.append(DamageReport(str(error), "the description of a deferred message", "", entry.id))
        return
    entry._envelope = described.packed_envelope
    if not entry.received_s:
        entry.take_from_envelope()
    entry.place, entry.deferred_dir, entry.crc = IN_DEFERRED, directory, described.crc
    entry.content_offset, entry.content_bytes = 0, described.content_bytes
    entry.segment = entry.offset = entry.body_file = 0


def _adopt_unknown(spool: JournalSpool, directory: int, message_id: str, result: Recovery) -> None:
    """A deferred message that the journal does not know: the journal lost it. Better delivered twice than not at all."""
    path = deferred_path(spool.root, directory, message_id)
    try:
        entry = read_description(spool.root, directory, message_id)
    except SpoolError as error:
        result.damage.append(DamageReport(path, f"deferred, but without a usable description: {error}", "", message_id))
        return
    spool.entries[message_id] = entry
    spool.counters[ACCEPTED] += entry.pending
    spool.counters[MESSAGES_ACCEPTED] += 1
    result.damage.append(DamageReport(path, "the journal did not know this message: it goes on", "", message_id))


def _give_up_nowhere(spool: JournalSpool, result: Recovery) -> None:
    """Messages that the journal names and no file holds: say so, and count them."""
    for entry in [entry for entry in spool.entries.values() if entry.place == NOWHERE]:
        result.damage.append(DamageReport(f"{spool.root}/segments", "no file holds this message", "", entry.id))
        spool.counters[LOST] += entry.pending
        spool.counters[MESSAGES_FINISHED] += 1
        del spool.entries[entry.id]


def _recover_bodies(spool: JournalSpool, leftovers: _Leftovers) -> None:
    """Body files that no message names go, unless they are in the hands of a receiver that may live."""
    named = {entry.body_file for entry in spool.entries.values() if entry.body_file}
    present = set(numbered(spool.root, "bodies", BODY_NAME))
    for number in list(spool.bodies):
        if number in named or number not in present or not spool.bodies[number]:
            del spool.bodies[number]
    for number in present - named - set(spool.bodies):
        leftovers.add(body_path(spool.root, number))
