"""Several hosts of one next hop: who is tried next, and when nobody else is."""

from __future__ import annotations

import asyncio

import pytest
from integration.peers.process import take_port
from scripted_host import DROP, Bed, Host, run

from gatepost.model import NextHopTrouble, Result


def always(step: str, reply: bytes):
    return lambda asked, line: reply if asked == step else None


def test_failover_to_the_next_host_and_memory_of_the_dead_one():
    async def body() -> None:
        host = await Host().start()
        dead = take_port()
        async with Bed() as bed:
            hop = f"smtp://127.0.0.1:{dead},{host.next_hop}"
            done = await bed.submit(hop)
            assert done.outcomes[0].result is Result.DELIVERED and done.trouble is NextHopTrouble.NONE
            other = await Host().start(port=dead)
            waiters = [bed.submit(hop, limit=3) for _ in range(9)]
            await asyncio.gather(*waiters)
            assert other.connections == 0
            await other.stop()

    run(body())


@pytest.mark.parametrize(
    ("step", "reply"),
    [
        ("CONNECT", b"554 no"),
        ("CONNECT", DROP),
        ("EHLO", b"550 no"),
        ("MAIL", b"421 busy"),
        ("MAIL", DROP),
        ("MAIL", b"451 later"),
        ("RCPT", b"450 grey"),
        ("DATA", b"451 later"),
        ("DATA", DROP),
    ],
)
def test_another_host_is_tried(step: str, reply: bytes):
    def rule(asked: str, line: str) -> bytes | None:
        return reply if asked == step or (step == "EHLO" and asked == "HELO") else None

    async def body() -> None:
        first, second = await Host(rule).start(), await Host().start()
        async with Bed() as bed:
            done = await bed.submit(f"{first.next_hop},{second.next_hop}", limit=1)
        assert done.outcomes[0].result is Result.DELIVERED
        assert str(second.port) in done.outcomes[0].host
        assert len(second.messages) == 1 and first.messages == []

    run(body())


@pytest.mark.parametrize(
    ("step", "reply"), [("MAIL", b"550 no"), ("RCPT", b"550 no"), ("END", DROP), ("END", b"451 no")]
)
def test_no_other_host_is_tried(step: str, reply: bytes):
    async def body() -> None:
        first, second = await Host(always(step, reply)).start(), await Host().start()
        async with Bed() as bed:
            done = await bed.submit(f"{first.next_hop},{second.next_hop}", limit=1)
        assert done.outcomes[0].result is not Result.DELIVERED
        assert second.connections == 0

    run(body())


def test_when_the_other_host_is_dead_the_first_answer_counts():
    async def body() -> None:
        host = await Host(always("RCPT", b"450 4.2.0 grey")).start()
        async with Bed() as bed:
            done = await bed.submit(f"{host.next_hop},smtp://127.0.0.1:{take_port()}", limit=1)
        assert done.outcomes[0].status == "4.2.0" and done.outcomes[0].stage == "rcpt"

    run(body())


def test_all_hosts_dead():
    async def body() -> None:
        async with Bed() as bed:
            hop = f"smtp://127.0.0.1:{take_port()},smtp://127.0.0.1:{take_port()}"
            waiters = [bed.submit(hop, limit=2) for _ in range(5)]
            dones = await asyncio.gather(*waiters)
        for done in dones:
            assert done.trouble is NextHopTrouble.DOWN
            outcome = done.outcomes[0]
            assert (outcome.result, outcome.stage, outcome.status) == (Result.DEFERRED, "connect", "4.4.1")
        assert bed.engine.stats()["attempts"] == 0

    run(body())
