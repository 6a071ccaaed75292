"""The limit of a drain: a session that is still there hears 421 before it is cut, and one whose message is being written is left alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from net.notingtransport import NotingTransport

from gatepost.net.proxy_in import ProxyIn
from gatepost.net.smtp_in import SmtpIn
from gatepost.roles.receiver import FAREWELL_S, Receiver
from gatepost.smtp.server import ServerSession, ServerSettings


def connect(*commands: bytes) -> tuple[SmtpIn, NotingTransport]:
    host: Any = SimpleNamespace(
        loop=SimpleNamespace(time=lambda: 0.0), decide_hello=lambda connection, event: None, held_bytes=100
    )
    connection = SmtpIn(host, None)  # type: ignore[arg-type]
    connection.transport = transport = NotingTransport()
    connection.session = ServerSession(ServerSettings(hostname="gate.example.test"), "S1")
    connection.greet()
    return connection, transport


def in_a_transaction(is_committing: bool) -> Any:
    return SimpleNamespace(
        is_committing=is_committing,
        body_file=-1,
        body_descriptor=-1,
        body_bytes=60,
        chunks=[b"x"],
        begun_s=0.0,
        header_hold=None,
    )


def test_an_idle_session_hears_that_it_ends() -> None:
    connection, transport = connect()
    connection.cut_off()
    assert transport.written.splitlines()[-1].startswith(b"421 4.3.2 ") and transport.closed
    before = transport.written
    connection.cut_off()
    assert transport.written == before


@pytest.mark.parametrize("is_committing", [False, True])
def test_one_in_the_middle_of_a_message_too_but_not_while_it_is_made_durable(is_committing: bool) -> None:
    connection, transport = connect()
    connection.transaction = in_a_transaction(is_committing)
    connection.cut_off()
    assert transport.closed is not is_committing
    assert (b"\r\n421 " in transport.written) is not is_committing
    assert connection.host.held_bytes == (100 if is_committing else 40)


def test_the_receiver_cuts_all_off_at_its_limit_and_then_ends() -> None:
    timers: list[tuple[float, Any]] = []
    receiver = Receiver.__new__(Receiver)
    receiver.loop = SimpleNamespace(call_later=lambda delay_s, call: timers.append((delay_s, call)))
    receiver._is_draining = False
    receiver._admission = SimpleNamespace(is_ending=False)  # type: ignore[assignment]
    receiver._doors = SimpleNamespace(close=lambda: None)  # type: ignore[assignment]
    sessions = [connect() for _ in range(2)]
    receiver._connections = {connection for connection, _ in sessions}
    receiver.drain(600.0, end_sessions=False)
    assert not any(transport.closed for _, transport in sessions)  # a reload lets them go on
    ((limit_s, at_the_limit),) = timers
    assert limit_s == 600.0
    at_the_limit()
    assert all(b"\r\n421 " in transport.written and transport.closed for _, transport in sessions)
    assert timers[1] == (FAREWELL_S, receiver.exit)


def test_one_behind_a_proxy_that_said_nothing_yet_is_cut_off() -> None:
    waiting = ProxyIn(SimpleNamespace(), SimpleNamespace())  # type: ignore[arg-type]
    waiting._transport = transport = NotingTransport()
    waiting.cut_off()
    assert transport.closed
