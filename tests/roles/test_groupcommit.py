"""Group commit: who waits is always answered, 250 only for what is durable, also where something goes wrong that no disk does."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gatepost.ipc.messages import Accepted
from gatepost.model import Envelope, Recipient
from gatepost.roles.groupcommit import FULL, UNHEALTHY, GroupCommit, Pending
from gatepost.smtp.reply import Reply
from gatepost.spool.errors import SpoolFull
from gatepost.spool.segment import SegmentWriter, build_record, scan_segment


class Bench:
    """A group commit on a real loop and real files; `answers` is what each message got."""

    def __init__(self, directory: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.bugs: list[BaseException] = []
        self.loop.set_exception_handler(lambda _, context: self.bugs.append(context["exception"]))
        self.directory = directory
        self.accepted: list[Accepted] = []
        self.sealed: list[tuple[int, int]] = []
        self.trouble: list[str] = []
        self.answers: dict[str, Reply | None] = {}
        self.commit = GroupCommit(
            self.loop,
            segment_bytes=1 << 20,
            accepted=self.accepted.append,
            sealed=lambda number, length: self.sealed.append((number, length)),
            need_segment=lambda: None,
            trouble=self.trouble.append,
        )
        self.commit.start()
        for number in (1, 2):
            self.commit.use(number, os.open(self.path(number), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600))

    def path(self, number: int) -> Path:
        return self.directory / f"{number}.seg"

    def add(self, name: str, done: Callable[[Reply | None], None] | None = None) -> None:
        envelope = Envelope(name, "S1", "a@b.test", [Recipient("c@d.test", "d.test", "smtp://h:25")], 0.0, "", "", "")
        content = b"Subject: x\r\n\r\nbody\r\n"
        record = build_record(envelope, b"", [content], len(content))
        self.commit.add(Pending(record, envelope, len(content), done or self.answer(name)))

    def answer(self, name: str) -> Callable[[Reply | None], None]:
        return lambda reply: self.answers.__setitem__(name, reply)

    def run_until(self, *names: str) -> dict[str, Reply | None]:
        """Run until these were answered; the answers."""

        async def wait() -> None:
            while not self.answers.keys() >= set(names):
                await asyncio.sleep(0)

        self.loop.run_until_complete(asyncio.wait_for(wait(), 60.0))
        return {name: self.answers[name] for name in names}

    def stored(self, number: int) -> list[str]:
        with self.path(number).open("rb") as file:
            return [piece.envelope.id for piece in scan_segment(file.fileno())]  # type: ignore[union-attr]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.loop.close()


def fail(error: BaseException) -> Callable[..., Any]:
    def act(*_: object) -> None:
        raise error

    return act


def test_all_of_a_group_are_durable_and_told_before_they_are_answered(bench: Bench) -> None:
    for name in ("m1", "m2", "m3"):
        bench.add(name)
    assert bench.run_until("m1", "m2", "m3") == {"m1": None, "m2": None, "m3": None}
    assert bench.stored(1) == [each.envelope.id for each in bench.accepted] == ["m1", "m2", "m3"]
    assert bench.commit.groups == 1


@pytest.mark.parametrize("act", ["append", "sync"])
@pytest.mark.parametrize("error", [MemoryError("no memory"), ValueError("a bug")], ids=["memory", "bug"])
def test_what_no_disk_does_is_answered_451_and_the_next_segment_is_used(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, act: str, error: Exception
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(SegmentWriter, act, fail(error))
        bench.add("m1")
        assert bench.run_until("m1") == {"m1": UNHEALTHY}
    assert bench.sealed == [(1, 0)] and str(error) in bench.trouble[0]
    bench.add("m2")
    assert bench.run_until("m2") == {"m2": None}
    assert bench.stored(2) == ["m2"]
    assert any(thread.name == "commit" for thread in threading.enumerate())


def test_a_full_disk_is_452_and_keeps_the_segment(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(SegmentWriter, "append", fail(SpoolFull("full")))
        bench.add("m1")
        assert bench.run_until("m1") == {"m1": FULL}
    bench.add("m2")
    assert bench.run_until("m2") == {"m2": None}
    assert bench.sealed == [] and bench.stored(1) == ["m2"]


@pytest.mark.parametrize("is_full", [False, True])
def test_a_bug_in_one_session_keeps_no_other_of_its_group_from_its_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, is_full: bool
) -> None:
    if is_full:
        monkeypatch.setattr(SegmentWriter, "append", fail(SpoolFull("full")))
    bug = RuntimeError("a bug")
    bench.add("m1", fail(bug))
    bench.add("m2")
    assert bench.run_until("m2") == {"m2": FULL if is_full else None}
    assert bench.bugs == [bug]
    assert [each.envelope.id for each in bench.accepted] == ([] if is_full else ["m1", "m2"])
