"""A client of the tests' own: says exactly the octets it is given, in commands, by DATA or by BDAT."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Self

HELLO = b"EHLO client.outside.test\r\n"


class Refused(AssertionError):
    """A reply that was not expected."""


class Talk:
    """`with Talk(port) as talk:` has read the greeting; `source` is the loopback address it comes from."""

    def __init__(self, port: int, *, source: str = "127.0.0.1", timeout_s: float = 60.0) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=timeout_s, source_address=(source, 0))
        self.file = self.sock.makefile("rb")
        self.greeting = self.hear()

    def hear(self) -> bytes:
        """One whole reply; empty if the connection is closed."""
        lines = []
        try:
            while line := self.file.readline():
                lines.append(line)
                if line[3:4] != b"-":
                    break
        except ConnectionResetError:
            return b""
        return b"".join(lines)

    def say(self, octets: bytes, expect: bytes = b"") -> bytes:
        """Send, and read one reply, which must begin with `expect`."""
        self.sock.sendall(octets)
        return self.expect(expect)

    def expect(self, begin: bytes) -> bytes:
        """Read one reply, which must begin so."""
        reply = self.hear()
        if not reply.startswith(begin):
            raise Refused(f"{begin!r} expected: {reply!r}")
        return reply

    def is_closed(self) -> bool:
        """Whether the other side closes now; waits for it, and drops what it still says."""
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            pass
        except TimeoutError:
            return False
        return True

    def hello(self) -> bytes:
        """EHLO."""
        return self.say(HELLO, b"250")

    def envelope(
        self, recipients: Iterable[str], reverse_path: str = "sender@outside.test", parameters: str = ""
    ) -> None:
        """MAIL and all RCPT in one piece, all of which must be taken."""
        recipients = list(recipients)
        lines = [f"MAIL FROM:<{reverse_path}>{' ' if parameters else ''}{parameters}\r\n"]
        lines += [f"RCPT TO:<{recipient}>\r\n" for recipient in recipients]
        self.sock.sendall("".join(lines).encode())
        for _ in lines:
            self.expect(b"250")

    def data(self, content: bytes, expect: bytes = b"250") -> bytes:
        """The text by DATA; one that does not end with CRLF gets it, as any client must do. Returns the reply to its end."""
        if content and not content.endswith(b"\r\n"):
            content += b"\r\n"
        self.say(b"DATA\r\n", b"354")
        stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
        return self.say(stuffed + b".\r\n", expect)

    def bdat(self, content: bytes, chunk_bytes: int = 1 << 30, expect: bytes = b"250") -> bytes:
        """The text by BDAT in chunks of this size, all of them sent at once. Returns the reply to the last."""
        chunks = [content[at : at + chunk_bytes] for at in range(0, len(content), chunk_bytes)] or [b""]
        last = len(chunks) - 1
        pieces = [b"BDAT %d%b\r\n%b" % (len(c), b" LAST" if i == last else b"", c) for i, c in enumerate(chunks)]
        self.sock.sendall(b"".join(pieces))
        for _ in chunks[1:]:
            self.expect(b"250")
        return self.expect(expect)

    def send(
        self,
        recipients: str | Iterable[str],
        content: bytes,
        *,
        reverse_path: str = "sender@outside.test",
        parameters: str = "",
    ) -> str:
        """A whole transaction by DATA, which must be taken; returns the message id of the gateway."""
        self.envelope([recipients] if isinstance(recipients, str) else recipients, reverse_path, parameters)
        return self.data(content).split()[-1].decode()

    def close(self) -> None:
        self.file.close()
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def message(subject: str = "test", body: bytes = b"text\r\n") -> bytes:
    """A message with few fields."""
    return b"From: sender@outside.test\r\nTo: user@example.test\r\nSubject: %b\r\n\r\n" % subject.encode() + body


def send(port: int, recipients: str | Iterable[str], content: bytes | None = None, **more: str) -> str:
    """One message over a connection of its own; returns the message id of the gateway."""
    source = more.pop("source", "127.0.0.1")
    with Talk(port, source=source) as talk:
        talk.hello()
        return talk.send(recipients, message() if content is None else content, **more)
