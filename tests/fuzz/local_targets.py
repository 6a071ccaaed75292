"""Fuzz targets of what programs of this host say: lists of addresses, messages on standard input, and a piped SMTP session."""

from __future__ import annotations

import itertools

from fuzz.target import Target, cuts_of
from sendmail.pieces import Pieces

from gatepost.sendmail.addresses import parse_addresses
from gatepost.sendmail.lines import shorten_lines
from gatepost.sendmail.message import complete, find_recipients, read_message
from gatepost.sendmail.sysexits import EX_USAGE, Failure

NOW_S = 1_700_000_000.0


def run_addresses(data: bytes) -> None:
    """What comes out is one address each, fit for a command, and comes out of itself again."""
    try:
        found = parse_addresses(data.decode("utf-8", "surrogateescape"))
    except Failure as failure:
        assert failure.status == EX_USAGE and str(failure).isprintable()
        return
    for address in found:
        assert address and address[0] != "-" and not set(address) & set("\0\r\n\t")
        assert parse_addresses(address) == [address]


def run_message(data: bytes) -> None:
    """Whatever a program writes becomes a message with CRLF, a header, and no blind copies."""
    message = read_message(data, ignore_dots=False)
    try:
        find_recipients(message)
    except Failure:
        pass
    complete(message, hostname="gate.test", reverse_path="me@gate.test", full_name="Me", now_s=NOW_S)
    shorten_lines(message)
    octets = message.octets()
    bare = octets.replace(b"\r\n", b"")
    assert b"\r" not in bare and b"\n" not in bare and b"\0" not in bare and octets.endswith(b"\r\n")
    header = octets.partition(b"\r\n\r\n")[0].lower()
    assert header.startswith((b"from", b"date", b"message-id", b"resent")) or b"\r\nfrom" in header
    assert b"\nbcc:" not in header and b"\nresent-bcc:" not in header


def _pass(pieces: list[bytes]) -> tuple[bytes | None, bool, bytes, bytes]:
    fed = Pieces(pieces)
    command = fed._read_line()
    is_whole = fed._pass_text()
    return command, is_whole, fed.said if is_whole else b"", fed.left if is_whole else b""


def run_session(data: bytes) -> None:
    """A command and a message: the same however they are cut; and only a line with a dot alone ends the message."""
    whole = _pass([data] if data else [])
    cuts = sorted({0, *cuts_of(data), len(data)})
    pieces = [data[start:end] for start, end in itertools.pairwise(cuts) if start < end]
    command, is_whole, said, _ = _pass(pieces)
    assert (command, is_whole, said) == whole[:3]
    if is_whole:
        assert said == b".\r\n" or said.endswith(b"\r\n.\r\n")
        assert b"\r\n.\r\n" not in (b"\r\n" + said)[:-1] and b"\n" not in said.replace(b"\r\n", b"")


TARGETS = (
    Target(
        "sendmail-addresses",
        run_addresses,
        (b"Foo Bar <a@x.test>, b@x.test (c), g: d@x.test;", b'<@r.test:a@x.test> "a b"@x.test', b"a@[IPv6:::1]"),
        (b"<", b">", b"(", b")", b",", b";", b":", b'"', b"\\", b"@", b"[", b"]", b" ", b"-"),
    ),
    Target(
        "sendmail-message",
        run_message,
        (b"To: a@x.test\nBcc: b@x.test\n\nb\n", b"From me\nResent-To: a\n c\n\n.\n", b"Subject: " + b"x " * 600 + b"\n\n" + b"\xfc" * 1200),
        (b"\n", b"\r\n", b"\r", b".\n", b"Bcc: ", b"Resent-To: ", b"Content-Type: text/html\n", b"\0", b" "),
    ),
    Target(
        "sendmail-session",
        run_session,
        (b"DATA\nSubject: x\n\n..\n.\nQUIT\n", b"DATA\r\nx\r\n.\r\n", b"DATA\n.\n"),
        (b"\n", b"\r\n", b".\n", b".\r\n", b"\r", b".."),
    ),
)  # fmt: skip
