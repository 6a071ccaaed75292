"""STARTTLS on the client side, without I/O: nothing of a message is sent before it where it must not."""

from __future__ import annotations

import pytest

from gatepost.smtp.client import ClientSession, ClientSettings, State, Tls, Transaction

GREETING = b"220 mx.example.test ESMTP\r\n"
OFFER = b"250-mx.example.test\r\n250-SIZE 1000\r\n250 STARTTLS\r\n"
NO_OFFER = b"250-mx.example.test\r\n250 SIZE 1000\r\n"


class Owner:
    def __init__(self) -> None:
        self.asked = 0

    def supply(self) -> Transaction | None:
        self.asked += 1
        return Transaction("a@outside.test", ["b@example.test"], 10) if self.asked == 1 else None


def new_session(tls: Tls, *, lmtp: bool = False) -> tuple[ClientSession, Owner]:
    owner = Owner()
    return ClientSession(ClientSettings("gate.example.test", tls=tls, lmtp=lmtp), owner.supply), owner


def hear(session: ClientSession, *replies: bytes) -> bytes:
    said = []
    for reply in replies:
        session.receive(reply)
        said += session.take_output()
    return b"".join(said)


@pytest.mark.parametrize("tls", [Tls.IF_OFFERED, Tls.ALWAYS])
@pytest.mark.parametrize("lmtp", [False, True])
def test_it_is_asked_for_and_hello_is_said_again(tls, lmtp):
    session, owner = new_session(tls, lmtp=lmtp)
    hello = b"LHLO gate.example.test\r\n" if lmtp else b"EHLO gate.example.test\r\n"
    assert hear(session, GREETING, OFFER) == hello + b"STARTTLS\r\n"
    assert hear(session, b"220 2.0.0 go ahead\r\n") == b"" and session.state is State.TLS
    assert owner.asked == 0
    session.secured()
    assert b"".join(session.take_output()) == hello
    assert session.extensions == {} and session.size_limit == 0
    assert hear(session, b"250-mx.example.test\r\n250 STARTTLS\r\n").startswith(b"MAIL FROM:<a@outside.test>\r\n")
    assert session.is_secured and owner.asked == 1


def test_never_is_never():
    session, _ = new_session(Tls.NEVER)
    assert hear(session, GREETING, OFFER).endswith(b"MAIL FROM:<a@outside.test> SIZE=10\r\n")


@pytest.mark.parametrize(
    "answers",
    [
        (NO_OFFER,),
        (OFFER, b"454 4.7.0 not now\r\n"),
        (OFFER, b"502 no\r\n"),
        (OFFER, b"250 ok\r\n"),
        (b"502 what\r\n", b"250 hello\r\n"),
    ],
)
def test_where_it_may_be_clear_it_goes_on_and_where_not_it_ends(answers):
    session, _ = new_session(Tls.IF_OFFERED)
    assert b"MAIL FROM:<a@outside.test>" in hear(session, GREETING, *answers)
    session, owner = new_session(Tls.ALWAYS)
    assert b"MAIL" not in hear(session, GREETING, *answers)
    assert session.failure is not None and session.failure[:2] == ("tls", "unsecured")
    assert owner.asked == 0 and session.state is State.CLOSED


@pytest.mark.parametrize("behind", [b"250 injected\r\n", b"2", b"250-half a reply\r\n", b"\x16\x03"])
@pytest.mark.parametrize("apart", [False, True])
def test_more_behind_the_reply_is_an_injection(behind, apart):
    session, owner = new_session(Tls.IF_OFFERED)
    hear(session, GREETING, OFFER)
    if apart and behind != b"\x16\x03":
        session.receive(b"220 go\r\n")
        session.receive(behind)
    else:
        session.receive(b"220 go\r\n" + behind)
    assert session.failure is not None and session.failure[:2] == ("tls", "protocol")
    assert session.take_output() == [] and owner.asked == 0


def test_421_ends_the_session():
    session, _ = new_session(Tls.ALWAYS)
    hear(session, GREETING, OFFER, b"421 4.3.2 going down\r\n")
    assert session.failure is not None and session.failure.reply is not None and session.failure.reply.code == 421


def test_a_failed_handshake_is_a_failure_of_its_own():
    session, owner = new_session(Tls.IF_OFFERED)
    hear(session, GREETING, OFFER, b"220 go\r\n")
    session.close("tls", "no shared cipher")
    assert session.failure is not None and session.failure[:2] == ("tls", "tls")
    session.secured()
    assert session.take_output() == [] and owner.asked == 0
