"""A process that got no turn for long finds nobody late whose octets have come meanwhile: it reads before it looks at the clock."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from delivery.scripted_host import Bed, Host
from delivery.scripted_host import run as run_delivery
from net.dns_authority import DnsAuthority, HandClock, loop_runner, make_resolver

from gatepost.model import Result
from gatepost.net.turns import READ_S
from gatepost.roles.receiver import SWEEP_S, Receiver


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_an_answer_of_dns(loop_factory: Any) -> None:
    async def go() -> None:
        clock = HandClock()
        async with DnsAuthority(clock.late) as server:
            resolver = make_resolver(server, loop=clock)
            assert (await resolver.query("MX", "example.test")).status == "ok"
            assert (len(server.seen), resolver.counters.timeouts) == (1, 0)
            resolver.close()

    with loop_runner(loop_factory) as run:
        run(go())


def test_what_a_client_said() -> None:
    timers: list[tuple[float, Any]] = []
    looked: list[float] = []
    receiver = Receiver.__new__(Receiver)
    receiver.loop = SimpleNamespace(call_later=lambda delay_s, call: timers.append((delay_s, call)), time=lambda: 7.0)
    receiver._judgement = SimpleNamespace(flush=lambda: None)  # type: ignore[assignment]
    receiver._connections = [SimpleNamespace(check_deadline=looked.append)]  # type: ignore[assignment]
    receiver._queue = object()  # type: ignore[assignment]
    receiver._sweep()
    assert timers[0] == (SWEEP_S, receiver._sweep) and timers[1][0] == READ_S and not looked
    timers[1][1]()
    assert looked == [7.0]


def test_a_reply_of_a_next_hop() -> None:
    async def go() -> None:
        ahead_s = 0.0

        def late(step: str, line: str) -> None:
            nonlocal ahead_s
            if step == "END":
                ahead_s = 10_000.0  # the time for all replies is over, and this one will lie in the socket
                asyncio.get_running_loop().call_soon(bed.engine._on_tick)

        host = await Host(late).start()
        async with Bed(clock=lambda: time.monotonic() + ahead_s) as bed:
            done = await bed.submit(host.next_hop)
            assert done.outcomes[0].result is Result.DELIVERED
            assert (host.connections, len(host.messages)) == (1, 1)

    run_delivery(go())
