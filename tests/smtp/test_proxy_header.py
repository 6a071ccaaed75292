"""The PROXY protocol header: what is taken, what is refused, and the same result however the octets are split."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gatepost.smtp.proxy import MAX_V1_BYTES, MAX_V2_BYTES, BadProxyHeader, ProxyHeader, parse_proxy

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
FOUR = bytes([192, 0, 2, 1, 203, 0, 113, 9]) + struct.pack(">HH", 40000, 25)
SIX = ipaddress.ip_address("2001:db8::1").packed + ipaddress.ip_address("2001:db8::2").packed + struct.pack(">HH", 1, 2)
MAPPED = ipaddress.ip_address("::ffff:192.0.2.1").packed * 2 + struct.pack(">HH", 1, 2)
TLV = b"\x04\x00\x02ab"


def v2(family: int, block: bytes, command: int = 0x21, length: int | None = None) -> bytes:
    return SIGNATURE + bytes([command, family]) + struct.pack(">H", len(block) if length is None else length) + block


GOOD = [
    (b"PROXY TCP4 192.0.2.1 203.0.113.9 40000 25\r\n", ProxyHeader(1, False, "192.0.2.1", 40000, "203.0.113.9", 25)),
    (b"PROXY TCP6 2001:DB8::1 2001:db8::2 1 2\r\n", ProxyHeader(1, False, "2001:db8::1", 1, "2001:db8::2", 2)),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 0 65535\r\n", ProxyHeader(1, False, "192.0.2.1", 0, "::1", 65535)),
    (b"PROXY UNKNOWN\r\n", ProxyHeader(1)),
    (b"PROXY UNKNOWN ffff::1 ffff::2 whatever\r\n", ProxyHeader(1)),
    (v2(0x11, FOUR), ProxyHeader(2, False, "192.0.2.1", 40000, "203.0.113.9", 25)),
    (v2(0x11, FOUR + TLV + TLV), ProxyHeader(2, False, "192.0.2.1", 40000, "203.0.113.9", 25)),
    (v2(0x21, SIX), ProxyHeader(2, False, "2001:db8::1", 1, "2001:db8::2", 2)),
    (v2(0x21, MAPPED), ProxyHeader(2, False, "192.0.2.1", 1, "192.0.2.1", 2)),
    (v2(0x31, b"/run/a".ljust(216, b"\0")), ProxyHeader(2)),
    (v2(0x00, b""), ProxyHeader(2)),
    (v2(0x00, b"anything"), ProxyHeader(2)),
    (v2(0x00, b"", 0x20), ProxyHeader(2, True)),
    (v2(0x11, FOUR + b"odd", 0x20), ProxyHeader(2, True)),
]
BAD = [
    b"EHLO client.example\r\n",
    b"proxy TCP4 192.0.2.1 203.0.113.9 1 2\r\n",
    b"PROXY  TCP4 192.0.2.1 203.0.113.9 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 203.0.113.9 1 2 \r\n",
    b"PROXY TCP4 192.0.2.1 203.0.113.9 1\r\n",
    b"PROXY TCP4 192.0.2.01 203.0.113.9 1 2\r\n",
    b"PROXY TCP4 192.0.2 203.0.113.9 1 2\r\n",
    b"PROXY TCP4 2001:db8::1 203.0.113.9 1 2\r\n",
    b"PROXY TCP6 192.0.2.1 203.0.113.9 1 2\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 203.0.113.9 01 2\r\n",
    b"PROXY TCP4 192.0.2.1 203.0.113.9 1 65536\r\n",
    b"PROXY TCP4 192.0.2.1 203.0.113.9 -1 2\r\n",
    b"PROXY UDP4 192.0.2.1 203.0.113.9 1 2\r\n",
    b"PROXY UNKNOWNX\r\n",
    b"PROXY TCP4 192.0.2.1 203.0.113.9 1 2\nEHLO a\r\n",
    b"PROXY UNKNOWN " + b"x" * MAX_V1_BYTES + b"\r\n",
    b"\r\n\r\n\x00\r\nQUIX\n\x21\x11\x00\x0c" + FOUR,
    v2(0x11, FOUR, command=0x11),
    v2(0x11, FOUR, command=0x22),
    v2(0x12, FOUR),
    v2(0x41, FOUR),
    v2(0x11, FOUR[:-1]),
    v2(0x21, FOUR),
    v2(0x11, FOUR + b"\x04\x00"),
    v2(0x11, FOUR + b"\x04\x00\x05ab"),
    v2(0x11, FOUR, length=MAX_V2_BYTES),
    v2(0x00, b"", 0x20, length=65535),
]
Result = tuple[ProxyHeader, int] | str | None


def whole(data: bytes) -> Result:
    try:
        return parse_proxy(data)
    except BadProxyHeader:
        return "bad"


def octet_by_octet(data: bytes) -> Result:
    for end in range(len(data) + 1):
        result = whole(data[:end])
        if result is not None:
            return result
    return None


@pytest.mark.parametrize(("data", "header"), GOOD)
def test_good_headers(data: bytes, header: ProxyHeader) -> None:
    assert parse_proxy(data) == (header, len(data))
    assert parse_proxy(data + b"EHLO client.example\r\n") == (header, len(data))
    assert octet_by_octet(data) == (header, len(data))
    assert parse_proxy(data[:-1]) is None


@pytest.mark.parametrize("data", BAD)
def test_bad_headers(data: bytes) -> None:
    assert whole(data) == "bad"
    assert octet_by_octet(data) == "bad"


def test_the_longest_lines() -> None:
    longest = b"PROXY UNKNOWN " + b"x" * (MAX_V1_BYTES - 16) + b"\r\n"
    assert whole(longest) == (ProxyHeader(1), MAX_V1_BYTES)
    assert whole(b"PROXY " + b"x" * (MAX_V1_BYTES - 7)) is None
    assert whole(b"PROXY " + b"x" * (MAX_V1_BYTES - 6)) == "bad"


def test_the_largest_binary_header() -> None:
    tlv = b"\x04" + struct.pack(">H", MAX_V2_BYTES - 16 - 12 - 3)
    data = v2(0x11, FOUR + tlv + bytes(MAX_V2_BYTES - 16 - 12 - 3))
    assert whole(data) == (ProxyHeader(2, False, "192.0.2.1", 40000, "203.0.113.9", 25), MAX_V2_BYTES)


_PIECES = st.sampled_from(
    [b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"192.0.2.1 ", b"::1 ", b"25", b" ", b"\r\n", SIGNATURE, b"\x21\x11\x00\x0c", FOUR, TLV]
)  # fmt: skip


@given(st.lists(st.one_of(_PIECES, st.binary(max_size=20)), max_size=12).map(b"".join))
@example(SIGNATURE + b"\x21\x11\x00\x0c" + FOUR)
@settings(max_examples=300, deadline=None)
def test_any_octets_give_the_same_whole_and_octet_by_octet(data: bytes) -> None:
    result = whole(data)
    assert octet_by_octet(data) == result
    if isinstance(result, tuple):
        header, length = result
        assert 0 < length <= len(data)
        for address in (header.source, header.destination):
            assert not address or str(ipaddress.ip_address(address)) == address
