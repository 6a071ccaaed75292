"""The PROXY protocol header, versions 1 and 2: what a load balancer says of the client in front of the first octet (HAProxy's
specification of 2020, sections 2.1 and 2.2). Without I/O.

Strict: exactly the grammar, nothing guessed; a header that is not whole yet is None, one that cannot become valid raises. TLVs are
checked for their form and passed over: nothing in them decides anything. A header that names no internet address (LOCAL, UNKNOWN,
UNSPEC, a Unix socket) has an empty `source`. Who may send one is not known here.
"""

from __future__ import annotations

import ipaddress
import re

import msgspec

MAX_V1_BYTES = 107  # 2.1: with its CRLF
MAX_V2_BYTES = 4096  # with address and TLVs; the specification's own largest examples are below 536

_V1 = b"PROXY "
_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_FIXED = 16
_LOCAL, _PROXY = 0x20, 0x21
# Family and transport -> octets of an address, octets of the address block; None: an address that says nothing to us.
_FAMILIES: dict[int, tuple[int | None, int]] = {
    0x00: (None, 0),
    0x11: (4, 12),
    0x21: (16, 36),
    0x31: (None, 216),
}
_NUMBER = r"(0|[1-9][0-9]{0,4})"
_TCP = re.compile(rf"PROXY TCP([46]) ([0-9A-Fa-f.:]{{2,39}}) ([0-9A-Fa-f.:]{{2,39}}) {_NUMBER} {_NUMBER}").fullmatch


class BadProxyHeader(ValueError):
    """The octets are no header of the PROXY protocol; the text is for the log."""


class ProxyHeader(msgspec.Struct, frozen=True, gc=False):
    """Who the client is. `is_local`: nobody, the proxy itself (a health check). Addresses are canonical, mapped IPv4 as IPv4."""

    version: int
    is_local: bool = False
    source: str = ""
    source_port: int = 0
    destination: str = ""
    destination_port: int = 0


def parse_proxy(data: bytes) -> tuple[ProxyHeader, int] | None:
    """The header and how many octets it has; None: more is needed. Raises BadProxyHeader."""
    if data.startswith(_V1) or _V1.startswith(data):
        return _parse_v1(data)
    if data.startswith(_V2) or _V2.startswith(data):
        return _parse_v2(data)
    raise BadProxyHeader("it does not begin as a PROXY header")


def _parse_v1(data: bytes) -> tuple[ProxyHeader, int] | None:
    end = data.find(b"\r\n", 0, MAX_V1_BYTES)
    if end < 0:
        if len(data) >= MAX_V1_BYTES:
            raise BadProxyHeader("no line end within 107 octets")
        return None
    line = data[:end].decode("ascii", "replace")
    if line == "PROXY UNKNOWN" or line.startswith("PROXY UNKNOWN "):  # 2.1: the rest of the line is to be ignored
        return ProxyHeader(1), end + 2
    match = _TCP(line)
    if match is None:
        raise BadProxyHeader("the line is not as section 2.1 of the specification has it")
    version = int(match[1])
    source, destination = (_text_address(match[index], version) for index in (2, 3))
    ports = int(match[4]), int(match[5])
    if max(ports) > 65535:
        raise BadProxyHeader("a port over 65535")
    return ProxyHeader(1, False, source, ports[0], destination, ports[1]), end + 2


def _text_address(text: str, version: int) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise BadProxyHeader("an address that is none") from None
    if address.version != version:
        raise BadProxyHeader("an address of the other family")
    return _canonical(address)


def _parse_v2(data: bytes) -> tuple[ProxyHeader, int] | None:
    if len(data) < _V2_FIXED:
        return None
    command, family = data[12], data[13]
    size = _V2_FIXED + int.from_bytes(data[14:16], "big")
    if command not in (_LOCAL, _PROXY):
        raise BadProxyHeader("neither LOCAL nor PROXY of version 2")
    if size > MAX_V2_BYTES:
        raise BadProxyHeader(f"a header of more than {MAX_V2_BYTES} octets")
    if command == _LOCAL:  # 2.2: whatever follows is to be passed over
        return (ProxyHeader(2, True), size) if len(data) >= size else None
    if family not in _FAMILIES:
        raise BadProxyHeader("neither TCP nor a Unix stream")
    octets, block = _FAMILIES[family]
    if size < _V2_FIXED + block:
        raise BadProxyHeader("shorter than its addresses")
    if len(data) < size:
        return None
    _check_tlvs(data, _V2_FIXED + block if family else size, size)
    if octets is None:
        return ProxyHeader(2), size
    at = _V2_FIXED
    source, destination = (
        _canonical(ipaddress.ip_address(bytes(data[begin : begin + octets]))) for begin in (at, at + octets)
    )
    ports = at + 2 * octets
    return (
        ProxyHeader(
            2,
            False,
            source,
            int.from_bytes(data[ports : ports + 2], "big"),
            destination,
            int.from_bytes(data[ports + 2 : ports + 4], "big"),
        ),
        size,
    )


def _check_tlvs(data: bytes, at: int, end: int) -> None:
    while at < end:
        if at + 3 > end:
            raise BadProxyHeader("octets behind the addresses that are no TLV")
        at += 3 + int.from_bytes(data[at + 1 : at + 3], "big")
    if at != end:
        raise BadProxyHeader("a TLV that is longer than the header")


def _canonical(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
