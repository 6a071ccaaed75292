"""What a client session is made of: its states, its settings, a mail transaction, what can go wrong. Values; `client.py` moves them."""

from __future__ import annotations

import enum
from typing import NamedTuple

from gatepost.smtp.asked import Asked
from gatepost.smtp.replyreader import RemoteReply

BLOCK_BYTES = 256 * 1024
PROBE = "PROBE"  # body type of a transaction that asks whether recipients exist: it ends behind RCPT, with RSET


class State(enum.IntEnum):
    """What the session waits for."""

    GREETING = 0
    EHLO = 1  # or LHLO
    HELO = 2
    STARTTLS = 3
    TLS = 4  # 220 has come: the driver begins TLS and calls `secured`
    AUTH = 5  # a login is under way
    FREE = 6  # for a transaction
    MAIL = 7
    RCPT = 8
    DATA = 9
    CONTENT = 10  # 354 has come, content is being written
    END = 11  # the final dot is written
    EMPTY_END = 12  # a lone dot is written, for a transaction without recipients (RFC 2920 3.1)
    RSET = 13
    QUIT = 14
    CLOSED = 15


class Tls(enum.Enum):
    """Whether a session asks for TLS before its first transaction."""

    NEVER = "never"
    IF_OFFERED = "if offered"
    ALWAYS = "always"  # nothing of a message is ever sent without


class Problem(NamedTuple):
    """What ended a session or a transaction, other than a plain reply to one of its commands.

    `kind` is "auth" (no login is possible), "unsecured" (no TLS where there must be), "tls" (the handshake failed), "lookup" (whether there must be TLS is not known), "lost", "timeout", "protocol" (the server does not speak SMTP), "reply" (421, or a refusal that came at a
    moment when it ends the session: see `reply`), "read" (the content cannot be read), "unfit" (the server lacks what
    the message needs: nothing was sent, see `status`) or "unsafe" (as that, but for what REQUIRETLS needs).
    """

    stage: str
    kind: str
    text: str
    reply: RemoteReply | None = None
    status: str = ""


class ClientSettings(NamedTuple):
    """How a session behaves."""

    helo_name: str
    lmtp: bool = False
    pipelining: bool = True
    tls: Tls = Tls.NEVER
    block_bytes: int = BLOCK_BYTES


class Transaction:
    """One mail transaction: what to send, and what came of it. Subclasses say where the content comes from.

    `rcpts` holds the replies to RCPT in order, `accepted` the positions of the accepted ones; `ends` the reply to the
    final dot, for LMTP one for each of `accepted`.
    """

    __slots__ = (
        "accepted", "ascii_header", "asked", "body_type", "data", "dot_sent", "ends", "forward_paths", "has_8bit", "mail",
        "problem", "rcpts", "reverse_path", "size_bytes", "smtputf8",
    )  # fmt: skip

    def __init__(
        self,
        reverse_path: str,
        forward_paths: list[str],
        size_bytes: int,
        *,
        body_type: str = "7BIT",
        has_8bit: bool = False,
        smtputf8: bool = False,
        ascii_header: bool = False,
    ) -> None:
        self.reverse_path = reverse_path
        self.forward_paths = forward_paths
        self.size_bytes = size_bytes
        self.body_type = body_type
        self.has_8bit = has_8bit
        self.smtputf8 = smtputf8
        self.ascii_header = ascii_header
        self.asked: Asked | None = None  # what the sender wants of extensions; None: nothing
        self.mail: RemoteReply | None = None
        self.rcpts: list[RemoteReply] = []
        self.accepted: list[int] = []
        self.data: RemoteReply | None = None
        self.ends: list[RemoteReply] = []
        self.problem: Problem | None = None
        self.dot_sent = False

    def read(self, offset: int, count: int) -> bytes:
        """Exactly `count` bytes of the content from `offset`; raises OSError."""
        raise NotImplementedError
