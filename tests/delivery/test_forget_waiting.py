"""Attempts whose giver is gone: those that nobody has begun end at once, those under way go on."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from scripted_host import Bed, Host, run

from gatepost.config.schema import Config
from gatepost.delivery.maildir import MaildirEngine
from gatepost.ipc.messages import Attempt
from gatepost.model import Envelope, Recipient, Result


def test_smtp():
    async def body() -> None:
        host = await Host().start()
        async with Bed() as bed:
            waiters = [bed.submit(host.next_hop, limit=1) for _ in range(3)]
            await asyncio.sleep(0)  # the connection is being opened
            bed.engine.forget_waiting()
            dones = await asyncio.gather(*waiters)
            assert {done.outcomes[0].result for done in dones} == {Result.DEFERRED}
            assert (await bed.submit(host.next_hop, limit=1)).outcomes[0].result is Result.DELIVERED
        assert len(host.messages) == 1

    run(body())


def test_smtp_under_way_goes_on():
    async def body() -> None:
        begun = asyncio.Event()

        def rule(step: str, line: str) -> None:
            if step == "MAIL":
                begun.set()

        host = await Host(rule, extensions=("8BITMIME",)).start()
        async with Bed() as bed:
            waiters = [bed.submit(host.next_hop, limit=1) for _ in range(3)]
            await begun.wait()
            bed.engine.forget_waiting()
            dones = await asyncio.gather(*waiters)
            assert [done.outcomes[0].result for done in dones] == [Result.DELIVERED, Result.DEFERRED, Result.DEFERRED]
        assert len(host.messages) == 1

    run(body())


def test_maildir(tmp_path: Path):
    """The thread is held in the first message while others wait."""

    async def body() -> None:
        reading, release = threading.Event(), threading.Event()
        finished: dict[int, Result] = {}

        def read(source: int, offset: int, count: int) -> bytes:
            reading.set()
            assert release.wait(60)
            return b"A: b\r\n\r\nc\r\n"[offset : offset + count]

        engine = MaildirEngine(
            Config(hostname="gate.test", listen=[], spool="/nowhere", domains={}),
            root=str(tmp_path),
            read=read,
            done=lambda done: finished.update({done.job: done.outcomes[0].result}),
            event=lambda name, **fields: None,
        )
        recipient = Recipient("u@x.test", "x.test", "maildir:/u")
        envelope = Envelope("m", "s", "a@b.test", [recipient], 0.0, "192.0.2.1", "helo", "recipient-domain")
        engine.submit(Attempt(1, 1, 0, 11, "maildir:/u", 1, envelope, [0]))
        await asyncio.to_thread(reading.wait, 60)
        for job in (2, 3):
            engine.submit(Attempt(job, 1, 0, 11, "maildir:/u", 1, envelope, [0]))
        engine.forget_waiting()
        assert finished == {2: Result.DEFERRED, 3: Result.DEFERRED}
        release.set()
        await engine.drain()
        assert finished[1] is Result.DELIVERED
        assert len(list((tmp_path / "u" / "new").iterdir())) == 1

    run(body())
