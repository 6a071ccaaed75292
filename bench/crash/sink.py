"""The next hop: an SMTP server that writes down each message before it says 250, and a name server that names it as MX host.

A process of its own, never killed: `python -m bench.crash.sink`. It offers PIPELINING, refuses a share of all commands with a
temporary code, and answers some messages late, so that attempts are under way when a kill comes.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import struct
import time

from bench.crash.books import Arrival, Book
from bench.crash.content import read_content, read_notice
from bench.crash.kinds import GONE

LATE_SHARE = 0.15
LATE_S = 0.03
VERY_LATE_SHARE = 0.01
VERY_LATE_S = 1.5  # longer than a role takes to come back: its attempts outlive the queue that gave them
MX_ADDRESS = "127.0.0.2"  # not that of the gateway, which would take it for itself
FLAPPING_ADDRESS = "127.0.0.3"  # a member of a pool that goes and comes back
UP_S, DOWN_S = 1.5, 0.7
QUIET_S = 1.0  # until an answer has been read
MX_DOMAINS = 8  # next hops whose hosts have to be looked up
TTL_S = 1
A, MX = 1, 15


class SinkSession(asyncio.Protocol):
    """One connection of a deliverer."""

    def __init__(self, book: Book, refusing: float, rng: random.Random) -> None:
        self._book = book
        self._refusing = refusing
        self._rng = rng
        self._buffer = bytearray()
        self._recipients: list[str] = []
        self._begun_s = 0.0
        self._has_mail = False
        self._in_text = False
        self._chunk = -1  # octets of a chunk that are to come; -1: none
        self._is_last = False
        self._chunks = b""
        self._is_notice = False
        self._is_late = False
        self._answered_s = 0.0
        self._came_s = 0.0  # what waits in the buffer behind a late answer
        self._transport: asyncio.Transport = None  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._transport.write(b"220 sink.test ESMTP\r\n")

    def drop(self) -> None:
        """Vanish, in the middle of whatever it is, but not with the answer to a message that was written down."""
        if self._transport is None:
            return
        if self._is_late or time.monotonic() < self._answered_s + QUIET_S:
            asyncio.get_running_loop().call_later(QUIET_S, self.drop)
        else:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self._is_late or not self._buffer:
            self._came_s = time.monotonic()
        self._buffer += data
        self._advance()

    def _advance(self) -> None:
        replies = bytearray()
        while not self._is_late:
            if self._in_text:
                end = self._buffer.find(b"\r\n.\r\n")
                if end < 0:
                    break
                text = bytes(self._buffer[: end + 2])
                del self._buffer[: end + 5]
                self._in_text = False
                reply = self._end_of_data(text.replace(b"\r\n..", b"\r\n.")[2:])
                if reply is None:
                    break
                replies += reply
            elif self._chunk >= 0:
                if len(self._buffer) < self._chunk:
                    break
                self._chunks += bytes(self._buffer[: self._chunk])
                del self._buffer[: self._chunk]
                self._chunk = -1
                reply = self._end_of_chunk()
                if reply is None:
                    break
                replies += reply
            else:
                end = self._buffer.find(b"\r\n")
                if end < 0:
                    break
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 2]
                replies += self._command(line)
        if replies and not self._transport.is_closing():
            self._transport.write(bytes(replies))

    def _command(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        refuses = self._rng.random() < self._refusing
        if verb in (b"EHLO", b"HELO"):
            return b"250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-CHUNKING\r\n250-BINARYMIME\r\n250 ENHANCEDSTATUSCODES\r\n"
        if verb == b"MAIL":
            self._recipients, self._begun_s = [], self._came_s
            self._has_mail = not refuses
            self._is_notice, self._chunks = b"<>" in line, b""
            return b"451 4.3.0 not now\r\n" if refuses else b"250 2.1.0 Ok\r\n"
        if verb == b"RCPT":
            if not self._has_mail:
                return b"503 5.5.1 MAIL first\r\n"
            if refuses:
                return b"450 4.2.1 not now\r\n"
            if b"<" + GONE.encode() + b"@" in line:
                return b"550 5.1.1 no such mailbox\r\n"
            self._recipients.append(line.partition(b"<")[2].partition(b">")[0].decode())
            return b"250 2.1.5 Ok\r\n"
        if verb == b"DATA":
            if not self._recipients:
                return b"503 5.5.1 no valid recipients\r\n"
            self._in_text = True
            self._buffer[:0] = b"\r\n"  # so that a text that is only a dot ends, too
            return b"354 go on\r\n"
        if verb == b"BDAT":
            self._chunk = int(line.split()[1])
            self._is_last = line.upper().endswith(b" LAST")
            return b""
        if verb == b"QUIT":
            self._transport.write(b"221 2.0.0 bye\r\n")
            self._transport.close()
            return b""
        self._recipients, self._has_mail = [], False
        return b"250 2.0.0 Ok\r\n"

    def _end_of_chunk(self) -> bytes | None:
        """The reply to BDAT, or None if it comes later."""
        if not self._recipients:
            return b"503 5.5.1 no valid recipients\r\n"
        if not self._is_last:
            return b"250 2.0.0 Ok\r\n"
        text, self._chunks = self._chunks, b""
        return self._end_of_data(text)

    def _note(self, content: bytes, recipients: list[str]) -> None:
        """Write it down: a message for its recipients, or a notice for those it tells of."""
        if not self._is_notice:
            message_id, gateway_id, is_whole = read_content(content)
            self._book.add(Arrival(message_id, gateway_id, self._begun_s, time.monotonic(), recipients, is_whole))
            return
        about, own_id, told = read_notice(content)
        for action in sorted({action for _, action in told}) or ["unreadable"]:
            those = [recipient for recipient, what in told if what == action]
            self._book.add(Arrival(about, own_id, self._begun_s, time.monotonic(), those, bool(told), action))

    def _end_of_data(self, text: bytes) -> bytes | None:
        """The reply, or None if it comes later."""
        recipients, self._recipients, self._has_mail = self._recipients, [], False
        if self._rng.random() < self._refusing:
            return b"451 4.3.0 not now\r\n"
        self._note(text, recipients)
        chance = self._rng.random()
        self._answered_s = time.monotonic()
        if chance >= LATE_SHARE:
            return b"250 2.0.0 Ok\r\n"
        self._is_late = True
        longest_s = VERY_LATE_S if chance < VERY_LATE_SHARE else LATE_S
        asyncio.get_running_loop().call_later(longest_s * self._rng.random(), self._answer_late)
        return None

    def _answer_late(self) -> None:
        self._is_late = False
        self._answered_s = time.monotonic()
        if not self._transport.is_closing():
            self._transport.write(b"250 2.0.0 Ok\r\n")
            self._advance()


class NameServer(asyncio.DatagramProtocol):
    """MX of every name that begins with mx, and the address of that host; nothing else has records."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        end = data.find(b"\0", 12) + 5
        if end < 17 or len(data) < end:
            return
        name = data[12 : end - 4].lower()
        kind = struct.unpack_from("!H", data, end - 4)[0]
        records = b""
        if kind == MX and name[1:3] == b"mx":
            exchange = struct.pack("!H", 10) + _encode_name("sink.mx.test")
            records = b"\xc0\x0c" + struct.pack("!HHIH", MX, 1, TTL_S, len(exchange)) + exchange
        elif kind == A and name == _encode_name("sink.mx.test"):
            address = bytes(int(part) for part in MX_ADDRESS.split("."))
            records = b"\xc0\x0c" + struct.pack("!HHIH", A, 1, TTL_S, 4) + address
        counts = struct.pack("!HHHH", 1, 1 if records else 0, 0, 0)
        self._transport.sendto(data[:2] + b"\x85\x80" + counts + data[12:end] + records, addr)  # type: ignore[attr-defined]


def _encode_name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


async def serve(options: argparse.Namespace) -> None:
    """Until killed."""
    loop = asyncio.get_running_loop()
    book = Book(options.book)
    rng = random.Random(options.seed)
    for address in ("127.0.0.1", MX_ADDRESS):
        await loop.create_server(lambda: SinkSession(book, options.refuse, rng), address, options.port, backlog=512)
    await loop.create_datagram_endpoint(NameServer, ("127.0.0.1", options.port))
    print("ready", flush=True)
    while True:
        sessions: set[SinkSession] = set()

        def build(sessions: set[SinkSession] = sessions) -> SinkSession:
            session = SinkSession(book, options.refuse, rng)
            sessions.add(session)
            return session

        server = await loop.create_server(build, FLAPPING_ADDRESS, options.port, backlog=512)
        await asyncio.sleep(UP_S)
        server.close()
        for session in sessions:
            session.drop()
        await asyncio.sleep(DOWN_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="TCP of the sink and UDP of the name server")
    parser.add_argument("--book", required=True)
    parser.add_argument("--refuse", type=float, default=0.03, help="share of commands refused temporarily")
    parser.add_argument("--seed", default="0")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
