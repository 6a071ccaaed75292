"""Python calls per message on the hot path of the SMTP session, against a budget: deterministic where timings are not."""

from __future__ import annotations

import sys

from gatepost.smtp.server import ServerSession, ServerSettings

SETTINGS = ServerSettings(hostname="mx.example.test")
TEXT = (b"Received: from a by b\r\nSubject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * 60)[:4094] + b"\r\n"
SESSION_BUDGET = 69  # calls of Python functions for a whole session with one message
MESSAGE_BUDGET = 45  # for a further message in it


def play(session: ServerSession, *blocks: bytes) -> None:
    for block in blocks:
        session.feed(block)
        while (event := session.next_event()) is not None:
            if event.needs_answer:
                session.answer()
        session.take_output()


def begin() -> ServerSession:
    session = ServerSession(SETTINGS, "s1")
    session.greet()
    session.take_output()
    return session


EHLO = b"EHLO client.example\r\n"
ENVELOPE = b"MAIL FROM:<a@client.example> SIZE=4096 BODY=8BITMIME\r\nRCPT TO:<b@example.test>\r\nDATA\r\n"


def count_calls(function, *arguments: object) -> int:
    calls = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    previous = sys.getprofile()
    sys.setprofile(profile)
    try:
        function(*arguments)
    finally:
        sys.setprofile(previous)
    return calls


def whole_session() -> None:
    play(begin(), EHLO, ENVELOPE, TEXT + b".\r\nQUIT\r\n")


def test_whole_session() -> None:
    whole_session()
    assert count_calls(whole_session) <= SESSION_BUDGET


def test_further_message() -> None:
    session = begin()
    play(session, EHLO, ENVELOPE, TEXT + b".\r\n")
    assert count_calls(play, session, ENVELOPE, TEXT + b".\r\n") <= MESSAGE_BUDGET


def test_large_message_costs_by_blocks_not_by_lines() -> None:
    costs = []
    for line in (b"x" * 70 + b"\r\n", b"..\r\n", b"\r\n"):
        session = begin()
        play(session, EHLO, ENVELOPE)
        text = line * (65536 // len(line))
        costs.append(count_calls(play, session, *([text] * 16), b".\r\n"))
    assert max(costs) <= 16 * 12
