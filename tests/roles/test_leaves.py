"""A role that ends has said what it had to say: an outcome that is lost is a message delivered twice."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gatepost.events import EventLog
from gatepost.ipc import messages as m
from gatepost.ipc.wire import Channel, PacketReader
from gatepost.roles import skeleton
from gatepost.roles.skeleton import Role

LIMIT_S = 60.0
MESSAGES = 3000


class Leaving(Role):
    """Notes that it has ended."""

    def __init__(self, log: EventLog, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        start: Any = SimpleNamespace(role="deliverer", instance=0, generation=0, extra={})
        super().__init__(start, SimpleNamespace(), [], log, loop)  # type: ignore[arg-type]
        self.ended = asyncio.Event()
        peer = ("queue", 0, 0)
        nothing: Any = lambda *_: None
        self.links[peer] = Channel(sock, loop, peer=peer, accepts=frozenset(), on_message=nothing, on_lost=nothing)

    def exit(self, status: int = 0) -> None:
        self.ended.set()


def leave(tmp_path: Path, *, reads: bool) -> int:
    """How many of MESSAGES a peer gets that reads nothing until the role is about to leave, or nothing at all."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reader = PacketReader(theirs)
    found = 0

    async def body(log: EventLog) -> None:
        def read() -> None:
            nonlocal found
            found += len(reader.read()[0])

        role = Leaving(log, ours)
        (channel,) = role.links.values()
        for number in range(MESSAGES):
            channel.post(m.Answer(number, bytes(500)))
        channel.flush()
        assert channel.waiting
        role.leave()
        if reads:
            assert not role.ended.is_set()
            role.loop.add_reader(theirs.fileno(), read)
        await role.ended.wait()
        while reads and found < MESSAGES:  # sent, and not read yet
            await asyncio.sleep(0)
        role.loop.remove_reader(theirs.fileno())
        channel.close()

    with theirs, (tmp_path / "events").open("ab") as events:
        asyncio.run(asyncio.wait_for(body(EventLog(events.fileno(), "deliverer")), LIMIT_S))
    return found


def test_all_that_was_said_arrives(tmp_path: Path) -> None:
    assert leave(tmp_path, reads=True) == MESSAGES


def test_a_peer_that_takes_nothing_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skeleton, "LEAVE_S", 0.05)
    assert leave(tmp_path, reads=False) == 0
