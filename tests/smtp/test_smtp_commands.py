"""Arguments of commands: what MAIL, RCPT, HELO and BDAT mean, and the reply that refuses them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.model import Address
from gatepost.smtp import reply as replies
from gatepost.smtp.command import PathCommand, parse_bdat, parse_hello, parse_mail, parse_parameters, parse_rcpt
from gatepost.smtp.reply import Reply
from gatepost.smtp.settings import ServerSettings

TABLE = ServerSettings(hostname="mx.example.test").offer.mail
ADDRESS = Address("A@Example.org", "A", "example.org")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"MAIL FROM:<>", PathCommand(None, {})),
        (b"mail from:<A@Example.org>", PathCommand(ADDRESS, {})),
        (b"MAIL FROM: <A@Example.org>", PathCommand(ADDRESS, {})),
        (b"MAIL FROM:<A@Example.org> ", PathCommand(ADDRESS, {})),
        (b"MAIL FROM:<> SIZE=7", PathCommand(None, {"SIZE": 7})),
        (
            b"MAIL FROM:<A@Example.org> smtputf8 body=7bit size=0",
            PathCommand(ADDRESS, {"SMTPUTF8": True, "BODY": "7BIT", "SIZE": 0}),
        ),
        (b'MAIL FROM:<"> SIZE=1"@x> SIZE=2', PathCommand(Address('"> SIZE=1"@x', '"> SIZE=1"', "x"), {"SIZE": 2})),
        ("MAIL FROM:<ü@x> SMTPUTF8".encode(), PathCommand(Address("ü@x", "ü", "x"), {"SMTPUTF8": True})),
        ("MAIL FROM:<ü@x>".encode(), replies.NEEDS_SMTPUTF8),
        (b"MAIL FROM:<a@x> SIZE=101", replies.MESSAGE_TOO_LARGE),
        (b"MAIL FROM:<a@x> SIZE=1 size=1", replies.REPEATED_PARAMETER),
        (b"MAIL FROM:<a@x> RET=FULL", replies.UNKNOWN_PARAMETER),
        (b"MAIL FROM:<a@x> SIZE==1", replies.BAD_PARAMETER),
        (b"MAIL FROM:<a@x> \x01", replies.BAD_PARAMETER),
        (b"MAIL FROM:<a@x>SIZE=1", replies.BAD_MAIL),
        (b"MAIL FROM:  <a@x>", replies.BAD_MAIL),
        (b"MAIL  FROM:<a@x>", replies.BAD_MAIL),
        (b"MAIL FROM:a@x", replies.BAD_MAIL),
        (b"MAIL FROM:<a@x> <b@x>", replies.BAD_PARAMETER),
        (b"MAIL TO:<a@x>", replies.BAD_MAIL),
    ],
)
def test_mail(line: bytes, expected: PathCommand | Reply) -> None:
    assert parse_mail(line, TABLE, 100) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"RCPT TO:<A@Example.org>", PathCommand(ADDRESS, {})),
        (b"rcpt to: <@route.example:A@Example.org>  ", PathCommand(ADDRESS, {})),
        (b"RCPT TO:<Postmaster>", PathCommand(Address("Postmaster", "Postmaster", ""), {})),
        (b"RCPT TO:<>", Reply(501, "1.3", "A recipient cannot be the null path")),
        (b"RCPT TO:<a@x> NOTIFY=NEVER", replies.UNKNOWN_PARAMETER),
        ("RCPT TO:<ü@x>".encode(), replies.NEEDS_SMTPUTF8),
        (b"RCPT TO:", replies.BAD_RCPT),
    ],
)
def test_rcpt(line: bytes, expected: PathCommand | Reply) -> None:
    assert parse_rcpt(line, {}, 100) == expected


def test_rcpt_takes_utf8_if_mail_announced_it() -> None:
    assert parse_rcpt("RCPT TO:<ü@x>".encode(), {}, 100, smtputf8=True) == PathCommand(Address("ü@x", "ü", "x"), {})


@pytest.mark.parametrize("local", [b"x" * 65, b'"' + b"x" * 63 + b'"'])
def test_limits_hold_on_the_fast_path_too(local: bytes) -> None:
    for line, parse in ((b"MAIL FROM:<%s@y>" % local, parse_mail), (b"RCPT TO:<%s@y>" % local, parse_rcpt)):
        result = parse(line, {}, 100)
        assert isinstance(result, Reply)
        assert result.text == "Local part too long"


@pytest.mark.parametrize(
    "name", ["a", "mail.example.org", "[192.0.2.1]", "[IPv6:::1]", "xn--bcher-kva.example", "1.2.3.4"]
)
def test_hello(name: str) -> None:
    assert parse_hello(f"EHLO {name} ".encode()) == name


@pytest.mark.parametrize("name", ["", "a b", "a_b", "ü", "[x]", "-", "a" * 256, "x\ty", "a.", "(a)"])
def test_bad_hello(name: str) -> None:
    assert parse_hello(f"EHLO {name}".encode()) == replies.BAD_HELLO


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"BDAT 0", (0, False)),
        (b"bdat 86 last ", (86, True)),
        (b"BDAT", replies.BAD_BDAT),
        (b"BDAT -1", replies.BAD_BDAT),
        (b"BDAT 1 2", replies.BAD_BDAT),
        (b"BDAT 1LAST", replies.BAD_BDAT),
        (b"BDAT " + b"9" * 21, replies.BAD_BDAT),
        ("BDAT ٣".encode(), replies.BAD_BDAT),
    ],
)
def test_bdat(line: bytes, expected: tuple[int, bool] | Reply) -> None:
    assert parse_bdat(line) == expected


@settings(max_examples=200)
@given(st.binary(max_size=80) | st.text(alphabet='<>@= "\\aSIZE:1', max_size=40).map(str.encode))
def test_any_octets_are_parsed_or_refused(octets: bytes) -> None:
    for line in (b"MAIL FROM:" + octets, b"MAIL FROM:<a@b>" + octets):
        assert isinstance(parse_mail(line, TABLE, 100), PathCommand | Reply)
    assert isinstance(parse_rcpt(b"RCPT TO:" + octets, {}, 100), PathCommand | Reply)
    assert isinstance(parse_parameters(octets, TABLE, 100), dict | Reply)
    assert isinstance(parse_hello(b"EHLO " + octets), str | Reply)
    assert isinstance(parse_bdat(b"BDAT " + octets), tuple | Reply)
