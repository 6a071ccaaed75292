"""Fuzz targets of what comes over the network and is not SMTP: DNS answers."""

from __future__ import annotations

from fuzz.target import Target
from gatepost.net import dnswire

_KINDS = sorted(dnswire.KINDS)
_NAME = "example.test"
_A = b"\x00\x00\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"


def run_dns(data: bytes) -> None:
    """The first octet chooses the type; the rest is what stands behind the question, the header's counts in front."""
    kind = _KINDS[data[0] % len(_KINDS)] if data else "MX"
    question = dnswire.build_question(_NAME, kind)
    packet = b"\x00\x01" + data[1:11].ljust(10, b"\0") + question + data[11:]
    if dnswire.match_response(packet, question) is dnswire.Match.NO:
        packet = b"\x00\x01\x81\x80\x00\x01" + packet[6:]
    try:
        response = dnswire.parse_response(packet, question, _NAME, kind)
        followed = dnswire.follow(response.answers, _NAME, kind)
    except dnswire.DnsFormatError:
        return
    assert len(followed.records) <= 512
    for record in followed.records:
        assert isinstance(record, str) and "\n" not in record
    if kind == "MX":
        for record in followed.records:
            preference, _, host = record.partition(" ")
            assert 0 <= int(preference) <= 65535 and " " not in host


def _answer(kind: str, data: bytes) -> bytes:
    number = dnswire.KINDS[kind]
    record = b"\xc0\x0c" + number.to_bytes(2, "big") + b"\0\x01\0\0\0\x3c" + len(data).to_bytes(2, "big") + data
    return bytes([_KINDS.index(kind)]) + _A[2:] + record


TARGETS = (
    Target(
        "dns",
        run_dns,
        (
            _answer("A", b"\xc0\0\2\1"),
            _answer("MX", b"\0\x0a\2mx\xc0\x0c"),
            _answer("TXT", b"\5v=STS\3abc"),
            _answer("TLSA", b"\3\1\1" + b"\xaa" * 32),
        ),
        (b"\xc0\x0c", b"\xc0\0", b"\0\x01", b"\0\x05", b"\xff\xff", b"\x3f" + b"a" * 63, b"\0\0\x29"),
        1232,
    ),
)
