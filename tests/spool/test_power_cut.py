"""Nothing acknowledged is lost by a power cut or a kill at any change of the disk, and nothing committed comes again."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from power_cut import PowerCut
from spool_bed import (
    DEFERRED,
    DELIVERED,
    FAILED,
    TRACE,
    Writer,
    assert_balanced,
    content_of,
    copy_spool,
    make_body,
    make_envelope,
    make_spool,
    open_spool,
)

from gatepost.spool.entry import State


class Run:
    """A life of a spool, and what it promised so far."""

    def __init__(self, root: Path) -> None:
        self.spool = open_spool(root, defer_after_s=-1.0)
        self.contents: dict[str, bytes] = {}
        self.promised: set[str] = set()  # acknowledged, or committed
        self.finished: set[str] = set()
        self.finished_for_good: set[str] = set()  # finished, and then a commit returned

    def accept(self, writer: Writer, *ids: str) -> list:
        for message_id in ids:
            self.contents[message_id] = TRACE + make_body(message_id)
        told = writer.append(*ids)
        self.promised.update(ids)
        return told

    def finish(self, *entries) -> None:
        for entry in entries:
            self.finished.add(entry.id)
            self.spool.finish(entry)

    def commit(self, *notices: str) -> None:
        done = set(self.finished)
        self.spool.commit()
        self.finished_for_good |= done
        self.promised.update(notices)

    def rotate(self) -> None:
        done = set(self.finished)
        self.spool.log.rotate()
        self.finished_for_good |= done

    def live_through(self) -> None:
        """One of everything."""
        spool = self.spool
        writer = Writer(spool)
        told = self.accept(writer, "a1", "a2", "a3", "a4")
        entries = [entry for one in told[:3] for entry in spool.take(one)]  # a4 is never told
        spool.record(entries[0], [DELIVERED], 0.0)
        self.finish(entries[0])
        spool.record(entries[1], [DEFERRED], 11_000.0)
        self.commit()
        self.contents["big1"] = TRACE + make_body("big1", 3000)
        big = writer.append_body("big1", 3000)
        self.promised.add("big1")
        spool.take(big)
        spool.record(entries[2], [FAILED], 0.0)
        self.contents["dsn1"] = b"Subject: bounce\r\n\r\nsorry\r\n"
        spool.store(make_envelope("dsn1"), [self.contents["dsn1"]], about=entries[2], recipients=[0])
        self.finish(entries[2])
        self.commit("dsn1")
        self.move()
        self.accept(writer, "c1")
        self.rotate()
        spool.seal(writer.number, writer.segment.length)
        writer.close()
        self.commit()
        second = Writer(spool, "receiver.2")
        told = self.accept(second, "d1", "d2")
        spool.take(told[0])
        spool.owner_gone("receiver.2")
        second.close()
        self.move()
        for message_id in ("a2", "big1", "d1"):
            entry = spool.entries[message_id]
            spool.record(entry, [DELIVERED], 0.0)
            self.finish(entry)
        spool.remove(spool.entries["dsn1"])
        self.finished.add("dsn1")
        self.commit()
        self.rotate()
        third = Writer(spool, "receiver.3")
        [entry] = spool.take(self.accept(third, "f1")[0])
        spool.seal(third.number, third.segment.length)
        third.close()
        spool.record(entry, [DELIVERED], 0.0)
        self.finish(entry)
        self.rotate()

    def move(self) -> None:
        assert not self.spool.defer_to_file(self.spool.to_defer(100))
        self.commit()

    def check(self, image: Path, killed: bool) -> None:
        """Recover from an image, and compare with what was promised."""
        again = make_spool(image)
        again.recover()
        try:
            owed = self.promised - self.finished
            assert owed <= again.entries.keys(), f"lost {owed - again.entries.keys()}"
            assert not self.finished_for_good & again.entries.keys(), "came again"
            if killed:
                assert not (self.finished - {"a3", "dsn1"}) & again.entries.keys()
            if "a3" in self.promised:
                refused = again.entries.get("a3")
                told = "dsn1" in again.entries or "dsn1" in self.finished
                assert told or (refused and (refused.pending or refused.unreported())), "nobody hears of the bounce"
            for message_id in again.entries.keys() & self.contents.keys():
                assert content_of(again, again.entries[message_id]) == self.contents[message_id]
            assert_balanced(again)
        finally:
            again.abandon()
        shutil.rmtree(image)


@pytest.fixture(autouse=True)
def _small_journals(monkeypatch):
    monkeypatch.setattr("gatepost.spool.journal.RESERVE_BYTES", 1024)


def run_with_cuts(tmp_path: Path, monkeypatch, examine) -> int:
    root = tmp_path / "spool"
    run = Run(root)
    cut = PowerCut(root)
    cut.on_point = lambda: examine(run, cut)
    cut.watch(monkeypatch)
    run.live_through()
    monkeypatch.undo()
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    examine(run, cut)
    assert run.finished_for_good == {"a1", "a2", "a3", "big1", "d1", "dsn1", "f1"}
    run.spool.abandon()
    cut.release()
    return cut.points


def test_a_power_cut_keeps_only_what_was_synced(tmp_path, monkeypatch):
    points = run_with_cuts(
        tmp_path, monkeypatch, lambda run, cut: run.check(cut.image(tmp_path / "image", None), killed=False)
    )
    assert points > 80


@pytest.mark.parametrize("seed", range(3))
def test_a_power_cut_keeps_any_part_of_the_rest(tmp_path, monkeypatch, seed):
    chance = random.Random(seed)
    run_with_cuts(
        tmp_path, monkeypatch, lambda run, cut: run.check(cut.image(tmp_path / "image", chance), killed=False)
    )


def test_a_kill_keeps_what_was_written(tmp_path, monkeypatch):
    run_with_cuts(
        tmp_path,
        monkeypatch,
        lambda run, cut: run.check(copy_spool(cut.root, tmp_path / "image"), killed=True),
    )


def test_a_cut_during_recovery(tmp_path, monkeypatch):
    root = tmp_path / "spool"
    run = Run(root)
    run.live_through()
    run.accept(Writer(run.spool), "e1", "e2")
    run.spool.abandon()
    cut = PowerCut(root)
    chance = random.Random(7)

    def examine() -> None:
        run.check(cut.image(tmp_path / "image", None), killed=False)
        run.check(cut.image(tmp_path / "image", chance), killed=False)

    cut.on_point = examine
    cut.watch(monkeypatch)
    again = make_spool(root)
    again.recover()
    monkeypatch.undo()
    assert {"e1", "e2", "a4", "c1", "d2"} == again.entries.keys()
    assert again.entries["e1"].states == bytes([State.PENDING])
    assert cut.points > 5
    again.abandon()
    cut.release()
