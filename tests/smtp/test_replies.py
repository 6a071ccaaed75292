"""Replies: their bytes, the agreement of the two codes, and that no text can break out of a line."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.smtp import reply as replies
from gatepost.smtp.reply import Reply

CONSTANTS = [value for value in vars(replies).values() if isinstance(value, Reply)]


@pytest.mark.parametrize(
    ("reply", "wire"),
    [
        (Reply(250, "0.0", "Ok"), b"250 2.0.0 Ok\r\n"),
        (Reply(354, "", "Go"), b"354 Go\r\n"),
        (Reply(550, "7.1", "a\nb"), b"550-5.7.1 a\r\n550 5.7.1 b\r\n"),
        (Reply(250, "", "mx\nSIZE 1"), b"250-mx\r\n250 SIZE 1\r\n"),
        (Reply(250, "", ""), b"250\r\n"),
        (Reply(451, "3.0", "a\r\0\tb\x7f"), b"451 4.3.0 a   b\r\n"),
        (Reply(451, "3.0", "ü"), b"451 4.3.0 ?\r\n"),
    ],
)
def test_wire(reply: Reply, wire: bytes) -> None:
    assert reply.wire() == wire


def test_status_takes_its_class_from_the_code() -> None:
    assert Reply(550, "7.1", "").status == "5.7.1"
    assert Reply(450, "7.1", "").status == "4.7.1"
    assert Reply(354, "", "").status == ""


def test_positive() -> None:
    assert [Reply(code, "", "").is_positive for code in (220, 354, 421, 550)] == [True, True, False, False]


@pytest.mark.parametrize("reply", CONSTANTS, ids=lambda reply: reply.text)
def test_constants_are_rendered_once_and_fit_a_line(reply: Reply) -> None:
    assert reply.wire() is Reply(reply.code, reply.detail, reply.text).wire()
    assert len(reply.wire()) < 200
    # RFC 2034 3: every reply of class 2, 4 or 5 but those to the greeting and HELO
    assert reply.detail or reply in (replies.START_DATA, replies.EARLY_TALKER)


@settings(max_examples=100)
@given(st.text(max_size=1500), st.sampled_from(["", "7.1"]))
def test_any_text_makes_whole_short_lines(text: str, detail: str) -> None:
    wire = Reply(550, detail, text).wire()
    lines = wire.split(b"\r\n")
    assert lines.pop() == b""
    for line in lines[:-1]:
        assert re.fullmatch(rb"550-[ -~]*", line)
    assert re.fullmatch(rb"550(?: [ -~]+)?", lines[-1])
    assert all(len(line) < 512 - 60 for line in lines)  # RFC 5321 4.5.3.1.5, with room for a session id
