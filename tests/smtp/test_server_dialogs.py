"""Every dialog on the bare session: each turn whole, octet by octet, and octet by octet before anything is looked at."""

from __future__ import annotations

import re

import pytest
from dialogscript import Script, read_scripts

from gatepost.smtp.events import AuthQuestion
from gatepost.smtp.reply import Reply
from gatepost.smtp.sasl.mechanism import CertificateOf, PasswordOf, Security, TokenOf
from gatepost.smtp.server import Body, Mail, Rcpt, ServerSession, ServerSettings

SCRIPTS = read_scripts()


class Owner:
    """Drives a session with a small fixed policy, and keeps the messages it accepted.

    It knows one user, anna, by the password "secret", the token "good", and the client certificate that every session has.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.session = ServerSession(settings, "s1")
        self.session.security = Security(certificate_user="anna")
        self.messages: list[bytes] = []
        self.parts: list[bytes] = []

    def pump(self) -> bytes:
        while (event := self.session.next_event()) is not None:
            if isinstance(event, Body):
                self.parts.append(event.content)
                if event.last:
                    self.messages.append(b"".join(self.parts))
            elif isinstance(event, Mail):
                self.parts = []
            if isinstance(event, AuthQuestion):
                self.session.answer_auth(self.know(event.question))
            elif event.needs_answer:
                self.session.answer(self.decide(event))
        return self.session.take_output()

    def know(self, question: object) -> object:
        match question:
            case PasswordOf(user, password):
                return (user, password) == ("anna", "secret")
            case TokenOf(user, token):
                return "anna" if token == "good" and user in ("", "anna") else ""
            case CertificateOf(user):
                return user == "anna"
        raise AssertionError(question)  # SCRAM has a nonce: no dialog can be written down

    def decide(self, event: object) -> Reply | None:
        if isinstance(event, Rcpt):
            address = event.forward_path
            if address.domain not in ("example.test", ""):
                return Reply(550, "7.1", "No relaying")
            if address.local == "nobody":
                return Reply(550, "1.1", "No such recipient")
        return None


def send(owner: Owner, octets: bytes, way: str) -> bytes:
    if way == "whole":
        owner.session.feed(octets)
        return owner.pump()
    output = b""
    for at in range(len(octets)):
        owner.session.feed(octets[at : at + 1])
        if way == "paced":
            output += owner.pump()
    return output + owner.pump()


@pytest.mark.parametrize("way", ["whole", "paced", "unpaced"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_dialog(script: Script, way: str) -> None:
    if script.unpaced and way == "paced":
        way = "whole"
    owner = Owner(ServerSettings(hostname="mx.example.test", **script.settings))
    session = owner.session
    for number, turn in enumerate(script.turns):
        output = b""
        if number == 0:
            session.feed(turn.sent)
            session.greet()
            output = session.take_output() + owner.pump()
        else:
            output = send(owner, turn.sent, way)
        assert output.endswith(b"\r\n") or not output
        lines = output.decode("ascii").split("\r\n")[:-1]
        assert len(lines) == len(turn.replies), (turn, lines)
        for expected, line in zip(turn.replies, lines, strict=True):
            assert re.fullmatch(expected, line), (turn, lines)
        assert session.closing == turn.closes, (turn, lines)
    assert owner.messages == script.messages


def test_there_are_dialogs_with_and_without_messages() -> None:
    assert len(SCRIPTS) > 20
    assert any(script.messages for script in SCRIPTS)
    assert any(script.unpaced for script in SCRIPTS)
