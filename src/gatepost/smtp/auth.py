"""AUTH in a server session (RFC 4954): the verb, the lines of an exchange, its end. Without I/O, like the session.

The mechanisms are in `sasl/`; they ask through `AuthQuestion`, which the owner answers with `answer_auth`, and end in `AuthEnd`,
which the owner answers as it likes, at once or late: that is where delays against guessing go. No line of an exchange, and
nothing behind the name of the mechanism, is ever shown in an event. One success a session; none in a transaction.
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from typing import TYPE_CHECKING, Any

from gatepost.smtp import reply as replies
from gatepost.smtp.conversation import AUTH, PLAIN, READY, Conversation
from gatepost.smtp.events import AuthEnd, AuthQuestion, Event
from gatepost.smtp.reply import Reply, constant
from gatepost.smtp.sasl import MECHANISMS
from gatepost.smtp.sasl.mechanism import PLAINTEXT, Challenge, Done, Exchange, Malformed

if TYPE_CHECKING:
    from gatepost.smtp.server import ServerSession

GRANTED = constant(235, "7.0", "Authentication succeeded")
CANCELLED = constant(501, "0.0", "Authentication cancelled")
NOT_BASE64 = constant(501, "5.2", "This is not base64")
MALFORMED = constant(501, "5.2", "This is not a message of that mechanism")
BAD_AUTH = constant(501, "5.4", "Syntax: AUTH mechanism [initial-response]")
LINE_TOO_LONG = constant(500, "5.6", "Authentication exchange line is too long")
ALREADY = constant(503, "5.1", "You are authenticated already")
NO_SUCH_MECHANISM = constant(504, "5.4", "Mechanism not offered")
REFUSED = constant(535, "7.8", "Authentication failed: wrong name or password, or not allowed now")
NEEDS_TLS = constant(538, "7.11", "Encryption required for this mechanism; send STARTTLS first")
AWAY = constant(454, "7.0", "Authentication is not possible now; try again later")
TOO_MANY_FAILURES = constant(421, "7.0", "Too many failed authentications in this session")


class Attempt:
    """An exchange under way."""

    __slots__ = ("exchange", "mechanism")

    def __init__(self, mechanism: str, exchange: Exchange) -> None:
        self.mechanism = mechanism
        self.exchange = exchange


class Authentication(Conversation):
    """What AUTH adds to a session; `user` is who it is, once it is known."""

    __slots__ = ()

    def answer_auth(self, value: Any) -> None:
        """Answer an AuthQuestion with the value that its question wants. `answer(reply)` ends the exchange instead."""
        if self._pending is None:
            if self.closing:
                return
            raise RuntimeError("no event waits for an answer")
        self._pending = None
        if self._farewell is not None:
            self._end(self._farewell)
            return
        event = self._go_on(value)
        if event is not None:
            self._later(event)

    def _auth(self, line: bytes) -> Event | None:
        settings = self.settings
        self.auth_tries += 1
        words = line[5:].rstrip(b" ").split(b" ")
        name = words[0].upper().decode("ascii", "replace")
        if not self.esmtp or not (settings.mechanisms or settings.mechanisms_in_tls):
            return self._violate("disabled", replies.NOT_IMPLEMENTED, line)
        if self.user:
            return self._violate("sequence", ALREADY, line)
        if not name or len(words) > 2:
            return self._violate("syntax", BAD_AUTH, line)
        if name not in settings.mechanisms or self._state == PLAIN:
            needs_tls = name in settings.mechanisms_in_tls or self._state == PLAIN
            return self._violate("auth", NEEDS_TLS if needs_tls else NO_SUCH_MECHANISM, line)
        initial = None
        if len(words) == 2:
            initial = b"" if words[1] == b"=" else _decode(words[1])
            if initial is None or not words[1]:
                return self._violate("syntax", NOT_BASE64, line)
        exchange = MECHANISMS[name](initial, self.security or PLAINTEXT, name + "-PLUS" in settings.mechanisms)
        self._attempt = Attempt(name, exchange)
        self._state = AUTH
        return self._go_on(None)

    def _read_response(self) -> Event | None:
        """The next line of the exchange; nothing may follow it before our reply."""
        data = self._input
        end = data.find(b"\n", self._at) + 1
        length = (end or len(data)) - self._at
        if length > self.settings.max_auth_bytes:
            return self._violate("line-too-long", LINE_TOO_LONG, b"", close=True)
        if not end:
            return None
        line = bytes(data[self._at : end])
        self._consume(end)
        self._commands += 1
        is_bare = not line.endswith(b"\r\n")
        line = line.rstrip(b"\n") if is_bare else line[:-2]
        if b"\r" in line or b"\0" in line or (is_bare and not self.settings.repair):
            return self._violate("bare-lf" if is_bare else "bare-cr", replies.BARE_IN_COMMAND, b"", close=True)
        if self._input:
            return self._violate("pipelining", replies.BAD_PIPELINING, b"", close=True)
        if line == b"*":
            return self._break_off("auth", CANCELLED)
        response = _decode(line)
        if response is None:
            return self._break_off("syntax", NOT_BASE64)
        return self._go_on(response)

    def _go_on(self, value: Any) -> Event | None:
        """Send what came into the exchange, and carry out what it says next."""
        attempt = self._attempt
        assert attempt is not None
        try:
            step = attempt.exchange.send(value)
        except StopIteration as end:
            done: Done = end.value
            self._pending = Authentication._answer_end_of(done)
            return AuthEnd(attempt.mechanism, done.user, done.granted, done.cause)
        except Malformed:
            return self._break_off("syntax", MALFORMED)
        if type(step) is Challenge:
            self._write(b"334 %b\r\n" % b2a_base64(step.octets, newline=False))
            return None
        self._pending = Authentication._answer_question
        return AuthQuestion(attempt.mechanism, step)  # type: ignore[arg-type]

    def _break_off(self, kind: str, reply: Reply) -> Event:
        assert self._attempt is not None
        shown = b"AUTH " + self._attempt.mechanism.encode("ascii")
        self._attempt = None
        self._state = READY
        return self._violate(kind, reply, shown)

    def _answer_question(self, reply: Reply | None) -> None:
        """The owner does not answer the question but ends the exchange."""
        self._attempt = None
        self._state = READY
        self._refuse(reply or AWAY)

    @staticmethod
    def _answer_end_of(done: Done) -> Any:
        def answer(session: ServerSession, reply: Reply | None) -> None:
            session._attempt = None
            session._state = READY
            if done.granted and (reply is None or reply.is_positive):
                session.user = done.user
                session._idle = 0
                session._put(reply or GRANTED)
                return
            session.auth_failures += 1
            session._refuse(reply if reply is not None and not reply.is_positive else REFUSED)
            if session.auth_failures >= session.settings.max_auth_failures and not session.closing:
                session._refuse(TOO_MANY_FAILURES)

        return answer


def _decode(octets: bytes) -> bytes | None:
    try:
        return a2b_base64(octets, strict_mode=True)
    except Base64Error:
        return None
