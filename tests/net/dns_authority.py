"""A DNS server on loopback for tests, UDP and TCP on one port, built on dnspython.

What it answers is a function from a query to packets; `from_zone` makes one from zone text. It runs in the loop of the test,
keeps every query it saw, and can hold answers back until the test lets them go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.zone

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
        self._tcp = await asyncio.start_server(self._serve_tcp, "127.0.0.1", 0)
        port = self._tcp.sockets[0].getsockname()[1]
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
