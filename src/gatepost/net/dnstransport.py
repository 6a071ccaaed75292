"""Queries to one DNS server: UDP from ports that change, TCP where UDP will not do.

Not the resolver: it neither retries nor reads answers. It only tells the packet that answers a question from one that does
not. Against forged answers (RFC 5452): random ids, connected sockets (the kernel drops other sources) on ports the kernel
chooses at random, each used for a bounded number of queries, letters in random case towards servers that are not on loopback,
and TCP for all questions of a port that gets too many packets it did not ask for. Works without getaddrinfo, files or imports
at run time: system calls are socket, connect, sendto, recvfrom, getsockopt, close, getrandom and what the event loop needs.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Protocol

import msgspec

from gatepost.net import dnswire
from gatepost.net.dnswire import Match

if TYPE_CHECKING:
    import asyncio

    from gatepost.net.dnsnames import ServerAddress

PORTS_PER_SERVER = 8
QUERIES_PER_PORT = 64
STRAYS_PER_PORT = 16  # packets that answer nothing; after these, the questions of the port go over TCP
PACKETS_PER_WAKEUP = 64
MAX_TCP_CONNECTIONS = 64  # to one server
_RECEIVE_BYTES = 4096  # an answer should be at most dnswire.UDP_PAYLOAD_BYTES; larger than this counts as truncated
_SOCKET_FLAGS = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


class Entropy:
    """Random octets from the kernel, fetched a few thousand at a time."""

    __slots__ = ("_pool", "_used")

    def __init__(self) -> None:
        self._pool = b""
        self._used = 0

    def take(self, count: int) -> bytes:
        """`count` octets, at most 4096, never given out twice."""
        end = self._used + count
        if end > len(self._pool):
            self._pool = os.urandom(4096)
            self._used, end = 0, count
        octets = self._pool[self._used : end]
        self._used = end
        return octets


class Counters(msgspec.Struct):
    """What happened since the start; every number only grows."""

    questions: int = 0  # that needed a query
    cache_hits: int = 0  # answered at once: from the cache, or known without asking
    coalesced: int = 0  # joined to a question under way
    over_limit: int = 0
    udp_queries: int = 0
    tcp_queries: int = 0
    timeouts: int = 0
    unreachable: int = 0
    strays: int = 0  # packets that answer nothing: late, or forged
    other_case: int = 0
    malformed: int = 0
    failed_answers: int = 0  # SERVFAIL, REFUSED, lame ...


class Channel(Protocol):
    """Where a question is on its way: a UDP port or a TCP connection."""

    def forget(self, question: Question) -> None:
        """Stop waiting for the answer."""


class Question:
    """A question and where its answer is awaited. The resolver subclasses it; exactly one of the `on_` methods is called for each
    query, with the question no longer on its way, unless it was forgotten before.
    """

    __slots__ = ("channel", "query_id", "sent", "server", "wire")

    def __init__(self) -> None:
        self.wire = b""  # the question section as built
        self.sent = b""  # the same, as sent: perhaps in mixed case
        self.query_id = b""
        self.channel: Channel | None = None
        self.server: Server | None = None

    def on_answer(self, packet: bytes) -> None:
        """The server answered."""
        raise NotImplementedError

    def on_unreachable(self, reason: str) -> None:
        """The server cannot be reached, or hung up."""
        raise NotImplementedError

    def on_needs_tcp(self) -> None:
        """The answer over UDP cannot be used, or not be trusted."""
        raise NotImplementedError


class Server:
    """One DNS server: its ports, its connections, its health."""

    __slots__ = ("_loop", "_ports", "_tcp", "address", "counters", "entropy", "resting_until_s", "silent")

    def __init__(
        self, address: ServerAddress, *, loop: asyncio.AbstractEventLoop, entropy: Entropy, counters: Counters
    ) -> None:
        self.address = address
        self.entropy = entropy
        self.counters = counters
        self.silent = 0  # time-outs in a row
        self.resting_until_s = 0.0
        self._loop = loop
        self._ports: list[UdpPort | None] = [None] * PORTS_PER_SERVER
        self._tcp: set[TcpExchange] = set()

    def send_udp(self, question: Question) -> str:
        """Send the question; the result is empty, or why that is impossible."""
        slot = self.entropy.take(1)[0] % PORTS_PER_SERVER
        port = self._ports[slot]
        if port is None or port.queries_left <= 0:
            if port is not None:
                port.close_when_idle()
            try:
                port = UdpPort(self, self._loop)
            except OSError as error:
                self._ports[slot] = None
                return f"{self.address.text}: {error.strerror}"
            self._ports[slot] = port
        question.server = self
        if self.address.loopback:
            question.sent = question.wire
        else:
            question.sent = dnswire.mix_case(question.wire, self.entropy.take(len(question.wire)))
        self.counters.udp_queries += 1
        return port.send(question)

    def send_tcp(self, question: Question) -> str:
        """Send the question over a new connection; the result is empty, or why that is impossible."""
        if len(self._tcp) >= MAX_TCP_CONNECTIONS:
            self.counters.over_limit += 1
            return f"{self.address.text}: too many TCP connections"
        question.server = self
        question.sent = question.wire
        self.counters.tcp_queries += 1
        try:
            self._tcp.add(TcpExchange(self, self._loop, question, self._tcp))
        except OSError as error:
            return f"{self.address.text}: {error.strerror}"
        return ""

    def close_idle(self) -> None:
        """Close the ports on which nothing is awaited."""
        for slot, port in enumerate(self._ports):
            if port is not None:
                port.close_when_idle()
                self._ports[slot] = None

    def close(self) -> None:
        """Close everything at once; questions on their way are forgotten."""
        for port in self._ports:
            if port is not None:
                port.close()
        for exchange in list(self._tcp):
            exchange.close()
        self._ports = [None] * PORTS_PER_SERVER


class UdpPort:
    """A connected UDP socket, and the questions whose answers it awaits, by id."""

    __slots__ = ("_loop", "_server", "_socket", "_strays", "_waiting", "queries_left")

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._waiting: dict[bytes, Question] = {}
        self._strays = 0
        self.queries_left = QUERIES_PER_PORT
        sock = socket.socket(server.address.family, socket.SOCK_DGRAM | _SOCKET_FLAGS)
        self._socket: socket.socket | None = sock
        try:
            sock.connect(server.address.socket_address)  # the kernel binds a random port
            loop.add_reader(sock, self._on_readable)
        except OSError:
            sock.close()
            raise

    def send(self, question: Question) -> str:
        """Send a query with an id that is not in use here."""
        if self._socket is None:
            return f"{self._server.address.text}: port closed"
        self.queries_left -= 1
        query_id = self._server.entropy.take(2)
        while query_id in self._waiting:
            query_id = self._server.entropy.take(2)
        try:
            self._socket.send(dnswire.build_query(query_id, question.sent))
        except BlockingIOError:
            pass  # lost before it left: the time-out will see to it
        except OSError as error:
            self.queries_left = 0
            return f"{self._server.address.text}: {error.strerror}"
        self._waiting[query_id] = question
        question.query_id = query_id
        question.channel = self
        return ""

    def forget(self, question: Question) -> None:
        """Stop waiting for the answer to a question."""
        if self._waiting.pop(question.query_id, None) is not None:
            question.channel = None
            if self.queries_left <= 0 and not self._waiting:
                self.close()

    def close_when_idle(self) -> None:
        """Take no more queries, and close after the last answer."""
        self.queries_left = 0
        if not self._waiting:
            self.close()

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _on_readable(self) -> None:
        waiting = self._waiting
        for _ in range(PACKETS_PER_WAKEUP):
            if self._socket is None:
                return
            try:
                packet = self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._fail(error)
                return
            question = waiting.get(packet[:2])
            match = Match.NO if question is None else dnswire.match_response(packet, question.sent)
            if question is None or match is Match.NO:
                self._count_stray()
                continue
            self.forget(question)
            if match is Match.OTHER_CASE:
                self._server.counters.other_case += 1
                question.on_needs_tcp()
            elif packet[2] & 2 or len(packet) >= _RECEIVE_BYTES:
                question.on_needs_tcp()
            else:
                question.on_answer(packet)
            if not waiting:
                return  # nothing more to come: saves the call that would only say so

    def _count_stray(self) -> None:
        """A late answer, or a forged one: many of them are an attempt to guess an id."""
        self._server.counters.strays += 1
        self._strays += 1
        if self._strays >= STRAYS_PER_PORT:
            self.queries_left = 0
            self.close()
            for question in self._drop_all():
                question.on_needs_tcp()

    def _fail(self, error: OSError) -> None:
        """ICMP says that nobody listens there, or that there is no way."""
        self.queries_left = 0
        self.close()
        reason = f"{self._server.address.text}: {error.strerror}"
        for question in self._drop_all():
            question.on_unreachable(reason)

    def _drop_all(self) -> list[Question]:
        questions = list(self._waiting.values())
        self._waiting.clear()
        for question in questions:
            question.channel = None
        return questions


class TcpExchange:
    """One question over a TCP connection of its own (RFC 7766)."""

    __slots__ = ("_loop", "_members", "_question", "_received", "_server", "_socket", "_to_send")

    def __init__(
        self,
        server: Server,
        loop: asyncio.AbstractEventLoop,
        question: Question,
        members: set[TcpExchange],
    ) -> None:
        self._server = server
        self._loop = loop
        self._question = question
        self._members = members  # the open connections; this one leaves when it closes
        self._received = bytearray()
        question.query_id = server.entropy.take(2)
        query = dnswire.build_query(question.query_id, question.sent)
        self._to_send = len(query).to_bytes(2, "big") + query
        sock = socket.socket(server.address.family, socket.SOCK_STREAM | _SOCKET_FLAGS)
        self._socket: socket.socket | None = sock
        try:
            failure = sock.connect_ex(server.address.socket_address)
            if failure not in (0, errno.EINPROGRESS):
                raise OSError(failure, os.strerror(failure))
            loop.add_writer(sock, self._on_writable)
        except OSError:
            sock.close()
            raise
        question.channel = self

    def forget(self, question: Question) -> None:
        """Hang up."""
        question.channel = None
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._loop.remove_writer(self._socket)
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None
            self._members.discard(self)

    def _on_writable(self) -> None:
        if self._socket is None:
            return
        failure = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failure:
            self._fail(os.strerror(failure))
            return
        try:
            sent = self._socket.send(self._to_send)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(str(error.strerror))
            return
        self._to_send = self._to_send[sent:]
        if not self._to_send:
            self._loop.remove_writer(self._socket)
            self._loop.add_reader(self._socket, self._on_readable)

    def _on_readable(self) -> None:
        if self._socket is None:
            return
        try:
            chunk = self._socket.recv(65537)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(str(error.strerror))
            return
        if not chunk:
            self._fail("closed the connection")
            return
        self._received += chunk
        end = 2 + int.from_bytes(self._received[:2], "big")
        if len(self._received) < 2 or len(self._received) < end:
            return
        packet = bytes(self._received[2:end])
        question = self._question
        # Letter case is no matter here: nobody forges a TCP answer without being on the path.
        if packet[:2] != question.query_id or dnswire.match_response(packet, question.sent) is Match.NO:
            self._server.counters.strays += 1
            self._fail("answered another question")
            return
        self.forget(question)
        question.on_answer(packet)

    def _fail(self, reason: str) -> None:
        question = self._question
        self.forget(question)
        question.on_unreachable(f"{self._server.address.text} (TCP): {reason}")
