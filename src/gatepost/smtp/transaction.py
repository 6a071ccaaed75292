"""What a server session is made of while something is under way: its states, a mail transaction, a chunk.

Values only; `server.py` moves them. An idle session holds none of the objects.
"""

from __future__ import annotations

import enum

from gatepost.smtp.data import Content
from gatepost.smtp.reply import (
    HEADER_TOO_LARGE,
    LONG_LINE,
    MESSAGE_TOO_LARGE,
    TOO_MANY_HOPS,
    Reply,
)
from gatepost.smtp.settings import ServerSettings

Refusal = tuple[str, Reply]  # the kind of a Violation, and its reply


class State(enum.IntEnum):
    """Where a session is; each a bit, so that the table of verbs can name sets of them."""

    GREETING = 1  # nothing was said yet
    HELLO = 2  # greeted; the client has not named itself
    READY = 4  # no transaction
    MAIL = 8  # a transaction without a recipient
    RCPT = 16  # a transaction with a recipient
    DATA = 32  # the text of a message comes in
    BDAT = 64  # between two chunks of a message
    CHUNK = 128  # the octets of a chunk come in, to be taken or swallowed
    CLOSED = 256
    AUTH = 512  # between two lines of an authentication exchange
    PLAIN = 1024  # has said EHLO, and TLS must come before anything else
    SECURING = 2048  # 220 is said: the owner begins TLS; nothing is read before `secured`


class Waiting(enum.Enum):
    """What the session waits for: which time-out applies."""

    GREETING = "greeting"
    TLS = "tls"
    COMMAND = "command"
    DATA = "data"


class Transaction:
    """A mail transaction: made by MAIL, gone with its end."""

    __slots__ = ("accepted", "content", "is_binary", "refused", "smtputf8")

    def __init__(self, smtputf8: bool, is_binary: bool = False) -> None:
        self.is_binary = is_binary  # BODY=BINARYMIME: DATA cannot carry it
        self.smtputf8 = smtputf8
        self.accepted = 0  # recipients
        self.refused = 0
        self.content: Content | None = None


class Chunk:
    """The octets that one BDAT announced; with a refusal they are swallowed."""

    __slots__ = ("last", "left", "refusal", "resume", "size_bytes")

    def __init__(self, size_bytes: int, last: bool, resume: int, refusal: Refusal | None) -> None:
        self.size_bytes = size_bytes
        self.left = size_bytes
        self.last = last
        self.resume = resume
        self.refusal = refusal


def find_excess(content: Content, settings: ServerSettings) -> Refusal | None:
    """Which limit the message is over; facts only grow, so the answer at the end does not depend on when it was asked."""
    if content.body_bytes > settings.max_message_bytes:
        return "size", MESSAGE_TOO_LARGE
    if content.header_bytes > settings.max_header_bytes:
        return "header", HEADER_TOO_LARGE
    if content.received_hops > settings.max_received_hops:
        return "hops", TOO_MANY_HOPS
    if content.long_line and settings.refuse_long_lines:
        return "long-line", LONG_LINE
    return None
