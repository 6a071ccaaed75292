"""Listening sockets that a service manager bound and handed over (sd_listen_fds(3), in Python alone).

With them nothing of the gateway needs root, not even for port 25. Descriptors from 3 on, LISTEN_FDS of them, meant for the process
LISTEN_PID, named by LISTEN_FDNAMES. What is handed over is looked at, not trusted: it must be a listening stream socket whose address is
in the configuration. The variables are taken out of the environment, so that no role takes them for its own.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from collections.abc import MutableMapping, Sequence

from gatepost.config.listening import UNIX, is_unix

FIRST_DESCRIPTOR = 3
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")

Endpoint = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]


class ActivationError(Exception):
    """What was handed over cannot be used; the text says which and what to do."""


class Inherited:
    """One socket that was handed over; `name` is the one of the unit or of its FileDescriptorName=."""

    def __init__(self, name: str, sock: socket.socket) -> None:
        self.name = name
        self.sock = sock
        if sock.family == socket.AF_UNIX:
            self.endpoint: Endpoint | str = str(sock.getsockname())
            return
        host, port = sock.getsockname()[:2]
        self.endpoint = (ipaddress.ip_address(host.partition("%")[0]), port)

    def __str__(self) -> str:
        if isinstance(self.endpoint, str):
            return UNIX + self.endpoint
        host, port = self.endpoint
        return f"[{host}]:{port}" if host.version == 6 else f"{host}:{port}"


def take_inherited(
    environment: MutableMapping[str, str] = os.environ, first: int = FIRST_DESCRIPTOR
) -> list[Inherited]:
    """The sockets meant for this process, none if nothing was handed over. Raises ActivationError.

    Variables of another process (LISTEN_PID) are taken out and passed over: whoever they were for has forgotten them.
    """
    pid, number, names = (environment.pop(variable, "") for variable in _VARIABLES)
    if pid != str(os.getpid()):
        return []
    if not number.isdecimal() or int(number) > 1024:
        raise ActivationError(f"LISTEN_FDS={number!r} is no number of sockets; whoever started the gateway is broken")
    named = names.split(":") if names else []
    descriptors = range(first, first + int(number))
    for descriptor in descriptors:
        if not _is_open(descriptor):
            raise ActivationError(f"LISTEN_FDS={number}, but descriptor {descriptor} is not open")
        os.set_inheritable(descriptor, False)
    return [_adopt(fd, named[i] if i < len(named) else f"descriptor {fd}") for i, fd in enumerate(descriptors)]


def match(inherited: Sequence[Inherited], listen: Sequence[str]) -> dict[str, Inherited]:
    """Each inherited socket by the address of the configuration that it serves.

    Raises ActivationError for one that no entry names: its clients would connect and hear nothing.
    """
    wanted = {_endpoint(address): address for address in listen}
    found: dict[str, Inherited] = {}
    for one in inherited:
        address = wanted.get(one.endpoint)
        if address is None:
            raise ActivationError(
                f"{one.name} listens on {one}, which neither `listen` nor `[[listeners]]` names; write ListenStream= in the "
                "socket unit and the addresses in the configuration alike, then restart the socket unit"
            )
        if address in found:
            raise ActivationError(f"{one.name} and {found[address].name} both listen on {one}; hand over one of them")
        found[address] = one
    return found


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _adopt(descriptor: int, name: str) -> Inherited:
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        raise ActivationError(f"{name} is no socket; the socket unit may hold ListenStream=ADDRESS:PORT only")
    sock = socket.socket(fileno=descriptor)
    if problem := _find_problem(sock):
        sock.close()
        raise ActivationError(f"{name} {problem}")
    sock.setblocking(False)
    return Inherited(name, sock)


def _find_problem(sock: socket.socket) -> str:
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if (
        sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        or sock.type != socket.SOCK_STREAM
        or not listens
    ):
        return "is no listening stream socket; write ListenStream=ADDRESS:PORT and Accept=no in the socket unit"
    if sock.family == socket.AF_UNIX and not str(sock.getsockname()).startswith("/"):
        return "has no path; write ListenStream=/path in the socket unit"
    # A client of a socket for both families would show by a mapped address, and [::]:25 would also be 0.0.0.0:25.
    if sock.family == socket.AF_INET6 and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        return "takes IPv4 and IPv6 alike; write BindIPv6Only=ipv6-only in the socket unit"
    return ""


def _endpoint(address: str) -> Endpoint | str:
    if is_unix(address):
        return address.removeprefix(UNIX)
    host, _, port = address.rpartition(":")
    return ipaddress.ip_address(host.strip("[]")), int(port)
