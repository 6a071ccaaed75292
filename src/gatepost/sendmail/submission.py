"""SMTP over the gateway's Unix socket, as one program of this host speaks it: one message, all recipients or none.

The kernel tells the gateway who asks; nothing said here can change that. Whatever keeps the message from being taken is a `Failure` with
an exit status, and then nothing was sent: there is no queue of this program, so that no user can write one.
"""

from __future__ import annotations

import re
import socket
import sys
from typing import NamedTuple, Self

from gatepost.sendmail.sysexits import EX_NOPERM, EX_TEMPFAIL, EX_UNAVAILABLE, Failure, status_of

CONNECT_TIMEOUT_S = 30.0
REPLY_TIMEOUT_S = 600.0  # RFC 5321 4.5.3.2.6, for the longest
MAX_REPLY_BYTES = 64 * 1024

_LINE = re.compile(rb"([2-5][0-9][0-9])([ -]?)(.*)\Z", re.DOTALL).match
_STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?= |$)").match
_XTEXT = re.compile(r"[^!-*,-<>-~]")


class Answer(NamedTuple):
    """A reply: its code, and the text of its lines."""

    code: int
    lines: list[str]

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.code} {' '.join(self.lines)}"

    def failure(self, what: str) -> Failure:
        """That this reply refuses something."""
        return Failure(self.refusal().status, f"{what}: {self.text}")

    def refusal(self) -> Failure:
        """That this reply refuses."""
        found = _STATUS(self.lines[0]) if self.lines else None
        return Failure(status_of(self.code, found[0] if found else ""), self.text)


class Submission:
    """One connection to the gateway; `hostname` is what it calls itself."""

    def __init__(self, path: str, *, verbose: bool = False) -> None:
        self.path = path
        self._verbose = verbose
        self._sock = connect(path)
        self._sock.settimeout(REPLY_TIMEOUT_S)
        self._file = self._sock.makefile("rb")
        self.hostname = ""
        self._offers: dict[str, str] = {}

    def greet(self) -> None:
        """Hear the greeting, and say EHLO."""
        self._expect(self._hear(), "the gateway refuses the connection")
        answer = self._expect(self._ask("EHLO localhost"), "the gateway refuses EHLO")
        self.hostname = answer.lines[0].split(" ")[0]
        for line in answer.lines[1:]:
            keyword, _, value = line.partition(" ")
            self._offers[keyword.upper()] = value

    def send(
        self,
        reverse_path: str,
        recipients: list[str],
        octets: bytes,
        *,
        notify: tuple[str, ...] = (),
        ret: str = "",
        envelope_id: str = "",
    ) -> str:
        """One message; returns what the gateway said in the end. Raises Failure, and then nothing was sent."""
        limit = self._offers.get("SIZE", "")
        if limit.isdigit() and 0 < int(limit) < len(octets):
            raise Failure(EX_UNAVAILABLE, f"the message has {len(octets)} bytes, and the gateway takes {limit}")
        has_dsn = "DSN" in self._offers
        self._expect(
            self._ask(self._mail(reverse_path, recipients, octets, ret, envelope_id)), f"from <{reverse_path}>"
        )
        more = f" NOTIFY={','.join(notify)}" if notify and has_dsn else ""
        refused = []
        for recipient in recipients:
            answer = self._ask(f"RCPT TO:<{recipient}>{more}")
            if answer.code >= 300:
                refused.append(answer.failure(f"to <{recipient}>"))
        if refused:
            text = "; ".join(str(one) for one in refused)
            raise Failure(refused[0].status, f"{text}{'; nothing was sent' if len(recipients) > 1 else ''}")
        answer = self._ask("DATA")
        if answer.code != 354:
            raise answer.failure("the gateway takes no message now")
        stuffed = (b"\r\n" + octets).replace(b"\r\n.", b"\r\n..")[2:]
        self._write(stuffed + b".\r\n")
        return self._expect(self._hear(), "the gateway refuses the message").text

    def verify(self, reverse_path: str, recipients: list[str]) -> list[tuple[str, Failure | None]]:
        """Each recipient, and why the gateway takes no mail for it if so. Raises Failure for the reverse-path."""
        more = "" if all(path.isascii() for path in (reverse_path, *recipients)) else " SMTPUTF8"
        self._expect(self._ask(f"MAIL FROM:<{reverse_path}>{more}"), f"from <{reverse_path}>")
        answers = [(recipient, self._ask(f"RCPT TO:<{recipient}>")) for recipient in recipients]
        self._ask("RSET")
        return [(recipient, answer.refusal() if answer.code >= 300 else None) for recipient, answer in answers]

    def _mail(self, reverse_path: str, recipients: list[str], octets: bytes, ret: str, envelope_id: str) -> str:
        line = f"MAIL FROM:<{reverse_path}>"
        if "SIZE" in self._offers:
            line += f" SIZE={len(octets)}"
        if not octets.isascii() and "8BITMIME" in self._offers:
            line += " BODY=8BITMIME"
        if not all(path.isascii() for path in (reverse_path, *recipients)):
            if "SMTPUTF8" not in self._offers:
                raise Failure(EX_UNAVAILABLE, "the gateway takes no internationalised addresses")
            line += " SMTPUTF8"
        if "DSN" in self._offers:
            line += f" RET={ret}" if ret else ""
            if envelope_id:
                line += " ENVID=" + _XTEXT.sub(lambda match: f"+{ord(match[0]):02X}", envelope_id)
        return line

    def _ask(self, line: str) -> Answer:
        if self._verbose:
            print(f">>> {line}", file=sys.stderr)
        self._write(line.encode("utf-8", "surrogateescape") + b"\r\n")
        return self._hear()

    def _write(self, octets: bytes) -> None:
        try:
            self._sock.sendall(octets)
        except (BrokenPipeError, ConnectionResetError):
            pass  # what it said before it closed is yet to be read
        except OSError as error:
            raise Failure(EX_TEMPFAIL, f"the connection to the gateway is lost: {error.strerror or error}") from error

    def _hear(self) -> Answer:
        lines: list[str] = []
        total = 0
        while True:
            try:
                line = self._file.readline(MAX_REPLY_BYTES)
            except OSError as error:
                raise Failure(EX_TEMPFAIL, f"no answer of the gateway: {error.strerror or error}") from error
            total += len(line)
            match = _LINE(line.rstrip(b"\r\n"))
            if match is None or total > MAX_REPLY_BYTES:
                raise Failure(EX_TEMPFAIL, "the gateway has closed the connection without an answer")
            lines.append(match[3].decode("utf-8", "replace"))
            if match[2] != b"-":
                answer = Answer(int(match[1]), lines)
                if self._verbose:
                    print(answer.text, file=sys.stderr)
                return answer

    @staticmethod
    def _expect(answer: Answer, what: str) -> Answer:
        if answer.code >= 300:
            raise answer.failure(what)
        return answer

    def close(self) -> None:
        """Take leave."""
        try:
            self._sock.sendall(b"QUIT\r\n")
        except OSError:
            pass
        self._file.close()
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(path: str) -> socket.socket:
    """A connection to the gateway; raises Failure."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(CONNECT_TIMEOUT_S)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        reason = error.strerror or str(error)
        if isinstance(error, PermissionError):
            raise Failure(EX_NOPERM, f"your user may not connect to {path}: {reason}") from error
        text = f"the gateway does not answer on {path} ({reason}); nothing was queued, try again later"
        raise Failure(EX_TEMPFAIL, text) from error
    return sock
