"""The text parser against a plain model of RFC 5321 4.5.2, however the input is cut."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.smtp.data import Content

END = b"\r\n.\r\n"
LIMIT = 5  # octets of a line


@dataclass
class Expected:
    """What should come of raw octets: content and the index behind the end, or a fault."""

    content: bytes = b""
    rest: int = -1
    fault: str = ""


def model(raw: bytes, repair: bool) -> Expected | None:
    """The same by the simplest means; None if the message has not ended."""
    raw = b"\r\n" + raw
    end = raw.find(END)
    region = raw[: end + 2] if end >= 0 else raw
    fault = re.search(rb"\0" if repair else rb"\0|\r(?!\n)(?!\Z)|(?<!\r)\n", region)
    if fault is not None:
        return Expected(fault={b"\0": "nul", b"\r": "bare-cr", b"\n": "bare-lf"}[fault.group()])
    if end < 0:
        return None
    region = re.sub(rb"\r\n|\r|\n", b"\r\n", region)
    return Expected(region.replace(b"\r\n.", b"\r\n")[2:], end + len(END) - 2)


def run(raw: bytes, cuts: list[int], repair: bool) -> tuple[Expected | None, Content]:
    content = Content(LIMIT, repair=repair)
    out = b""
    edges = [0, *sorted(cuts), len(raw)]
    for start, stop in itertools.pairwise(edges):
        octets, rest = content.feed(raw[start:stop])
        if content.fault is not None:
            assert octets == b""
            return Expected(fault=content.fault[0]), content
        out += octets
        if rest >= 0:
            return Expected(out, start + rest), content
    return None, content


def check_facts(content: Content, message: bytes) -> None:
    end = (b"\r\n" + message).find(b"\r\n\r\n")
    header = b"\r\n" + message[: end if end >= 0 else None]
    lines = message.split(b"\r\n")
    assert content.body_bytes == len(message)
    assert content.has_8bit == (not message.isascii())
    assert content.needs_stuffing == any(line.startswith(b".") for line in lines)
    assert content.long_line == any(len(line) > LIMIT for line in lines)
    assert content.received_hops == header.lower().count(b"\r\nreceived:")
    assert content.header_bytes == len(header) - 2
    assert content.in_header == (b"\r\n\r\n" not in b"\r\n" + message)


PIECES = st.sampled_from(
    [b"\r\n", b".", b"a", b"\r\n.", END, b"\r\n..", b"\r\n\r\n", b"abcd", b"\r\nReceived: ", b"\xff"] * 2
    + [b"\n", b"\r", b"\0", b"\n.\n", b"\r.\r"]
)  # fmt: skip
RAW = st.lists(PIECES, max_size=10).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(RAW, st.booleans(), st.booleans(), st.data())
def test_content_is_that_of_the_model_however_it_is_cut(
    raw: bytes, ended: bool, repair: bool, data: st.DataObject
) -> None:
    if ended:
        raw += b"\r\n.\r\nQUIT"
    cuts = data.draw(st.lists(st.integers(0, len(raw)), max_size=6))
    expected = model(raw, repair)
    for way in (cuts, [], list(range(1, len(raw)))):
        result, content = run(raw, way, repair)
        assert result == expected
        if result is not None and not result.fault:
            check_facts(content, result.content)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),
        (b"a\r\n...\r\n.\r\n", b"a\r\n..\r\n"),
        (b"a\r\n. \r\n.\r\n", b"a\r\n \r\n"),
        (b".\xff\r\n..\r\n.\r\n", b"\xff\r\n.\r\n"),
    ],
)
def test_stuffing(raw: bytes, message: bytes) -> None:
    for cuts in ([], list(range(1, len(raw)))):
        result, content = run(raw, cuts, False)
        assert result == Expected(message, len(raw))
        check_facts(content, message)


@settings(max_examples=200, deadline=None)
@given(RAW, st.booleans(), st.data())
def test_chunks_are_taken_as_they_are(raw: bytes, repair: bool, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    content = Content(LIMIT, repair=repair)
    out = b""
    edges = [0, *cuts, len(raw)]
    for number, (start, stop) in enumerate(itertools.pairwise(edges)):
        out += content.feed_chunk(raw[start:stop], last=number == len(cuts))
        if content.fault is not None:
            break
    fault = re.search(rb"\0" if repair else rb"\0|\r(?!\n)|(?<!\r)\n", raw)
    if fault is not None:
        assert content.fault is not None
        assert content.fault[0] == {b"\0": "nul", b"\r": "bare-cr", b"\n": "bare-lf"}[fault.group()]
    else:
        assert content.fault is None
        assert out == re.sub(rb"\r\n|\r|\n", b"\r\n", raw)
        check_facts(content, out)


def test_nothing_to_speak_of_is_held_back() -> None:
    content = Content()
    given_out = 0
    for number in range(1, 2000):
        given_out += len(content.feed(b"..\r\n"[number % 4 : number % 4 + 1])[0])
        assert len(content._held) <= 4


@pytest.mark.parametrize("line", [b"x" * 998, b"x" * 999])
def test_default_line_limit_is_that_of_rfc_5322(line: bytes) -> None:
    content = Content()
    content.feed(b"a\r\n" + line + b"\r\nb" + END)
    assert content.long_line == (len(line) > 998)


@pytest.mark.parametrize(
    ("message", "in_header"),
    [
        ("Subject: x\r\n\r\n\u00e4\r\n", False),
        ("\r\n\u00e4\r\n", False),
        ("Subject: x\r\n\r\nx\r\n", False),
        ("Subject: \u00e4\r\n\r\nx\r\n", True),
        ("Subject: x\r\nTo: \u00e4\r\n", True),
    ],
)
@pytest.mark.parametrize("step", [1, 2, 1000])
@pytest.mark.parametrize("how", ["data", "bdat", "binary"])
def test_whether_the_header_is_ascii(message: str, in_header: bool, step: int, how: str) -> None:
    octets = message.encode()
    content = Content(binary=how == "binary")
    if how == "data":
        octets += b".\r\n"
    for at in range(0, len(octets), step):
        block = octets[at : at + step]
        if how == "data":
            content.feed(block)
        else:
            content.feed_chunk(block, last=at + step >= len(octets))
    assert content.header_8bit is in_header
