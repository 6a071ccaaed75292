"""Checks a spool that nobody uses: every file has a row in the state table, references agree, checksums fit.

It finds the state as recovery does, from the same journal, but changes nothing; with `repair` it then lets recovery run, and
puts aside what has no place. It reads all of the content, which recovery does not.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import msgspec

from gatepost.config import schema
from gatepost.spool.deferred import parse_description
from gatepost.spool.embedded import JournalSpool
from gatepost.spool.entry import IN_BODY_FILE, IN_DEFERRED, IN_SEGMENT, Entry
from gatepost.spool.layout import body_path, deferred_path, lock_spool, segment_path
from gatepost.spool.recovery import replay_journal
from gatepost.spool.replay import Replay
from gatepost.spool.segment import Damage, Found, content_crc, read_record, scan_segment
from gatepost.spool.spool import Recovery
from gatepost.spool.states import find_state


class Finding(msgspec.Struct):
    """One thing that is not as it should be. `serious`: a message may be lost or come twice."""

    path: str
    problem: str
    serious: bool
    message_id: str = ""


class Report(msgspec.Struct):
    """What fsck saw. `clean` is true if nothing is serious."""

    files: dict[str, int] = {}  # row of the state table -> number of files
    live: int = 0
    unknown_to_journal: int = 0  # whole messages that recovery will take in
    content_bytes: int = 0
    findings: list[Finding] = []
    repaired: list[str] = []

    @property
    def is_clean(self) -> bool:
        return not any(finding.serious for finding in self.findings)

    def lines(self) -> list[str]:
        """The report for people."""
        head = [f"{count:8d} {name}" for name, count in sorted(self.files.items())]
        head.append(f"{self.live} live messages, {self.unknown_to_journal} more that recovery will take in")
        found = [
            f"{'DAMAGE' if finding.serious else 'note'}: {finding.path}: {finding.problem}"
            + (f" (message {finding.message_id})" if finding.message_id else "")
            for finding in self.findings
        ]
        return [*head, *found, *self.repaired, "clean" if self.is_clean else "not clean"]


def fsck(path: str, *, repair: bool = False) -> Report:
    """Check the spool at `path`. SpoolRefused if a queue uses it; OSError if it cannot be read."""
    root = path.rstrip("/")
    lock = lock_spool(root)
    try:
        report = Report()
        check = _Check(root, report)
        check.run()
    finally:
        os.close(lock)
    if repair:
        _repair(root, check.strangers, report)
    return report


class _Check:
    """One pass over a spool."""

    def __init__(self, root: str, report: Report) -> None:
        self.root = root
        self.report = report
        self.strangers: list[str] = []
        self._paths: set[str] = set()
        self._used: set[str] = set()

    def run(self) -> None:
        self._list()
        replay = self._replay()
        self.report.live = len(replay.live)
        for entry in replay.live.values():
            self._check_entry(entry)
        self._check_segments(replay)
        self._check_orphans(replay)

    def _find(self, path: str, problem: str, serious: bool, message_id: str = "") -> None:
        self.report.findings.append(Finding(path, problem, serious, message_id))

    def _list(self) -> None:
        for directory, _, names in os.walk(self.root):
            for name in names:
                path = os.path.join(directory, name)[len(self.root) + 1 :]
                state = find_state(path)
                if state is None:
                    self.strangers.append(path)
                    self._find(path, "no file of this name belongs here", False)
                    continue
                self._paths.add(path)
                self.report.files[state.name] = self.report.files.get(state.name, 0) + 1

    def _replay(self) -> Replay:
        found = Recovery()
        replay, _ = replay_journal(self.root, found, keep=False)
        for damage in found.damage:
            self._find(damage.where, damage.reason, True)
        if not found.journal_files:
            self._find("journal", "there is no journal", bool(self._paths - {"lock"}))
        return replay

    def _relative(self, path: str) -> str:
        return path[len(self.root) + 1 :]

    def _check_entry(self, entry: Entry) -> None:
        if entry.place == IN_DEFERRED:
            path = deferred_path(self.root, entry.deferred_dir, entry.id)
            self._used |= {self._relative(path), self._relative(path[:-3] + "json")}
            self._check_content(path, 0, entry.content_bytes, entry.crc, entry.id)
        elif entry.place in (IN_SEGMENT, IN_BODY_FILE):
            path = segment_path(self.root, entry.segment)
            try:
                with open(path, "rb") as file:
                    record = read_record(file.fileno(), entry.offset, os.fstat(file.fileno()).st_size, verify=False)
            except FileNotFoundError:
                self._find(self._relative(path), "the segment of a live message is missing", True, entry.id)
                return
            if isinstance(record, Damage) or record.envelope.id != entry.id:
                self._find(self._relative(path), f"no record of the message at {entry.offset}", True, entry.id)
                return
            where = body_path(self.root, record.body_file) if record.body_file else path
            self._used |= {self._relative(path), self._relative(where)}
            self._check_content(where, record.content_offset, record.content_bytes, record.crc, entry.id)
        else:
            self._find("journal", "the journal names a message without a place", True, entry.id)

    def _check_content(self, path: str, offset: int, count: int, crc: int, message_id: str) -> None:
        self.report.content_bytes += count
        try:
            with open(path, "rb") as file:
                if content_crc(file.fileno(), offset, count) == crc:
                    return
            problem = "the content does not have its checksum"
        except FileNotFoundError:
            problem = "the file with the content is missing"
        self._find(self._relative(path), problem, True, message_id)

    def _check_segments(self, replay: Replay) -> None:
        """What lies in segments behind the journal's knowledge."""
        for path in sorted(self._paths):
            if not path.startswith("segments/") or path in replay.gone:
                continue
            number = int(path[9:].partition(".")[0])
            state = replay.segments.get(number)
            start = state.known_end if state else 0
            end = state.sealed if state and state.sealed >= 0 else None
            with open(f"{self.root}/{path}", "rb") as file:
                for piece in scan_segment(file.fileno(), start, end):
                    self._check_piece(path, piece, replay)

    def _check_piece(self, path: str, piece: Found | Damage, replay: Replay) -> None:
        if isinstance(piece, Damage):
            self._find(path, f"bytes {piece.offset} to {piece.end}: {piece.reason}", not piece.torn)
            return
        message_id = piece.envelope.id
        if message_id in replay.live or message_id in replay.finished:
            return
        self.report.unknown_to_journal += 1
        self._used.add(path)
        if piece.body_file:
            body = body_path(self.root, piece.body_file)
            self._used.add(self._relative(body))
            self._check_content(body, 0, piece.content_bytes, piece.crc, message_id)

    def _check_orphans(self, replay: Replay) -> None:
        held = {self._relative(body_path(self.root, number)) for number in replay.bodies}
        for path in sorted(self._paths - self._used):
            if path.startswith("bodies/"):
                problem = "handed out, and no message" if path in held else "no message names it"
                self._find(path, f"{problem}: recovery removes it", False)
            elif path.startswith("deferred/"):
                self._check_deferred_orphan(path, replay)

    def _check_deferred_orphan(self, path: str, replay: Replay) -> None:
        message_id = path[12:].partition(".")[0]
        if message_id in replay.live or message_id in replay.finished or path in replay.gone:
            self._find(path, "left of a move or a removal: recovery removes it", False, message_id)
        elif path.endswith(".json"):
            try:
                with open(f"{self.root}/{path}", "rb") as file:
                    entry = parse_description(file.read())
            except ValueError as error:
                self._find(path, str(error), True, message_id)
                return
            self.report.unknown_to_journal += 1
            self._find(path, "the journal does not know this message: recovery takes it in", True, message_id)
            self._check_content(f"{self.root}/{path[:-4]}eml", 0, entry.content_bytes, entry.crc, message_id)


def _repair(root: str, strangers: list[str], report: Report) -> None:
    """Put aside what has no place, then recover: that mends all that can be mended."""
    for path in strangers:
        aside = "damaged/" + path.replace("/", "-")
        os.rename(f"{root}/{path}", f"{root}/{aside}")
        report.repaired.append(f"{path} moved to {aside}")
    with _as_owner(f"{root}/journal"):
        spool = JournalSpool(root, config=schema.Queue())
        found = spool.recover()
        for owner in found.owners:
            spool.owner_gone(owner)  # nothing runs: whoever it was is dead
        spool.close()
    report.repaired.append(f"recovered {found.live} messages, {found.never_told} of them unknown to the journal")
    report.repaired += [
        f"{damage.where}: {damage.reason}, kept as {damage.kept_as or 'nothing'}" for damage in found.damage
    ]


@contextlib.contextmanager
def _as_owner(path: str) -> Iterator[None]:
    """Started as root: act as the owner of the spool, so that the queue can open what is made."""
    owner = os.stat(path)
    if os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    gid = os.getegid()
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
