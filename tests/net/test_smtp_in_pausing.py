"""When a connection reads: not while its client does not read its replies, whatever else ends meanwhile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from gatepost.net.smtp_in import SmtpIn
from gatepost.smtp.server import ServerSession, ServerSettings


class Transport:
    """Notes whether it may read."""

    def __init__(self) -> None:
        self.is_reading = True
        self.written = b""

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.written += data


def connect() -> tuple[SmtpIn, Transport]:
    host: Any = SimpleNamespace(loop=SimpleNamespace(time=lambda: 0.0), decide_hello=lambda connection, event: None)
    connection = SmtpIn(host, None)  # type: ignore[arg-type]
    connection.transport = transport = Transport()
    connection.session = ServerSession(ServerSettings(hostname="gate.example.test"), "S1")
    connection.greet()
    return connection, transport


def test_a_client_that_does_not_read_is_not_read() -> None:
    connection, transport = connect()
    connection.pause_writing()
    assert not transport.is_reading
    connection.resume_writing()
    assert transport.is_reading


def test_the_end_of_a_commit_does_not_wake_one_whose_client_does_not_read() -> None:
    connection, transport = connect()
    connection.pause_writing()
    connection.advance()  # as it is called when the message of a pipelined group is durable
    assert not transport.is_reading
    connection.resume_writing()
    assert transport.is_reading


def test_one_that_waits_for_a_body_file_is_not_woken_by_a_client_that_reads() -> None:
    connection, transport = connect()
    connection.transaction = SimpleNamespace(body_file=-1, is_committing=False)  # type: ignore[assignment]
    connection.pause()
    connection.pause_writing()
    connection.resume_writing()
    assert not transport.is_reading
