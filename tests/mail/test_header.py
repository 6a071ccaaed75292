"""Trace fields and a look at the fields of others."""

from __future__ import annotations

import email
import email.policy
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.mail import header
from gatepost.mail.header import TraceBuilder

T0 = 1_700_000_000.0
DATE = "Tue, 14 Nov 2023 22:13:20 +0000"


def build(helo="mail.outside.test", peer="192.0.2.1", protocol="ESMTP", recipient=None, now_s=T0):
    return TraceBuilder("gw.example.test").build(helo, peer, protocol, "M1", recipient, now_s)


def unfold(field):
    return field.decode().replace("\r\n\t", " ").removesuffix("\r\n")


def test_the_field_as_a_whole():
    assert build(recipient="user@example.test") == (
        b"Received: from mail.outside.test ([192.0.2.1])\r\n"
        b"\tby gw.example.test with ESMTP id M1\r\n"
        b"\tfor <user@example.test>; Tue, 14 Nov 2023 22:13:20 +0000\r\n"
    )


def test_without_a_single_recipient_none_is_named():
    assert (
        unfold(build()) == f"Received: from mail.outside.test ([192.0.2.1]) by gw.example.test with ESMTP id M1; {DATE}"
    )


def test_ipv6():
    assert "([IPv6:2001:db8::1])" in unfold(build(peer="2001:db8::1"))


def test_a_helo_that_is_an_address_literal_stays():
    assert unfold(build(helo="[IPv6:2001:db8::1]")).startswith("Received: from [IPv6:2001:db8::1] (")


def test_the_date_changes_with_the_second():
    trace = TraceBuilder("gw.example.test")
    dates = [trace.build("a", "192.0.2.1", "SMTP", "M1", None, T0 + add)[-33:-2] for add in (0, 0.9, 1.0, 61.5)]
    assert dates == [b"Tue, 14 Nov 2023 22:13:20 +0000"] * 2 + [
        b"Tue, 14 Nov 2023 22:13:21 +0000",
        b"Tue, 14 Nov 2023 22:14:21 +0000",
    ]


@pytest.mark.parametrize(
    "helo",
    [
        "a\r\nBcc: x@y",
        "a) by evil with (",
        "a b",
        "",
        "\0",
        "bücher.test",
        "a" * 5000,
        "x;y",
        "(((",
        "a\x85b",
        "\ud800",
    ],
)
def test_a_hostile_helo_cannot_leave_its_place(helo):
    field = build(helo=helo)
    assert re.fullmatch(
        rb"Received: from [A-Za-z0-9._:\[\]?-]{1,255}(?: |\r\n\t)\(\[192\.0\.2\.1\]\)\r\n\tby gw\.example\.test with ESMTP id M1;"
        rb"\r\n\tTue, 14 Nov 2023 22:13:20 \+0000\r\n",
        field,
    )


@pytest.mark.parametrize(
    "recipient", ['"a b"@example.test', "a>b@example.test", "a\r\nX: y@example.test", "é@example.test"]
)
def test_a_recipient_that_could_leave_its_place_is_not_named(recipient):
    assert b"for" not in build(recipient=recipient)


def test_a_utf8_recipient_is_named_where_utf8_is_allowed():
    assert "\r\n\tfor <юзер@пример.test>;\r\n" in build(recipient="юзер@пример.test", protocol="UTF8SMTP").decode()
    assert b"for" not in build(recipient="юзер\u2028@пример.test", protocol="UTF8SMTP")


@pytest.mark.parametrize("helo", ["a", "a" * 40, "a" * 46, "a" * 47, "a" * 60])
@pytest.mark.parametrize("peer", ["192.0.2.1", "2001:db8:1111:2222:3333:4444:5555:6666"])
@pytest.mark.parametrize("recipient", [None, "u@example.test", "u" * 25 + "@example.test", "u" * 40 + "@example.test"])
def test_lines_are_short_where_words_allow(helo, peer, recipient):
    lines = build(helo=helo, peer=peer, recipient=recipient).split(b"\r\n")
    assert max(map(len, lines)) <= header.FOLD_AT


def test_a_standard_parser_reads_it():
    message = email.message_from_bytes(build(recipient="user@example.test") + b"\r\n", policy=email.policy.default)
    assert not message.defects
    assert message["Received"].endswith(DATE)


@pytest.mark.parametrize(
    ("content", "wanted", "body"),
    [
        (b"A: b\r\n\r\nbody", b"A: b\r\n", b"body"),
        (b"A: b\r\n\r\n", b"A: b\r\n", b""),
        (b"A: b\r\n c\r\nD:\r\n\r\n\r\nbody\r\n", b"A: b\r\n c\r\nD:\r\n", b"\r\nbody\r\n"),
        (b"\r\nbody", b"", b"body"),
        (b"", b"", b""),
        (b"A: b", b"A: b", b""),
        (b"A: b\r\n", b"A: b\r\n", b""),
        (b"only a body\r\nof lines\r\n", b"", b"only a body\r\nof lines\r\n"),
        (b"A: b\r\nno field\r\n\r\nx", b"A: b\r\n", b"no field\r\n\r\nx"),
        (b"A: b\r\nno field", b"A: b\r\n", b"no field"),
        (b"A : b\r\n\tc: d\r\n\r\nx", b"A : b\r\n\tc: d\r\n", b"x"),
    ],
)
def test_split_header(content, wanted, body):
    found, offset = header.split_header(content)
    assert (found, content[offset:]) == (wanted, body)


def test_count_received():
    fields = b"Received: a\r\nX: received: no\r\nRECEIVED : b\r\n received: folded\r\nX-Received: no\r\nreceived:c\r\n"
    assert header.count_received(fields) == 3
    assert header.count_received(b"") == 0


def test_iter_fields():
    fields = b"A: b\r\n c\r\n\td\r\nSubject :x\r\nnothing\r\nLast: y"
    assert list(header.iter_fields(fields)) == [
        (b"a", b"A: b\r\n c\r\n\td\r\n"),
        (b"subject", b"Subject :x\r\n"),
        (b"", b"nothing\r\n"),
        (b"last", b"Last: y"),
    ]


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("aB:; \t\r\n."), max_size=60).map(str.encode))
def test_splitting_loses_nothing(content):
    found, offset = header.split_header(content)
    assert content.startswith(found)
    assert content[len(found) : offset] in (b"", b"\r\n")
    assert b"".join(field for _, field in header.iter_fields(found)) == found
    assert all(name for name, _ in header.iter_fields(found)) or found.startswith((b" ", b"\t"))
