"""What is held stays held over every crash, also when the line that says so is lost; a release is kept with its time."""

from __future__ import annotations

import os

import msgspec
import pytest
from spool_bed import DEFERRED, Writer, assert_balanced, make_envelope, open_spool

from gatepost.model import Envelope
from gatepost.spool.entry import State
from gatepost.spool.journal import Kind
from gatepost.spool.replay import Replay


def build_held(message_id: str) -> Envelope:
    return msgspec.structs.replace(make_envelope(message_id), hold="held by its route")


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("again", [False, True], ids=["killed", "snapshot"])
def test_a_release_is_kept_with_its_time(tmp_path, deferred, again):
    spool = open_spool(tmp_path / "spool", defer_after_s=-1.0)
    [entry] = Writer(spool).take("a1")
    spool.hold(entry)
    spool.release(entry, 5000.0)
    if deferred:
        spool.defer_to_file([entry])
    if again:
        spool.log.rotate()
    spool.abandon()
    spool = open_spool(tmp_path / "spool")
    entry = spool.entries["a1"]
    assert (entry.held, entry.begun_s, entry.received_s) == (False, 5000.0, 1000.0)
    spool.close()


def test_the_description_has_it_when_the_journal_is_lost(tmp_path):
    spool = open_spool(tmp_path / "spool", defer_after_s=-1.0)
    [entry] = Writer(spool).take("a1")
    spool.hold(entry)
    spool.release(entry, 5000.0)
    spool.defer_to_file([entry])
    spool.commit()
    spool.abandon()
    for directory in ("journal", "segments"):
        for name in os.listdir(tmp_path / "spool" / directory):
            os.unlink(tmp_path / "spool" / directory / name)
    spool = open_spool(tmp_path / "spool")
    assert spool.entries["a1"].begun_s == 5000.0
    spool.close()


def store_held(spool, name: str):
    entry = spool.store(build_held(name), [b"Subject: x\r\n\r\ntext\r\n"])
    assert entry.held
    return entry


@pytest.mark.parametrize("place", ["segment", "deferred"])
def test_held_though_its_first_line_is_lost(tmp_path, place):
    """A power cut may keep a later line and not TAKEN: then the message itself says that it is to be held."""
    spool = open_spool(tmp_path / "spool", defer_after_s=-1.0)
    entry = store_held(spool, "a1")
    spool.commit()
    if place == "deferred":
        spool.defer_to_file([entry])
        rows = [("a1", entry.crc, entry.content_bytes, bytes(1), entry.packed_envelope)]
        later = [Kind.DEFERRED, entry.deferred_dir, rows]
    else:
        later = [Kind.SETTLED, "a1", bytes([State.PENDING])]
    spool.abandon()
    replay = Replay()
    replay.apply([later], base=True)
    known = replay.live["a1"]
    if place == "deferred":
        assert known.held
        return
    for name in os.listdir(tmp_path / "spool" / "journal"):
        os.unlink(tmp_path / "spool" / "journal" / name)
    spool = open_spool(tmp_path / "spool")
    assert spool.entries["a1"].held
    assert_balanced(spool)
    spool.close()


def test_a_tried_message_was_released(tmp_path):
    replay = Replay()
    envelope = msgspec.msgpack.encode(build_held("a1"))
    replay.apply(
        [
            [Kind.OUTCOME, "a1", bytes(1), 1, 0.0, [list(msgspec.structs.astuple(DEFERRED))]],
            [Kind.DEFERRED, 1, [("a1", 1, 20, bytes(1), envelope)]],
        ],
        base=True,
    )
    assert not replay.live["a1"].held


@pytest.mark.parametrize("is_committed", [False, True], ids=["killed", "committed"])
@pytest.mark.parametrize("is_released", [False, True])
def test_a_notice_that_is_held_as_soon_as_it_is_made(tmp_path, is_committed, is_released):
    """The line that introduces it is written by the next commit, behind the one that holds it."""
    spool = open_spool(tmp_path / "spool")
    entry = spool.store(make_envelope("a1"), [b"Subject: x\r\n\r\ntext\r\n"])
    spool.hold(entry)
    if is_released:
        spool.release(entry, 5000.0)
    if is_committed:
        spool.commit()
    spool.abandon()
    spool = open_spool(tmp_path / "spool")
    entry = spool.entries["a1"]
    assert (entry.held, entry.released_s) == (not is_released, 5000.0 if is_released else 0.0)
    assert_balanced(spool)
    spool.hold(entry)
    spool.commit()
    spool.abandon()
    spool = open_spool(tmp_path / "spool")
    assert spool.entries["a1"].held
    spool.close()
