"""A connection by a Unix socket: who it is from is asked of the kernel, then it is an ordinary `SmtpIn`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gatepost.net.smtp_in import SmtpIn

if TYPE_CHECKING:
    from gatepost.roles.ports import Port
    from gatepost.roles.receiver import Receiver

OUR_END = "local"  # where the address of ours stands for others


class LocalIn(asyncio.Protocol):
    """Its first moment."""

    __slots__ = ("_host", "_port")

    def __init__(self, host: Receiver, port: Port) -> None:
        self._host = host
        self._port = port

    def connection_made(self, transport: Any) -> None:
        try:
            peer = self._host.local_clients.identify(transport.get_extra_info("socket"))
        except OSError:
            transport.abort()
            return
        connection = SmtpIn(self._host, self._port)
        transport.set_protocol(connection)
        connection.introduce(transport, peer.address, 0, OUR_END)
        self._host.local_clients.attest(connection, peer)
