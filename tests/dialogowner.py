"""A dialog on the bare session: `play(script, settings, way)`. No process, no socket; the policy is small and fixed.

example.test is ours, without "nobody"; everything else would be relaying. There is one user, anna, with the password "secret", the token
"good", and the client certificate that every session has. `integration/test_gateway_dialogs.py` configures a gateway to the same.
"""

from __future__ import annotations

import re

import msgspec
from dialogscript import Script

from gatepost.smtp.events import AuthQuestion, Introduced
from gatepost.smtp.reply import Reply
from gatepost.smtp.sasl.mechanism import CertificateOf, PasswordOf, Security, TokenOf
from gatepost.smtp.server import Body, Mail, Rcpt, ServerSession, ServerSettings

USER, PASSWORD, TOKEN = "anna", "secret", "good"


class Owner:
    """Drives a session, and keeps the messages it accepted."""

    def __init__(self, settings: ServerSettings) -> None:
        self.session = ServerSession(settings, "s1")
        self.session.security = Security(certificate_user=USER)
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
                return (user, password) == (USER, PASSWORD)
            case TokenOf(user, token):
                return USER if token == TOKEN and user in ("", USER) else ""
            case CertificateOf(user):
                return user == USER
        raise AssertionError(question)  # SCRAM has a nonce: no dialog can be written down

    def decide(self, event: object) -> Reply | None:
        if isinstance(event, Body):
            return Reply(250, "0.0", f"Queued as m{len(self.messages)}")
        if isinstance(event, Introduced):  # who was named names nobody
            self.session.settings = msgspec.structs.replace(self.session.settings, xclient=False, xforward=False)
        if isinstance(event, Rcpt):
            address = event.forward_path
            if address.domain not in ("example.test", ""):
                return Reply(550, "7.1", "No relaying")
            if "%" in address.local:
                return Reply(550, "7.1", "No relaying by routes in addresses")
            if address.local == "nobody":
                return Reply(550, "1.1", "No such recipient")
        return None


def send(owner: Owner, octets: bytes, way: str) -> bytes:
    """Feed the octets; what the session says to them."""
    if way == "whole":
        owner.session.feed(octets)
        return owner.pump()
    output = b""
    for at in range(len(octets)):
        owner.session.feed(octets[at : at + 1])
        if way == "paced":
            output += owner.pump()
    return output + owner.pump()


def settings_of(script: Script, **more: object) -> ServerSettings:
    """What a dialog says of its server; `more` settings that it does not name."""
    return ServerSettings(hostname="mx.example.test", **(more | script.settings))  # type: ignore[arg-type]


def play(script: Script, settings: ServerSettings, way: str = "whole") -> None:
    """Each turn "whole", or octet by octet: "paced", each looked at before the next, or "unpaced"."""
    if script.unpaced and way == "paced":
        way = "whole"
    owner = Owner(settings)
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
