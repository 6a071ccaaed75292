"""The books: what was acknowledged to clients, what arrived, and what the disk has kept. One JSON object in each line, written at once.

Times are those of CLOCK_MONOTONIC, which all processes of a machine share. Neither process that writes a book is ever killed.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec


class Sent(msgspec.Struct):
    """One transaction, as its client saw it end.

    `code` is the reply to the end of data, or the refusal that came before; 0: the connection was lost without an answer.
    """

    id: str
    begun_s: float
    ended_s: float
    code: int
    stage: str  # "end" if the whole message was sent
    size_bytes: int
    recipients: list[str]
    text: str = ""
    kind: str = "plain"
    notify: str = ""  # as asked by RCPT
    hold_s: float = 0.0  # as asked by MAIL


class Arrival(msgspec.Struct):
    """One message that arrived, for one transaction of the sink or one file of a Maildir.

    A notice of the gateway's has the `id` and the recipients that it tells of, and says what became of them.
    """

    id: str
    gateway_id: str  # from the trace field
    begun_s: float
    ended_s: float
    recipients: list[str]
    is_whole: bool  # the body has the checksum that its header names
    notice: str = ""  # the action of a DSN: "failed", "relayed", "delivered"


class Sync(msgspec.Struct):
    """One fsync of a journal: what was written before it began is on the disk when it ends."""

    begun_s: float
    ended_s: float


class Book:
    """Appends rows to a file, each with one write."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._encode = msgspec.json.Encoder().encode

    def add(self, row: msgspec.Struct) -> None:
        """Write one row."""
        os.write(self._fd, self._encode(row) + b"\n")


def read_book(path: Path, kind: type[msgspec.Struct], start: int = 0) -> tuple[list[msgspec.Struct], int]:
    """The whole rows behind byte `start`, and where to go on."""
    if not path.exists():
        return [], start
    with open(path, "rb") as file:
        file.seek(start)
        data = file.read()
    end = data.rfind(b"\n") + 1
    decode = msgspec.json.Decoder(kind).decode
    return [decode(line) for line in data[:end].splitlines()], start + end
