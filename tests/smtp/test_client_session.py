"""The client session without a network: what it writes, what it counts, and what it gives back."""

from __future__ import annotations

import itertools
import re
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.smtp.client import ClientSession, ClientSettings, State, Transaction

EHLO = b"250-host\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"
PLAIN = b"250 host\r\n"


class Message(Transaction):
    """A transaction with its content in memory."""

    __slots__ = ("content",)

    def __init__(self, content: bytes, *paths: str, **fields: object) -> None:
        super().__init__("s@example.org", list(paths or ("u@example.test",)), len(content), **fields)  # type: ignore[arg-type]
        self.content = content

    def read(self, offset: int, count: int) -> bytes:
        return self.content[offset : offset + count]


class Line:
    """A session, with the work that waits for it and what it wrote."""

    def __init__(self, *messages: Message, lmtp: bool = False, block_bytes: int = 1 << 18) -> None:
        self.waiting = deque(messages)
        settings = ClientSettings("gate.test", lmtp=lmtp, block_bytes=block_bytes)
        self.session = ClientSession(settings, self.supply)
        self.finished: list[Transaction] = []

    def supply(self) -> Message | None:
        return self.waiting.popleft() if self.waiting else None

    def say(self, data: bytes) -> bytes:
        """The server says something; what the session writes then."""
        self.session.receive(data)
        return self.written()

    def written(self) -> bytes:
        out = b""
        while pieces := self.session.take_output():
            out += b"".join(pieces)
        self.finished += self.session.take_finished()
        return out


def open_line(*messages: Message, ehlo: bytes = EHLO, **settings: bool) -> tuple[Line, bytes]:
    line = Line(*messages, **settings)  # type: ignore[arg-type]
    assert line.say(b"220 host ESMTP\r\n") == (b"LHLO" if settings.get("lmtp") else b"EHLO") + b" gate.test\r\n"
    return line, line.say(ehlo)


def test_pipelined_transaction():
    line, out = open_line(Message(b"a\r\n", "u@x.test", "v@x.test"))
    assert out == b"MAIL FROM:<s@example.org> SIZE=3\r\nRCPT TO:<u@x.test>\r\nRCPT TO:<v@x.test>\r\nDATA\r\n"
    assert line.say(b"250 ok\r\n250 ok\r\n550 5.1.1 no\r\n354 go\r\n") == b"a\r\n.\r\n"
    assert line.say(b"250 2.0.0 queued as 1\r\n") == b""
    (done,) = line.finished
    assert done.accepted == [0]
    assert [reply.code for reply in done.rcpts] == [250, 550]
    assert done.ends[0].text == "250 2.0.0 queued as 1"
    assert line.session.state is State.FREE


def test_without_pipelining_one_command_at_a_time():
    line, out = open_line(Message(b"a\r\n", "u@x.test", "v@x.test"), Message(b"b\r\n"), ehlo=PLAIN)
    assert out == b"MAIL FROM:<s@example.org>\r\n"
    assert line.say(b"250 ok\r\n") == b"RCPT TO:<u@x.test>\r\n"
    assert line.say(b"550 no\r\n") == b"RCPT TO:<v@x.test>\r\n"
    assert line.say(b"250 ok\r\n") == b"DATA\r\n"
    assert line.say(b"354 go\r\n") == b"a\r\n.\r\n"
    assert line.say(b"250 ok\r\n") == b"MAIL FROM:<s@example.org>\r\n"
    assert [done.accepted for done in line.finished] == [[1]]


def test_without_pipelining_all_recipients_refused_resets():
    line, _ = open_line(Message(b"a\r\n"), Message(b"b\r\n"), ehlo=PLAIN)
    line.say(b"250 ok\r\n")
    assert line.say(b"550 no\r\n") == b"RSET\r\n"
    assert len(line.finished) == 1
    assert line.say(b"250 ok\r\n") == b"MAIL FROM:<s@example.org>\r\n"


def test_next_group_goes_behind_the_content():
    line, _ = open_line(Message(b"a\r\n"), Message(b"b\r\n"))
    out = line.say(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert out == b"a\r\n.\r\nMAIL FROM:<s@example.org> SIZE=3\r\nRCPT TO:<u@example.test>\r\nDATA\r\n"
    assert line.say(b"554 5.7.1 spam\r\n250 ok\r\n250 ok\r\n354 go\r\n") == b"b\r\n.\r\n"
    assert line.say(b"250 fine\r\n") == b""
    assert [done.ends[0].code for done in line.finished] == [554, 250]


def test_lost_behind_a_pipelined_group():
    line, _ = open_line(Message(b"a\r\n"), Message(b"b\r\n"))
    line.say(b"250 ok\r\n250 ok\r\n354 go\r\n")
    line.session.close("lost", "gone")
    line.written()
    first, second = line.finished
    assert first.dot_sent and first.problem is not None and first.problem.stage == "body"
    assert not second.dot_sent and second.mail is None and second.problem is not None
    assert second.problem.stage == "mail"


def test_refused_mail_consumes_the_replies_of_its_group():
    line, _ = open_line(Message(b"a\r\n"), Message(b"b\r\n"))
    assert line.say(b"550 5.7.1 no\r\n503 no\r\n") == b""
    assert line.say(b"503 no\r\n") == b"RSET\r\n"
    assert line.say(b"250 ok\r\n").startswith(b"MAIL")
    (done,) = line.finished
    assert done.mail is not None and done.mail.code == 550 and done.accepted == []


def test_354_without_recipients_gets_a_lone_dot():
    line, _ = open_line(Message(b"a\r\n"), Message(b"b\r\n"))
    assert line.say(b"250 ok\r\n550 no\r\n354 go\r\n") == b".\r\n"
    assert line.finished == []
    assert line.say(b"250 taken\r\n").startswith(b"MAIL")
    (done,) = line.finished
    assert done.ends == [] and not done.dot_sent


def test_recipients_accepted_after_a_refused_mail_do_not_count():
    line, _ = open_line(Message(b"a\r\n"))
    assert line.say(b"451 later\r\n250 ok\r\n354 go\r\n") == b".\r\n"
    line.say(b"250 taken\r\n")
    assert line.finished[0].accepted == []


def test_lmtp_has_a_reply_for_each_accepted_recipient():
    line, _ = open_line(Message(b"a\r\n", "a@x", "b@x", "c@x"), Message(b"b\r\n"), lmtp=True)
    line.say(b"250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n")
    line.say(b"250 first\r\n")
    assert line.finished == []
    line.say(b"452 4.2.2 full\r\n250 next mail\r\n")
    (done,) = line.finished
    assert done.accepted == [0, 2]
    assert [reply.code for reply in done.ends] == [250, 452]
    assert line.session.state is State.RCPT


def test_ehlo_refused_falls_back_to_helo_but_lhlo_does_not():
    line, out = open_line(Message(b"a\r\n"), ehlo=b"502 5.5.1 what\r\n")
    assert out == b"HELO gate.test\r\n"
    assert line.say(b"250 host\r\n") == b"MAIL FROM:<s@example.org>\r\n"
    line, out = open_line(lmtp=True, ehlo=b"502 5.5.1 what\r\n")
    assert out == b"" and line.session.failure is not None and line.session.failure.stage == "helo"


@pytest.mark.parametrize("greeting", [b"554 no\r\n", b"421 busy\r\n", b"521 never\r\n"])
def test_greeting_that_refuses(greeting: bytes):
    line = Line(Message(b"a\r\n"))
    assert line.say(greeting) == b""
    failure = line.session.failure
    assert failure is not None and failure.stage == "greeting" and failure.reply is not None
    assert len(line.waiting) == 1


@pytest.mark.parametrize(
    ("fields", "ehlo", "status"),
    [
        ({"has_8bit": True}, PLAIN, "5.6.3"),
        ({"body_type": "BINARYMIME"}, EHLO, "5.6.1"),
        ({"smtputf8": True}, PLAIN, "5.6.7"),
        ({"paths": ("ü@x",)}, EHLO, "5.6.7"),
        ({"smtputf8": True, "ascii_header": True, "paths": ("ü@x",)}, PLAIN, "5.6.7"),
        ({"smtputf8": True, "ascii_header": True, "has_8bit": True}, PLAIN, "5.6.3"),
        ({"content": b"x" * 1001}, EHLO, "5.3.4"),
        ({"paths": ("a@x>\r\nRCPT TO:<b@x",)}, EHLO, "5.1.3"),
    ],
)
def test_what_the_host_cannot_take_is_not_sent(fields: dict, ehlo: bytes, status: str):
    paths = fields.pop("paths", ())
    message = Message(fields.pop("content", b"a\r\n"), *paths, **fields)
    line, out = open_line(message, Message(b"b\r\n", "next@x"), ehlo=ehlo)
    assert out.count(b"MAIL") == 1  # of the one behind it
    assert message.problem is not None and message.problem.status == status
    assert line.finished == [message]


def test_what_only_says_that_it_is_internationalised_goes_to_every_host():
    message = Message(b"a\r\n", smtputf8=True, ascii_header=True)
    _, out = open_line(message, ehlo=PLAIN)
    assert b"SMTPUTF8" not in out and out.startswith(b"MAIL FROM:<s@example.org>")
    _, out = open_line(Message(b"a\r\n", smtputf8=True, ascii_header=True))
    assert b" SMTPUTF8\r\n" in out


def test_parameters():
    _, out = open_line(Message(b"a\r\n", "ü@x", has_8bit=True, smtputf8=True))
    assert out.startswith(b"MAIL FROM:<s@example.org> SIZE=3 BODY=8BITMIME SMTPUTF8\r\n")
    assert "RCPT TO:<ü@x>".encode() in out


@pytest.mark.parametrize("state", range(4))
def test_421_ends_the_session(state: int):
    replies = [b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"][:state]
    line, _ = open_line(Message(b"a\r\n"), Message(b"b\r\n"))
    line.say(b"".join(replies))
    assert line.say(b"421 4.3.2 bye\r\n") == b""
    assert line.session.state is State.CLOSED
    first = line.finished[0]
    if state == 3:
        assert first.ends[0].code == 421
    else:
        assert first.problem is not None and first.problem.reply is not None and first.problem.reply.code == 421
    assert all(done.ends == [] for done in line.finished[1:])


@pytest.mark.parametrize(
    ("before", "odd"),
    [
        (b"", b"354 go\r\n"),
        (b"250 ok\r\n", b"354 go\r\n"),
        (b"250 ok\r\n250 ok\r\n", b"250 what\r\n"),
        (b"250 ok\r\n250 ok\r\n354 go\r\n", b"354 again\r\n"),
        (b"250 ok\r\n", b"rubbish\r\n"),
    ],
)
def test_what_is_no_smtp_ends_the_session(before: bytes, odd: bytes):
    line, _ = open_line(Message(b"a\r\n"))
    line.say(before)
    assert line.say(odd) == b""
    assert line.session.state is State.CLOSED
    problem = line.finished[0].problem
    assert problem is not None and problem.kind == "protocol"


def test_a_refusal_before_the_end_of_the_content_counts():
    line, _ = open_line(Message(b"x" * 900), block_bytes=100)
    line.session.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    line.session.take_output()
    line.session.receive(b"552 5.3.4 too much\r\n")
    assert line.written() == b""
    problem = line.finished[0].problem
    assert problem is not None and problem.reply is not None and problem.reply.code == 552
    assert not line.finished[0].dot_sent


def test_content_that_cannot_be_read_is_never_ended():
    message = Message(b"x" * 900)
    message.content = b"x" * 500
    line, _ = open_line(message, block_bytes=100)
    out = line.say(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert not out.endswith(b".\r\n") and not message.dot_sent
    assert message.problem is not None and message.problem.kind == "read"
    assert line.session.state is State.CLOSED


def test_replies_before_rubbish_in_the_same_chunk_count():
    line, _ = open_line(Message(b"a\r\n"))
    line.say(b"250 ok\r\n250 ok\r\n354 go\r\n")
    line.say(b"250 2.0.0 queued\r\nrubbish\r\n")
    assert line.finished[0].problem is None and line.finished[0].ends[0].code == 250


def test_a_reply_to_a_command_that_was_not_sent_is_not_counted():
    line, _ = open_line(Message(b"a\r\n"), ehlo=PLAIN)
    for reply in (b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
        line.say(reply)
    line.waiting.append(Message(b"b\r\n"))
    assert line.say(b"250 queued\r\n250 one too many\r\n") == b""
    first, second = line.finished
    assert first.problem is None and first.ends[0].code == 250
    assert second.mail is None and second.problem is not None and second.problem.kind == "protocol"


def test_unasked_reply_to_a_free_session_closes_it():
    line, _ = open_line()
    line.say(b"421 timeout\r\n")
    assert line.session.state is State.CLOSED and line.session.failure is None


def test_quit():
    line, _ = open_line()
    line.session.quit()
    assert line.written() == b"QUIT\r\n"
    line.say(b"221 bye\r\n")
    assert line.session.state is State.CLOSED


@given(
    st.lists(st.sampled_from([b".", b"\r\n", b"x", b"..", b"\r\n.", b"\r", b"\n"]), max_size=12).map(b"".join),
    st.integers(1, 9),
)
@settings(max_examples=150, deadline=None)
def test_stuffing_whatever_the_blocks(content: bytes, block_bytes: int):
    line, _ = open_line(Message(content), block_bytes=block_bytes)
    out = line.say(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert out.endswith(b".\r\n")
    # Whatever a host takes for the end of a line, there is one end of the message.
    assert re.findall(rb"(?:\A|[\r\n])\.(?=[\r\n])", out) in ([b"."], [b"\n."])
    stuffed = re.sub(rb"(\A|[\r\n])\.", rb"\1..", content)
    assert out == stuffed + (b"" if content.endswith(b"\r\n") or not content else b"\r\n") + b".\r\n"


STEPS = [
    EHLO,
    b"250 ok\r\n550 5.1.1 no\r\n250 ok\r\n354 go\r\n",
    b"250 2.0.0 a\r\n250 ok\r\n250 ok\r\n354 go\r\n",
    b"554 5.7.1 b\r\n",
]


@given(st.lists(st.integers(0, 80), max_size=25))
@settings(max_examples=100, deadline=None)
def test_any_split_gives_the_same_transactions(cuts: list[int]):
    line = Line(Message(b"a\r\n", "u@x", "v@x"), Message(b".b"))
    line.say(b"220 host\r\n")
    out = b""
    for step in STEPS:
        edges = [0, *sorted(min(cut, len(step)) for cut in cuts), len(step)]
        for start, end in itertools.pairwise(edges):
            out += line.say(step[start:end])
    assert out.count(b"MAIL") == 2 and out.endswith(b"..b\r\n.\r\n")
    assert [(done.accepted, done.ends[0].code) for done in line.finished] == [([1], 250), ([0], 554)]


def test_all_replies_at_once_are_no_delivery():
    """A 250 that comes before the content was sent is not the answer to it."""
    line = Line(Message(b"a\r\n", "u@x", "v@x"), Message(b".b"))
    line.say(b"220 host\r\n")
    line.say(b"".join(STEPS))
    assert line.finished[0].ends == [] and line.finished[0].problem is not None
