"""STARTTLS on the server side, without I/O: what is offered, what is forgotten, what is never executed."""

from __future__ import annotations

import pytest

from gatepost.smtp.events import Hello, Mail, Quit, StartTls, Violation
from gatepost.smtp.reply import TLS_UNAVAILABLE
from gatepost.smtp.server import ServerSession, ServerSettings
from gatepost.smtp.transaction import State, Waiting

PLAIN = ServerSettings(hostname="mx.example.test", starttls=True)
STRICT = ServerSettings(hostname="mx.example.test", starttls=True, require_tls=True)
SECURED = ServerSettings(hostname="mx.example.test", is_secured=True, require_tls=True)


def new_session(settings=PLAIN) -> ServerSession:
    session = ServerSession(settings, "")
    session.greet()
    session.take_output()
    return session


def say(session: ServerSession, octets: bytes) -> tuple[list, bytes]:
    """Feed, answer everything positively; the events and what was said."""
    session.feed(octets)
    events = []
    while (event := session.next_event()) is not None:
        events.append(event)
        if event.needs_answer:
            session.answer()
    return events, session.take_output()


def secured_session(settings=PLAIN) -> ServerSession:
    session = new_session(settings)
    say(session, b"EHLO client.test\r\n")
    events, said = say(session, b"STARTTLS\r\n")
    assert [type(event) for event in events] == [StartTls] and said.startswith(b"220 2.0.0 ")
    assert session.waiting is Waiting.TLS
    session.secured(SECURED)
    return session


def test_it_is_offered_before_and_not_behind():
    session = new_session()
    assert b"STARTTLS" in say(session, b"EHLO client.test\r\n")[1]
    session = secured_session()
    assert b"STARTTLS" not in say(session, b"EHLO client.test\r\n")[1]
    assert say(session, b"STARTTLS\r\n")[1].startswith(b"503 5.5.1 ")


def test_it_does_not_exist_without_a_certificate():
    session = new_session(ServerSettings(hostname="mx.example.test"))
    assert b"STARTTLS" not in say(session, b"EHLO client.test\r\n")[1]
    assert say(session, b"STARTTLS\r\n")[1].startswith(b"502 5.5.1 ")


def test_everything_is_forgotten():
    session = secured_session()
    assert session.helo == "" and not session.esmtp and session.state is State.HELLO
    assert say(session, b"MAIL FROM:<a@b.test>\r\n")[1].startswith(b"503 5.5.1 Send EHLO")
    assert say(session, b"EHLO client.test\r\nMAIL FROM:<a@b.test>\r\n")[1].startswith(b"503 5.5.0 ")  # pipelined


@pytest.mark.parametrize(
    "behind", [b"EHLO evil.test\r\n", b"\r\n", b"x", b"\x16\x03\x01\x00\x05", b"MAIL FROM:<a@b.test>\r\n" * 9]
)
def test_what_comes_in_the_same_read_is_an_injection(behind):
    for first in (b"", b"EHLO client.test\r\n"):
        session = new_session()
        if first:
            say(session, first)
        events, said = say(session, b"STARTTLS\r\n" + behind)
        assert [(type(event), event.kind) for event in events] == [(Violation, "starttls-injection")]
        assert said.startswith(b"501 5.5.4 ") and session.closing
        assert say(session, b"NOOP\r\n") == ([], b"")


def test_what_comes_before_the_answer_is_an_injection_too():
    session = new_session()
    session.feed(b"STARTTLS\r\n")
    assert isinstance(session.next_event(), StartTls)
    session.feed(b"EHLO evil.test\r\n")
    session.answer()
    events, said = say(session, b"")
    assert [event.kind for event in events] == ["starttls-injection"]
    assert said.startswith(b"501 5.5.4 ") and b"220" not in said and session.closing


def test_in_a_transaction_it_is_out_of_order():
    session = new_session()
    say(session, b"EHLO client.test\r\n")
    say(session, b"MAIL FROM:<a@b.test>\r\n")
    assert say(session, b"STARTTLS\r\n")[1].startswith(b"503 5.5.1 ")
    assert session.state is State.MAIL


def test_with_an_argument_it_is_refused():
    assert say(new_session(), b"STARTTLS now\r\n")[1].startswith(b"501 5.5.4 ")


def test_the_owner_may_refuse_and_the_session_goes_on():
    session = new_session()
    say(session, b"EHLO client.test\r\n")
    session.feed(b"STARTTLS\r\n")
    assert isinstance(session.next_event(), StartTls)
    session.answer(TLS_UNAVAILABLE)
    assert session.take_output().startswith(b"454 4.7.0 ")
    assert [type(event) for event in say(session, b"MAIL FROM:<a@b.test>\r\n")[0]] == [Mail]


@pytest.mark.parametrize(
    "line", [b"MAIL FROM:<a@b.test>", b"VRFY user", b"RSET", b"DATA", b"HELP", b"RCPT TO:<a@b.test>"]
)
def test_where_it_is_required_nothing_goes_without(line):
    session = new_session(STRICT)
    for hello in (b"EHLO client.test\r\n", b"HELO client.test\r\n"):
        events, said = say(session, hello)
        assert [type(event) for event in events] == [Hello] and said.startswith(b"250")
        assert say(session, line + b"\r\n")[1].startswith(b"530 5.7.0 ")
    assert say(session, b"NOOP\r\n")[1].startswith(b"250 ")
    assert say(session, b"BDAT 10 LAST\r\n0123456789")[1].startswith(b"503 ")
    events, said = say(session, b"QUIT\r\n")
    assert [type(event) for event in events] == [Quit] and said.startswith(b"221 ")


def test_where_it_is_required_everything_goes_with_it():
    session = secured_session(STRICT)
    say(session, b"EHLO client.test\r\n")
    assert [type(event) for event in say(session, b"MAIL FROM:<a@b.test>\r\n")[0]] == [Mail]


def test_tls_from_the_first_octet_greets_behind_it():
    session = ServerSession(STRICT, "")
    session.secured(SECURED)
    assert session.waiting is Waiting.GREETING
    session.greet()
    assert session.take_output().startswith(b"220 ")
    say(session, b"EHLO client.test\r\n")
    assert session.state is State.READY


def test_time_over_in_the_handshake_says_nothing_more_than_421():
    session = new_session()
    say(session, b"STARTTLS\r\n")
    session.timeout()
    assert session.closing and session.take_output().startswith(b"421 4.4.2 ")  # the layer drops it
