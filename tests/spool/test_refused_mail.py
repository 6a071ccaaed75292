"""Mail that a receiver was not to send where it says: held from the first line about it on, over every crash, until it is released."""

from __future__ import annotations

import os

import pytest
from spool_bed import Writer, assert_balanced, make_spool

from gatepost.model import Envelope
from gatepost.spool.embedded import JournalSpool
from gatepost.spool.entry import REFUSED


def open_judging(path: object, **settings: float) -> JournalSpool:
    """A spool that refuses what begins with "bad"."""
    spool = make_spool(str(path), **settings)
    spool.permits = lambda envelope: not envelope.id.startswith("bad")
    spool.recover()
    return spool


def states(spool: JournalSpool) -> dict[str, tuple[bool, bool]]:
    return {entry.id: (entry.held, entry.refused) for entry in spool.entries.values()}


REFUSED_ONE = {"bad1": (True, True), "good1": (False, False)}


@pytest.mark.parametrize("how", ["told", "sealed", "owner gone", "found at the start"])
def test_whichever_way_it_comes(tmp_path, how):
    spool = open_judging(tmp_path / "spool")
    writer = Writer(spool)
    told = writer.append("bad1", "good1")
    if how == "told":
        for one in told:
            spool.take(one, writer.owner)
    elif how == "sealed":
        spool.seal(writer.number, writer.segment.synced)
    elif how == "owner gone":
        spool.owner_gone(writer.owner)
    else:
        spool.abandon()
        spool = open_judging(tmp_path / "spool")
    assert states(spool) == REFUSED_ONE
    assert_balanced(spool)
    spool.close()


@pytest.mark.parametrize("place", ["segment", "deferred"])
@pytest.mark.parametrize("again", [False, True], ids=["killed", "snapshot"])
def test_it_stays_so_over_a_crash(tmp_path, place, again):
    spool = open_judging(tmp_path / "spool", defer_after_s=-1.0)
    entries = Writer(spool).take("bad1", "good1")
    if place == "deferred":
        spool.defer_to_file(entries)
    spool.commit()
    if again:
        spool.log.rotate()
    spool.abandon()
    spool = make_spool(tmp_path / "spool")
    asked: list[Envelope] = []
    spool.permits = lambda envelope: bool(asked.append(envelope)) or True
    spool.recover()
    assert states(spool) == REFUSED_ONE
    assert asked == []  # what is known keeps its next hop, whatever the configuration says now
    spool.release(spool.entries["bad1"], 5000.0)
    spool.abandon()
    spool = open_judging(tmp_path / "spool")
    assert states(spool) == {"bad1": (False, False), "good1": (False, False)}
    spool.close()


def test_the_description_has_that_it_was_refused(tmp_path):
    spool = open_judging(tmp_path / "spool", defer_after_s=-1.0)
    spool.defer_to_file(Writer(spool).take("bad1", "good1"))
    spool.commit()
    spool.abandon()
    for directory in ("journal", "segments"):
        for name in os.listdir(tmp_path / "spool" / directory):
            os.unlink(tmp_path / "spool" / directory / name)
    spool = open_judging(tmp_path / "spool")
    assert states(spool) == REFUSED_ONE
    assert spool.entries["bad1"].envelope.hold == REFUSED
    spool.close()


def test_our_own_mail_is_not_judged(tmp_path):
    spool = open_judging(tmp_path / "spool")
    envelope = Envelope("bad2", "", "", Writer(spool).append("x1")[0].envelope.recipients, 1.0, "local", "h", "dsn")
    assert not spool.store(envelope, [b"Subject: x\r\n\r\n"]).held
    spool.close()
