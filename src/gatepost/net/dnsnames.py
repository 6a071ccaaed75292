"""Names and addresses the resolver knows without asking: special names, IP literals, its servers, /etc/resolv.conf.

Loads no asyncio, ssl or parser of network data: the supervisor calls `read_resolv_conf` before the resolver role starts.
RFC 6761 (localhost, invalid), 7686 (onion), 3596 2.5 (ip6.arpa), resolv.conf(5).
"""

from __future__ import annotations

import socket

import msgspec

from gatepost.ipc.messages import LookupDone

PORT = 53
MAX_SERVERS = 3  # MAXNS of resolv.conf(5)
_LITERAL_TTL_S = 86400
_MAPPED_V4 = bytes(10) + b"\xff\xff"
_LOOPBACK = {"A": "127.0.0.1", "AAAA": "::1"}


class ServerAddress(msgspec.Struct, frozen=True):
    """Where a DNS server listens; `socket_address` is what `connect` takes, numbers only."""

    text: str
    family: int
    socket_address: tuple[str, int] | tuple[str, int, int, int]
    loopback: bool


def normal_name(name: str) -> str:
    """The form names are compared and cached in: lower case, no final dot."""
    return name.lower().removesuffix(".")


def packed_address(text: str) -> tuple[int, bytes] | None:
    """Family and octets of an IP address in text, or None."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        return family, socket.inet_pton(family, text)
    except (OSError, ValueError):
        return None


def reverse_name(address: str) -> str:
    """The name whose PTR records belong to an IP address. Raises ValueError if it is none."""
    packed = packed_address(address)
    if packed is None:
        raise ValueError(f"not an IP address: {address!r}")
    family, octets = packed
    if octets.startswith(_MAPPED_V4):  # what a socket for both families calls an IPv4 peer
        family, octets = socket.AF_INET, octets[len(_MAPPED_V4) :]
    if family == socket.AF_INET:
        return ".".join(map(str, reversed(octets))) + ".in-addr.arpa"
    return ".".join(reversed(octets.hex())) + ".ip6.arpa"


def local_answer(kind: str, name: str) -> LookupDone | None:
    """The answer for a (normal) name that must not be asked for outside, or None for all others."""
    top = name[name.rfind(".") + 1 :]
    if top == "localhost":
        if kind in _LOOPBACK:
            return LookupDone(0, "ok", [_LOOPBACK[kind]], _LITERAL_TTL_S)
        return LookupDone(0, "nodata", [], _LITERAL_TTL_S)
    if top in ("invalid", "onion"):
        return LookupDone(0, "nxdomain", [], _LITERAL_TTL_S, reason=f"names below {top} do not exist")
    if ":" in name or top.isdigit():
        packed = packed_address(name)
        if packed is not None:
            family, octets = packed
            if kind == ("A" if family == socket.AF_INET else "AAAA"):
                return LookupDone(0, "ok", [socket.inet_ntop(family, octets)], _LITERAL_TTL_S)
            return LookupDone(0, "nodata", [], _LITERAL_TTL_S, reason="an IP address")
    if "[" in name or ":" in name:
        return LookupDone(0, "nxdomain", [], _LITERAL_TTL_S, reason="an address literal, not a domain name")
    return None


def parse_server(text: str) -> ServerAddress:
    """Parse "192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%2]:53", the port being optional. Raises ValueError."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"not a DNS server address: {text!r}; write [2001:db8::1]:53")
        port_text = rest[1:] or str(PORT)
    elif text.count(":") > 1:
        host, port_text = text, str(PORT)
    else:
        host, _, port_text = text.partition(":")
        port_text = port_text or str(PORT)
    host, _, zone = host.partition("%")
    packed = packed_address(host)
    well_formed = port_text.isascii() and port_text.isdigit() and 0 < int(port_text[:6]) < 65536
    if packed is None or not well_formed or (zone and not (zone.isascii() and zone.isdigit())):
        raise ValueError(f"not a DNS server address: {text!r}; write 192.0.2.1:53 or [2001:db8::1]:53")
    family, octets = packed
    if family == socket.AF_INET:
        return ServerAddress(f"{host}:{port_text}", family, (host, int(port_text)), octets[0] == 127)
    scope = int(zone or "0")
    shown = f"[{host}%{zone}]:{port_text}" if zone else f"[{host}]:{port_text}"
    return ServerAddress(shown, family, (host, int(port_text), 0, scope), octets == bytes(15) + b"\x01")


def read_resolv_conf(path: str = "/etc/resolv.conf") -> list[str]:
    """The name servers of a resolv.conf, as `parse_server` takes them; the local host if there are none (or no file).

    At most three, like the C library. A zone ("fe80::1%eth0") is turned into its number, since a role that has locked itself in
    cannot look it up; a line that names no address is passed over.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        lines = []
    servers = []
    for line in lines:
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        host, _, zone = words[1].partition("%")
        if zone and not zone.isdigit():
            try:
                zone = str(socket.if_nametoindex(zone))
            except OSError:
                continue
        packed = packed_address(host)
        if packed is None:
            continue
        if packed[0] == socket.AF_INET:
            servers.append(f"{host}:{PORT}")
        else:
            servers.append(f"[{host}%{zone}]:{PORT}" if zone else f"[{host}]:{PORT}")
    return servers[:MAX_SERVERS] or [f"127.0.0.1:{PORT}"]
