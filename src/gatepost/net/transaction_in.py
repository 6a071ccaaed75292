"""A mail transaction as a connection of a client keeps it: envelope so far, text so far, its body file. Values only.

A new transaction is a new object. `smtp_in.py` moves it; the session has its own idea of it (`smtp/transaction.py`), without text.
"""

from __future__ import annotations

from gatepost.model import Recipient
from gatepost.net.headerhold import HeaderHold
from gatepost.smtp.command import Parameters
from gatepost.smtp.reply import Reply


class Transaction:
    """A mail transaction from MAIL to its end. A new transaction is a new object."""

    __slots__ = (
        "asked",
        "begun_s",
        "body_bytes",
        "body_crc",
        "body_descriptor",
        "body_file",
        "body_type",
        "bounce_to",
        "chunks",
        "failure",
        "header",
        "header_hold",
        "hold",
        "id",
        "is_committing",
        "permit",
        "recipients",
        "reverse_path",
        "seen",
        "smtputf8",
        "trace",
    )  # fmt: skip

    def __init__(self, reverse_path: str, body_type: str, smtputf8: bool) -> None:
        self.asked: Parameters | None = None  # by MAIL, beyond what every message has
        self.reverse_path = reverse_path
        self.body_type = body_type
        self.smtputf8 = smtputf8
        self.recipients: list[Recipient] = []
        self.seen: set[str] | None = None  # made with the second recipient
        self.permit = ""
        self.bounce_to = ""  # the reverse-path as given, where it became one of ours (SRS)
        self.hold = ""  # why the message will wait for the operator
        self.id = ""
        self.trace = b""
        self.chunks: list[bytes] = []
        self.header: bytearray | None = None  # so far, of an authenticated user's message
        self.header_hold: HeaderHold | None = None  # of a message whose header may be rewritten
        self.body_bytes = 0
        self.body_file = 0
        self.body_descriptor = -1
        self.body_crc = 0
        self.begun_s = 0.0  # loop time at which its text began
        self.failure: Reply | None = None
        self.is_committing = False
