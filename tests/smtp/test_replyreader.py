"""Replies of a remote server: parsing, limits, and the same result however the bytes are split."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.smtp.replyreader import MAX_LINE_BYTES, MAX_LINES, MAX_REPLY_BYTES, RemoteReply, ReplyError, ReplyReader

STREAM = (
    b"220 mx.example ESMTP\r\n250-mx.example\r\n250-PIPELINING\r\n250 SIZE 1000\r\n250 2.1.0 Ok\r\n250\r\n"
    b"550-5.1.1 no such\r\n550 5.1.1 user\r\n354 go\r\n421 4.3.2 bye\r\n"
)


def feed_all(*chunks: bytes) -> list[RemoteReply]:
    reader = ReplyReader()
    return [reply for chunk in chunks for reply in reader.feed(chunk)]


def test_replies_in_one_chunk():
    replies = feed_all(STREAM)
    assert [reply.code for reply in replies] == [220, 250, 250, 250, 550, 354, 421]
    assert replies[1].text == "250-mx.example\n250-PIPELINING\n250 SIZE 1000"
    assert [reply.status for reply in replies] == ["", "", "2.1.0", "", "5.1.1", "", "4.3.2"]


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
@settings(max_examples=100, deadline=None)
def test_any_split_gives_the_same_replies(cuts: list[int]):
    edges = [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[start:end] for start, end in itertools.pairwise(edges)]
    assert feed_all(*chunks) == feed_all(STREAM)


def test_byte_by_byte():
    assert feed_all(*[bytes([byte]) for byte in STREAM]) == feed_all(STREAM)


@given(st.binary(max_size=300), st.integers(1, 7))
@settings(max_examples=200, deadline=None)
def test_arbitrary_bytes_raise_nothing_but_reply_error(data: bytes, step: int):
    def outcome(chunks: list[bytes]) -> tuple[list[RemoteReply], bool]:
        reader = ReplyReader()
        replies: list[RemoteReply] = []
        for chunk in chunks:
            try:
                replies += reader.feed(chunk)
            except ReplyError as error:
                return replies + error.replies, True
        return replies, False

    whole = outcome([data])
    assert outcome([data[at : at + step] for at in range(0, len(data), step)]) == whole


def test_class_of_the_status_must_agree_with_the_code():
    assert feed_all(b"550 4.1.1 odd\r\n")[0].status == ""
    assert feed_all(b"250 2.0.0\r\n")[0].status == "2.0.0"
    assert feed_all(b"550 5.1.1000 odd\r\n")[0].status == ""
    assert feed_all(b"550 5.1.1.1 odd\r\n")[0].status == ""


def test_controls_do_not_reach_the_log():
    text = feed_all("550 a\x1b[31m\x00b\rc\td\u202ee\x85\r\n".encode())[0].text
    assert text == "550 a[31mbc de"


def test_bytes_that_are_not_utf8_are_replaced():
    assert feed_all(b"550 caf\xe9\r\n")[0].text == "550 caf\ufffd"


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n",
        b"150 x\r\n",
        b"650 x\r\n",
        b"25 x\r\n",
        b"2500\r\n",
        b"250_x\r\n",
        b"\r\n",
        b"250-a\r\n550 b\r\n",
        b"250 a\n250 b\r\n",
        b"250 a\n",
        b"250 " + b"x" * MAX_LINE_BYTES,
        b"250 " + b"x" * MAX_LINE_BYTES + b"\r\n",
        b"250-x\r\n" * (MAX_LINES + 1),
        (b"250-" + b"x" * 1994 + b"\r\n") * (MAX_REPLY_BYTES // 2000 + 1),
    ],
)
def test_what_is_not_smtp_is_an_error(data: bytes):
    with pytest.raises(ReplyError):
        feed_all(data)


def test_limits_themselves_are_allowed():
    assert len(feed_all(b"250 " + b"x" * (MAX_LINE_BYTES - 6) + b"\r\n")[0].text) == MAX_LINE_BYTES - 2
    assert feed_all(b"250-x\r\n" * (MAX_LINES - 1) + b"250 x\r\n")[0].code == 250


def test_good_replies_before_an_error_are_not_lost():
    with pytest.raises(ReplyError) as caught:
        ReplyReader().feed(b"250 2.0.0 queued\r\nrubbish\r\n")
    assert [reply.code for reply in caught.value.replies] == [250]
