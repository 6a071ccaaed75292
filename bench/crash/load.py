"""The load: many clients at once, each noting how every transaction ended. A process of its own: `python -m bench.crash.load`.

A client never sends an id twice: whatever was not answered is not known to be accepted, and the next message has a new id. So
each id that arrives twice is the gateway's doing. Some clients pipeline, some keep their connection, some send to
several recipients. It ends on SIGTERM, when the transactions under way have ended.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from typing import NamedTuple

from bench.crash.books import Book, Sent
from bench.crash.content import build_binary_bodies, build_bodies, build_header
from bench.crash.kinds import BOX_DOMAIN, HELD_DOMAIN, INSIDE_FROM, OUTSIDE_FROM, Kind, choose_kind
from bench.crash.sink import MX_DOMAINS

ANSWER_LIMIT_S = 60.0  # a gateway that lets a client wait longer than this hangs, for the proof
PAUSE_S = 0.03  # after a lost connection or a refusal
MAX_KEPT = 20
DOMAINS = (
    ("fixed.test",) * 8 + tuple(f"mx{number}.test" for number in range(MX_DOMAINS)) + (BOX_DOMAIN,) * 4 + ("pool.test",) * 3
    + (HELD_DOMAIN,)
)  # fmt: skip


class Lost(Exception):
    """The connection is gone; the text says where."""


class Message(NamedTuple):
    """What is sent, and to whom."""

    kind: Kind
    named: list[str]  # recipients as RCPT has them
    expected: list[str]  # who gets it
    text: bytes


class Client:
    """One client: one connection at a time."""

    def __init__(
        self, number: int, options: argparse.Namespace, book: Book, bodies: list[list[tuple[bytes, int]]]
    ) -> None:
        self.rng = random.Random(f"{options.seed} {number}")
        self.name = f"{options.prefix}c{number}"
        self.ports = (options.port, options.submission)
        self.pause_s = options.clients / options.rate if options.rate else 0.0
        self.book = book
        self.bodies = bodies
        self.count = 0
        self.failed_connections = 0
        self._read: asyncio.StreamReader
        self._write: asyncio.StreamWriter

    async def run(self, stopping: asyncio.Event) -> None:
        """Session after session until told to stop."""
        while not stopping.is_set():
            try:
                await self._session(stopping)
            except (OSError, TimeoutError, Lost):
                self.failed_connections += 1
                await asyncio.sleep(PAUSE_S)

    async def _session(self, stopping: asyncio.Event) -> None:
        kind = choose_kind(self.rng)
        submits = kind.is_submitted
        async with asyncio.timeout(ANSWER_LIMIT_S):
            self._read, self._write = await asyncio.open_connection("127.0.0.1", self.ports[submits], limit=1 << 16)
        try:
            if (await self._hear())[0] != 220:
                raise Lost("greeting")
            await self._say(b"EHLO load.outside.test\r\n")
            if (await self._hear())[0] != 250:
                raise Lost("EHLO")
            pipelined = self.rng.random() < 0.5
            messages = self.rng.randint(1, MAX_KEPT) if self.rng.random() < 0.5 else 1
            for _ in range(messages):
                if stopping.is_set() or not await self._transaction(kind, pipelined):
                    break
                kind = choose_kind(self.rng)
                if kind.is_submitted and not submits:  # not offered here
                    break
                if self.pause_s:
                    await asyncio.sleep(self.pause_s * self.rng.uniform(0.5, 1.5))
            if self.rng.random() < 0.8:
                with contextlib.suppress(Lost):
                    await self._say(b"QUIT\r\n")
                    await self._hear()
        finally:
            self._write.close()

    async def _say(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                self._write.write(data)
                await self._write.drain()
        except TimeoutError as error:
            raise Lost("hangs: nothing is read") from error
        except OSError as error:
            raise Lost("write") from error

    async def _hear(self) -> tuple[int, str]:
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                while True:
                    line = await self._read.readline()
                    if not line.endswith(b"\r\n"):
                        raise Lost("read")
                    if line[3:4] == b" ":
                        return int(line[:3]), line[4:].decode("ascii", "replace").strip()
        except TimeoutError as error:
            raise Lost("hangs: no answer") from error
        except OSError as error:
            raise Lost("read") from error

    def _compose(self, kind: Kind, message_id: str) -> Message:
        rng = self.rng
        body, crc = rng.choice(self.bodies[kind.is_binary])
        several = rng.randint(2, 6) if rng.random() < 0.25 else 1
        drawn = [f"u{rng.randrange(50)}@{rng.choice(DOMAINS)}" for _ in range(several)]
        if kind.is_binary:  # a Maildir has lines
            drawn = [recipient for recipient in drawn if not recipient.endswith("@" + BOX_DOMAIN)] or ["b@fixed.test"]
        drawn = drawn[len(kind.recipients) :]
        header = build_header(message_id, crc, kind.sender, OUTSIDE_FROM if kind.sender == INSIDE_FROM else "")
        named = list(dict.fromkeys((*drawn, *kind.recipients)))
        expected = list(dict.fromkeys((*drawn, *(kind.stands_for or kind.recipients))))
        return Message(kind, named, expected, header + body)

    async def _transaction(self, kind: Kind, pipelined: bool) -> bool:
        """One message; whether the connection can take another."""
        self.count += 1
        message_id = f"{self.name}n{self.count}"
        message = self._compose(kind, message_id)
        row = Sent(message_id, time.monotonic(), 0.0, 0, "begin", len(message.text), message.expected)
        row.kind, row.notify, row.hold_s = kind.name, kind.notify, kind.hold_s
        try:
            goes_on = await self._converse(row, pipelined, message)
        except Lost as lost:
            row.text = str(lost)
            raise
        finally:
            row.ended_s = time.monotonic()
            self.book.add(row)
        if row.code != 250:
            await asyncio.sleep(PAUSE_S)
        return goes_on

    async def _converse(self, row: Sent, pipelined: bool, message: Message) -> bool:
        kind, text = message.kind, message.text
        commands = [f"MAIL FROM:<{kind.sender}>{kind.mail.format(id=row.id)}\r\n".encode()]
        commands += [f"RCPT TO:<{recipient}>{kind.rcpt}\r\n".encode() for recipient in message.named]
        commands.append(b"NOOP\r\n" if kind.is_binary else b"DATA\r\n")
        if pipelined:
            await self._say(b"".join(commands))
            replies = [await self._hear() for _ in commands]
        else:
            replies = []
            for command in commands:
                await self._say(command)
                replies.append(await self._hear())
                if len(replies) == 1 and replies[0][0] != 250:
                    return self._refused(row, "mail", *replies[0])
        refused = {who for who, reply in zip(message.named, replies[1:-1], strict=True) if reply[0] != 250}
        members = [] if refused.intersection(kind.recipients) else kind.stands_for
        row.recipients = [
            who for who in row.recipients if who in members or (who in message.named and who not in refused)
        ]
        code, answer = replies[-1]
        if code != 354 and (code != 250 or not row.recipients):
            stage, first = next(
                ((stage, reply) for stage, reply in zip(("mail", "rcpt"), replies, strict=False) if reply[0] != 250),
                ("data", (code, answer)),
            )
            return self._refused(row, stage, *first)
        row.stage = "end"
        if kind.is_binary:
            half = len(text) // 2
            await self._say(b"BDAT %d\r\n%b" % (half, text[:half]))
            if (first := await self._hear())[0] != 250:
                return self._refused(row, "bdat", *first)
            await self._say(b"BDAT %d LAST\r\n%b" % (len(text) - half, text[half:]))
        else:
            await self._say(text + b".\r\n")
        return self._refused(row, "end", *await self._hear())

    def _refused(self, row: Sent, stage: str, code: int, text: str) -> bool:
        row.stage, row.code = stage, code
        row.text = "" if code == 250 else text
        return code != 421


async def run(options: argparse.Namespace) -> None:
    """All clients until SIGTERM."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    book = Book(options.book)
    bodies = [build_bodies(random.Random(options.seed)), build_binary_bodies(random.Random(options.seed))]
    clients = [Client(number, options, book, bodies) for number in range(options.clients)]
    await asyncio.gather(*(client.run(stopping) for client in clients))
    print(sum(client.failed_connections for client in clients))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--submission", type=int, required=True, help="port of the listener for submission")
    parser.add_argument("--book", required=True)
    parser.add_argument("--prefix", required=True, help="of the ids; another one for each run")
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--rate", type=float, default=0.0, help="messages/s in all, at most; 0: as fast as it goes")
    parser.add_argument("--seed", default="0")
    asyncio.run(run(parser.parse_args()))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
