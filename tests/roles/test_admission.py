"""When a client is greeted: one that talked before is found out, also by a receiver that slept through the delay."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest
import uvloop

from gatepost.config.schema import Smtp
from gatepost.roles.admission import Admission


class Engine:
    """Has no checks and no table of access."""

    access = None

    def has_checks(self, phase: Any) -> bool:
        return False


class Connection(asyncio.Protocol):
    """Notes what happens to it, in order."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.facts = self
        self.client_permit = None
        self.greeted = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.order.append("data")

    def greet(self) -> None:
        self.order.append("greeting")
        self.greeted.set()


async def greet_one_that_talks(nap_s: float) -> list[str]:
    """The order of events where the process gets no turn for `nap_s` when the client has come."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    transport, connection = await loop.create_connection(Connection, sock=ours)
    nothing: Any = None
    admission = Admission(Smtp(greeting_delay_s=0.01), Engine(), nothing, nothing, loop, lambda *_, **__: None)  # type: ignore[arg-type]
    knocking, door = socket.socketpair()

    def enter() -> None:
        door.recv(1)
        admission.greet(connection)  # type: ignore[arg-type]
        theirs.sendall(b"EHLO early.example\r\n")
        time.sleep(nap_s)

    loop.add_reader(door.fileno(), enter)
    knocking.sendall(b"x")
    await asyncio.wait_for(connection.greeted.wait(), 60)
    loop.remove_reader(door.fileno())
    transport.close()
    for sock in (theirs, knocking, door):
        sock.close()
    return connection.order


@pytest.mark.parametrize("nap_s", [0.0, 0.05])
def test_one_that_talks_early_is_heard_before_the_greeting(nap_s: float):
    """The loop of the receivers looks at its timers before it reads."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(greet_one_that_talks(nap_s)) == ["data", "greeting"]
