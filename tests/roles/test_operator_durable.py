"""What an operator is told was done survives a power cut right behind the answer; where the disk refuses, the answer says so."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from spool.power_cut import PowerCut
from spool.spool_bed import make_spool

from gatepost.config.schema import Config, Domain
from gatepost.config.schema import Queue as QueueConfig
from gatepost.events import EventLog
from gatepost.ipc import messages as m
from gatepost.model import Envelope, Recipient
from gatepost.roles import committing, writtenlater
from gatepost.roles import remembering as remembering_module
from gatepost.roles.queue import Queue
from gatepost.spool.errors import SpoolUnhealthy
from gatepost.spool.keptfile import KeptFile
from gatepost.spool.layout import prepare_spool
from gatepost.spool.tlsmemory import TlsMemory

HOP = "smtp://192.0.2.9:25"
LATER_S = 4_000_000_000.0
LIMIT_S = 60.0


class Bed:
    """A queue role on a spool, without any peers: nothing is ever attempted."""

    def __init__(self, tmp_path: Path, queue: Queue) -> None:
        self.root = tmp_path / "spool"
        self.tmp_path = tmp_path
        self.queue = queue

    async def put(self, *ids: str) -> None:
        """Messages that are due in many years, durable."""
        for message_id in ids:
            envelope = Envelope(
                message_id, "s1", "", [Recipient("u@x.test", "x.test", HOP)], time.time(), "", "", "own"
            )
            entry = self.queue.spool.store(envelope, [b"A: b\r\n\r\nc\r\n"])
            self.queue.spool.record(entry, [], LATER_S)
            self.queue.enter(entry)
        assert await self.queue.commits.durable() == ""

    async def ask(self, verb: str, **arguments: Any) -> Any:
        answer = self.queue.answer(verb, arguments)
        return await answer if asyncio.iscoroutine(answer) else answer

    def after_a_cut(self, cut: PowerCut) -> dict[str, Any]:
        """What a queue finds if the power goes now."""
        again = make_spool(cut.image(self.tmp_path / "image", None))
        again.recover()
        found = dict(again.entries)
        again.abandon()
        return found


@pytest.fixture
def run(tmp_path: Path, monkeypatch):
    """Run a coroutine with such a bed. Nothing is synced but by who waits for it."""

    def run(body: Callable[[Bed], Awaitable[None]]) -> None:
        prepare_spool(str(tmp_path / "spool"), queue_uid=-1, queue_gid=-1, allow_volatile=True)
        monkeypatch.chdir(tmp_path / "spool")
        monkeypatch.setattr(committing, "COMMIT_DELAY_S", 3600.0)
        monkeypatch.setattr(committing, "RETRY_S", 0.01)
        monkeypatch.setattr(remembering_module, "WRITE_DELAY_S", 3600.0)
        monkeypatch.setattr(writtenlater, "RETRY_S", 0.01)
        log = os.open(tmp_path / "events", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        config = Config(
            hostname="gate.test",
            listen=[],
            spool=str(tmp_path / "spool"),
            domains={"x.test": Domain(next_hop=[HOP])},
            queue=QueueConfig(min_free_bytes=0, min_free_inodes=0),
        )

        async def bounded() -> None:
            start = SimpleNamespace(role="queue", instance=0, generation=0, extra={})
            queue = Queue(start, config, [], EventLog(log, "queue"), asyncio.get_running_loop())
            queue.begin()
            await asyncio.wait_for(body(Bed(tmp_path, queue)), LIMIT_S)
            queue.spool.close()

        asyncio.run(bounded())

    return run


@pytest.mark.parametrize("verb", ["hold", "release", "remove", "retry"])
def test_what_was_answered_is_there_after_a_power_cut(run, monkeypatch, verb):
    async def body(bed: Bed) -> None:
        await bed.put("a1", "a2")
        if verb == "release":
            assert await bed.ask("hold", all=True) == {"count": 2}
        cut = PowerCut(bed.root)
        cut.watch(monkeypatch)
        began_s = time.time()
        assert await bed.ask(verb, ids=["a1"]) == {"count": 1}
        found = bed.after_a_cut(cut)
        cut.release()
        assert "a2" in found
        if verb == "hold":
            assert [found["a1"].held, found["a2"].held] == [True, False]
        elif verb == "release":
            assert [found["a1"].held, found["a2"].held] == [False, True]
        elif verb == "remove":
            assert "a1" not in found
        else:
            assert began_s <= found["a1"].next_due_s <= time.time() and found["a2"].next_due_s == LATER_S

    run(body)


@pytest.mark.parametrize("arguments", [{"all": True}, {"next_hop": HOP}])
def test_a_retry_of_many_is_durable_too(run, monkeypatch, arguments):
    async def body(bed: Bed) -> None:
        await bed.put("a1", "a2")
        await bed.ask("hold", ids=["a2"])
        cut = PowerCut(bed.root)
        cut.watch(monkeypatch)
        assert await bed.ask("retry", **arguments) == {"count": 1}
        found = bed.after_a_cut(cut)
        cut.release()
        assert found["a1"].next_due_s <= time.time() and found["a2"].held

    run(body)


def test_the_answer_comes_behind_the_sync_and_waits_for_nothing_else(run, monkeypatch):
    async def body(bed: Bed) -> None:
        await bed.put("a1")
        bed.queue.commit_soon()  # in an hour
        commit, may_go, is_asked = bed.queue.spool.commit, threading.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow() -> None:
            loop.call_soon_threadsafe(is_asked.set)
            may_go.wait(LIMIT_S)
            commit()

        monkeypatch.setattr(bed.queue.spool, "commit", slow)
        first = asyncio.ensure_future(bed.ask("hold", ids=["a1"]))
        await is_asked.wait()
        second = asyncio.ensure_future(bed.ask("release", ids=["a1"]))  # while that sync is under way: not of it
        await asyncio.sleep(0)
        is_asked.clear()
        assert not first.done()
        may_go.set()
        assert await first == {"count": 1}
        await is_asked.wait()
        assert await second == {"count": 1} and not bed.queue.spool.entries["a1"].held

    run(body)


def test_a_notice_that_is_released_does_not_set_out_before_it_is_durable(run, monkeypatch):
    async def body(bed: Bed) -> None:
        envelope = Envelope("n1", "s1", "", [Recipient("u@x.test", "x.test", HOP)], time.time(), "", "", "own")
        bed.queue.notices.enter_when_durable(bed.queue.spool.store(envelope, [b"A: b\r\n\r\nc\r\n"]))
        commit, may_go = bed.queue.spool.commit, threading.Event()
        monkeypatch.setattr(bed.queue.spool, "commit", lambda: may_go.wait(LIMIT_S) and commit())
        held = asyncio.ensure_future(bed.ask("hold", all=True))
        released = asyncio.ensure_future(bed.ask("release", all=True))
        await asyncio.sleep(0)
        assert not bed.queue.spool.entries["n1"].held and bed.queue.scheduler.due_at("n1", HOP) is None
        may_go.set()
        assert [await held, await released] == [{"count": 1}, {"count": 1}]
        assert bed.queue.scheduler.due_at("n1", HOP) is not None

    run(body)


@pytest.mark.parametrize("verb", ["hold", "retry", "remove"])
def test_a_refused_sync_is_said_and_tried_again(run, monkeypatch, verb):
    """All of it holds, none is half done: what memory says is what the journal gets as soon as the disk takes it."""

    async def body(bed: Bed) -> None:
        await bed.put("a1", "a2")
        commit = bed.queue.spool.commit
        is_broken = True
        is_kept = asyncio.Event()
        loop = asyncio.get_running_loop()

        def refuse() -> None:
            if is_broken:
                raise SpoolUnhealthy("journal 4: Input/output error in fdatasync")
            commit()
            loop.call_soon_threadsafe(is_kept.set)

        cut = PowerCut(bed.root)
        cut.watch(monkeypatch)
        monkeypatch.setattr(bed.queue.spool, "commit", refuse)
        monkeypatch.setattr(committing, "COMMIT_DELAY_S", 0.01)
        answer = await bed.ask(verb, all=True)
        assert list(answer) == ["error"]
        assert answer["error"].startswith("2 messages ") and "Input/output error" in answer["error"]
        assert "a power cut would undo it" in answer["error"]
        is_broken = False
        await is_kept.wait()  # by itself
        found = bed.after_a_cut(cut)
        cut.release()
        if verb == "remove":
            assert not found and bed.queue.spool.ledger()["removed_by_operator"] == 2
        else:
            assert all(entry.held if verb == "hold" else entry.next_due_s < LATER_S for entry in found.values())
            assert len(found) == 2

    run(body)


def refuse_once(monkeypatch) -> None:
    """The disk does not take the next file that is kept."""
    write, failures = KeptFile.write, [SpoolUnhealthy("Input/output error")]

    def refuse(file: KeptFile, data: bytes) -> None:
        if failures:
            raise failures.pop()
        write(file, data)

    monkeypatch.setattr(KeptFile, "write", refuse)


def test_forgotten_domains_are_forgotten_after_a_power_cut(run, monkeypatch):
    async def body(bed: Bed) -> None:
        remembering = bed.queue.remembering
        for domain in ("a.test", "b.test"):
            remembering.verified(None, m.TlsVerified(domain, "dane"))
        assert await remembering._later.write_now() == ""
        refuse_once(monkeypatch)
        answer = await bed.ask("tls_forget", domains=["a.test"])
        assert "a.test: forgotten, but the disk refuses" in answer["error"]
        assert await bed.ask("tls_forget", domains=["b.test", "c.test"]) == {"forgotten": ["b.test"]}
        again = TlsMemory(str(bed.root), remembering.memory._keep_s, 100)
        assert again.load(time.time()) == "" and again.rows() == []

    run(body)


def test_forgotten_recipients_are_forgotten_after_a_power_cut(run, monkeypatch):
    async def body(bed: Bed) -> None:
        keeping = bed.queue.keeping
        keeping.take_recipients(m.RecipientsKept({"t a@x.test": b"1", "t b@x.test": b"1"}))
        assert await bed.ask("recipients_keep") == {}
        refuse_once(monkeypatch)
        keeping.take_recipients(m.RecipientsKept({"t a@x.test": b""}))
        assert "the disk refuses to keep that (Input/output error)" in (await bed.ask("recipients_keep"))["error"]
        asked = asyncio.ensure_future(bed.ask("recipients_keep"))
        keeping.take_recipients(m.RecipientsKept({"t b@x.test": b""}))  # read in the same turn of the loop
        assert await asked == {}
        again = KeptFile(str(bed.root), "known", 100, 1 << 20, "recipients")
        again.load()
        assert again.records == {}

    run(body)
