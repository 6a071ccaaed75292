"""What a ServerSession tells its owner: the events of SMTP as seen by the server.

`needs_answer` events stop the session until `answer()`; the others are information and must not be answered. A mail
transaction (a Mail event that was answered positively) ends with exactly one of `Body(last=True)` and `Reset`.
"""

from __future__ import annotations

import re
from typing import ClassVar

import msgspec

from gatepost.model import Address
from gatepost.smtp.command import Parameters
from gatepost.smtp.reply import Reply
from gatepost.smtp.sasl.mechanism import Question

MAX_DETAIL = 200
# RFC 4954 4: behind AUTH a password may stand, in that line or the next
_SECRET = re.compile(rb"((?i:\bAUTH)(?: +[A-Z][A-Z0-9_-]{2,19}(?![^ \r\n]))?)[ \r\n]").search


class Event(msgspec.Struct, frozen=True, gc=False):
    """Base of all events."""

    needs_answer: ClassVar[bool] = False


class Hello(Event, frozen=True, gc=False):
    """HELO or EHLO (`extended`)."""

    needs_answer: ClassVar[bool] = True
    name: str
    extended: bool


class StartTls(Event, frozen=True, gc=False):
    """STARTTLS. When it was answered with None the owner writes the output, begins TLS, and calls `secured`."""

    needs_answer: ClassVar[bool] = True


class Mail(Event, frozen=True, gc=False):
    """MAIL; `size_bytes` is 0 if not declared, `body` "7BIT" if not declared; `parameters` has all of them by keyword."""

    needs_answer: ClassVar[bool] = True
    reverse_path: Address | None
    size_bytes: int
    body: str
    smtputf8: bool
    parameters: Parameters


class Rcpt(Event, frozen=True, gc=False):
    """RCPT."""

    needs_answer: ClassVar[bool] = True
    forward_path: Address
    parameters: Parameters


class Data(Event, frozen=True, gc=False):
    """DATA, or the first BDAT of a message; a negative answer refuses the message."""

    needs_answer: ClassVar[bool] = True


class Body(Event, frozen=True, gc=False):
    """Octets of the message, without dot-stuffing. Only the last one needs an answer: the reply to the message."""

    content: bytes
    last: bool

    @property
    def needs_answer(self) -> bool:  # type: ignore[override]
        """Whether the session waits for `answer()`."""
        return self.last


class Reset(Event, frozen=True, gc=False):
    """The mail transaction was given up: RSET, EHLO, QUIT, a message that the session refused, or the end."""


class AuthQuestion(Event, frozen=True, gc=False):
    """An exchange of AUTH asks for a verifier, or whether a password or token is good: `session.answer_auth(value)`."""

    needs_answer: ClassVar[bool] = True
    mechanism: str
    question: Question


class AuthEnd(Event, frozen=True, gc=False):
    """An exchange of AUTH is over; the answer may come late. None says 235 or 535. `cause` is for the log only."""

    needs_answer: ClassVar[bool] = True
    mechanism: str
    user: str
    granted: bool
    cause: str


class Introduced(Event, frozen=True, gc=False):
    """XCLIENT: a proxy says who the client is. A value of None: it does not know. After a positive answer the session is as new."""

    needs_answer: ClassVar[bool] = True
    attributes: dict[str, str | None]


class Forwarded(Event, frozen=True, gc=False):
    """XFORWARD: a filter says who its client was. For the log; the reply is queued."""

    attributes: dict[str, str | None]


class Quit(Event, frozen=True, gc=False):
    """QUIT; the reply is queued."""


class Violation(Event, frozen=True, gc=False):
    """For the log: the session refused something and has queued `reply`. `detail` is escaped, at most 200 characters.

    Kinds: "syntax", "unknown", "sequence", "disabled", "parameter", "path", "bare-cr", "bare-lf", "nul", "line-too-long",
    "pipelining", "starttls-injection", "early-talker", "proxy", "http", "tls", "size", "header", "hops", "long-line", "recipients", "auth", "limit".
    """

    kind: str
    reply: Reply
    detail: str


def excerpt(octets: bytes) -> str:
    """Octets of a peer as they may stand in a log line: printable ASCII, escaped, at most 200 characters, no password."""
    shown = bytes(octets[: 4 * MAX_DETAIL])
    secret = _SECRET(shown)
    if secret is not None:
        shown = shown[: secret.end(1)] + b" ..."
    return repr(shown[:MAX_DETAIL])[2:-1][:MAX_DETAIL]
