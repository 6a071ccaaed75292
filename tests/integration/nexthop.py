"""A next hop of the tests' own: takes mail over SMTP, keeps every transaction, and refuses, holds or vanishes as it is told.

It runs in a thread of this process with an event loop of its own. What it keeps is what stood between DATA and the final dot,
without the dots that were stuffed, octet for octet. It goes down (`close`) and comes back (`open`) at the same port.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

from integration.peers.process import take_port, wait_until

EXTENSIONS = ("PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE")
_STANDARD = {
    "greeting": b"220 inside.example.test",
    "mail": b"250 2.1.0 ok",
    "rcpt": b"250 2.1.5 ok",
    "data": b"354 go on",
    "body": b"250 2.0.0 taken",
}
_PATH = re.compile(rb"<(.*?)>\s*(.*)\r\n\Z", re.DOTALL)
_STUFFED = re.compile(rb"(?m)^\.")

Answer = Callable[[str, str], "bytes | None"]


class Taken(NamedTuple):
    """A transaction that was answered 250."""

    reverse_path: str
    parameters: str  # of MAIL
    recipients: list[str]
    content: bytes
    wanted: Sequence[str] = ()  # parameters of each RCPT
    verb: str = "DATA"  # or "BDAT"


class NextHop:
    """`with NextHop() as hop:`; `hop.taken` is what came so far, in order.

    `answer(stage, what)` may give another reply than the positive one for "greeting", "mail", "rcpt" (`what` is the path),
    "data" and "body"; `refuse` sets one for a stage. While `held`, the replies to the final dot are not sent. With `tls` it has
    STARTTLS.
    """

    def __init__(
        self,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        extensions: Sequence[str] = EXTENSIONS,
        lmtp: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.lmtp = lmtp
        self.address = address
        self.port = port or take_port(address)
        self.extensions = list(extensions)
        self.tls = tls
        self.answer: Answer = lambda stage, what: None
        self.taken: list[Taken] = []
        self.connections = 0
        self.held = False
        self.open_now: set[_Session] = set()
        self.is_open = False
        self._server: asyncio.Server | None = None

    @property
    def name(self) -> str:
        """As a next hop in a configuration."""
        return f"{'lmtp' if self.lmtp else 'smtp'}://{self.address}:{self.port}"

    def refuse(self, stage: str, reply: bytes, only: str = "") -> None:
        """From now on `reply` at this stage; with `only`, for this path."""
        self.answer = lambda at, what: reply if at == stage and (not only or what == only) else None

    def accept(self) -> None:
        """From now on everything is taken."""
        self.answer = lambda stage, what: None

    def open(self) -> None:
        """Listen."""
        self._run(self._open())

    def close(self) -> None:
        """Listen no more, and drop whoever is connected."""
        self._run(self._close())

    def release(self) -> None:
        """Send the replies that were held back."""
        self.held = False
        self._run(self._release())

    def wait_for(self, count: int, timeout_s: float = 60.0) -> list[Taken]:
        """At least `count` transactions."""
        wait_until(lambda: len(self.taken) >= count, f"{count} messages at {self.name}", timeout_s)
        return list(self.taken)

    def find(self, recipient: str) -> Taken | None:
        """The first transaction for a recipient."""
        return next((taken for taken in list(self.taken) if recipient in taken.recipients), None)

    def wait_to(self, recipient: str, timeout_s: float = 60.0) -> Taken:
        """The first transaction for a recipient, once it has come."""
        found = wait_until(lambda: self.find(recipient), f"a message to {recipient} at {self.name}", timeout_s)
        assert found is not None
        return found

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="next hop", daemon=True)
        self._thread.start()
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    def _run(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    async def _open(self) -> None:
        if self._server is not None:
            return
        self.is_open = True
        self._server = await self._loop.create_server(
            lambda: _Session(self), self.address, self.port, backlog=1000, reuse_address=True
        )

    async def _close(self) -> None:
        self.is_open = False
        if self._server is not None:
            self._server.close()
            self._server = None
        for session in list(self.open_now):
            session.transport.abort()
        await asyncio.sleep(0)

    async def _release(self) -> None:
        for session in list(self.open_now):
            session.release()


class _Session(asyncio.Protocol):
    """One connection."""

    def __init__(self, hop: NextHop) -> None:
        self.hop = hop
        self.transport: Any = None
        self._input = bytearray()
        self._text: bytearray | None = None
        self._is_secured = False
        self._mail = ("", "")
        self._recipients: list[str] = []
        self._wanted: list[str] = []
        self._chunk = -1  # octets of a BDAT that are still to come
        self._waiting: Taken | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self._is_secured:
            return
        if not self.hop.is_open:  # accepted just before it was closed
            transport.abort()
            return
        self.hop.connections += 1
        self.hop.open_now.add(self)
        self._say("greeting", "")

    def connection_lost(self, error: Exception | None) -> None:
        self.hop.open_now.discard(self)

    def data_received(self, data: bytes) -> None:
        self._input += data
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting is None and not self.transport.is_closing():
            if self._chunk >= 0:
                if len(self._input) < self._chunk:
                    return
                content = bytes(self._input[: self._chunk])
                del self._input[: self._chunk]
                self._chunk = -1
                self._end_text(content, "BDAT")
                continue
            if self._text is not None:
                if not self._read_text():
                    return
                continue
            line, end, rest = self._input.partition(b"\r\n")
            if not end:
                return
            self._input = rest
            self._command(bytes(line) + b"\r\n")

    def _command(self, line: bytes) -> None:
        verb = line[:4].upper()
        if verb in (b"EHLO", b"LHLO"):
            names = ["inside.example.test", *self.hop.extensions]
            if self.hop.tls is not None and not self._is_secured:
                names.append("STARTTLS")
            lines = [f"250{'-' if name is not names[-1] else ' '}{name}" for name in names]
            self.transport.write("".join(f"{line}\r\n" for line in lines).encode())
        elif verb == b"HELO":
            self.transport.write(b"250 inside.example.test\r\n")
        elif verb in (b"MAIL", b"RCPT"):
            self._path(verb, line)
        elif verb == b"DATA":
            if not self._recipients:
                self.transport.write(b"503 5.5.1 no recipients\r\n")
            elif self._say("data", ""):
                self._text = bytearray()
        elif verb == b"BDAT":  # only ever one chunk
            assert line.endswith(b" LAST\r\n"), line
            self._chunk = int(line.split()[1])
        elif verb == b"STAR" and self.hop.tls is not None:
            self.transport.write(b"220 2.0.0 go on\r\n")
            self.handshake = asyncio.ensure_future(self._secure(self.hop.tls))
        elif verb == b"QUIT":
            self.transport.write(b"221 2.0.0 bye\r\n")
            self.transport.close()
        else:
            if verb == b"RSET":
                self._recipients = []
            self.transport.write(b"250 2.0.0 ok\r\n")

    async def _secure(self, context: ssl.SSLContext) -> None:
        self._is_secured = True
        plain = self.transport
        try:
            loop = asyncio.get_running_loop()
            self.transport = await loop.start_tls(plain, self, context, server_side=True)
        except (OSError, ssl.SSLError):  # a client that does not like the certificate
            plain.abort()

    def _path(self, verb: bytes, line: bytes) -> None:
        match = _PATH.search(line)
        assert match is not None, line
        path = match[1].decode()
        if verb == b"MAIL":
            self._recipients, self._wanted = [], []
            self._mail = (path, match[2].decode())
            self._say("mail", path)
        elif self._say("rcpt", path):
            self._recipients.append(path)
            self._wanted.append(match[2].decode())

    def _read_text(self) -> bool:
        """Whether the end of the text is there."""
        assert self._text is not None
        start = max(0, len(self._text) - 4)
        self._text += self._input
        self._input.clear()
        end = 0 if self._text[:3] == b".\r\n" else self._text.find(b"\r\n.\r\n", start) + 2
        if end < 2 and self._text[:3] != b".\r\n":
            return False
        self._input += self._text[end + 3 :]
        content = _STUFFED.sub(b"", bytes(self._text[:end]))
        self._text = None
        self._end_text(content, "DATA")
        return True

    def _end_text(self, content: bytes, verb: str) -> None:
        self._waiting = Taken(*self._mail, self._recipients, content, self._wanted, verb)
        self._recipients = []
        if not self.hop.held:
            self.release()

    def release(self) -> None:
        """Answer the final dot."""
        taken, self._waiting = self._waiting, None
        if taken is None:
            return
        whose = taken.recipients if self.hop.lmtp else taken.recipients[:1]
        replies = [self._reply("body", each) for each in whose]
        if any(reply[:1] == b"2" for reply in replies):
            self.hop.taken.append(taken)  # before the gateway can know, and an event can tell a test
        for reply in replies:
            self._write(reply)
        self._go_on()

    def _say(self, stage: str, what: str) -> bool:
        """Send the reply of this stage; whether it is a positive one."""
        reply = self._reply(stage, what)
        self._write(reply)
        return reply[:1] in (b"2", b"3")

    def _reply(self, stage: str, what: str) -> bytes:
        reply = self.hop.answer(stage, what)
        return _STANDARD[stage] if reply is None else reply

    def _write(self, reply: bytes) -> None:
        """421 closes, as does the empty reply, which is not sent."""
        if reply:
            self.transport.write(reply + b"\r\n")
        if not reply or reply.startswith((b"421", b"521", b"554 5.3.2")):
            self.transport.close()
