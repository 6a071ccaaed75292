"""A role that was broken into cannot stop the supervisor: neither by not reading, nor by saying too much."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from gatepost.config.schema import Auth, Config
from gatepost.ipc.messages import AuthSocket, NeedAuthSocket, Pong, Serving
from gatepost.ipc.wire import PacketReader, WireError, send_blocking
from gatepost.privsep import authsocket
from gatepost.privsep import child as child_module
from gatepost.privsep.authsocket import ANOTHER_S, MAX_AT_ONCE, give_auth_socket, may_have_another
from gatepost.privsep.child import MAX_MESSAGES_S, Child, State


@pytest.fixture
def role() -> Iterator[tuple[Child, socket.socket]]:
    """A child with a process of its own, and the role's end of its channel."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with subprocess.Popen(["sleep", "60"]) as process, theirs:
        child = Child("receiver", 0, 1)
        child.pid, child.state = process.pid, State.READY
        child._sock, child.reader = ours, PacketReader(ours)
        yield child, theirs
        child.close()
        process.kill()


def test_one_that_does_not_read_is_killed(role: tuple[Child, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "READY_TIMEOUT_S", 0.05)
    child, _ = role
    killed: list[int] = []
    monkeypatch.setattr(Child, "signal", lambda self, number: killed.append(number))
    for _ in range(100_000):
        if not child.send(AuthSocket("no longer in the configuration")):
            break
    assert killed == [signal.SIGKILL]


def test_one_that_says_too_much_breaks_the_protocol(role: tuple[Child, socket.socket]) -> None:
    child, theirs = role
    now_s = time.monotonic()
    for _ in range(MAX_MESSAGES_S):
        send_blocking(theirs, NeedAuthSocket())
        assert child.read(now_s) == [NeedAuthSocket()]
    send_blocking(theirs, Serving())
    assert child.read(now_s + 1.0) == [Serving()]  # another second
    for number in range(MAX_MESSAGES_S):
        send_blocking(theirs, Pong())
        if number == MAX_MESSAGES_S - 1:
            with pytest.raises(WireError):
                child.read(now_s + 1.0)
        else:
            child.read(now_s + 1.0)


def test_connections_to_dovecot_are_few(role: tuple[Child, socket.socket]) -> None:
    child, _ = role
    now_s = 5000.0
    assert [may_have_another(child, now_s) for _ in range(MAX_AT_ONCE + 2)] == [True] * MAX_AT_ONCE + [False, False]
    assert may_have_another(child, now_s + ANOTHER_S) and not may_have_another(child, now_s + ANOTHER_S)
    assert all(may_have_another(child, now_s + (2 + number) * ANOTHER_S) for number in range(100))


def test_a_flood_of_requests_is_answered_without_connections(
    role: tuple[Child, socket.socket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child, theirs = role
    monkeypatch.setattr(authsocket, "time", SimpleNamespace(monotonic=lambda: 5000.0))  # all of it at once
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "auth"))
        listener.listen(100)
        config = Config(hostname="x", listen=[], spool="/s", domains={}, auth=Auth(dovecot=f"unix:{tmp_path}/auth"))
        reader, given = PacketReader(theirs), 0
        for _ in range(50):
            give_auth_socket(config, child)
            (answer,), descriptors = reader.read()
            assert bool(descriptors) is not bool(answer.reason)  # type: ignore[attr-defined]
            given += len(descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
    assert given == MAX_AT_ONCE
