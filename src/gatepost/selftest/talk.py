"""A conversation of the self-test with the gateway: blunt, blocking, marked and fenced in.

It connects to addresses of `listen` and `[[listeners]]` on this host and to nothing else; it introduces itself as `selftest.HOSTNAME`; over IPv4 it comes
from SOURCE, an address of loopback that nobody outside can have, so that every event of a self-test can be told from an attack by its
`address` alone. It never sends a message to a domain that is not ours.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable
from typing import Self

import msgspec

from gatepost.config.listening import is_unix
from gatepost.config.schema import Config
from gatepost.config.values import parse_listen

SOURCE = "127.83.84.1"  # "S", "T"
WAIT_S = 20.0
CLOSE_S = 20.0  # how soon a connection must be closed that is to be closed, on a busy host too
MAX_REPLY_BYTES = 64 * 1024

Endpoint = tuple[str, int]


class Reply(msgspec.Struct, frozen=True):
    """A reply; `code` 0 says that the connection was closed without one."""

    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.text}".strip() if self.code else "the connection was closed"


def endpoints(config: Config) -> list[Endpoint]:
    """Where this host's gateway listens for other servers; loopback stands for the wildcard."""
    return _endpoints([*config.listen, *(row.address for row in config.listeners if row.kind == "edge")])


def _endpoints(texts: Iterable[str]) -> list[Endpoint]:
    found: dict[Endpoint, None] = {}
    for text in texts:
        listener = parse_listen(text)
        address = ipaddress.ip_address(listener.address)
        host = str(address) if not address.is_unspecified else "127.0.0.1" if address.version == 4 else "::1"
        found[host, listener.port] = None
    return list(found)


def submission_endpoints(config: Config) -> list[tuple[Endpoint, bool]]:
    """The same of submission listeners, and whether TLS begins with the first octet there; Unix sockets are none of them."""
    return [
        (endpoint, row.kind == "submissions")
        for row in config.listeners
        if row.kind in ("submission", "submissions") and not is_unix(row.address)
        for endpoint in _endpoints([row.address])
    ]


class Talk:
    """`with Talk(endpoint, hostname) as talk:`. Raises OSError if nobody answers, or TLS fails.

    With a `context` it is inside TLS when it is there: from the first octet where TLS `is_implicit`, else by STARTTLS.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        hostname: str,
        *,
        first: bytes = b"",
        context: ssl.SSLContext | None = None,
        is_implicit: bool = False,
    ) -> None:
        self.hello = f"EHLO selftest.{hostname}".encode()
        self._hostname = hostname
        self._buffer = b""
        self.sock: socket.socket = _connect(endpoint)
        try:
            if context is not None and is_implicit:
                self.secure(context)
            if first:
                self.send(first)
            self.first_sent_s = time.monotonic()
            self.greeting = self.reply()
            if context is not None and not is_implicit:
                self._start_tls(context)
        except BaseException:
            self.sock.close()
            raise

    def _start_tls(self, context: ssl.SSLContext) -> None:
        self.begin()
        if (reply := self.ask(b"STARTTLS")).code != 220:
            raise OSError(f"STARTTLS was answered {reply}")
        self.secure(context)

    def secure(self, context: ssl.SSLContext) -> None:
        """The handshake."""
        self.sock = context.wrap_socket(self.sock, server_hostname=self._hostname)

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
