"""A spool that an older version left: its segments, journal and deferred files have fewer fields, and nothing of it is lost.

The structs and lines here are those of the first durable version, written down; they are never brought up to date.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from zlib import crc32

import msgspec
import pytest
from spool_bed import DELIVERED, assert_balanced, content_of, make_spool, open_spool

from gatepost.spool.fsck import fsck
from gatepost.spool.journal import JournalFile, Kind
from gatepost.spool.segment import build_body_record, build_record

CONTENT = b"Received: from a by b\r\nSubject: old\r\n\r\ntext\r\n"
BEGIN_COUNTERS = [0] * 9


class OldRecipient(msgspec.Struct, array_like=True):
    address: str
    domain: str
    next_hop: str
    notify: int = 0
    original: str = ""


class OldEnvelope(msgspec.Struct, array_like=True):
    id: str
    session_id: str
    reverse_path: str
    recipients: list[OldRecipient]
    received_s: float
    peer_address: str
    helo: str
    permit: str
    body_type: str = "7BIT"
    smtputf8: bool = False
    has_8bit: bool = False
    needs_stuffing: bool = False
    envelope_id: str = ""
    ret: str = ""


class OldOutcome(msgspec.Struct, array_like=True):
    recipient: int
    result: int
    stage: str
    code: int
    status: str
    text: str
    host: str = ""


DEFERRED = OldOutcome(0, 2, "connect", 0, "4.4.1", "connection refused", "mx.example[192.0.2.9]:25")
FAILED = OldOutcome(1, 3, "rcpt", 550, "5.1.1", "no such user")


def build_envelope(message_id: str, recipients: int = 1) -> OldEnvelope:
    to = [OldRecipient(f"u{n}@example.test", "example.test", "smtp://192.0.2.9:25") for n in range(recipients)]
    return OldEnvelope(
        message_id, "s1", "from@example.org", to, 1000.0, "192.0.2.1", "helo", "recipient-domain", ret="FULL"
    )


def write_segment(root: Path) -> dict[str, tuple[int, int, int]]:
    """One record for each id, the last one with a body file; where each begins, ends, and has its content."""
    places = {}
    at = 0
    with open(root / "segments" / "00000001.seg", "wb") as file:
        for message_id, recipients in (("told", 1), ("tried", 2), ("held", 1), ("body", 1), ("untold", 1)):
            envelope = build_envelope(message_id, recipients)
            if message_id == "body":
                record = build_body_record(envelope, 1, len(CONTENT), crc32(CONTENT))  # type: ignore[arg-type]
                (root / "bodies" / "00000001.body").write_bytes(CONTENT)
            else:
                record = build_record(envelope, b"", [CONTENT], len(CONTENT))  # type: ignore[arg-type]
            file.write(b"".join(record.iov))
            places[message_id] = at, at + record.length, at + record.content_start
            at += record.length
    return places


def write_deferred(root: Path, message_id: str) -> None:
    directory = root / "deferred" / "01"
    directory.mkdir(exist_ok=True)
    (directory / f"{message_id}.eml").write_bytes(CONTENT)
    envelope = build_envelope(message_id)
    fields = {name: getattr(envelope, name) for name in OldEnvelope.__struct_fields__}
    recipient = {name: getattr(envelope.recipients[0], name) for name in OldRecipient.__struct_fields__}
    fields["recipients"] = [recipient | {"state": "pending"}]
    described = {
        "envelope": fields, "attempts": 3, "next_due_s": 2000.0, "held": False, "delay_notified": True, "noticed": [],
        "last": [{name: getattr(DEFERRED, name) for name in OldOutcome.__struct_fields__}],
        "content_bytes": len(CONTENT), "content_crc32": crc32(CONTENT),
    }  # fmt: skip
    (directory / f"{message_id}.json").write_text(json.dumps(described))


def write_journal(root: Path, places: dict[str, tuple[int, int, int]]) -> None:
    def taken(message_id: str, recipients: int = 1, body: int = 0) -> tuple:
        offset, end, content = places[message_id]
        return (Kind.TAKEN, message_id, 1, offset, end, 0 if body else content, len(CONTENT), body, recipients, 1000.0)

    envelope = msgspec.msgpack.encode(build_envelope("snapped"))
    counters = [1, *BEGIN_COUNTERS[1:7], 1, 0]
    lines = [
        (Kind.BEGIN, 1, counters, 1, 1, [], [], []),
        (Kind.ENTRY, "snapped", 2, 0, 0, 0, len(CONTENT), 0, 1, crc32(CONTENT), bytes(1), 3, 2000.0, 1000.0, 2, b"", [DEFERRED], envelope),
        (Kind.END,),
        (Kind.OPENED, 1, "receiver/0/1/77"), (Kind.BODIES, "receiver/0/1/77", [1]),
        taken("told"), taken("tried", 2), taken("held"), taken("body", 1, 1),
        (Kind.OUTCOME, "tried", bytes([0, 2]), 1, 1500.0, [DEFERRED, FAILED]),
        (Kind.FLAGS, "held", True, False, 0.0),
    ]  # fmt: skip
    fd = os.open(root / "journal" / "00000001.log", os.O_RDWR | os.O_CREAT, 0o600)
    journal = JournalFile(fd, 1)
    for line in lines:
        journal.add(line)
    journal.flush()
    journal.close()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    root = tmp_path / "spool"
    make_spool(root)
    write_journal(root, write_segment(root))
    write_deferred(root, "snapped")
    return root


def test_all_of_it_goes_on(old):
    spool = open_spool(old)
    spool.owner_gone("receiver/0/1/77")
    assert sorted(spool.entries) == ["body", "held", "snapped", "told", "tried", "untold"]
    for entry in spool.entries.values():
        assert content_of(spool, entry) == CONTENT
        envelope = entry.envelope
        assert (envelope.ret, envelope.priority, envelope.hold, envelope.bounce_to) == ("FULL", 0, "", "")
        assert envelope.recipients[0].reverse_path == "" and entry.begun_s == 1000.0
    assert [key for key, entry in spool.entries.items() if entry.held] == ["held"]
    tried, snapped = spool.entries["tried"], spool.entries["snapped"]
    assert (
        tried.unreported() == [1] and tried.last_of(0).text == "connection refused" and not tried.last_of(0).dsn_passed
    )
    assert (snapped.attempts, snapped.delay_notified, snapped.last_of(0).stage) == (3, True, "connect")
    assert spool.ledger()["accepted"] == 7
    assert_balanced(spool)
    spool.defer_to_file(list(spool.entries.values()))
    spool.record(spool.entries["told"], [DELIVERED], 0.0)
    spool.finish(spool.entries["told"])
    spool.close()
    assert fsck(str(old)).is_clean
    spool = open_spool(old)
    assert sorted(spool.entries) == ["body", "held", "snapped", "tried", "untold"]
    assert spool.entries["held"].held and spool.entries["tried"].unreported() == [1]
    assert_balanced(spool)
    spool.close()


def test_fsck_finds_nothing_serious(old):
    report = fsck(str(old))
    assert report.is_clean, report.lines()
    assert (report.live, report.unknown_to_journal) == (5, 1)


def test_without_its_journal(old):
    os.unlink(old / "journal" / "00000001.log")
    spool = open_spool(old)
    assert sorted(spool.entries) == ["body", "held", "snapped", "told", "tried", "untold"]
    assert spool.entries["snapped"].attempts == 3
    assert_balanced(spool)
    spool.close()
