"""The listening sockets of a receiver: opened once there is somewhere to put mail, closed when it drains.

The supervisor bound them; here they are only accepted from, each for connections of the kind that its port says.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gatepost.net.local_in import LocalIn
from gatepost.net.proxy_in import ProxyIn
from gatepost.net.smtp_in import SmtpIn
from gatepost.roles.ports import Port

if TYPE_CHECKING:
    from gatepost.roles.receiver import Receiver

SERVER_BACKLOG = 4096


class Doors:
    """All of one receiver; `opened` is called when the last is open, `closed` when the last is closed."""

    def __init__(self, host: Receiver, opened: Callable[[], None], closed: Callable[[], None]) -> None:
        self._host = host
        self._opened = opened
        self._closed = closed
        self._servers: list[Any] = []
        self._wanted = 0
        self._is_closed = False

    def open(self, descriptors: Sequence[int], ports: Sequence[Port]) -> None:
        """Listen; a second call, and one after `close`, does nothing."""
        if self._wanted or self._is_closed:
            return
        self._wanted = len(descriptors)
        for descriptor, port in zip(descriptors, ports, strict=True):
            self._host.loop.create_task(self._open(socket.socket(fileno=descriptor), port))

    def close(self) -> None:
        """Take no new connection."""
        self._is_closed = True
        for server in self._servers:
            server.close()
        self._check_closed()

    async def _open(self, sock: socket.socket, port: Port) -> None:
        host = self._host
        if port.is_local:
            server = await host.loop.create_unix_server(lambda: LocalIn(host, port), sock=sock, backlog=SERVER_BACKLOG)
        else:
            protocol = SmtpIn if port.proxies is None else ProxyIn
            server = await host.loop.create_server(lambda: protocol(host, port), sock=sock, backlog=SERVER_BACKLOG)
        self._servers.append(server)
        if len(self._servers) == self._wanted:
            self._opened()
        if self._is_closed:
            server.close()
            self._check_closed()

    def _check_closed(self) -> None:
        """Those that are still being opened are closed then."""
        if len(self._servers) == self._wanted:
            self._closed()
