"""Sockets that the supervisor binds before any role is locked in, and keeps over reloads.

A listening socket is shared by all receivers of all generations: a reload never closes it while its address stays configured, so
no connection is refused in between. A socket that a service manager handed over (`activation.py`) is used in place of one of our
own; it stays the service manager's, so no reload can drop its address.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
from collections.abc import Mapping, Sequence

from gatepost.config.listening import MAX_PATH_BYTES, UNIX, SocketFile, is_unix
from gatepost.privsep.activation import ActivationError, Inherited, match

_FIB_TRIE = "/proc/self/net/fib_trie"  # not /proc/net, which ProcSubset=pid of the units hides
_IF_INET6 = "/proc/self/net/if_inet6"
BACKLOG = 4096  # the kernel cuts it to net.core.somaxconn; a smaller one drops connections in a burst


class ListenError(Exception):
    """An address cannot be bound; the text says which and what to do."""


def split_address(text: str) -> tuple[str, int]:
    """`192.0.2.1:25` or `[2001:db8::1]:25` to host and port; the configuration has been checked before."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


class Listeners:
    """The set of bound listening sockets by their configured address; `inherited` ones are bound already."""

    def __init__(self, inherited: Sequence[Inherited] = ()) -> None:
        self._sockets: dict[str, socket.socket] = {}
        self._own_paths: dict[str, str] = {}  # of Unix sockets, by address; their names go with us
        self._inherited = inherited

    def bind_all(self, addresses: list[str], files: Mapping[str, SocketFile] | None = None) -> list[str]:
        """Bind what is not bound yet; on a failure nothing new stays bound. Returns the newly bound addresses.

        `files` says how the files of Unix sockets are to be; those that were bound before are made so too.
        """
        files = files or {}
        new: list[str] = []
        try:
            given = match(self._inherited, addresses)
        except ActivationError as error:
            raise ListenError(str(error)) from error
        try:
            for address in addresses:
                if address not in self._sockets:
                    if address in given:
                        self._sockets[address] = _take(given[address])
                    elif is_unix(address):
                        self._own_paths[address] = path = address.removeprefix(UNIX)
                        self._sockets[address] = bind_unix(path, "socket")
                    else:
                        self._sockets[address] = _bind(address)
                    new.append(address)
                if address in self._own_paths:
                    _set_file(self._own_paths[address], files[address])
        except ListenError:
            self.close_only(new)
            raise
        return new

    def close_only(self, addresses: list[str]) -> None:
        for address in addresses:
            self._sockets.pop(address).close()
            path = self._own_paths.pop(address, None)
            if path is not None:
                with contextlib.suppress(OSError):
                    os.unlink(path)

    def close_except(self, addresses: list[str]) -> None:
        self.close_only([address for address in self._sockets if address not in addresses])

    def descriptors(self, addresses: list[str]) -> list[int]:
        return [self._sockets[address].fileno() for address in addresses]

    def bound(self) -> list[str]:
        """The addresses as bound, with the port that the kernel chose for port 0."""
        result = []
        for address, sock in self._sockets.items():
            if is_unix(address):
                result.append(address)
                continue
            host, port = sock.getsockname()[:2]
            result.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        return result


def own_addresses(bound: Sequence[str]) -> list[str]:
    """Every "address:port" at which this host can be reached by us: a wildcard address stands for all of the host."""
    result: list[str] = []
    for address in bound:
        if is_unix(address):
            continue
        host, port = split_address(address)
        if host == "0.0.0.0":
            result += [f"{each}:{port}" for each in _local_ipv4()]
        elif host == "::":
            result += [f"[{each}]:{port}" for each in _local_ipv6()]
        else:
            result.append(address)
    return result


def _local_ipv4() -> list[str]:
    """From the kernel's routing table: the addresses that it takes for its own."""
    found: dict[str, None] = {}
    with contextlib.suppress(OSError), open(_FIB_TRIE, encoding="ascii") as file:
        previous = ""
        for line in file:
            if "/32 host LOCAL" in line:
                found[previous.split()[-1]] = None
            previous = line
    return list(found) or ["127.0.0.1"]


def _local_ipv6() -> list[str]:
    found: list[str] = []
    with contextlib.suppress(OSError), open(_IF_INET6, encoding="ascii") as file:
        found = [str(ipaddress.IPv6Address(int(line.split()[0], 16))) for line in file]
    return found or ["::1"]


def _take(inherited: Inherited) -> socket.socket:
    """A socket that was handed over; it may have been given a short queue."""
    inherited.sock.listen(BACKLOG)
    return inherited.sock.dup()


def _bind(address: str) -> socket.socket:
    host, port = split_address(address)
    family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except PermissionError as error:
        sock.close()
        raise ListenError(
            f"cannot listen on {address}: a port below 1024 needs root, CAP_NET_BIND_SERVICE or socket activation"
        ) from error
    except OSError as error:
        sock.close()
        raise ListenError(
            f"cannot listen on {address}: {error.strerror}; is another mail server running there?"
        ) from error
    return sock


def bind_control(path: str) -> socket.socket:
    """The administrator's Unix socket, mode 0600."""
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise ListenError(f"control socket path is longer than 107 bytes: {path}; set control_socket to a shorter one")
    return bind_unix(path, "control socket", backlog=16)


def bind_unix(path: str, what: str, backlog: int = BACKLOG) -> socket.socket:
    """A listening Unix socket, mode 0600; a stale one is replaced, a live one is an error."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ListenError(f"{path} exists and is not a socket; remove it, or name another path for the {what}")
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            probe.connect(path)
        except OSError:
            os.unlink(path)
        else:
            raise ListenError(f"another gateway answers on {path}; stop it first")
        finally:
            probe.close()
    except FileNotFoundError:
        pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(0o177)
    try:
        sock.bind(path)
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ListenError(f"cannot create the {what} {path}: {error.strerror}; does its directory exist?") from error
    finally:
        os.umask(previous)
    return sock


def _set_file(path: str, file: SocketFile) -> None:
    """Give it to its owner before others may connect."""
    try:
        if file.uid != -1 or file.gid != -1:
            os.chown(path, file.uid, file.gid, follow_symlinks=False)
        os.chmod(path, file.mode)
    except OSError as error:
        raise ListenError(f"cannot set owner and mode of the socket {path}: {error.strerror}") from error
