"""A mistake of ours in one session: the client hears 451 and is closed, it is told, and what came before has its replies."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from net.notingtransport import NotingTransport

from gatepost.net.smtp_in import SmtpIn
from gatepost.smtp.server import ServerSession, ServerSettings


def test_an_exception_in_a_decision_is_told_and_ends_the_session_with_451() -> None:
    told: list[dict[str, Any]] = []
    bug = RuntimeError("a bug")

    def decide_mail(connection: object, event: object) -> None:
        raise bug

    loop = SimpleNamespace(time=lambda: 0.0, call_exception_handler=told.append)
    host: Any = SimpleNamespace(loop=loop, decide_hello=lambda *_: None, decide_mail=decide_mail, held_bytes=0)
    connection = SmtpIn(host, None)  # type: ignore[arg-type]
    connection.transport = transport = NotingTransport()
    connection.session = ServerSession(ServerSettings(hostname="gate.example.test"), "S1")
    connection.session_id = "S1"
    connection.greet()
    connection.data_received(b"EHLO client.example\r\n")
    connection.data_received(b"NOOP\r\nMAIL FROM:<a@b.test>\r\nQUIT\r\n")
    assert [line[:9] for line in transport.written.splitlines()[-2:]] == [b"250 2.0.0", b"451 4.3.0"]
    assert transport.closed and [each["exception"] for each in told] == [bug]
    connection.check_deadline(5.0)
    assert transport.written.count(b"451 4.3.0") == 1
