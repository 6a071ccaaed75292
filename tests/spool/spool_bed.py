"""What the spool tests share: a spool in a directory, a receiver that writes to it, and the set of what was acknowledged."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from zlib import crc32

from gatepost.config.schema import Queue
from gatepost.ipc.messages import Accepted
from gatepost.model import Envelope, Outcome, Recipient, Result
from gatepost.spool.embedded import JournalSpool
from gatepost.spool.layout import prepare_spool
from gatepost.spool.segment import SegmentWriter, build_body_record, build_record, read_content

TRACE = b"Received: from client.example by mx.example.test\r\n"
DELIVERED = Outcome(0, Result.DELIVERED, "body", 250, "2.0.0", "ok")
DEFERRED = Outcome(0, Result.DEFERRED, "connect", 0, "4.4.1", "connection refused", "mx.example[192.0.2.9]:25")
FAILED = Outcome(0, Result.FAILED, "rcpt", 550, "5.1.1", "no such user")


def make_envelope(message_id: str, recipients: int = 1, received_s: float = 1000.0) -> Envelope:
    to = [Recipient(f"user{n}@example.test", "example.test", "smtp://192.0.2.9:25") for n in range(recipients)]
    return Envelope(message_id, "session1", "from@example.org", to, received_s, "192.0.2.1", "helo", "recipient-domain")


def make_body(message_id: str, size: int = 200) -> bytes:
    return (f"Subject: {message_id}\r\n\r\n".encode() + message_id.encode() * size)[:size] + b"\r\n"


def make_spool(path: Path | str, **settings: float) -> JournalSpool:
    prepare_spool(str(path), queue_uid=-1, queue_gid=-1, allow_volatile=True)
    settings = {"min_free_bytes": 0, "min_free_inodes": 0} | settings
    return JournalSpool(str(path), config=Queue(**settings), clock=lambda: 10_000.0)


def open_spool(path: Path | str, **settings: float) -> JournalSpool:
    spool = make_spool(path, **settings)
    spool.recover()
    return spool


def copy_spool(source: Path | str, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


class Writer:
    """A receiver: appends messages to its segment, and says what it would tell the queue."""

    def __init__(self, spool: JournalSpool, owner: str = "receiver.1") -> None:
        self.spool = spool
        self.owner = owner
        self.number, fd = spool.new_segment(owner)
        self.segment = SegmentWriter(fd, self.number)

    def append(self, *ids: str, recipients: int = 1, size: int = 200) -> list[Accepted]:
        """Append and sync one record for each id."""
        envelopes = [make_envelope(message_id, recipients) for message_id in ids]
        records = [build_record(e, TRACE, [make_body(e.id, size)], len(TRACE) + size + 2) for e in envelopes]
        offsets = self.segment.append(records)
        self.segment.sync()
        return [
            Accepted(
                self.number,
                offset,
                offset + record.length,
                envelope,
                offset + record.content_start,
                len(TRACE) + size + 2,
            )
            for envelope, record, offset in zip(envelopes, records, offsets, strict=True)
        ]

    def append_body(self, message_id: str, size: int = 5000) -> Accepted:
        """A message whose content lies in a body file."""
        [(number, fd)] = self.spool.new_body_files(1, self.owner)
        content = TRACE + make_body(message_id, size)
        os.write(fd, content)
        os.fdatasync(fd)
        os.close(fd)
        envelope = make_envelope(message_id)
        record = build_body_record(envelope, number, len(content), crc32(content))
        offset = self.segment.append([record])[0]
        self.segment.sync()
        return Accepted(self.number, offset, offset + record.length, envelope, 0, len(content), number)

    def take(self, *ids: str, recipients: int = 1) -> list:
        return [
            entry for told in self.append(*ids, recipients=recipients) for entry in self.spool.take(told, self.owner)
        ]

    def close(self) -> None:
        self.segment.close()


def content_of(spool: JournalSpool, entry) -> bytes:
    _, fd, offset, count = spool.source(entry)
    return read_content(fd, offset, count)


def assert_balanced(spool: JournalSpool) -> None:
    ledger = spool.ledger()
    ended = sum(ledger[name] for name in ("delivered", "bounced", "expired", "discarded", "lost_to_damage", "queued"))
    assert ledger["accepted"] == ended, ledger
