"""What a ServerSession tells its owner: the events of SMTP as seen by the server.

`needs_answer` events stop the session until `answer()`; the others are information and must not be answered. A mail
transaction (a Mail event that was answered positively) ends with exactly one of `Body(last=True)` and `Reset`.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from gatepost.model import Address
from gatepost.smtp.command import Parameters
from gatepost.smtp.reply import Reply

MAX_DETAIL = 200


class Event(msgspec.Struct, frozen=True, gc=False):
    """Base of all events."""

    needs_answer: ClassVar[bool] = False


class Hello(Event, frozen=True, gc=False):
    """HELO or EHLO (`extended`)."""

    needs_answer: ClassVar[bool] = True
    name: str
    extended: bool


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


class Quit(Event, frozen=True, gc=False):
    """QUIT; the reply is queued."""


class Violation(Event, frozen=True, gc=False):
    """For the log: the session refused something and has queued `reply`. `detail` is escaped, at most 200 characters.

    Kinds: "syntax", "unknown", "sequence", "disabled", "parameter", "path", "bare-cr", "bare-lf", "nul", "line-too-long",
    "pipelining", "early-talker", "http", "tls", "size", "header", "hops", "long-line", "recipients", "limit".
    """

    kind: str
    reply: Reply
    detail: str


def excerpt(octets: bytes) -> str:
    """Octets of a peer as they may stand in a log line: printable ASCII, escaped, at most 200 characters."""
    return repr(bytes(octets[:MAX_DETAIL]))[2:-1][:MAX_DETAIL]
