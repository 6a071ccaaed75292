"""The client's side of SASL, against the server's side of our own, test vectors, and hosts that lie."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest

from gatepost.smtp.client import ClientSession, ClientSettings, State, Tls, Transaction
from gatepost.smtp.sasl.client import Login, LoginAttempt, LoginFailed, choose
from gatepost.smtp.sasl.mechanism import Challenge, Done, Security, VerifierOf
from gatepost.smtp.sasl.scram import derive_verifier, scram

BINDING = b"b" * 32
VERIFIER = derive_verifier("correct horse", b"salt" * 4, 4096)


def exchange(
    mechanism: str, password: str, *, seen: bytes = BINDING, plus_offered: bool = True
) -> tuple[Done, LoginAttempt]:
    """Our client against our server; `seen` is the binding of the certificate that the client was shown."""
    login = Login("anna", password=password)
    attempt = LoginAttempt(mechanism, login, binding=seen, plus_offered=plus_offered)
    plus = mechanism.endswith("-PLUS")
    server = scram(attempt.initial, Security(bindings={"tls-server-end-point": (BINDING,)}), True, "sha256", plus=plus)
    asked = next(server)
    try:
        while True:
            if isinstance(asked, VerifierOf):
                asked = server.send(VERIFIER)
            else:
                assert isinstance(asked, Challenge)
                asked = server.send(attempt.respond(asked.octets))
    except StopIteration as end:
        return end.value, attempt


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"])
def test_scram_with_our_own_server(mechanism: str) -> None:
    done, attempt = exchange(mechanism, "correct horse")
    assert done.granted and attempt.is_proved
    done, attempt = exchange(mechanism, "wrong horse")
    assert not done.granted and not attempt.is_proved


def test_a_man_in_the_middle_gets_nothing_with_plus() -> None:
    done, attempt = exchange("SCRAM-SHA-256-PLUS", "correct horse", seen=b"m" * 32)
    assert not done.granted and not attempt.is_proved
    done, _ = exchange("SCRAM-SHA-256", "correct horse", plus_offered=False)  # it has hidden -PLUS: the server notices
    assert not done.granted


def test_the_vector_of_rfc_7677() -> None:
    attempt = LoginAttempt("SCRAM-SHA-256", Login("user", password="pencil"), nonce=b"rOprNGfwEbeRWgbNEkqO")
    assert attempt.initial == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    first = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    final = attempt.respond(first)
    assert final.endswith(b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    assert not attempt.is_proved
    assert attempt.respond(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=") == b""
    assert attempt.is_proved


@pytest.mark.parametrize(
    "first",
    [
        b"", b"r=other,s=c2FsdA==,i=4096", b"r=NONCE,s=c2FsdA==,i=4096", b"r=NONCEx,s=c2FsdA==,i=1", b"r=NONCEx,s=c2FsdA==,i=4095",
        b"r=NONCEx,s=c2FsdA==,i=999999999", b"r=NONCEx,s=c2FsdA==,i=0", b"r=NONCEx,s=###,i=4096", b"e=unknown-user",
    ],
)  # fmt: skip
def test_a_first_answer_that_is_none(first: bytes) -> None:
    attempt = LoginAttempt("SCRAM-SHA-256", Login("user", password="pencil"), nonce=b"NONCE")
    with pytest.raises(LoginFailed):
        attempt.respond(first)


def test_choice() -> None:
    login = Login("a", password="p")
    every = {"PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "XOAUTH2"}
    assert choose(login, every, is_verified=True, has_binding=True) == "SCRAM-SHA-256-PLUS"
    assert choose(login, every, is_verified=True, has_binding=False) == "SCRAM-SHA-256"
    assert choose(login, {"PLAIN", "LOGIN"}, is_verified=True, has_binding=True) == "PLAIN"
    assert choose(login, {"PLAIN", "LOGIN"}, is_verified=False, has_binding=True) == ""
    assert choose(login, every - {"SCRAM-SHA-256-PLUS"}, is_verified=False, has_binding=True) == "SCRAM-SHA-256"
    assert choose(Login("a", password="p", mechanisms=["LOGIN"]), every, is_verified=True, has_binding=True) == "LOGIN"
    token = Login("a", token="t")
    assert choose(token, every, is_verified=True, has_binding=True) == "XOAUTH2"
    assert choose(token, {"PLAIN", "SCRAM-SHA-256"}, is_verified=True, has_binding=True) == ""


def test_nothing_shows_the_secret() -> None:
    assert "hidden" not in repr(Login("a", password="hidden")) + str(Login("a", token="hidden"))


OFFER = b"250-mx.example.test\r\n250-AUTH PLAIN LOGIN SCRAM-SHA-256 XOAUTH2 OAUTHBEARER\r\n250 STARTTLS\r\n"


def session_of(
    login: Login, *, tls: Tls = Tls.ALWAYS, is_verified: bool = True, offer: bytes = OFFER
) -> tuple[ClientSession, bytes]:
    waiting = [Transaction("a@outside.test", ["b@example.test"], 10)]
    session = ClientSession(ClientSettings("gate.test", tls=tls), lambda: waiting.pop() if waiting else None, login)
    said = [b""]
    for reply in (b"220 mx ESMTP\r\n", OFFER, b"220 go ahead\r\n"):
        if session.state is not State.CLOSED:
            session.receive(reply)
            said += session.take_output()
    if session.state is State.TLS:
        session.is_verified = is_verified
        session.secured(BINDING)
        session.take_output()
        session.receive(offer)
        said = session.take_output()
    return session, b"".join(said)


def hear(session: ClientSession, reply: bytes) -> bytes:
    session.receive(reply)
    return b"".join(session.take_output())


def test_plain_and_then_mail() -> None:
    session, said = session_of(Login("anna", password="pw", mechanisms=["PLAIN"]))
    assert said == b"AUTH PLAIN " + b64encode(b"\0anna\0pw") + b"\r\n"
    assert session.state is State.AUTH
    assert hear(session, b"235 2.7.0 ok\r\n").startswith(b"MAIL FROM:<a@outside.test>")


def test_login_asks_twice() -> None:
    session, said = session_of(Login("anna", password="pw", mechanisms=["LOGIN"]))
    assert said == b"AUTH LOGIN\r\n"
    assert hear(session, b"334 VXNlcm5hbWU6\r\n") == b64encode(b"anna") + b"\r\n"
    assert hear(session, b"334 UGFzc3dvcmQ6\r\n") == b64encode(b"pw") + b"\r\n"
    assert hear(session, b"235 ok\r\n").startswith(b"MAIL")


def test_a_long_token_waits_for_its_turn_and_a_refusal_is_heard_to_its_end() -> None:
    session, said = session_of(Login("anna", token="t" * 1000))
    assert said == b"AUTH OAUTHBEARER\r\n"
    answer = hear(session, b"334 \r\n")
    assert b64decode(answer) == b"n,a=anna,\x01auth=Bearer " + b"t" * 1000 + b"\x01\x01"
    assert hear(session, b"334 " + b64encode(b'{"status":"invalid_token"}') + b"\r\n") == b64encode(b"\x01") + b"\r\n"
    hear(session, b"535 5.7.8 no\r\n")
    assert session.failure is not None and (session.failure.stage, session.failure.kind) == ("auth", "reply")


@pytest.mark.parametrize("tls", [Tls.NEVER, Tls.IF_OFFERED])
def test_never_in_clear(tls: Tls) -> None:
    waiting: list[Transaction] = []
    session = ClientSession(ClientSettings("gate.test", tls=tls), lambda: None, Login("anna", password="hidden"))
    said = hear(session, b"220 mx ESMTP\r\n") + hear(session, b"250-mx\r\n250 AUTH PLAIN SCRAM-SHA-256\r\n")
    assert b"AUTH" not in said and session.state is State.CLOSED and not waiting
    assert session.failure is not None and "never sent in clear" in session.failure.text


def test_not_by_plain_to_a_host_that_is_not_verified() -> None:
    session, said = session_of(
        Login("anna", password="hidden"), is_verified=False, offer=b"250-mx\r\n250 AUTH PLAIN LOGIN\r\n"
    )
    assert said == b"" and session.failure is not None
    assert "not verified" in session.failure.text and session.failure.stage == "auth"


def test_what_was_offered_in_clear_does_not_count() -> None:
    session, said = session_of(Login("anna", password="hidden"), offer=b"250 mx\r\n")
    assert said == b"" and session.failure is not None and "the host offers: none" in session.failure.text


@pytest.mark.parametrize(
    "reply", [b"235 welcome\r\n", b"334 !!!\r\n", b"334 cj1vdGhlcg==\r\n", b"354 x\r\n", b"535 5.7.8 no\r\n"]
)
def test_a_host_that_does_not_know_the_password(reply: bytes) -> None:
    """With SCRAM a 235 without proof is no login: nothing of a message is sent."""
    session, said = session_of(Login("anna", password="pw"))
    assert said.startswith(b"AUTH SCRAM-SHA-256 ")
    assert b"MAIL" not in hear(session, reply)
    assert session.state is State.CLOSED and session.failure is not None and session.failure.stage == "auth"
