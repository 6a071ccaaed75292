"""The queue role makes files for receivers: when the disk refuses, when a link is new, when a receiver is dead."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gatepost.config.schema import Config, Domain
from gatepost.config.schema import Queue as QueueConfig
from gatepost.events import EventLog
from gatepost.ipc import messages as m
from gatepost.model import Envelope, Recipient
from gatepost.roles import committing
from gatepost.roles import queue as role_module
from gatepost.roles.queue import Queue
from gatepost.spool.errors import SpoolFull
from gatepost.spool.layout import prepare_spool

RECEIVER = ("receiver", 0, 1)
OWNER = "receiver/0/1/4711"


class Link:
    """A receiver's end: what the queue posts to it, and a way to wait for a message of a type."""

    def __init__(self, peer: tuple[str, int, int] = RECEIVER) -> None:
        self.peer = peer
        self.is_open = True
        self.posted: list[m.Message] = []
        self.changed = asyncio.Event()

    def post(self, message: m.Message, descriptors: Any = ()) -> None:
        self.posted.append(message)
        self.changed.set()

    def lost(self) -> None:
        self.is_open = False
        self.changed.set()

    async def until(self, condition: Any) -> None:
        while not condition():
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 60)

    def kinds(self) -> list[str]:
        return [type(message).__name__ for message in self.posted]


@pytest.fixture
def run(tmp_path: Path, monkeypatch):
    """Run a coroutine with a queue role on a new spool."""

    def run(body: Any) -> None:
        prepare_spool(str(tmp_path / "spool"), queue_uid=-1, queue_gid=-1, allow_volatile=True)
        monkeypatch.chdir(tmp_path / "spool")
        monkeypatch.setattr(role_module, "RETRY_S", 0.01)
        monkeypatch.setattr(committing, "COMMIT_DELAY_S", 0.01)
        monkeypatch.setattr(committing, "RETRY_S", 0.01)
        log = os.open(tmp_path / "events", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        config = Config(
            hostname="gate.test",
            listen=[],
            spool=str(tmp_path / "spool"),
            domains={"example.test": Domain(next_hop=["smtp://192.0.2.9:25"])},
            queue=QueueConfig(min_free_bytes=0, min_free_inodes=0),
        )

        async def bounded() -> None:
            loop = asyncio.get_running_loop()
            start = SimpleNamespace(role="queue", instance=0, generation=0, extra={})
            queue = Queue(start, config, [], EventLog(log, "queue"), loop)
            queue.begin()
            link = Link()
            queue.links[RECEIVER] = link
            queue.on_link(link)
            await asyncio.wait_for(body(queue, link), 60)
            idle = asyncio.Event()
            queue.worker.call(lambda: None, lambda _: idle.set(), lambda _: None)
            monkeypatch.setattr(queue.worker, "call", lambda *_: None)  # nothing more: the loop ends
            await asyncio.wait_for(idle.wait(), 60)
            queue.spool.close()

        asyncio.run(bounded())
        os.close(log)

    return run


@pytest.mark.parametrize(
    ("method", "request_", "answer"),
    [("new_segment", m.NeedSegment(), "SegmentOpened"), ("new_body_files", m.NeedBodyFiles(2), "BodyFilesOpened")],
)
def test_refused_files_come_when_the_disk_has_room_again(run, monkeypatch, method, request_, answer):
    """A request that was forgotten left its receiver without a segment, and its clients without an answer, for ever."""

    async def body(queue: Queue, link: Link) -> None:
        make = getattr(queue.spool, method)
        is_full = True

        def refuse(*arguments: Any) -> Any:
            if is_full:
                raise SpoolFull("no space left")
            return make(*arguments)

        monkeypatch.setattr(queue.spool, method, refuse)
        queue.handle(link, m.Holding(OWNER), [])
        queue.handle(link, request_, [])
        await link.until(lambda: any(isinstance(x, m.SpoolHealth) and not x.accepting for x in link.posted))
        assert answer not in link.kinds()
        is_full = False
        await link.until(lambda: answer in link.kinds() and link.posted[-1] == m.SpoolHealth(True, ""))

    run(body)


def test_new_link_gets_no_files_before_it_said_what_it_holds(run):
    """What it holds from before is given up; a segment made earlier would be taken for such a one, sealed and removed."""

    async def body(queue: Queue, link: Link) -> None:
        queue.handle(link, m.Holding(OWNER), [])
        queue.handle(link, m.NeedSegment(), [])
        await link.until(lambda: "SegmentOpened" in link.kinds())
        again = Link()
        queue.on_link(again)
        queue.handle(again, m.NeedSegment(), [])
        queue.handle(again, m.NeedBodyFiles(1), [])
        queue.handle(again, m.Holding(OWNER), [])
        queue.handle(again, m.NeedSegment(), [])
        await again.until(lambda: "SegmentOpened" in again.kinds())
        opened = [message.segment for message in again.posted if isinstance(message, m.SegmentOpened)]
        assert [number for number, state in queue.spool.segments.items() if state.sealed < 0] == opened
        assert "BodyFilesOpened" not in again.kinds()

    run(body)


def test_segments_that_cannot_be_read_are_tried_again(run, monkeypatch):
    """A receiver is dead and the disk fails at that moment: what it acknowledged is read later."""

    async def body(queue: Queue, link: Link) -> None:
        monkeypatch.setattr(role_module, "TICK_S", 0.01)
        tries: list[str] = []
        done = asyncio.Event()

        def fail_once(owner: str) -> list[Any]:
            tries.append(owner)
            if len(tries) == 1:
                raise SpoolFull("input/output error")
            queue.loop.call_soon_threadsafe(done.set)
            return []

        monkeypatch.setattr(queue.spool, "owner_gone", fail_once)
        queue.on_supervisor(m.PeerGone(*RECEIVER, 4711), [])
        await done.wait()
        assert tries == [OWNER, OWNER]

    run(body)


def test_link_is_given_up_if_old_segments_cannot_be_read(run, monkeypatch):
    """The receiver lives: a later try could seal what it has got meanwhile. It introduces itself again over a new link."""

    async def body(queue: Queue, link: Link) -> None:
        def fail(owner: str) -> list[Any]:
            raise SpoolFull("input/output error")

        monkeypatch.setattr(queue.spool, "owner_gone", fail)
        queue.handle(link, m.Holding(OWNER), [])
        await link.until(lambda: not link.is_open)

    run(body)


def test_refused_journal_is_tried_again_although_nothing_happens(run, monkeypatch):
    """While the journal is refused no mail is accepted: nobody else would ever commit again."""

    async def body(queue: Queue, link: Link) -> None:
        commit = queue.spool.commit
        failures = 3

        def refuse() -> None:
            nonlocal failures
            if failures:
                failures -= 1
                queue.spool.log.trouble = "no space left"
                raise SpoolFull("no space left")
            commit()

        monkeypatch.setattr(queue.spool, "commit", refuse)
        told = []
        queue.commit_soon(lambda: told.append(len(link.posted)))
        await link.until(lambda: any(isinstance(x, m.SpoolHealth) and not x.accepting for x in link.posted))
        await link.until(lambda: link.posted[-1] == m.SpoolHealth(True, "") and told)
        assert not failures

    run(body)


def test_a_message_that_cannot_be_read_is_tried_again_soon(run, monkeypatch):
    """No descriptor was free, or the disk failed for a moment: that must not cost it minutes."""

    async def body(queue: Queue, link: Link) -> None:
        monkeypatch.setattr(role_module, "RETRY_UNREADABLE_S", 0.01)
        source = queue.spool.source
        refusals = ["too many open files"]

        def refuse(entry: Any) -> Any:
            if refusals:
                raise SpoolFull(refusals.pop())
            return source(entry)

        monkeypatch.setattr(queue.spool, "source", refuse)
        recipient = Recipient("u@example.test", "example.test", "smtp://192.0.2.9:25")
        envelope = Envelope("m1", "s1", "", [recipient], time.time(), "", "", "own")
        queue.enter(queue.spool.store(envelope, [b"A: b\r\n\r\nc\r\n"]))
        deliverer = Link(("deliverer", 0, 1))
        queue.on_link(deliverer)
        await deliverer.until(lambda: "Attempt" in deliverer.kinds())
        assert not refusals

    run(body)
