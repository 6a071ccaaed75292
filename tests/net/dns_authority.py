"""A DNS server on loopback for tests, UDP and TCP on one port, built on dnspython.

What it answers is a function from a query to packets; `from_zone` makes one from zone text. It runs in the loop of the test,
keeps every query it saw, and can hold answers back until the test lets them go. Beside it what the tests of the resolver
share: a zone, configurations, a runner for both kinds of event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.zone
from integration.peers.process import take_port

from gatepost.config.schema import Dns
from gatepost.ipc.messages import LookupDone
from gatepost.net.dns import StubResolver
from gatepost.net.turns import READ_S

Handler = Callable[[dns.message.Message, str], "dns.message.Message | bytes | list[bytes] | None"]


def reply_to(query: dns.message.Message, *, rcode: int = 0, records: list[str] = (), authority: list[str] = ()):
    """A recursive server's response; records are lines "name ttl IN type data"."""
    response = dns.message.make_response(query, recursion_available=True)
    response.set_rcode(rcode)
    for section, lines in ((response.answer, records), (response.authority, authority)):
        for line in lines:
            name, ttl, klass, kind, data = line.split(None, 4)
            rrset = dns.rrset.from_text(name, int(ttl), klass, kind, data)
            section.append(rrset)
    return response


def from_zone(origin: str, text: str) -> Handler:
    """Answer from a zone: CNAME chains within it are followed, negative answers carry the SOA."""
    zone = dns.zone.from_text(text, origin=origin, relativize=False, check_origin=False)
    soa = zone.find_rrset(zone.origin, "SOA")

    def answer(query: dns.message.Message, transport: str) -> dns.message.Message:
        response = dns.message.make_response(query, recursion_available=True)
        name, kind = query.question[0].name, query.question[0].rdtype
        for _ in range(12):
            if not name.is_subdomain(zone.origin):
                return response
            if zone.get_node(name) is None:
                response.set_rcode(dns.rcode.NXDOMAIN)
                response.authority.append(soa)
                return response
            found = zone.get_rrset(name, kind)
            if found is not None:
                response.answer.append(found)
                return response
            alias = zone.get_rrset(name, "CNAME")
            if alias is None:
                response.authority.append(soa)
                return response
            response.answer.append(alias)
            name = alias[0].target
        return response

    return answer


class DnsAuthority:
    """`async with DnsAuthority(handler) as server:` then ask `server.address`."""

    def __init__(self, handler: Handler, *, udp_limit: int = 1232) -> None:
        self.handler = handler
        self.udp_limit = udp_limit
        self.seen: list[tuple[str, str, str]] = []  # transport, name as asked, kind
        self.queries: list[dns.message.Message] = []
        self.sources: list[tuple[str, int]] = []
        self.held: list[Callable[[], None]] = []
        self.hold = False
        self.arrived = asyncio.Event()

    async def __aenter__(self) -> Self:
        port = take_port()  # one that the kernel gives to nobody as the port of a question
        self._tcp = await asyncio.start_server(self._serve_tcp, "127.0.0.1", port)
        self.address = f"127.0.0.1:{port}"
        self._udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=("127.0.0.1", port)
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._udp.close()
        self._tcp.close()
        await self._tcp.wait_closed()

    def release(self) -> None:
        """Send the answers held back."""
        held, self.held = self.held, []
        for send in held:
            send()

    def packets_for(self, wire: bytes, transport: str, source: tuple[str, int]) -> list[bytes]:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        self.queries.append(query)
        self.sources.append(source)
        self.seen.append((transport, question.name.to_text(True), dns.rdatatype.to_text(question.rdtype)))
        self.arrived.set()
        answer = self.handler(query, transport)
        if answer is None:
            return []
        if isinstance(answer, dns.message.Message):
            answer = answer.to_wire(max_size=65535)
            if transport == "udp" and len(answer) > self.udp_limit:
                short = dns.message.make_response(query)
                short.flags |= dns.flags.TC
                answer = short.to_wire()
        return [answer] if isinstance(answer, bytes) else answer

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            wire = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            for packet in self.packets_for(wire, "tcp", writer.get_extra_info("peername")):
                framed = len(packet).to_bytes(2, "big") + packet
                for start in range(0, len(framed), 1000):  # in pieces, as a network may
                    writer.write(framed[start : start + 1000])
                    await writer.drain()
            await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, authority: DnsAuthority) -> None:
        self._authority = authority

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def datagram_received(self, wire: bytes, source: tuple[str, int]) -> None:
        for packet in self._authority.packets_for(wire, "udp", source):
            if self._authority.hold:
                self._authority.held.append(lambda packet=packet: self._transport.sendto(packet, source))
            else:
                self._transport.sendto(packet, source)


# --- for the tests of the resolver ----------------------------------------------------------------------------------

ZONE = """
@ 300 SOA ns.example.test. hostmaster.example.test. 1 2 3 4 60
@ 300 NS ns
@ 300 MX 10 mx1
@ 300 MX 20 MX2.Example.Test.
mx1 200 A 192.0.2.1
mx1 200 A 192.0.2.2
mx1 100 AAAA 2001:db8::1
null 300 MX 0 .
www 50 CNAME web
web 300 CNAME mx1
out 300 CNAME elsewhere.other.test.
loop1 300 CNAME loop2
loop2 300 CNAME loop1
_25._tcp.mx1 300 TLSA 3 1 1 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
spf 300 TXT "v=spf1 " "-all"
"""
IN_ZONE = from_zone("example.test.", ZONE)
PATIENT = Dns(timeout_s=60.0)  # no answer in this time would be a failure of the test


class HandClock:
    """The running loop for a resolver, with a clock that stands until `silent`, a server that says nothing, was asked.

    Then the time for an answer is over at once: who answers is never too late, however slow the machine is.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._now_s = 1000.0
        self._timers: list[tuple[float, asyncio.Handle]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)

    def time(self) -> float:
        return self._now_s

    def call_later(self, delay_s: float, call: Callable[[], None]) -> asyncio.Handle:
        if delay_s <= READ_S:  # no time goes by, but what has come is read
            return self._loop.call_later(delay_s, call)
        handle = asyncio.Handle(call, (), self._loop)
        self._timers.append((self._now_s + delay_s, handle))
        return handle

    def late(self, query: dns.message.Message, transport: str) -> dns.message.Message:
        """The handler of a server of IN_ZONE whose answer lies in the socket when the resolver finds that its time is over."""
        self._loop.call_soon(self._let_pass)
        return IN_ZONE(query, transport)

    def silent(self, query: dns.message.Message, transport: str) -> None:
        """The handler of such a server."""
        self._loop.call_soon(self._let_pass)

    def _let_pass(self) -> None:
        self._now_s += PATIENT.timeout_s
        due = [handle for at_s, handle in self._timers if at_s <= self._now_s]
        self._timers = [timer for timer in self._timers if timer[0] > self._now_s]
        for handle in due:
            if not handle.cancelled():
                handle._run()


@contextmanager
def loop_runner(factory: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[Callable]:
    """Run coroutines on a loop from which no exception of a callback escapes."""
    escaped = []
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.get_loop().set_exception_handler(lambda loop, context: escaped.append(context))
        yield runner.run
    assert escaped == []


def make_resolver(*servers: DnsAuthority | str, config: Dns = PATIENT, loop=None, **options) -> StubResolver:
    addresses = [server if isinstance(server, str) else server.address for server in servers]
    return StubResolver(addresses, config, loop=loop or asyncio.get_running_loop(), **options)


async def ask(handler, kind: str, name: str, config: Dns = PATIENT) -> tuple[LookupDone, DnsAuthority]:
    async with DnsAuthority(handler) as server:
        resolver = make_resolver(server, config=config)
        done = await resolver.query(kind, name)
        resolver.close()
        return done, server
