"""The client's side of Dovecot's authentication protocol, version 1: lines in, answers out. Without I/O.

Only PLAIN is spoken, whatever mechanism brought name and password here. A line that is none of this protocol ends the conversation: what
cannot be understood is neither a yes nor a no. The protocol is Dovecot's "Authentication Protocol" document.
"""

from __future__ import annotations

import os
from binascii import b2a_base64

import msgspec

MAX_LINE_BYTES = 8192
MAJOR = b"1"
_ESCAPES = {b"0": b"\0", b"1": b"\1", b"t": b"\t", b"r": b"\r", b"n": b"\n"}


class DovecotError(ValueError):
    """The other side does not speak this protocol; the text says what is wrong."""


class Verdict(msgspec.Struct, frozen=True):
    """The answer to one request. `user` is who it is, empty if refused; `is_unknown`: Dovecot itself could not tell."""

    request: int
    user: str = ""
    is_unknown: bool = False


class DovecotConversation:
    """One connection. `is_ready` once the server has said that it takes requests."""

    __slots__ = ("_input", "_number", "is_ready")

    def __init__(self) -> None:
        self._input = b""
        self._number = 0
        self.is_ready = False

    def hello(self) -> bytes:
        """What the client says first."""
        return b"VERSION\t1\t1\nCPID\t%d\n" % os.getpid()

    def ask(self, name: str, password: str, *, remote: str, local: str, is_secured: bool) -> tuple[int, bytes]:
        """The number of a request, and its line. `resp` stands last, as the protocol wants; who guesses is slowed by us."""
        self._number = self._number % 0x7FFFFFFF + 1
        response = b2a_base64(b"\0%b\0%b" % (name.encode(), password.encode()), newline=False)
        words = [
            b"AUTH",
            b"%d" % self._number,
            b"PLAIN",
            b"service=smtp",
            b"rip=" + remote.encode(),
            b"lip=" + local.encode(),
        ]
        words += [b"secured"] if is_secured else []
        return self._number, b"\t".join([*words, b"no-penalty", b"nologin", b"resp=" + response]) + b"\n"

    def feed(self, data: bytes) -> list[Verdict]:
        """Take what came; raises DovecotError."""
        lines = (self._input + data).split(b"\n")
        self._input = lines.pop()
        if len(self._input) > MAX_LINE_BYTES or any(len(line) > MAX_LINE_BYTES for line in lines):
            raise DovecotError("a line without end")
        return [verdict for line in lines if (verdict := self._line(line.split(b"\t"))) is not None]

    def _line(self, words: list[bytes]) -> Verdict | None:
        verb = words[0]
        if verb == b"VERSION":
            if words[1:2] != [MAJOR]:
                raise DovecotError("it speaks another version of the protocol")
        elif verb == b"DONE":
            self.is_ready = True
        elif verb in (b"OK", b"FAIL", b"CONT"):
            return self._verdict(verb, words)
        return None  # MECH, SPID, CUID, COOKIE, and what later minor versions add

    @staticmethod
    def _verdict(verb: bytes, words: list[bytes]) -> Verdict:
        if len(words) < 2 or not words[1].isdigit() or len(words[1]) > 10:
            raise DovecotError("an answer without a number")
        request = int(words[1])
        if verb == b"CONT":
            raise DovecotError("it asks for more where nothing more is to be said")
        if verb == b"FAIL":
            return Verdict(request, is_unknown=b"temp" in words[2:])
        users = [word[5:] for word in words[2:] if word.startswith(b"user=")]
        try:
            user = _unescape(users[0]).decode("utf-8")
        except (IndexError, UnicodeDecodeError):
            raise DovecotError("it does not say who the user is") from None
        if not user or not user.isprintable():
            raise DovecotError("it names a user that is none")
        return Verdict(request, user)


def _unescape(value: bytes) -> bytes:
    first, *rest = value.split(b"\1")
    return first + b"".join(_ESCAPES.get(part[:1], part[:1]) + part[1:] for part in rest)
