"""Which reverse-paths and From fields an authenticated user may use, and headers that could be read in two ways."""

from __future__ import annotations

import email.utils

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.model import Address
from gatepost.policy.identity import (
    FROM_REFUSED,
    FROM_UNCLEAR,
    HEADER_UNCLEAR,
    RESENT_REFUSED,
    RESENT_UNCLEAR,
    REVERSE_PATH_REFUSED,
    SENDER_REFUSED,
    SENDER_UNCLEAR,
    Bound,
    Unclear,
    check_header,
    check_reverse_path,
    parse_mailboxes,
)
from gatepost.policy.verdict import ACCEPT

ANNA = Bound("anna@example.test", ())
SALES = Bound("sales", ("sales@example.test", "sales+*@example.test", "*@shop.example.test"))


def path(text: str) -> Address:
    local, _, domain = text.rpartition("@")
    return Address(text, local, domain)


@pytest.mark.parametrize(
    ("bound", "address", "has"),
    [
        (ANNA, "anna@example.test", True),
        (ANNA, "Anna@EXAMPLE.test", True),
        (ANNA, "anna@example.test.evil.test", False),
        (ANNA, "bob@example.test", False),
        (ANNA, "anna", False),
        (ANNA, '"anna"@example.test', False),
        (ANNA, "bob@evil.test@example.test", False),
        (Bound("anna", ()), "anna@example.test", False),
        (SALES, "sales+x@example.test", True),
        (SALES, "sales+@example.test", True),
        (SALES, "sales2@example.test", False),
        (SALES, "anyone@shop.example.test", True),
        (SALES, "anyone@deep.shop.example.test", False),
        (Bound("x", ("a*a@example.test",)), "a@example.test", False),
        (Bound("x", ("anna@xn--mller-kva.test",)), "anna@müller.test", True),
    ],
)
def test_bound(bound: Bound, address: str, has: bool) -> None:
    assert bound.has(address) is has
    assert check_reverse_path(bound, path(address)) == (ACCEPT if has else REVERSE_PATH_REFUSED)


def test_the_null_reverse_path_is_everybodys() -> None:
    assert check_reverse_path(ANNA, None) == ACCEPT


@pytest.mark.parametrize(
    "field",
    [
        "From: anna@example.test",
        "from:anna@example.test",
        "FROM : anna@example.test",
        "From: Anna A. <anna@example.test>",
        'From: "Anna, the boss" <anna@example.test>',
        "From: =?utf-8?q?boss=40example=2Etest?= <anna@example.test>",
        "From: (boss@example.test) anna@example.test (c (nested) \\) d)",
        "From: Anna\r\n <anna@example.test>",
        "From: ,Anna <anna@example.test>, anna@example.test",
        'From: "a \\" b" <Anna@Example.Test>',
        "From: Zoë <anna@example.test>",
        "From: Zoë\u00a0Zoë <anna@example.test>",
    ],
)
def test_own_from(field: str) -> None:
    header = f"Subject: x\r\n{field}\r\nTo: a@b\r\n\r\nFrom: boss@example.test\r\n".encode()
    assert check_header(ANNA, header) == ACCEPT


def test_own_sender_and_resent_fields() -> None:
    header = (
        "From: anna@example.test, Anna <anna@example.test>\r\nSender: Anna (at home)\r\n\t<anna@example.test>\r\n"
        "Resent-From: anna@example.test, anna@example.test\r\nResent-Sender: anna@example.test\r\n"
        "Resent-From: anna@example.test\r\nReply-To: boss@example.test\r\nX-Sender: boss@example.test\r\n"
    )
    assert check_header(ANNA, header.encode()) == ACCEPT


def test_a_name_in_latin_1_does_no_harm() -> None:
    assert check_header(ANNA, b"From: Zo\xeb <anna@example.test>\r\n\r\n") == ACCEPT
    assert check_header(ANNA, b"From: ann\xeb@example.test\r\n\r\n") == FROM_REFUSED


@pytest.mark.parametrize(
    ("header", "verdict"),
    [
        ("From: boss@example.test", FROM_REFUSED),
        ("From: anna@example.test, boss@example.test", FROM_REFUSED),
        ("From: anna@example.test <boss@example.test>", FROM_UNCLEAR),
        ("From: <boss@example.test> anna@example.test", FROM_UNCLEAR),
        ("From: <anna@example.test> <boss@example.test>", FROM_UNCLEAR),
        ("From: anna@example.test\r\nFrom: boss@example.test", FROM_UNCLEAR),
        ("From: anna@example.test\r\nfrom : boss@example.test", FROM_UNCLEAR),
        ("Subject: none", FROM_UNCLEAR),
        ("From:", FROM_UNCLEAR),
        ("From: ;", FROM_UNCLEAR),
        ("From: team: anna@example.test;", FROM_UNCLEAR),
        ("From: anna@example.test@example.test", FROM_UNCLEAR),
        ("From: anna", FROM_UNCLEAR),
        ("From: <@relay.test:anna@example.test>", FROM_UNCLEAR),
        ("From: anna@exam ple.test", FROM_UNCLEAR),
        ("From: (anna@example.test", FROM_UNCLEAR),
        ('From: "anna@example.test', FROM_UNCLEAR),
        ("From: anna@example.test)", FROM_UNCLEAR),
        ("From: anna\0@example.test", FROM_UNCLEAR),
        ("From: \x0banna@example.test", FROM_UNCLEAR),
        ("From: A\n<anna@example.test>", FROM_UNCLEAR),
        ("From: \u00a0anna@example.test", FROM_REFUSED),
        ("From: " + "x" * 20000 + " <anna@example.test>", FROM_UNCLEAR),
        ("From: " + ", ".join(["anna@example.test"] * 60), FROM_UNCLEAR),
        ("From: anna@example.test\r\nSender: boss@example.test", SENDER_REFUSED),
        ("sender : boss@example.test\r\nFrom: anna@example.test", SENDER_REFUSED),
        ("From: anna@example.test\r\nSender:\r\n boss@example.test", SENDER_REFUSED),
        ("From: anna@example.test\r\nSender: anna@example.test\r\nSender: anna@example.test", SENDER_UNCLEAR),
        ("From: anna@example.test\r\nSender: anna@example.test, anna@example.test", SENDER_UNCLEAR),
        ("From: anna@example.test\r\nSender:", SENDER_UNCLEAR),
        ("From: anna@example.test\r\nResent-From: boss@example.test", RESENT_REFUSED),
        ("From: anna@example.test\r\nRESENT-SENDER: boss@example.test", RESENT_REFUSED),
        ("From: boss@example.test\r\nResent-From: anna@example.test", FROM_REFUSED),
        (
            "Resent-From: anna@example.test\r\nResent-From: boss@example.test\r\nFrom: anna@example.test",
            RESENT_REFUSED,
        ),
        ("From: anna@example.test\r\nResent-Sender: anna", RESENT_UNCLEAR),
        ("From: anna@example.test\r\nResent-From: team: anna@example.test;", RESENT_UNCLEAR),
        ("From: anna@example.test" + "\r\nResent-From: anna@example.test" * 60, RESENT_UNCLEAR),
        ("no field here\r\nFrom: anna@example.test", HEADER_UNCLEAR),
        (" begins with a space\r\nFrom: anna@example.test", HEADER_UNCLEAR),
        ("From anna@example.test Mon Jan 1 00:00\r\nFrom: anna@example.test", HEADER_UNCLEAR),
    ],
)
def test_refused(header: str, verdict: object) -> None:
    assert check_header(ANNA, header.encode() + b"\r\n\r\nFrom: anna@example.test\r\n") == verdict


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet='ab@.<>,;:()"\\ \t[]boss', max_size=40))
def test_what_is_taken_is_what_the_email_package_reads(text: str) -> None:
    try:
        mailboxes = parse_mailboxes(text)
    except Unclear:
        return
    read = {address.replace(" ", "") for _, address in email.utils.getaddresses([text]) if address}
    assert read <= {"".join(mailbox.split()) for mailbox in mailboxes} or read == {""} or not read


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_any_header_is_answered(octets: bytes) -> None:
    for name in (b"From", b"Sender", b"Resent-From"):
        assert check_header(ANNA, b"From: anna@example.test\r\n" + name + b": " + octets).code in (0, 550)
        assert check_header(ANNA, name + b": " + octets).code in (0, 550)
