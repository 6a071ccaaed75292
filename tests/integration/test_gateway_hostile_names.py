"""What strangers put into names and texts never reaches a terminal or a log as something that acts."""

from __future__ import annotations

import json
import unicodedata

import pytest
from integration.gateway import Gateway
from peers import wait_until

CLEAR, TITLE, OVERRIDE, C1, SEPARATOR = "\x1b[2J", "\x1b]0;owned\x07", "\u202e", "\x9b31m", "\u2028"
HARMFUL = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def acting(text: str) -> list[str]:
    """Every character that a terminal or a reader of logs would obey; a line feed ends a line."""
    return [each for each in text if each != "\n" and unicodedata.category(each) in HARMFUL]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    # Nobody answers at the next hop: the messages stay in the queue, to be looked at.
    with Gateway(tmp_path_factory.mktemp("gate"), recipients=["user", "us\u202eer"]) as server:
        yield server
        server.assert_no_bugs()


HOSTILE = f"a{CLEAR}{TITLE}{OVERRIDE}{C1}{SEPARATOR}b"


def test_helo_mail_recipient_and_subject(gateway):
    subject = f"Subject: {HOSTILE}\r\nFrom: {HOSTILE} <x@example.net>\r\n\r\n{HOSTILE}\r\n.\r\n".encode()
    utf8 = HOSTILE.encode()
    gateway.dialog(b"EHLO " + utf8 + b"\r\n", b"MAIL FROM:<" + utf8 + b"@example.net> SMTPUTF8\r\n", b"QUIT\r\n")
    gateway.dialog(b"\x1b[31mBOGUS " + utf8 + b"\r\n")
    for reverse_path in (b"visible", "us\u202eer\u2066x".encode(), b'"a b"'):
        replies = gateway.dialog(
            b"EHLO stranger.example.net\r\n",
            b"MAIL FROM:<" + reverse_path + b"@example.net> SMTPUTF8\r\n",
            b"RCPT TO:<user@example.test>\r\n",
            b"DATA\r\n",
            subject,
            b"RCPT TO:<" + utf8 + b"@example.test>\r\n",
        )
        if reverse_path == b"visible":
            assert replies[-2].startswith(b"250 "), replies
    gateway.wait_for_event("accepted", reverse_path="visible@example.net")
    messages = wait_until(lambda: gateway.ask("queue", "list")["messages"], "the queue has heard of it")
    shown = [gateway.run("queue", "list").stdout, gateway.run("status").stdout, gateway.run("privs").stdout]
    shown += [gateway.run("queue", "show", row["id"]).stdout for row in messages]
    for text in shown:
        assert text and acting(text) == []
    for text in (
        gateway.run("queue", "list", "--json").stdout,
        gateway.run("queue", "show", messages[0]["id"], "--json").stdout,
    ):
        assert text.isascii() and acting(text) == []


def test_events_are_lines_of_json_without_controls(gateway):
    assert gateway.told()
    whole, _, _ = gateway.events_file.read_text(encoding="utf-8").rpartition("\n")  # a line may be on its way
    text = whole + "\n"
    assert acting(text) == []
    lines = text.splitlines()
    assert len(lines) > 10 and all(isinstance(json.loads(line), dict) for line in lines)
    assert "\\u001b" in text or "\\x1b" in text, "the hostile names were seen at all"


def test_replies_carry_no_controls(gateway):
    replies = gateway.dialog(b"EHLO x\x1b[2Jy\r\n", b"HELO " + HOSTILE.encode() + b"\r\n", b"MAIL FROM:<\x1b[2J@x>\r\n")
    for reply in replies:
        assert acting(reply.decode("utf-8").replace("\r\n", "\n")) == []
