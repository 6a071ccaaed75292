"""Sample messages of all shapes, and the judge of whether a message arrived as it was sent.

Two sources: the sample messages of CPython's own email tests, if this Python has its `test` package, and messages made here,
always the same for a seed. All of them keep to what a strict server accepts: lines end in CRLF, there is no bare CR, bare LF or
NUL, and no more Received fields than the default limit. Many break every other rule, which is the point.
"""

from __future__ import annotations

import base64
import importlib.util
import itertools
import quopri
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

Sample = tuple[str, bytes]

HEADER = (
    b"From: Sender <sender@outside.test>\r\n"
    b"To: user@example.test\r\n"
    b"Subject: sample\r\n"
    b"Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n"
    b"Message-ID: <sample@outside.test>\r\n"
)

_TRACE = rb"(?:Return-Path|Delivered-To|Received):[^\r\n]*(?:\r?\n[ \t][^\r\n]*)*\r?\n"
_TRACE_FIELD = re.compile(_TRACE)
_TRACE_FIELDS = re.compile(rb"(?:" + _TRACE + rb")*")


class Missing(Exception):
    """This Python has no `test.test_email.data`; the text says what to install."""


def samples(seed: int = 1) -> Iterator[Sample]:
    """All samples that can be had here."""
    yield from own_samples(seed)
    try:
        yield from cpython_samples()
    except Missing:
        return


def cpython_samples() -> Iterator[Sample]:
    """Every sample message of CPython's email tests, line ends made CRLF; raises Missing."""
    try:
        spec = importlib.util.find_spec("test.test_email")
    except ModuleNotFoundError:
        spec = None
    data = Path(spec.origin).parent / "data" if spec is not None and spec.origin else None
    if data is None or not data.is_dir():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise Missing(
            f"Python {version} has no test.test_email.data; Debian has it in the package libpython{version}-testsuite"
        )
    for path in sorted(data.glob("msg_*.txt")):
        yield f"cpython/{path.stem}", re.sub(rb"\r\n|\r|\n", b"\r\n", path.read_bytes())


def own_samples(seed: int = 1) -> Iterator[Sample]:
    """The messages made here, always the same for a seed; names are unique."""
    rng = random.Random(seed)
    yield from _prefixed("ends", _ends())
    yield from _prefixed("dots", _dots())
    yield from _prefixed("lines", _lines())
    yield from _prefixed("sizes", _sizes(rng))
    yield from _prefixed("bytes", _octets(rng))
    yield from _prefixed("header", _headers())
    yield from _prefixed("mime", _mime(rng))
    yield from _prefixed("random", _random(rng))


def same_message(sent: bytes, arrived: bytes, *, arrived_lf: bool) -> str | None:
    """None if `arrived` is `sent` behind nothing but trace fields, else where it differs.

    The body has to be the same octet for octet, the header line for line. `arrived_lf`: line ends have become LF on the way
    (Maildir). A message whose last line did not end gets its CRLF from DATA, and nothing else may come.
    """
    whole = not sent or sent.endswith(b"\r\n")
    for expected in (sent,) if whole else (sent + b"\r\n", sent):
        if arrived_lf:
            expected = expected.replace(b"\r\n", b"\n")
        on_top = len(arrived) - len(expected)
        if on_top >= 0 and arrived.endswith(expected) and _TRACE_FIELDS.fullmatch(arrived, 0, on_top):
            return None
    return _difference(sent.replace(b"\r\n", b"\n") if arrived_lf else sent, arrived)


def _difference(wanted: bytes, arrived: bytes) -> str:
    """Where they part, after as many trace fields as `arrived` has more on top."""
    ours = max(0, _leading_trace(arrived) - _leading_trace(wanted))
    begin = 0
    for _ in range(ours):
        begin = _TRACE_FIELD.match(arrived, begin).end()
    rest = arrived[begin:]
    length = min(len(wanted), len(rest))
    place = next((at for at in range(0, length, 4096) if wanted[at : at + 4096] != rest[at : at + 4096]), length)
    while place < length and wanted[place] == rest[place]:
        place += 1
    end = re.search(rb"\r?\n\r?\n", wanted)
    part = "header" if end is None or place < end.end() else "body"
    return (
        f"{part} differs at octet {place} of {len(wanted)} sent, {len(rest)} arrived: "
        f"sent {wanted[max(0, place - 20) : place + 40]!r}, arrived {rest[max(0, place - 20) : place + 40]!r}"
    )


def _leading_trace(content: bytes) -> int:
    count = begin = 0
    while match := _TRACE_FIELD.match(content, begin):
        begin = match.end()
        count += 1
    return count


# --- the shapes ---------------------------------------------------------------------------------------------------------


def _prefixed(prefix: str, pairs: Iterator[Sample]) -> Iterator[Sample]:
    for name, content in pairs:
        yield f"{prefix}/{name}", content


def _ends() -> Iterator[Sample]:
    """How a message begins and ends, and which of its parts are there at all."""
    yield "empty", b""
    yield "crlf", b"\r\n"
    yield "two-crlf", b"\r\n\r\n"
    yield "many-crlf", b"\r\n" * 500
    yield "header-only", HEADER
    yield "header-only-no-newline", HEADER[:-2]
    yield "header-and-separator", HEADER + b"\r\n"
    yield "body-only", b"just some text\r\nwithout any header\r\n"
    yield "body-behind-empty-line", b"\r\nbody: looks like a field\r\n"
    yield "no-separator", HEADER + b"this line is no field\r\nand this neither\r\n"
    yield "no-separator-then-empty-line", HEADER + b"this line is no field\r\n\r\nbody\r\n"
    yield "no-final-newline", HEADER + b"\r\nlast line without an end"
    yield "one-octet", b"x"
    yield "one-space", b" "
    yield "begins-with-space", b" continued from nothing\r\n" + HEADER + b"\r\nbody\r\n"
    yield "begins-with-from-line", b"From sender@outside.test Tue Nov 14 22:13:20 2023\r\n" + HEADER + b"\r\nbody\r\n"
    yield "from-lines-in-body", HEADER + b"\r\nFrom here\r\n>From there\r\n\r\nFrom nowhere\r\n"
    yield "ends-with-empty-lines", HEADER + b"\r\nbody\r\n\r\n\r\n\r\n"
    yield "ends-with-spaces", HEADER + b"\r\nbody\r\n   \r\n\t\r\n "
    yield "trailing-spaces", HEADER + b"\r\n" + b"text   \r\ntabs\t\t\r\nboth \t \r\n" * 10
    yield "tabs", HEADER + b"\r\n\tindented\r\n\t\ttwice\tand\tthen\r\n"
    yield "signature-separator", HEADER + b"\r\ntext\r\n-- \r\nname\r\n"
    yield "format-flowed", HEADER + b"Content-Type: text/plain; format=flowed\r\n\r\n>> quoted \r\n>> text\r\n -- \r\n"
    yield "smtp-verbs", HEADER + b"\r\nRSET\r\nQUIT\r\nMAIL FROM:<a@b.test>\r\nDATA\r\n354 go\r\n250 ok\r\n"


def _dots() -> Iterator[Sample]:
    """Dots wherever they could be taken for the end of the message, or lost in stuffing."""
    lines = (b"", b".", b"..", b"...", b".a", b"a.", b" .", b". ")
    for number, pair in enumerate(itertools.product(lines, repeat=2)):
        yield f"pair-{number:02d}", HEADER + b"\r\n" + b"\r\n".join(pair) + b"\r\n"
    for number, line in enumerate(lines[1:]):
        yield f"first-line-{number}", line + b"\r\n"
        yield f"no-newline-{number}", HEADER + b"\r\ntext\r\n" + line
        yield f"no-newline-at-all-{number}", line
    yield "field", b".dot: begins with a dot\r\n" + HEADER + b"..two: dots\r\n\r\n.\r\n"
    yield "lone-many", HEADER + b"\r\n" + b".\r\n" * 5000
    yield "double-many", HEADER + b"\r\n" + b"..\r\n" * 5000
    yield "growing", HEADER + b"\r\n" + b"".join(b"." * number + b"\r\n" for number in range(300))
    yield "long", HEADER + b"\r\n" + b"." * 900 + b"\r\n"
    yield "end-inside", HEADER + b"\r\nbefore\r\n.\r\n\r\n.\r\nMAIL FROM:<x@y.test>\r\n.\r\n"


def _lines() -> Iterator[Sample]:
    """Lines up to and over what RFC 5322 allows, in the body and in the header."""
    for length in (
        76,
        77,
        78,
        79,
        510,
        511,
        512,
        513,
        996,
        997,
        998,
        999,
        1000,
        1001,
        2048,
        4096,
        10_000,
        65_536,
        1_000_000,
    ):
        yield f"body-{length}", HEADER + b"\r\n" + b"x" * length + b"\r\nnext\r\n"
        yield f"body-dot-{length}", HEADER + b"\r\n." + b"x" * (length - 1) + b"\r\n.next\r\n"
        if length <= 10_000:
            yield f"header-{length}", HEADER + b"X-Long: " + b"y" * (length - 8) + b"\r\n\r\nbody\r\n"
    yield "body-no-end-100000", HEADER + b"\r\n" + b"z" * 100_000
    yield "body-many-of-998", HEADER + b"\r\n" + (b"w" * 998 + b"\r\n") * 100
    yield "body-of-spaces", HEADER + b"\r\n" + b" " * 5000 + b"\r\n"
    yield "body-one-octet-each", HEADER + b"\r\n" + b"a\r\n" * 20_000
    yield "body-html", HEADER + b"Content-Type: text/html\r\n\r\n<p>" + b"<span>word</span>" * 3000 + b"</p>\r\n"


def _sizes(rng: random.Random) -> Iterator[Sample]:
    """Whole messages whose size, or a dot line in them, lies at the edge of a likely buffer."""
    for edge in (1024, 2048, 4096, 8192, 16_384, 65_536, 131_072, 262_144):
        for step in (-2, -1, 0, 1, 2):
            room = edge + step - len(HEADER) - 2
            end = b"\r\n.\r\n" if step % 2 else b"\r\n"
            yield f"edge-{edge}{step:+d}", HEADER + b"\r\n" + _text(room - len(end)) + end
    yield "two-mebibytes", HEADER + b"\r\n" + base64.encodebytes(rng.randbytes(1_500_000)).replace(b"\n", b"\r\n")


def _text(size: int) -> bytes:
    """Lines of text, `size` octets, that may end anywhere but within a CRLF."""
    text = (b"0123456789abcdef" * 4 + b"\r\n") * (size // 66 + 1)
    return text[: size - 1] + b"x" if text[size - 1 : size] == b"\r" else text[:size]


def _octets(rng: random.Random) -> Iterator[Sample]:
    """Bodies and headers of other octets than ASCII, declared or not, valid or not."""
    texts = {
        "latin-1": "Grüße aus Köln: àéîõü ß £ §\r\n",
        "utf-8": "Grüße, привет, 你好, \U0001f600, e\u0301, \u200f\u202e\r\n",
        "koi8-r": "Привет, мир\r\n",
        "shift_jis": "こんにちは、表示\r\n",
        "gb18030": "你好，世界\r\n",
        "cp1252": "“quotes” — and dashes…\r\n",
        "iso2022_jp": "こんにちは\r\n",
        "utf-7": "Grüße +AGE-\r\n",
    }
    for name, text in texts.items():
        body = text.encode(name)
        declared = (
            f"MIME-Version: 1.0\r\nContent-Type: text/plain; charset={name}\r\nContent-Transfer-Encoding: 8bit\r\n"
        )
        yield f"body-{name}", HEADER + declared.encode() + b"\r\n" + body * 20
        yield f"body-undeclared-{name}", HEADER + b"\r\n" + body * 3
        yield f"header-{name}", HEADER + b"X-Text: " + body + b"\r\nbody\r\n"
    safe = bytes(value for value in range(1, 256) if value not in b"\r\n")
    yield "every-octet", HEADER + b"\r\n" + safe + b"\r\n"
    yield "every-octet-alone", HEADER + b"\r\n" + b"".join(bytes([value]) + b"\r\n" for value in safe)
    yield "every-octet-after-dot", HEADER + b"\r\n" + b"".join(b"." + bytes([value]) + b"\r\n" for value in safe)
    yield "every-octet-in-header", HEADER + b"X-Octets: " + safe + b"\r\n\r\nbody\r\n"
    yield "utf8-broken", HEADER + b"\r\n\xc3\r\n\x80\r\n\xed\xa0\x80\r\n\xf5\xff\xfe\r\n\xef\xbb\xbfbom\r\n"
    yield "utf8-bom-first", b"\xef\xbb\xbf" + HEADER + b"\r\nbody\r\n"
    yield "del-and-escape", HEADER + b"\r\n\x1b[31mred\x1b[0m\x7f\x08\x0b\x0c\x1a\x04\r\n"
    yield (
        "utf8-addresses",
        "From: Jörg <jörg@bücher.test>\r\nTo: юзер@пример.test\r\nSubject: 件名\r\n\r\n本文\r\n".encode(),
    )
    yield "encoded-words", HEADER + b"X-Subject: =?utf-8?B?R3LDvMOfZQ==?= =?iso-8859-1?Q?=FC?=\r\n\r\nbody\r\n"
    for number in range(12):
        body = bytes(rng.choice(safe) for _ in range(rng.choice((1, 10, 1000, 30_000))))
        yield f"binary-{number}", HEADER + b"\r\n" + body + b"\r\n"


def _headers() -> Iterator[Sample]:
    """Fields of every form, well-formed or not."""
    fields = {
        "folded": b"X-Folded: one\r\n two\r\n\tthree\r\n    four\r\n",
        "folded-blank": b"X-Folded: one\r\n \r\n\t\r\n two\r\n",
        "folded-from-name": b"X-Folded:\r\n value on the next line\r\n",
        "no-space": b"X-None:value\r\nX-Many:      value\r\nX-Tab:\tvalue\r\n",
        "space-before-colon": b"X-Obsolete : value\r\nX-Tab\t: value\r\n",
        "empty": b"X-Empty:\r\nX-Space: \r\nX-Tab:\t\r\n",
        "trailing": b"X-Trailing: value   \r\nX-Tabs: value\t\t\r\n",
        "case": b"SUBJECT: a\r\nsubject: b\r\nsUbJeCt: c\r\n",
        "duplicates": b"Subject: again\r\nSubject: and again\r\nTo: other@example.test\r\n",
        "colons": b"X-Colons: a:b::c\r\n::\r\n:\r\n: value\r\n",
        "no-colon": b"this is no field\r\nX-After: yes\r\n",
        "odd-names": b"X_under: a\r\nX.dot: b\r\n0: c\r\n!#$%&'*+-/=?^`{|}~: d\r\n",
        "long-name": b"X-" + b"n" * 500 + b": value\r\n",
        "received": b"".join(
            b"Received: from h%d.test ([192.0.2.%d])\r\n\tby h%d.test with ESMTP id X%d;\r\n\tTue, 14 Nov 2023 22:13:20 +0000\r\n"
            % (number, number, number + 1, number)
            for number in range(40)
        ),
        "x-received": b"X-Received: by 2002:a05:1 with SMTP id x\r\n" * 60,
        "thousands": b"".join(b"X-Field-%d: value %d\r\n" % (number, number) for number in range(4000)),
        "huge-folded": b"References: " + b"\r\n ".join(b"<id-%d@outside.test>" % n for n in range(2000)) + b"\r\n",
        "many-recipients": b"Cc: " + b",\r\n\t".join(b"user%d@example.test" % n for n in range(1000)) + b"\r\n",
        "dkim": b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/simple; d=outside.test; s=s;\r\n\th=from:to; bh=x=;\r\n\tb="
        + b"\r\n\t ".join([b"A" * 64] * 5)
        + b"\r\n",
        "comments": b'X-Comment: (nested (comment) with \\) in it) "quoted \\" string" <a@b.test>\r\n',
        "resent": b"Resent-From: a@b.test\r\nResent-To: c@d.test\r\nResent-Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n",
    }
    for name, field in fields.items():
        yield f"{name}-first", field + HEADER + b"\r\nbody\r\n"
        yield f"{name}-last", HEADER + field + b"\r\nbody\r\n"
        yield f"{name}-only", field
    yield (
        "trace-first",
        b"Return-Path: <old@outside.test>\r\nDelivered-To: old@example.test\r\n" + HEADER + b"\r\nbody\r\n",
    )
    yield "trace-everywhere", b"".join(
        b"Received: by a.test\r\nReturn-Path: <>\r\nDelivered-To: x%d@example.test\r\n" % number for number in range(10)
    ) + HEADER + b"\r\nReceived: in the body\r\n"  # fmt: skip


def _mime(rng: random.Random) -> Iterator[Sample]:
    """MIME structures, shallow, deep, wide and broken."""
    top = HEADER + b"MIME-Version: 1.0\r\n"
    leaf = b"Content-Type: text/plain\r\n\r\nleaf\r\n"
    for depth in (1, 2, 3, 5, 10, 50, 200):
        part = leaf
        for level in range(depth):
            part = _multipart(b"mixed", b"level-%d" % level, [part, leaf])
        yield f"nested-{depth}", top + part
        part = leaf
        for _ in range(depth):
            part = b"Content-Type: message/rfc822\r\n\r\n" + HEADER + part
        yield f"forwarded-{depth}", top + part
    for count in (0, 1, 2, 10, 100, 2000):
        small = [
            b'Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename="f%d"\r\n'
            b"Content-Transfer-Encoding: base64\r\n\r\n%b" % (n, _base64(rng.randbytes(30)))
            for n in range(count)
        ]
        yield f"attachments-{count}", top + _multipart(b"mixed", b"=_wide", [leaf, *small])
    for kind in (b"alternative", b"related", b"signed", b"report", b"digest", b"parallel", b"form-data", b"x-unknown"):
        yield f"kind-{kind.decode()}", top + _multipart(kind, b"----=_Part_0.1", [leaf, leaf])
    for name, boundary in {"dots": b"...", "spaces": b"a b c", "longest": b"b" * 70, "odd": b"'()+_,-./:=?"}.items():
        yield f"boundary-{name}", top + _multipart(b"mixed", boundary, [leaf, leaf])
    yield "boundary-dot", top + _multipart(b"mixed", b".", [b"\r\n.\r\n", leaf])
    for size in (1, 57, 58, 5000, 300_000):
        data = rng.randbytes(size)
        yield f"base64-{size}", top + b"Content-Transfer-Encoding: base64\r\n\r\n" + _base64(data)
    text = "Grüße = ü.\r\n.\r\n \t\r\n" * 50
    encoded = quopri.encodestring(text.encode()).replace(b"\r\n", b"\n").replace(b"\r", b"").replace(b"\n", b"\r\n")
    yield "quoted-printable", top + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + encoded
    yield "uuencode", top + b"\r\nbegin 644 x\r\n#0V%T\r\n`\r\nend\r\n"
    whole = top + _multipart(b"mixed", b"broken", [leaf, leaf])
    yield "cut-in-header", whole[: len(HEADER) + 40]
    yield "cut-in-part", whole[:-20]
    yield "not-closed", whole.replace(b"--broken--", b"")
    yield "never-opened", whole.replace(b"--broken", b"--other")
    yield "preamble", top + b'Content-Type: multipart/mixed; boundary="p"\r\n\r\npre\r\n--p\r\n\r\nx\r\n--p--\r\npost'
    yield "no-boundary", top + b"Content-Type: multipart/mixed\r\n\r\n--\r\n\r\nx\r\n----\r\n"


def _multipart(kind: bytes, boundary: bytes, parts: list[bytes]) -> bytes:
    inside = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    return b'Content-Type: multipart/%b; boundary="%b"\r\n\r\n%b--%b--\r\n' % (kind, boundary, inside, boundary)


def _base64(data: bytes) -> bytes:
    return base64.encodebytes(data).replace(b"\n", b"\r\n")


def _random(rng: random.Random) -> Iterator[Sample]:
    """Anything, put together from pieces that matter."""
    pieces = (
        b".", b"..", b" ", b"\t", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"\r\n..", b"\r\n\r\n", b":", b"X: y\r\n", b"Received: a\r\n",
        b"--b\r\n", b"\xff", b"\xc3\xa9", b"text", b"QUIT\r\n", b"x" * 998, b"=", b"From ", b"Content-Type: text/plain\r\n", b"\x7f",
    )  # fmt: skip
    for number in range(120):
        content = b"".join(rng.choices(pieces, k=rng.choice((3, 10, 40, 200))))
        yield f"pieces-{number:03d}", (HEADER if number % 3 else b"") + content
