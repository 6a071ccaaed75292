"""A connection to a listener behind load balancers, until it is known who the client is; then it is an ordinary `SmtpIn`.

From an address that is listed the first octets must be a header of the PROXY protocol (`smtp/proxy.py`); the client's address in it
then stands in every decision, limit and event in place of the connection's. Nothing is said before it is whole, and whatever else
comes, or nothing in time, ends the connection without a word. From any other address the connection is a client's as it is: a
header is then an unknown command. A client of whom the header names no internet address has the address "unknown", and so no right
by address; only what the proxy says it opened itself (LOCAL) keeps the proxy's own.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gatepost.net.smtp_in import SmtpIn
from gatepost.smtp.events import excerpt
from gatepost.smtp.proxy import BadProxyHeader, ProxyHeader, parse_proxy

if TYPE_CHECKING:
    from gatepost.roles.ports import Port
    from gatepost.roles.receiver import Receiver

NOBODY = "unknown"  # an address that no network holds


class ProxyIn(asyncio.Protocol):
    """The time before the header is whole. The host sweeps it with the connections that have one."""

    __slots__ = ("_address", "_data", "_deadline_s", "_host", "_local", "_port", "_transport")

    transaction = None  # as the host sees a connection: there is none yet

    def __init__(self, host: Receiver, port: Port) -> None:
        self._host = host
        self._port = port
        self._transport: Any = None
        self._address = ("", 0)
        self._local = ""
        self._data = b""
        self._deadline_s = 0.0

    def connection_made(self, transport: Any) -> None:
        peer = transport.get_extra_info("peername")
        if not peer:  # gone before it was accepted
            transport.abort()
            return
        self._transport = transport
        self._address = (peer[0], peer[1])
        self._local = transport.get_extra_info("sockname")[0]
        proxies = self._port.proxies
        if proxies is None or peer[0] not in proxies:
            self._become(SmtpIn(self._host, self._port), *self._address, self._local)
            return
        self._deadline_s = self._host.loop.time() + self._host.limits.proxy_timeout_s
        if not self._host.wait_for(self):
            transport.abort()

    def data_received(self, data: bytes) -> None:
        self._data += data
        try:
            found = parse_proxy(self._data)
        except BadProxyHeader as error:
            self._refuse(str(error), excerpt(self._data))
            return
        if found is not None:
            self._introduce(*found)

    def connection_lost(self, error: Exception | None) -> None:
        self._host.forget(self)

    def check_deadline(self, now_s: float) -> None:
        """Called by the host's sweep."""
        if now_s > self._deadline_s:
            self._refuse("no header in time", "")

    def end(self) -> None:
        """The service ends, and nobody was greeted."""
        self._transport.abort()

    cut_off = end

    def _refuse(self, why: str, octets: str) -> None:
        detail = f"{why}: {octets}" if octets else why
        self._host.event("violation", session="", address=self._address[0], kind="proxy", detail=detail)
        self._transport.abort()

    def _introduce(self, header: ProxyHeader, length: int) -> None:
        proxy, port = self._address
        local, source = self._local, proxy
        if not header.is_local:
            source, port = header.source or NOBODY, header.source_port
            local = header.destination or local
        rest = self._data[length:]
        connection = SmtpIn(self._host, self._port)
        self._become(connection, source, port, local)
        self._host.forget(self)
        self._host.event(
            "proxied", session=connection.session_id, address=source, proxy=proxy, version=header.version, local=header.is_local
        )  # fmt: skip
        if rest and not self._transport.is_closing():
            self._transport.get_protocol().data_received(rest)  # the TLS layer, or the connection

    def _become(self, connection: SmtpIn, address: str, port: int, local: str) -> None:
        self._transport.set_protocol(connection)
        connection.introduce(self._transport, address, port, local)
