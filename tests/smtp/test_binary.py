"""Binary messages (RFC 3030): any octets in the body come out as they went in, and go to a host by BDAT or not at all."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.smtp.client import ClientSession, ClientSettings, Transaction
from gatepost.smtp.data import Content
from gatepost.smtp.server import Body, ServerSession, ServerSettings

OFFER = b"250-host\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-BINARYMIME\r\n250 8BITMIME\r\n"
NASTY = b"A: b\r\n\r\n\r\n.\r\nQUIT\r\n\0\n\r.\r\nMAIL FROM:<x@y>\r\n"


@given(body=st.binary(max_size=60), cuts=st.lists(st.integers(0, 80), max_size=4))
def test_any_body_comes_out_as_it_went_in(body, cuts):
    message = b"A: b\r\n\r\n" + body
    content = Content(binary=True)
    out = b""
    at = [0, *sorted(min(cut, len(message)) for cut in cuts), len(message)]
    for number, (begin, end) in enumerate(itertools.pairwise(at)):
        out += content.feed_chunk(message[begin:end], last=number == len(at) - 2)
    assert content.fault is None
    assert out == message
    assert content.header_bytes == 6
    assert content.body_bytes == len(message)


@given(cuts=st.lists(st.integers(0, 40), max_size=3), octets=st.sampled_from([b"\n", b"\r", b"\0"]))
def test_the_header_is_lines(cuts, octets):
    message = b"A: b" + octets + b"C: d\r\n\r\nbody"
    content = Content(binary=True, repair=True)
    at = [0, *sorted(min(cut, len(message)) for cut in cuts), len(message)]
    for number, (begin, end) in enumerate(itertools.pairwise(at)):
        content.feed_chunk(message[begin:end], last=number == len(at) - 2)
        if content.fault is not None:
            break
    assert content.fault is not None


class Binary(Transaction):
    __slots__ = ("content",)

    def __init__(self, content: bytes, *paths: str) -> None:
        super().__init__("s@example.org", list(paths), len(content), body_type="BINARYMIME")
        self.content = content

    def read(self, offset: int, count: int) -> bytes:
        return self.content[offset : offset + count]


class Line:
    def __init__(self, *waiting: Transaction, ehlo: bytes = OFFER, block_bytes: int = 7) -> None:
        self.waiting = list(waiting)
        settings = ClientSettings("gate.test", block_bytes=block_bytes)
        self.session = ClientSession(settings, lambda: self.waiting.pop(0) if self.waiting else None)
        self.say(b"220 host\r\n")
        self.first = self.say(ehlo)

    def say(self, octets: bytes) -> bytes:
        self.session.receive(octets)
        out = b""
        while pieces := self.session.take_output():
            out += b"".join(pieces)
        return out


def test_it_goes_by_bdat_with_nothing_added():
    line = Line(Binary(NASTY, "u@example.test", "v@example.test"))
    assert line.first == (
        b"MAIL FROM:<s@example.org> BODY=BINARYMIME\r\nRCPT TO:<u@example.test>\r\nRCPT TO:<v@example.test>\r\n"
    )
    out = line.say(b"250 ok\r\n550 no\r\n250 ok\r\n")
    assert out == b"BDAT %d LAST\r\n" % len(NASTY) + NASTY
    line.say(b"250 taken\r\n")
    (transaction,) = line.session.take_finished()
    assert transaction.accepted == [1]
    assert transaction.ends[0].code == 250
    assert transaction.problem is None


def test_nobody_accepted_gets_nothing():
    line = Line(Binary(NASTY, "u@example.test"))
    assert line.say(b"250 ok\r\n550 no\r\n") == b"RSET\r\n"


def test_without_pipelining():
    line = Line(Binary(NASTY, "u@example.test"), ehlo=OFFER.replace(b"250-PIPELINING\r\n", b""))
    assert line.first == b"MAIL FROM:<s@example.org> BODY=BINARYMIME\r\n"
    assert line.say(b"250 ok\r\n") == b"RCPT TO:<u@example.test>\r\n"
    assert line.say(b"250 ok\r\n") == b"BDAT %d LAST\r\n" % len(NASTY) + NASTY


def test_behind_a_text_and_in_front_of_one():
    class Text(Binary):
        __slots__ = ()

        def __init__(self, content: bytes, *paths: str) -> None:
            super().__init__(content, *paths)
            self.body_type = "7BIT"

    line = Line(Text(b"x\r\n", "t@example.test"), Binary(NASTY, "u@example.test"), Text(b"y\r\n", "v@example.test"))
    assert line.say(b"250 ok\r\n250 ok\r\n354 go\r\n").startswith(
        b"x\r\n.\r\nMAIL FROM:<s@example.org> BODY=BINARYMIME"
    )
    assert line.say(b"250 taken\r\n") == b""
    assert line.say(b"250 ok\r\n250 ok\r\n").startswith(b"BDAT %d LAST\r\n%bMAIL FROM" % (len(NASTY), NASTY))
    line.say(b"250 taken\r\n")
    assert line.say(b"250 ok\r\n250 ok\r\n354 go\r\n") == b"y\r\n.\r\n"
    line.say(b"250 taken\r\n")
    assert [transaction.ends[0].code for transaction in line.session.take_finished()] == [250, 250, 250]


@pytest.mark.parametrize("missing", [b"250-BINARYMIME\r\n", b"250-CHUNKING\r\n"])
def test_a_host_that_lacks_it_gets_nothing(missing):
    transaction = Binary(NASTY, "u@example.test")
    line = Line(transaction, ehlo=OFFER.replace(missing, b""))
    assert line.first == b""
    assert (transaction.problem.kind, transaction.problem.status) == ("unfit", "5.6.1")


def test_our_own_server_takes_what_our_own_client_sends():
    server = ServerSession(ServerSettings(hostname="host.test", binarymime=True), "s1")
    server.greet()
    parts: list[bytes] = []

    def hear(octets: bytes) -> bytes:
        server.feed(octets)
        while (event := server.next_event()) is not None:
            if isinstance(event, Body):
                parts.append(event.content)
            if event.needs_answer:
                server.answer()
        return server.take_output()

    server.take_output()
    line = Line(Binary(NASTY, "u@example.test"), ehlo=hear(b"EHLO gate.test\r\n"))
    assert hear(line.say(hear(line.first))).startswith(b"250 ")
    assert b"".join(parts) == NASTY
