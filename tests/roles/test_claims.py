"""What a receiver that was broken into says of other receivers' files, to the queue role and a real spool: nothing comes of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gatepost.config.schema import Queue as Settings
from gatepost.ipc import messages as m
from gatepost.model import Envelope, Outcome, Recipient, Result
from gatepost.roles.hands import MAX_TEXT, MAX_WORDS, Job, outcomes_of
from gatepost.roles.queue import _HANDLERS
from gatepost.spool.embedded import JournalSpool
from gatepost.spool.layout import prepare_spool

OTHERS, OWN = "receiver/1/3/400", "receiver/0/3/401"
PEER = ("receiver", 0, 3)


class Link:
    peer = PEER
    is_open = True

    def lost(self) -> None:
        self.is_open = False


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[JournalSpool]:
    prepare_spool(str(tmp_path / "spool"), queue_uid=-1, queue_gid=-1, allow_volatile=True)
    made = JournalSpool(str(tmp_path / "spool"), config=Settings(min_free_bytes=0, min_free_inodes=0))
    made.recover()
    yield made
    made.close()


def queue_of(spool: JournalSpool) -> Any:
    """As much of the role as the handlers need; what they would do is noted."""
    taken: list[Any] = []
    events: list[str] = []
    return SimpleNamespace(
        spool=spool,
        owners={},
        taken=taken,
        events=events,
        event=lambda name, **fields: events.append(name),
        worker=SimpleNamespace(call=lambda *_: None),
        _take_over=taken.extend,
    )


def test_files_of_others_are_out_of_reach(spool: JournalSpool) -> None:
    segment, descriptor = spool.new_segment(OTHERS)
    ((body, body_descriptor),) = spool.new_body_files(1, OTHERS)
    envelope = Envelope("A1", "s", "", [Recipient("a@b.test", "b.test", "mx:b.test")], 0.0, "192.0.2.1", "h", "x")
    for message in (
        m.SegmentSealed(segment, 0),
        m.BodyFileUnused(body),
        m.Holding(OTHERS),
        m.Holding("receiver/0/3/401/../1"),
        m.Accepted(segment, 0, 100, envelope, 50, 50),
    ):
        queue, link = queue_of(spool), Link()
        _HANDLERS[type(message)](queue, link, message)  # type: ignore[arg-type]
        assert (link.is_open, queue.events, queue.taken, queue.owners) == (False, ["error"], [], {}), message
    assert spool.segments[segment].sealed < 0 and spool.bodies == {body: OTHERS} and not spool.entries
    for each in (descriptor, body_descriptor):
        os.close(each)


def test_its_own_are_not(spool: JournalSpool) -> None:
    segment, descriptor = spool.new_segment(OWN)
    ((body, body_descriptor),) = spool.new_body_files(1, OWN)
    queue, link = queue_of(spool), Link()
    for message in (m.Holding(OWN), m.BodyFileUnused(body), m.SegmentSealed(segment, 0)):
        _HANDLERS[type(message)](queue, link, message)  # type: ignore[arg-type]
    assert link.is_open and queue.owners == {PEER: OWN} and spool.bodies == {}
    assert segment not in spool.segments  # sealed, and nothing in it
    for each in (descriptor, body_descriptor):
        os.close(each)


def test_outcomes_are_one_for_each_recipient_and_bounded() -> None:
    job = Job(None, None, [1, 2])  # type: ignore[arg-type]
    plain = Outcome(1, Result.DELIVERED, "body", 250, "2.0.0", "ok")
    assert outcomes_of(job, [plain]) == [plain]
    said = [Outcome(index, Result.FAILED, "rcpt", 550, "5.1.1", "x" * 5000) for index in (0, 1, 1, -1, 7, 2, 1)]
    assert [(one.recipient, len(one.text)) for one in outcomes_of(job, said)] == [(1, MAX_TEXT), (2, MAX_TEXT)]
    assert outcomes_of(job, said[:1]) == []
    wide = Outcome(1, Result.FAILED, "r" * 90_000, 550, "5" * 90_000, "no", "h" * 90_000)
    (cut,) = outcomes_of(job, [wide])
    assert len(cut.stage) + len(cut.status) + len(cut.host) <= MAX_WORDS
    host = Outcome(1, Result.DELIVERED, "body", 250, "2.0.0", "ok", f"{'h' * 253}[{'0' * 45}]:65535")
    assert outcomes_of(job, [host]) == [host]
