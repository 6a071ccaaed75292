"""Messages of local programs: line ends, the end mark, what is added, who -t finds."""

from __future__ import annotations

import email
import io
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.sendmail.lines import MAX_LINE_BYTES, shorten_lines
from gatepost.sendmail.message import Message, complete, find_recipients, read_input, read_message
from gatepost.sendmail.sysexits import EX_UNAVAILABLE, Failure

NOW = 1_700_000_000.0


def finish(message: Message) -> None:
    complete(message, hostname="gate.test", reverse_path="me@gate.test", full_name="Me, Myself", now_s=NOW)


def made(data: bytes, *, ignore_dots: bool = True) -> bytes:
    message = read_message(data, ignore_dots=ignore_dots)
    finish(message)
    shorten_lines(message)
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
    assert find_recipients(message) == ["a@x.test", "root", "b@x.test", "c@x.test", "secret@x.test", "more@x.test"]
    finish(message)
    assert b"secret" not in message.octets() and b"more" not in message.octets() and b"Cc: list" in message.octets()


def test_resent_fields_stand_before_the_others() -> None:
    message = read_message(
        b"To: a@x.test\nResent-To: b@x.test\nResent-Bcc: c@x.test\nBcc: d@x.test\n\n", ignore_dots=True
    )
    assert find_recipients(message) == ["b@x.test", "c@x.test"]
    finish(message)
    octets = message.octets()
    assert b"c@x.test" not in octets and b"d@x.test" not in octets
    for name in (b"From", b"Date", b"Message-ID"):
        assert octets.count(b"\r\n" + name + b": ") == 1 and b"Resent-" + name + b": " in octets


def test_blind_copies_and_return_paths_go_however_it_is_called() -> None:
    octets = made(b"Return-Path: <q@x.test>\nTo: a@x.test\nBcc: b@x.test,\n c@x.test\n\nb\n")
    assert b"b@x.test" not in octets and b"c@x.test" not in octets and b"Return-Path" not in octets


@pytest.mark.parametrize(
    "header",
    [
        b"To: -oQ/tmp\n\n",
        b"To: a@x.test\nCc: <-x@x.test>\n\n",
        b"To: a@x.test, <b@x.test\n\n",
        b"To: a@x.test, Foo Bar\n\n",
    ],
)
def test_a_list_that_is_not_understood_is_refused_as_a_whole(header: bytes) -> None:
    with pytest.raises(Failure):
        find_recipients(read_message(header, ignore_dots=True))


def test_bare_names_get_the_name_of_the_host() -> None:
    text = made(b"From: root (Cron Daemon)\nTo: root\nCc: a@x.test\n\n").decode()
    assert '"Cron Daemon" <root@gate.test>' in text or "Cron Daemon <root@gate.test>" in text
    assert "To: root@gate.test\r\n" in text and "Cc: a@x.test\r\n" in text


@pytest.mark.parametrize("field", [b"To: a@x.test b@x.test\n", b"To: Foo Bar\n", b"Cc: <root\n", b"Cc: g: root, a;\n"])
def test_a_field_that_is_not_understood_stays(field: bytes) -> None:
    assert field.replace(b"\n", b"\r\n") in made(field + b"\n")


def test_a_nul_goes() -> None:
    """A job's output comes all the same."""
    assert made(b"Subject: x\0y\n\na\0b\n\0").endswith(b"Subject: xy\r\n\r\nab\r\n")


def test_the_input_is_read_up_to_the_dot_and_not_further() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"Subject: x\n\n..\n.x\r\n.\r\n")
    with open(reading, "rb") as stream:
        assert read_input(stream, ignore_dots=False) == b"Subject: x\n\n..\n.x\r\n"  # though it is open
    os.close(writing)
    assert read_input(io.BytesIO(b"a\n.\nb\n"), ignore_dots=True) == b"a\n.\nb\n"
    assert read_input(None, ignore_dots=True) == b""


def test_what_is_too_long_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatepost.sendmail.message.MAX_MESSAGE_BYTES", 10)
    for ignored in (False, True):
        with pytest.raises(Failure) as caught:
            read_input(io.BytesIO(b"123456\n123456\n"), ignore_dots=ignored)
        assert caught.value.status == EX_UNAVAILABLE


LONG = "wörter " * 300


@pytest.mark.parametrize(
    ("header", "charset"),
    [
        (b"", b"utf-8"),
        (b"MIME-Version: 1.0\nContent-Type: text/html; charset=latin-1\nContent-Transfer-Encoding: 8bit\n", b"latin-1"),
    ],
)
def test_lines_that_are_too_long_are_shown_as_they_were(header: bytes, charset: bytes) -> None:
    body = f"{LONG}\n.\nend \n".encode(charset.decode())
    octets = made(b"Subject: x\n" + header + b"\n" + body)
    assert max(map(len, octets.split(b"\r\n"))) <= MAX_LINE_BYTES
    parsed = email.message_from_bytes(octets)
    assert (
        parsed.get_content_charset() == charset.decode() and parsed["Content-Transfer-Encoding"] == "quoted-printable"
    )
    assert parsed.get_payload(decode=True) == body.replace(b"\n", b"\r\n")
    assert octets.count(b"MIME-Version") == 1 and octets.count(b"Content-Transfer-Encoding") == 1


@pytest.mark.parametrize(
    "header",
    [b"Content-Type: multipart/mixed; boundary=x\n", b"Content-Transfer-Encoding: base64\n", b"DKIM-Signature: v=1\n"],
)
def test_what_is_encoded_signed_or_of_parts_stays(header: bytes) -> None:
    assert made(header + b"\n" + LONG.encode() + b"\n").endswith(b"\r\n\r\n" + LONG.encode() + b"\r\n")


def test_a_long_field_is_folded_at_its_blanks() -> None:
    octets = made(b"Subject: " + b"word " * 600 + b"\nX-Long: " + b"w" * 2000 + b"\n\nb\n")
    lines = octets.split(b"\r\n")
    assert max(len(line) for line in lines if not line.startswith(b"X-Long")) <= MAX_LINE_BYTES
    assert octets.replace(b"\r\n word", b" word").count(b"word word") >= 299 and b"\r\n\r\nb\r\n" in octets


@given(st.binary(max_size=200), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_octets_make_a_message_that_the_gateway_takes(data: bytes, ignored: bool) -> None:
    try:
        octets = made(data, ignore_dots=ignored)
        find_recipients(read_message(data, ignore_dots=ignored))
    except Failure:
        return
    assert octets.endswith(b"\r\n") and b"\0" not in octets
    assert octets.replace(b"\r\n", b"").count(b"\r") == octets.replace(b"\r\n", b"").count(b"\n") == 0
    assert octets.count(b"\r\nDate: ") + octets.lower().count(b"date") >= 1
