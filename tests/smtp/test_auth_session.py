"""AUTH in the bare session: order, replies, limits, secrets in no event, and any octets as an exchange."""

from __future__ import annotations

import base64

import pytest
import scramp
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.model import ScramVerifier
from gatepost.smtp.auth import AWAY
from gatepost.smtp.events import AuthEnd, AuthQuestion, Event, Mail, Violation
from gatepost.smtp.reply import Reply
from gatepost.smtp.sasl import MECHANISMS
from gatepost.smtp.sasl.mechanism import CertificateOf, PasswordOf, Security, TokenOf, VerifierOf
from gatepost.smtp.sasl.scram import derive_verifier
from gatepost.smtp.server import ServerSession
from gatepost.smtp.settings import ServerSettings

ALL = ServerSettings(hostname="mx.example.test", mechanisms=tuple(MECHANISMS), is_secured=True)
CLEAR = ServerSettings(hostname="mx.example.test", mechanisms=("SCRAM-SHA-256",), mechanisms_in_tls=tuple(MECHANISMS))
TLS = Security(bindings={"tls-server-end-point": (b"\x01" * 32,)}, certificate_user="device@example.test")
VERIFIERS = {name: derive_verifier("secret", b"0123456789abcdef", 4096, name) for name in ("sha1", "sha256")}
EHLO = b"EHLO client.example\r\n"


class Owner:
    """Knows one user, anna, with the password "secret" and the token "good"."""

    def __init__(self, server_settings: ServerSettings = ALL, *, hello: bytes = EHLO) -> None:
        self.session = ServerSession(server_settings, "")
        self.session.security = TLS
        self.session.greet()
        self.events: list[Event] = []
        self.say(hello)

    def say(self, octets: bytes) -> bytes:
        self.session.feed(octets)
        while (event := self.session.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, AuthQuestion):
                self.session.answer_auth(self.know(event.question))
            elif event.needs_answer:
                self.session.answer()
        return self.session.take_output()

    def know(self, question: object) -> object:
        match question:
            case VerifierOf("anna", algorithm):
                return VERIFIERS[algorithm]
            case VerifierOf(_, algorithm):
                return ScramVerifier(algorithm, 4096, b"0" * 16, b"1" * 32, b"2" * 32)
            case PasswordOf(user, password):
                return (user, password) == ("anna", "secret")
            case TokenOf(user, token):
                return "anna" if token == "good" and user in ("", "anna") else ""
            case CertificateOf(user):
                return user == "device@example.test"
        raise AssertionError(question)

    @property
    def end(self) -> AuthEnd:
        (end,) = (event for event in self.events if isinstance(event, AuthEnd))
        return end


def b64(octets: bytes) -> bytes:
    return base64.b64encode(octets)


GOOD = b64(b"\0anna\0secret")


@pytest.mark.parametrize(
    ("lines", "user"),
    [
        ([b"AUTH PLAIN " + GOOD], "anna"),
        ([b"auth plain " + GOOD + b" "], "anna"),
        ([b"AUTH PLAIN", GOOD], "anna"),
        ([b"AUTH PLAIN " + b64(b"anna\0Anna\0secret")], "anna"),
        ([b"AUTH LOGIN", b64(b"anna"), b64(b"secret")], "anna"),
        ([b"AUTH LOGIN " + b64(b"anna"), b64(b"secret")], "anna"),
        ([b"AUTH EXTERNAL ="], "device@example.test"),
        ([b"AUTH EXTERNAL", b""], "device@example.test"),
        ([b"AUTH EXTERNAL " + b64(b"device@example.test")], "device@example.test"),
        ([b"AUTH XOAUTH2 " + b64(b"user=anna\1auth=Bearer good\1\1")], "anna"),
        ([b"AUTH OAUTHBEARER " + b64(b"n,a=anna,\1host=h\1port=587\1auth=Bearer good\1\1")], "anna"),
        ([b"AUTH OAUTHBEARER " + b64(b"n,,\1auth=bearer good\1\1")], "anna"),
    ],
)
def test_logins(lines: list[bytes], user: str) -> None:
    owner = Owner()
    for line in lines[:-1]:
        assert owner.say(line + b"\r\n").startswith(b"334 ")
    assert owner.say(lines[-1] + b"\r\n") == b"235 2.7.0 Authentication succeeded\r\n"
    assert owner.session.user == owner.end.user == user
    assert owner.say(b"MAIL FROM:<anna@example.test>\r\n").startswith(b"250")


@pytest.mark.parametrize("name", ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"])
@pytest.mark.parametrize("password", ["secret", "wrong"])
def test_scram(name: str, password: str) -> None:
    owner = Owner()
    binding = ("tls-server-end-point", b"\x01" * 32) if name.endswith("PLUS") else None
    client = scramp.ScramClient([name], "anna", password, channel_binding=binding)
    first = owner.say(b"AUTH " + name.encode() + b" " + b64(client.get_client_first().encode()) + b"\r\n")
    client.set_server_first(base64.b64decode(first[4:]).decode())
    final = owner.say(b64(client.get_client_final().encode()) + b"\r\n")
    if password == "wrong":
        assert final.startswith(b"535 5.7.8 ")
        return
    client.set_server_final(base64.b64decode(final[4:]).decode())
    assert owner.say(b"\r\n") == b"235 2.7.0 Authentication succeeded\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        [b"AUTH PLAIN " + b64(b"\0anna\0wrong")],
        [b"AUTH PLAIN " + b64(b"\0nobody\0secret")],
        [b"AUTH PLAIN " + b64(b"boss\0anna\0secret")],
        [b"AUTH PLAIN " + b64(b"\0anna\0sec\x07ret")],
        [b"AUTH PLAIN " + b64(b"\0anna\0sec\xffret")],
        [b"AUTH LOGIN", b64(b"nobody"), b64(b"secret")],
        [b"AUTH LOGIN", b"", b""],
        [b"AUTH EXTERNAL " + b64(b"anna")],
        [b"AUTH XOAUTH2 " + b64(b"user=anna\1auth=Bearer bad\1\1"), b""],
        [b"AUTH OAUTHBEARER " + b64(b"n,a=bob,\1auth=Bearer good\1\1"), b"AQ=="],
    ],
)
def test_every_failure_says_the_same(lines: list[bytes]) -> None:
    owner = Owner()
    for line in lines[:-1]:
        assert owner.say(line + b"\r\n").startswith(b"334 ")
    assert (
        owner.say(lines[-1] + b"\r\n")
        == b"535 5.7.8 Authentication failed: wrong name or password, or not allowed now\r\n"
    )
    assert owner.session.user == ""
    assert not owner.end.granted
    assert owner.say(b"AUTH PLAIN " + GOOD + b"\r\n").startswith(b"235")


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"AUTH", b"501 5.5.4"),
        (b"AUTH ", b"501 5.5.4"),
        (b"AUTH PLAIN a b", b"501 5.5.4"),
        (b"AUTH CRAM-MD5", b"504 5.5.4"),
        (b"AUTH PLAIN\xff", b"504 5.5.4"),
        (b"AUTH PLAIN %%%%", b"501 5.5.2"),
        (b"AUTH PLAIN QQ", b"501 5.5.2"),
        (b"AUTH PLAIN QQ==QQ==", b"501 5.5.2"),
        (b"AUTH PLAIN =", b"501 5.5.2"),
        (b"AUTH PLAIN " + b64(b"anna"), b"501 5.5.2"),
        (b"AUTH SCRAM-SHA-256 " + b64(b"n,,x=y"), b"501 5.5.2"),
        (b"AUTH XOAUTH2 " + b64(b"\1\1"), b"501 5.5.2"),
        (b"AUTH OAUTHBEARER " + b64(b"y,,\1auth=Bearer x\1\1"), b"501 5.5.2"),
    ],
)
def test_malformed(line: bytes, reply: bytes) -> None:
    owner = Owner()
    assert owner.say(line + b"\r\n").startswith(reply + b" ")
    assert owner.say(b"NOOP\r\n").startswith(b"250")


def test_cancel_and_bad_base64_in_the_exchange() -> None:
    owner = Owner()
    assert owner.say(b"AUTH LOGIN\r\n") == b"334 VXNlcm5hbWU6\r\n"
    assert owner.say(b64(b"anna") + b"\r\n") == b"334 UGFzc3dvcmQ6\r\n"
    assert owner.say(b"*\r\n") == b"501 5.0.0 Authentication cancelled\r\n"
    assert owner.say(b"AUTH LOGIN\r\n").startswith(b"334")
    assert owner.say(b"&\r\n").startswith(b"501 5.5.2 ")
    assert owner.say(b"NOOP\r\n").startswith(b"250")
    assert not any(isinstance(event, AuthEnd) for event in owner.events)


def test_order() -> None:
    assert Owner(hello=b"").say(b"AUTH PLAIN " + GOOD + b"\r\n").startswith(b"503 5.5.1")
    assert Owner(hello=b"HELO x.example\r\n").say(b"AUTH PLAIN " + GOOD + b"\r\n").startswith(b"502 5.5.1")
    owner = Owner()
    owner.say(b"MAIL FROM:<a@example.test>\r\n")
    assert owner.say(b"AUTH PLAIN " + GOOD + b"\r\n").startswith(b"503 5.5.1")
    assert owner.say(b"RSET\r\nNOOP\r\n").startswith(b"250")
    assert owner.say(b"AUTH PLAIN " + GOOD + b"\r\n").startswith(b"235")
    assert owner.say(b"AUTH PLAIN " + GOOD + b"\r\n").startswith(b"503 5.5.1")


def test_in_clear() -> None:
    owner = Owner(CLEAR)
    for name in (b"PLAIN " + GOOD, b"LOGIN", b"XOAUTH2", b"SCRAM-SHA-256-PLUS"):
        assert owner.say(b"AUTH " + name + b"\r\n").startswith(b"538 5.7.11 ")
    assert owner.say(b"AUTH SCRAM-SHA-256\r\n") == b"334 \r\n"
    assert b"250-AUTH SCRAM-SHA-256\r\n" in Owner(CLEAR, hello=b"").say(EHLO)
    off = Owner(ServerSettings(hostname="mx.example.test"))
    assert off.say(b"AUTH PLAIN " + GOOD + b"\r\n").startswith(b"502 5.5.1")
    mixed = ServerSettings(hostname="mx.example.test", mechanisms=("PLAIN",), starttls=True, require_tls=True)
    assert Owner(mixed).say(b"AUTH PLAIN " + GOOD + b"\r\n").startswith(b"538 5.7.11 ")
    only_tls = Owner(
        ServerSettings(hostname="mx.example.test", mechanisms_in_tls=("PLAIN",), starttls=True, require_tls=True)
    )
    assert only_tls.say(b"AUTH PLAIN " + GOOD + b"\r\n").startswith(b"538 5.7.11 ")


def test_starttls_comes_before_auth() -> None:
    owner = Owner(ServerSettings(hostname="mx.example.test", mechanisms=("PLAIN",), starttls=True))
    assert owner.say(b"AUTH PLAIN " + GOOD + b"\r\n").startswith(b"235")
    assert owner.say(b"STARTTLS\r\n").startswith(b"503 5.5.1")
    assert owner.session.user == "anna"


def test_nothing_follows_before_the_reply() -> None:
    for octets in (b"AUTH LOGIN\r\n" + b64(b"anna") + b"\r\n", b"AUTH PLAIN " + GOOD + b"\r\nMAIL FROM:<>\r\n"):
        owner = Owner()
        assert owner.say(octets).startswith(b"503 5.5.0")
        assert owner.session.closing
    owner = Owner()
    owner.say(b"AUTH LOGIN\r\n")
    assert owner.say(b64(b"anna") + b"\r\n" + b64(b"secret") + b"\r\n").startswith(b"503 5.5.0")
    assert owner.session.closing


def test_lines_may_be_long_but_not_endless() -> None:
    token = b64(b"user=anna\1auth=Bearer " + b"x" * 8000 + b"\1\1")
    assert Owner().say(b"AUTH XOAUTH2 " + token + b"\r\n").startswith(b"334")
    owner = Owner()
    owner.say(b"AUTH XOAUTH2\r\n")
    assert owner.say(token + b"\r\n").startswith(b"334")
    assert Owner().say(b"AUTH PLAIN " + b"A" * 12288 + b"\r\n").startswith(b"500 5.5.2")
    owner = Owner()
    owner.say(b"AUTH PLAIN\r\n")
    assert owner.say(b"A" * 12289).startswith(b"500 5.5.6")
    assert owner.session.closing


@pytest.mark.parametrize("octets", [b"QUFB\n", b"QU\rFB\r\n", b"QU\0FB\r\n"])
def test_forbidden_octets_in_an_exchange(octets: bytes) -> None:
    owner = Owner()
    owner.say(b"AUTH PLAIN\r\n")
    assert owner.say(octets).startswith(b"500 5.5.2")
    assert owner.session.closing


def test_three_failures_end_the_session() -> None:
    owner = Owner()
    bad = b"AUTH PLAIN " + b64(b"\0anna\0wrong") + b"\r\n"
    owner.say(bad)
    owner.say(bad)
    assert owner.say(bad).split(b"\r\n")[1].startswith(b"421 4.7.0")
    assert owner.session.closing


def test_the_owner_may_be_away_and_may_answer_late() -> None:
    session = Owner().session
    session.feed(b"AUTH PLAIN " + GOOD + b"\r\n")
    event = session.next_event()
    assert isinstance(event, AuthQuestion)
    assert session.next_event() is None
    session.answer(AWAY)
    assert session.take_output().startswith(b"454 4.7.0")
    session.feed(b"AUTH PLAIN " + GOOD + b"\r\n")
    session.next_event()
    session.shut_down()
    session.answer_auth(True)
    assert session.take_output().startswith(b"421")
    session.answer_auth(True)
    session.answer()
    assert session.take_output() == b""
    assert session.user == ""


def test_a_refused_end_is_no_login() -> None:
    session = Owner().session
    session.feed(b"AUTH PLAIN " + GOOD + b"\r\n")
    session.next_event()
    session.answer_auth(True)
    assert isinstance(session.next_event(), AuthEnd)
    session.answer(Reply(535, "7.8", "No"))
    assert session.take_output() == b"535 5.7.8 No\r\n"
    assert session.user == ""


def test_the_auth_parameter_of_mail() -> None:
    owner = Owner()
    for value in (b"<>", b"anna@example.test", b"e+3Dmc2@example.com"):
        assert owner.say(b"MAIL FROM:<a@example.test> AUTH=" + value + b"\r\nRSET\r\n").startswith(b"250")
    for value in (b"", b"a+b", b"a+3d", b"\xff"):
        assert owner.say(b"MAIL FROM:<a@example.test> AUTH=" + value + b"\r\n").startswith(b"501 5.5.4")
    assert {event.parameters["AUTH"] for event in owner.events if isinstance(event, Mail)} >= {b"<>"}
    plain = Owner(ServerSettings(hostname="mx.example.test"))
    assert plain.say(b"MAIL FROM:<a@example.test> AUTH=<>\r\n").startswith(b"555 5.5.4")


SECRET = b64(b"\0anna\0hunter2-hunter2")


@pytest.mark.parametrize(
    "octets",
    [
        [b"AUTH PLAIN " + SECRET + b" x\r\n"],
        [b"AUTH " + SECRET + b"\r\n"],
        [b"auth CRAM-MD5 " + SECRET + b"\r\n"],
        [b"AUTH PLAIN " + SECRET + b"\r\nQUIT\r\n"],
        [b"AUTH PLAIN " + SECRET + b"\0\r\n"],
        [b"AUTH PLAIN " + SECRET + b"A\r\n"],
        [b"AUTH CRAM-MD5\r\n", SECRET + b"\r\n"],
        [b"AUTH PLAIN\r\n", SECRET + b"\n"],
        [b"AUTH PLAIN\r\n", SECRET + b"\r\nQUIT\r\n"],
        [b"MAIL FROM:<a@b.test>\r\n", b"AUTH PLAIN " + SECRET + b"\r\n"],
        [b"AUTH PLAIN " + SECRET + b"A" * 13000 + b"\r\n"],
        [b"AUTH PLAIN " + SECRET + b"\r\n"],
    ],
)
def test_no_event_shows_a_secret(octets: list[bytes]) -> None:
    for server_settings in (ALL, CLEAR, ServerSettings(hostname="mx.example.test")):
        owner = Owner(server_settings)
        for block in octets:
            owner.say(block)
        shown = repr(owner.events)
        assert "hunter2" not in shown
        assert SECRET.decode()[:16] not in shown
        early = ServerSession(server_settings, "")
        early.feed(b"EHLO x\r\n" + b"".join(octets))
        early.greet()
        assert SECRET.decode()[:16] not in repr([early.next_event()])


line = (
    st.binary(max_size=40).map(lambda octets: octets.replace(b"\n", b""))
    | st.binary(max_size=40).map(b64)
    | st.sampled_from([b"", b"*", b"=", GOOD, b"NOOP", b"RSET", EHLO[:-2], b"MAIL FROM:<a@b.test>"])
    | st.builds(
        lambda name, initial: b"AUTH " + name.encode() + initial,
        st.sampled_from(list(MECHANISMS)),
        st.sampled_from([b"", b" ="]) | st.binary(max_size=40).map(lambda octets: b" " + b64(octets)),
    )
)


@settings(max_examples=300, deadline=None)
@given(st.lists(line, max_size=12), st.booleans())
def test_any_lines_are_answered(lines: list[bytes], in_clear: bool) -> None:
    owner = Owner(CLEAR if in_clear else ALL)
    for text in lines:
        if owner.session.closing:
            break
        out = owner.say(text + b"\r\n")
        assert out or b"\r" in text
        assert not any(isinstance(e, Violation) and len(e.detail) > 200 for e in owner.events)
    if owner.session.user == "anna":
        assert any(isinstance(event, AuthEnd) and event.granted for event in owner.events)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([b"AUTH PLAIN " + GOOD, b"AUTH PLAIN " + b64(b"\0a\0b"), b"AUTH XOAUTH2 %%", b"AUTH LOGIN"]))
def test_byte_by_byte_is_the_same(octets: bytes) -> None:
    whole, pieces = Owner(), Owner()
    expected = whole.say(octets + b"\r\n")
    got = b"".join(pieces.say(bytes([octet])) for octet in octets + b"\r\n")
    assert (got, pieces.events) == (expected, whole.events)
