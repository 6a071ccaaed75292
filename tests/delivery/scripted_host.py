"""A small scripted SMTP or LMTP server in the process of the test, and a bed that runs a DeliveryEngine against some.

A rule is asked for each step ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "END" ...) and gives a reply, DROP, SILENT, or
None for the usual answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Self, TypeVar

import uvloop

from gatepost.config.schema import Config, Delivery, Pool
from gatepost.delivery.engine import DeliveryEngine
from gatepost.ipc.messages import Attempt, AttemptDone, LookupDone
from gatepost.model import Envelope, Recipient

T = TypeVar("T")
DROP = b"(drop)"
SILENT = b"(silent)"
EXTENSIONS = ("PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 20000000", "ENHANCEDSTATUSCODES")
Rule = Callable[[str, str], bytes | None]
_started: list[Host] = []


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop; a test that hangs fails."""

    async def bounded() -> T:
        try:
            return await asyncio.wait_for(coroutine, 60)
        finally:
            while _started:
                await _started[-1].stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(bounded())


class HostSession(asyncio.Protocol):
    def __init__(self, host: Host) -> None:
        self.host = host
        self.rest = b""
        self.in_data = False
        self.has_mail = False
        self.reverse_path = ""
        self.accepted: list[str] = []
        self.out: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.host.sessions.append(self)
        self.host.connections += 1
        self.host.most_open = max(self.host.most_open, len(self.host.sessions))
        self.say("CONNECT", "", b"220 host.test ESMTP")
        self.flush()
        self.host.changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.host.sessions.remove(self)
        self.host.changed.set()

    def data_received(self, data: bytes) -> None:
        self.host.chunks.append(data)
        self.rest += data
        while not self.transport.is_closing():
            end = b"\r\n.\r\n" if self.in_data and not self.rest.startswith(b".\r\n") else b"\r\n"
            index = self.rest.find(end)
            if index < 0:
                break
            line, self.rest = self.rest[:index], self.rest[index + len(end) :]
            if self.in_data:
                self.end(line + b"\r\n" if end != b"\r\n" else b"")
            else:
                self.command(line.decode())
        self.flush()
        self.host.changed.set()

    def command(self, line: str) -> None:
        self.host.log.append(line)
        verb = line.split(" ")[0].upper()
        if verb in ("EHLO", "LHLO"):
            names = ("host.test", *self.host.extensions)
            lines = [f"250{' ' if name is names[-1] else '-'}{name}" for name in names]
            self.say("EHLO", line, "\r\n".join(lines).encode())
        elif verb == "MAIL":
            self.accepted = []
            self.has_mail = self.say("MAIL", line, b"250 2.1.0 Ok")
            self.reverse_path = line.partition("<")[2].partition(">")[0]
        elif verb == "RCPT":
            if not self.has_mail:
                self.say("(order)", line, b"503 5.5.1 no MAIL")
            elif self.say("RCPT", line, b"250 2.1.5 Ok"):
                self.accepted.append(line.partition("<")[2].rpartition(">")[0])
        elif verb == "DATA":
            usual = b"354 go on" if self.accepted else b"554 5.5.1 no valid recipients"
            self.in_data = self.say("DATA", line, usual)
        elif verb == "QUIT":
            self.say("QUIT", line, b"221 2.0.0 bye")
            self.flush()
            self.transport.close()
        else:
            self.say(verb, line, b"250 2.0.0 Ok")

    def end(self, raw: bytes) -> None:
        self.in_data = False
        content = (b"\r\n" + raw).replace(b"\r\n..", b"\r\n.")[2:]
        steps = self.accepted if self.host.lmtp else [""]
        taken = [self.say("END", rcpt, b"250 2.0.0 queued") for rcpt in steps]
        self.host.raw.append(raw)
        if any(taken):
            self.host.messages.append((self.reverse_path, self.accepted, content))

    def say(self, step: str, line: str, usual: bytes) -> bool:
        """Answer; true if the answer is no refusal."""
        reply = self.host.rule(step, line) if self.host.rule else None
        if reply is None:
            reply = usual
        if reply == DROP:
            self.flush()
            self.transport.abort()
            return False
        if reply == SILENT:
            self.transport.pause_reading()
            return False
        self.out.append(reply + b"\r\n")
        return reply[:1] in (b"2", b"3")

    def flush(self) -> None:
        if self.out and not self.transport.is_closing():
            self.transport.write(b"".join(self.out))
        self.out = []


class Host:
    """One server; `messages` holds (reverse_path, recipients, content) of what it took."""

    def __init__(
        self, rule: Rule | None = None, *, lmtp: bool = False, extensions: tuple[str, ...] = EXTENSIONS
    ) -> None:
        self.rule = rule
        self.lmtp = lmtp
        self.extensions = extensions
        self.messages: list[tuple[str, list[str], bytes]] = []
        self.raw: list[bytes] = []
        self.log: list[str] = []
        self.chunks: list[bytes] = []
        self.sessions: list[HostSession] = []
        self.connections = 0
        self.most_open = 0
        self.changed = asyncio.Event()
        self.port = 0
        self.server: Any = None

    async def start(self, address: str = "127.0.0.1", port: int = 0) -> Host:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: HostSession(self), address, port)
        self.port = self.server.sockets[0].getsockname()[1]
        _started.append(self)
        return self

    async def stop(self) -> None:
        _started.remove(self)
        self.server.close()
        for session in list(self.sessions):
            session.transport.abort()
        await self.server.wait_closed()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something to be true of this host."""
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    @property
    def next_hop(self) -> str:
        return f"{'lmtp' if self.lmtp else 'smtp'}://127.0.0.1:{self.port}"


class Bed:
    """An engine with contents in memory; use as `async with Bed(...) as bed`."""

    def __init__(
        self,
        *,
        lookup: Callable[[str, str], Awaitable[LookupDone]] | None = None,
        own_addresses: frozenset[str] = frozenset(),
        pools: dict[str, Pool] | None = None,
        clock: Callable[[], float] = time.monotonic,
        **delivery: Any,
    ) -> None:
        self.contents: dict[int, bytes] = {}
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.changed = asyncio.Event()
        self.waiters: dict[int, asyncio.Future[AttemptDone]] = {}
        self.broken_sources: set[int] = set()
        self.jobs = 0
        config = Config(
            hostname="gate.test",
            listen=[],
            spool="/nowhere",
            domains={},
            pools=pools or {},
            delivery=Delivery(**{"keep_idle_s": 60.0, **delivery}),  # kept however long a test gets no turn
        )
        self.engine = DeliveryEngine(
            config,
            own_addresses=own_addresses,
            lookup=lookup or self.no_lookup,
            read=self.read,
            done=self.done,
            event=self.note_event,
            clock=clock,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.engine.close()
        await asyncio.sleep(0)

    @staticmethod
    async def no_lookup(kind: str, name: str) -> LookupDone:
        raise AssertionError(f"unexpected lookup {kind} {name}")

    def read(self, source: int, offset: int, count: int) -> bytes:
        if source in self.broken_sources:
            raise OSError(5, "Input/output error")
        return self.contents[source][offset : offset + count]

    def note_event(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))
        self.changed.set()

    async def until_event(self, name: str) -> None:
        """Wait until the engine told of such an event."""
        while name not in [known for known, _ in self.events]:
            self.changed.clear()
            await self.changed.wait()

    def done(self, done: AttemptDone) -> None:
        self.waiters.pop(done.job).set_result(done)

    def submit(
        self,
        next_hop: str,
        content: bytes = b"Subject: x\r\n\r\nhello\r\n",
        recipients: tuple[str, ...] = ("u@example.test",),
        *,
        limit: int = 5,
        **fields: Any,
    ) -> asyncio.Future[AttemptDone]:
        self.jobs += 1
        self.contents[self.jobs] = b"skipped" + content
        fields = {"needs_stuffing": True, "reverse_path": "s@example.org", **fields}
        envelope = Envelope(
            id=f"m{self.jobs}",
            session_id="s1",
            recipients=[Recipient(text, text.rpartition("@")[2], next_hop) for text in recipients],
            received_s=0.0,
            peer_address="192.0.2.1",
            helo="client.test",
            permit="recipient-domain",
            **fields,
        )
        waiter = asyncio.get_running_loop().create_future()
        self.waiters[self.jobs] = waiter
        indices = list(range(len(recipients)))
        self.engine.submit(Attempt(self.jobs, self.jobs, 7, len(content), next_hop, limit, envelope, indices))
        return waiter
