"""Messages of local programs: line ends, the end mark, what is added, who -t finds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.sendmail.message import complete, read_message, take_recipients
from gatepost.sendmail.sysexits import Failure

NOW = 1_700_000_000.0


def made(data: bytes, *, ignore_dots: bool = True) -> bytes:
    message = read_message(data, ignore_dots=ignore_dots)
    complete(message, hostname="gate.test", reverse_path="me@gate.test", full_name="Me, Myself", now_s=NOW)
    return message.octets()


def test_what_is_missing_is_added() -> None:
    text = made(b"Subject: x\n\nbody\n").decode()
    assert text.startswith('From: "Me, Myself" <me@gate.test>\r\nDate: ')
    assert "\r\nMessage-ID: <" in text and "@gate.test>\r\nSubject: x\r\n\r\nbody\r\n" in text


def test_what_is_there_stays() -> None:
    whole = b"From: a@x.test\r\nDate: yesterday\r\nMessage-ID: <1@x>\r\nX-Odd :  kept\r\n\r\nbody\r\n"
    assert made(whole) == whole


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"just text", b"\r\n\r\njust text\r\n"),
        (b"Subject: x\nno field\n", b"Subject: x\r\n\r\nno field\r\n"),
        (b"Subject: x\n folded\n\nb", b"Subject: x\r\n folded\r\n\r\nb\r\n"),
        (b"", b"\r\n\r\n"),
        (b"\n", b"\r\n\r\n"),
        (b"\n\nb\n", b"\r\n\r\n\r\nb\r\n"),
        (b"From root Fri Nov 20 2026\nSubject: x\n\nb\n", b"Subject: x\r\n\r\nb\r\n"),
        (b"Subject: x\r\rold\rmac\r", b"Subject: x\r\n\r\nold\r\nmac\r\n"),
    ],
)
def test_header_and_body(data: bytes, end: bytes) -> None:
    assert made(data).endswith(end)


@pytest.mark.parametrize(
    ("data", "ignored", "body"),
    [
        (b"Subject: x\n\none\n.\ntwo\n", False, b"one\r\n"),
        (b"Subject: x\n\none\n.\ntwo\n", True, b"one\r\n.\r\ntwo\r\n"),
        (b"Subject: x\n\n.\n", False, b""),
        (b"Subject: x\n\none\n..\n", False, b"one\r\n..\r\n"),
        (b".\nSubject: x\n", False, b""),
    ],
)
def test_a_dot_alone(data: bytes, ignored: bool, body: bytes) -> None:
    assert read_message(data, ignore_dots=ignored).body == body


def test_recipients_of_the_header_and_no_bcc() -> None:
    message = read_message(
        b'To: "A, B" <a@x.test>, root\nCc: list: b@x.test, c@x.test;\nBcc: secret@x.test\nbcc: more@x.test\nSubject: x\n\nb\n',
        ignore_dots=True,
    )
    assert take_recipients(message) == ["a@x.test", "root", "b@x.test", "c@x.test", "secret@x.test", "more@x.test"]
    assert b"secret" not in message.octets() and b"more" not in message.octets() and b"Cc: list" in message.octets()


def test_resent_fields_stand_before_the_others() -> None:
    message = read_message(
        b"To: a@x.test\nResent-To: b@x.test\nResent-Bcc: c@x.test\nBcc: d@x.test\n\n", ignore_dots=True
    )
    assert take_recipients(message) == ["b@x.test", "c@x.test"]
    assert b"c@x.test" not in message.octets() and b"d@x.test" not in message.octets()


@pytest.mark.parametrize("header", [b"To: -oQ/tmp\n\n", b"To: a@x.test\nCc: <-x@x.test>\n\n"])
def test_no_option_comes_out_of_a_header(header: bytes) -> None:
    with pytest.raises(Failure):
        take_recipients(read_message(header, ignore_dots=True))


def test_bare_names_get_the_name_of_the_host() -> None:
    text = made(b"From: root (Cron Daemon)\nTo: root\nCc: a@x.test\n\n").decode()
    assert '"Cron Daemon" <root@gate.test>' in text or "Cron Daemon <root@gate.test>" in text
    assert "To: root@gate.test\r\n" in text and "Cc: a@x.test\r\n" in text


def test_a_nul_is_refused() -> None:
    with pytest.raises(Failure):
        read_message(b"Subject: x\n\na\0b\n", ignore_dots=True)


@given(st.binary(max_size=200), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_octets_make_a_message_that_the_gateway_takes(data: bytes, ignored: bool) -> None:
    try:
        octets = made(data, ignore_dots=ignored)
        take_recipients(read_message(data, ignore_dots=ignored))
    except Failure:
        return
    assert octets.endswith(b"\r\n") and b"\0" not in octets
    assert octets.replace(b"\r\n", b"").count(b"\r") == octets.replace(b"\r\n", b"").count(b"\n") == 0
    assert octets.count(b"\r\nDate: ") + octets.lower().count(b"date") >= 1
