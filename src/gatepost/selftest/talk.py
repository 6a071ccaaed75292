"""A conversation of the self-test with the gateway: blunt, blocking, marked and fenced in.

It connects to addresses of `listen` on this host and to nothing else; it introduces itself as `selftest.HOSTNAME`; over IPv4 it comes
from SOURCE, an address of loopback that nobody outside can have, so that every event of a self-test can be told from an attack by its
`address` alone. It never sends a message to a domain that is not ours.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from typing import Self

import msgspec

from gatepost.config.schema import Config
from gatepost.config.values import parse_listen

SOURCE = "127.83.84.1"  # "S", "T"
WAIT_S = 20.0
CLOSE_S = 3.0  # how soon a connection must be closed that is to be closed
MAX_REPLY_BYTES = 64 * 1024

Endpoint = tuple[str, int]


class Reply(msgspec.Struct, frozen=True):
    """A reply; `code` 0 says that the connection was closed without one."""

    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.text}".strip() if self.code else "the connection was closed"


def endpoints(config: Config) -> list[Endpoint]:
    """Where this host's gateway listens; loopback stands for the wildcard."""
    found: dict[Endpoint, None] = {}
    for text in config.listen:
        listener = parse_listen(text)
        address = ipaddress.ip_address(listener.address)
        host = str(address) if not address.is_unspecified else "127.0.0.1" if address.version == 4 else "::1"
        found[host, listener.port] = None
    return list(found)


class Talk:
    """`with Talk(endpoint, hostname) as talk:`. Raises OSError if nobody answers."""

    def __init__(self, endpoint: Endpoint, hostname: str, *, first: bytes = b"") -> None:
        self.hello = f"EHLO selftest.{hostname}".encode()
        self._buffer = b""
        self.sock: socket.socket = _connect(endpoint)
        if first:
            self.send(first)
        self.greeting = self.reply()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send; what happens to it shows in the next reply."""
        with contextlib.suppress(ConnectionError):
            self.sock.sendall(data)

    def ask(self, line: bytes) -> Reply:
        """A command and its reply."""
        self.send(line + b"\r\n")
        return self.reply()

    def begin(self) -> Reply:
        """Say who we are."""
        return self.ask(self.hello)

    def reply(self) -> Reply:
        """The next reply, all its lines in `text`."""
        texts = []
        while True:
            line = self._line()
            if not line:
                return Reply(0, "")
            texts.append(line[4:].decode("utf-8", "replace").rstrip("\r\n"))
            if line[3:4] != b"-":
                code = line[:3].decode("ascii", "replace")
                return Reply(int(code) if code.isdecimal() else 0, "\n".join(texts))

    def is_closed(self) -> bool:
        """Whether the gateway ends the connection behind what it said."""
        self.sock.settimeout(CLOSE_S)
        try:
            while (reply := self.reply()).code == 421:
                pass
        except TimeoutError:
            return False
        return reply.code == 0

    def _line(self) -> bytes:
        while b"\n" not in self._buffer:
            if len(self._buffer) > MAX_REPLY_BYTES:
                return b""
            try:
                data = self.sock.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                return b""
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line + b"\n"

    def forget_input(self) -> bytes:
        """What was received and not read: before TLS there must be nothing."""
        left, self._buffer = self._buffer, b""
        return left


def _connect(endpoint: Endpoint) -> socket.socket:
    source = (SOURCE, 0) if ":" not in endpoint[0] else None
    try:
        return socket.create_connection(endpoint, timeout=WAIT_S, source_address=source)
    except OSError:
        if source is None:
            raise
    return socket.create_connection(endpoint, timeout=WAIT_S)
