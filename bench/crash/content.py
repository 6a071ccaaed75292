"""Messages that can prove who they are: an id and a checksum of the body in the header.

Bodies are slices of one pattern of random text lines, some of which begin with a dot; made once, so that load costs little.
"""

from __future__ import annotations

import random
import re
from zlib import crc32

PATTERN_BYTES = 1 << 20
SMALLEST_BYTES = 100
MIDDLE_BYTES = 16 * 1024
LARGEST_BYTES = 400 * 1024  # well above the size from which a message gets a body file
LARGE_SHARE = 0.15
BODIES = 150
ALPHABET = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+ "
ID_FIELD = b"X-Crash-Id: "
CRC_FIELD = b"X-Crash-Crc: "
FROM_FIELD = b"X-Crash-From: "
BINARY_BODIES = 10
_NOTICE_ID = re.compile(rb"(?m)^Message-ID: <([0-9A-Za-z]+)")
_ABOUT = re.compile(rb"(?m)^Original-Envelope-Id: (\S+)\r$")
_TOLD = re.compile(rb"(?m)^Final-Recipient: rfc822;\s*(\S+)\r\nAction: (\w+)")
_TRACE_ID = re.compile(rb"\sid ([0-9A-Za-z]+)")


def build_pattern(rng: random.Random) -> bytes:
    """About PATTERN_BYTES of text lines with CRLF."""
    letters = rng.choices(ALPHABET, k=PATTERN_BYTES)
    text = bytes(letters)
    lines, at = [], 0
    while at < PATTERN_BYTES:
        length = rng.randint(1, 76)
        lines.append((b"." if rng.random() < 0.03 else b"") + text[at : at + length])
        at += length
    return b"\r\n".join(lines) + b"\r\n"


def choose_size(rng: random.Random) -> int:
    """Mostly small ones; every size between the smallest and the largest occurs."""
    low, high = (MIDDLE_BYTES, LARGEST_BYTES) if rng.random() < LARGE_SHARE else (SMALLEST_BYTES, MIDDLE_BYTES)
    return int(low * (high / low) ** rng.random())


def build_bodies(rng: random.Random, count: int = BODIES) -> list[tuple[bytes, int]]:
    """Dot-stuffed bodies and the checksum of each before stuffing."""
    pattern = build_pattern(rng)
    bodies = []
    for _ in range(count):
        size = choose_size(rng)
        begin = pattern.index(b"\n", rng.randrange(len(pattern) - size - 200)) + 1
        body = pattern[begin : pattern.index(b"\n", begin + size) + 1]
        stuffed = body.replace(b"\r\n.", b"\r\n..")
        bodies.append((b"." + stuffed if body.startswith(b".") else stuffed, crc32(body)))
    return bodies


def build_binary_bodies(rng: random.Random, count: int = BINARY_BODIES) -> list[tuple[bytes, int]]:
    """Bodies of any octets, of which no line end survives a relay that takes them for text."""
    bodies = [b"\0\r\n.\r\n\n\r" + rng.randbytes(choose_size(rng)) for _ in range(count)]
    return [(body, crc32(body)) for body in bodies]


def build_header(message_id: str, crc: int, sender: str = "load@outside.test", arriving: str = "") -> bytes:
    """The header of a message, up to and with the empty line; `arriving` is what From must have become on the way."""
    return (
        b"From: %b\r\nTo: undisclosed-recipients:;\r\nSubject: crash run\r\n" % sender.encode()
        + (FROM_FIELD + arriving.encode() + b"\r\n" if arriving else b"")
        + ID_FIELD
        + message_id.encode()
        + b"\r\n"
        + CRC_FIELD
        + b"%08x\r\n\r\n" % crc
    )


def read_content(content: bytes) -> tuple[str, str, bool]:
    """Id, the gateway's id, and whether the body has its checksum, of a message as it arrived; "" for what is not there.

    A Maildir has LF where the message had CRLF.
    """
    newline = b"\r\n" if b"\r\n" in content[:1000] else b"\n"
    header, found, body = content.partition(newline * 2)
    fields = dict(line.split(b": ", 1) for line in header.split(newline) if b": " in line)
    message_id = fields.get(ID_FIELD[:-2], b"").decode("ascii", "replace")
    gateway_id = _TRACE_ID.search(header)
    if newline == b"\n":
        body = body.replace(b"\n", b"\r\n")
    is_whole = fields.get(FROM_FIELD[:-2], b"") in fields.get(b"From", b"")
    is_whole = is_whole and bool(found) and fields.get(CRC_FIELD[:-2]) == b"%08x" % crc32(body)
    return message_id, gateway_id[1].decode() if gateway_id else "", is_whole


def read_notice(content: bytes) -> tuple[str, str, list[tuple[str, str]]]:
    """What a DSN is about (the envelope id), its own id, and each recipient with its action."""
    about, own = _ABOUT.search(content), _NOTICE_ID.search(content)
    told = [(recipient.decode(), action.decode()) for recipient, action in _TOLD.findall(content)]
    return about[1].decode() if about else "", own[1].decode() if own else "", told
