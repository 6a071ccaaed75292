"""Reads the replies of a remote SMTP or LMTP server (RFC 5321 4.2): chunks in, complete replies out.

Sans-IO, standard library only. It knows lines, codes and enhanced status codes (RFC 2034, RFC 3463), not what a reply
is the answer to: that is `client.py`.

Invariants: however the bytes are split into chunks, the replies are the same; time is linear in the bytes, memory is
bounded by one reply; a line ends with CRLF only, and a bare LF is an error (RFC 5321 2.3.8), since a text that is
echoed into a reply could otherwise pass for the reply to another command. After an error the reader is of no use.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_LINE_BYTES = 2048  # with CRLF; RFC 5321 4.5.3.1.5 says 512, real servers exceed it
MAX_LINES = 100
MAX_REPLY_BYTES = 64 * 1024

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])([^\n]*))?")
_STATUS = re.compile(rb"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?=[ \t]|\Z)")
# C0 and C1 controls, DEL, line and paragraph separator, and the marks that reverse the direction of text in a log.
_CONTROLS = dict.fromkeys(
    [*range(32), *range(127, 160), 0x2028, 0x2029, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
)
_CONTROLS[9] = " "
_SEEN_LIMIT = 128
_SEEN_LINE_BYTES = 64


class RemoteReply(NamedTuple):
    """One complete reply.

    `status` is the enhanced status code of its first line, or empty if there is none or its class contradicts the code.
    `text` is the reply verbatim, codes included, lines joined by a line feed, controls removed.
    """

    code: int
    status: str
    text: str


class ReplyError(Exception):
    """The bytes are not SMTP replies within the limits; `replies` are the good ones that came before, in this chunk."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.replies: list[RemoteReply] = []


# Replies such as "250 2.1.0 Ok" come again and again: a bounded memory of what their parsing gave.
_seen: dict[bytes, RemoteReply] = {}


class ReplyReader:
    """Incremental parser; one for each connection."""

    __slots__ = ("_bytes", "_lines", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[bytes] = []
        self._bytes = 0

    def feed(self, data: bytes) -> list[RemoteReply]:
        """Take a chunk, return the replies that are complete with it; raises ReplyError."""
        if self._rest:
            data = self._rest + data
        lines = data.split(b"\r\n")
        self._rest = rest = lines.pop()
        replies: list[RemoteReply] = []
        try:
            for line in lines:
                reply = None if self._lines else _seen.get(line)
                if reply is None:
                    reply = self._take_line(line)
                    if reply is None:
                        continue
                replies.append(reply)
            if len(rest) > MAX_LINE_BYTES - 2:
                raise ReplyError(f"reply line longer than {MAX_LINE_BYTES} bytes")
            if b"\n" in rest:
                raise ReplyError("reply line with a bare LF")
        except ReplyError as error:
            error.replies = replies
            raise
        return replies

    @property
    def is_empty(self) -> bool:
        """Whether nothing came that is not a whole reply."""
        return not self._rest and not self._lines

    def _take_line(self, line: bytes) -> RemoteReply | None:
        if len(line) > MAX_LINE_BYTES - 2:
            raise ReplyError(f"reply line longer than {MAX_LINE_BYTES} bytes")
        match = _LINE.fullmatch(line)
        if match is None:
            raise ReplyError("reply line with a bare LF" if b"\n" in line else "not an SMTP reply")
        lines = self._lines
        if lines and not lines[0].startswith(match[1]):
            raise ReplyError("the code changes within a reply")
        lines.append(line)
        self._bytes += len(line) + 2
        if len(lines) > MAX_LINES:
            raise ReplyError(f"reply with more than {MAX_LINES} lines")
        if self._bytes > MAX_REPLY_BYTES:
            raise ReplyError(f"reply longer than {MAX_REPLY_BYTES} bytes")
        if match[2] == b"-":
            return None
        reply = _build(int(match[1]), lines)
        if len(lines) == 1 and len(line) <= _SEEN_LINE_BYTES:
            if len(_seen) >= _SEEN_LIMIT:
                _seen.clear()
            _seen[line] = reply
        self._lines = []
        self._bytes = 0
        return reply


def _build(code: int, lines: list[bytes]) -> RemoteReply:
    first = lines[0]
    match = _STATUS.match(first, 4)
    status = ""
    if match is not None and first[0] == match[1][0]:  # RFC 2034 3: the class agrees with the first digit of the code
        status = match[1].decode("ascii")
    return RemoteReply(code, status, "\n".join([_clean(line) for line in lines]))


def _clean(line: bytes) -> str:
    text = line.decode("utf-8", "replace")
    return text if text.isprintable() else text.translate(_CONTROLS)
