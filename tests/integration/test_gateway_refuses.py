"""What the gateway refuses, and how: relaying, unknown recipients, smuggling, sizes, half a message."""

from __future__ import annotations

import socket

import pytest
from integration.gateway import Gateway, read_reply
from peers import SmtpSink, wait_until

HELLO = b"EHLO stranger.example.net\r\n"
MAIL = b"MAIL FROM:<a@example.net>\r\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with (
        SmtpSink(tmp_path_factory.mktemp("sink"), keep_messages=True) as sink,
        Gateway(
            tmp_path_factory.mktemp("gate"), next_hop=f"smtp://{sink.address}", recipients=["user"],
            extra="[smtp]\nmax_message_bytes = 100000\nmax_errors = 5\n",
        ) as server,
    ):  # fmt: skip
        server.sink = sink
        yield server
        server.assert_no_bugs()


@pytest.mark.parametrize(
    "address",
    [
        b"victim@example.org", b"victim%example.org@example.test", b"example.org!victim@example.test",
        b'"victim@example.org"@example.test', b"@example.test:victim@example.org", b"victim@[192.0.2.1]", b"VICTIM@EXAMPLE.ORG.",
    ],
)  # fmt: skip
def test_a_stranger_cannot_relay(gateway, address):
    replies = gateway.dialog(HELLO, MAIL, b"RCPT TO:<" + address + b">\r\n")
    assert replies[-1].startswith((b"550 5.7.1", b"550 5.1.2", b"501 5.1.3", b"553 ")), replies[-1]
    assert not replies[-1].startswith(b"2")


def test_plain_relay_is_550_5_7_1(gateway):
    assert gateway.dialog(HELLO, MAIL, b"RCPT TO:<victim@example.org>\r\n")[-1].startswith(b"550 5.7.1 ")


def test_our_own_sender_address_gives_no_right(gateway):
    replies = gateway.dialog(
        b"EHLO gate.example.test\r\n", b"MAIL FROM:<user@example.test>\r\n", b"RCPT TO:<v@example.org>\r\n"
    )
    assert replies[-1].startswith(b"550 5.7.1 ")


def test_a_listed_network_may_relay(gateway):
    replies = gateway.dialog(HELLO, MAIL, b"RCPT TO:<friend@example.org>\r\n", source="127.0.0.2")
    assert replies[-1].startswith(b"250 ")


def test_unknown_recipient(gateway):
    assert gateway.dialog(HELLO, MAIL, b"RCPT TO:<nobody@example.test>\r\n")[-1].startswith(b"550 5.1.1 ")


@pytest.mark.parametrize("address", [b"postmaster@example.test", b"Postmaster", b"POSTMASTER@Example.Test"])
def test_postmaster_is_always_taken(gateway, address):
    assert gateway.dialog(HELLO, MAIL, b"RCPT TO:<" + address + b">\r\n")[-1].startswith(b"250 ")


def test_too_large_as_announced_and_as_sent(gateway):
    assert gateway.dialog(HELLO, b"MAIL FROM:<a@example.net> SIZE=100001\r\n")[-1].startswith(b"552 5.3.4 ")
    text = b"Subject: x\r\n\r\n" + b"x" * 70 + b"\r\n"
    replies = gateway.dialog(HELLO, MAIL, b"RCPT TO:<user@example.test>\r\n", b"DATA\r\n", text * 1500 + b".\r\n")
    assert replies[-1].startswith(b"552 5.3.4 ")


SMUGGLED = b"MAIL FROM:<b@example.net>\r\nRCPT TO:<user@example.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n"


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n", b"\r\n\x00.\r\n", b"\r.\r"])
def test_smuggling_queues_nothing(gateway, end):
    accepted = gateway.ledger()["accepted"]
    begin = b"Subject: outer\r\n\r\nbody"
    replies = gateway.dialog(HELLO, MAIL, b"RCPT TO:<user@example.test>\r\n", b"DATA\r\n", begin + end + SMUGGLED)
    assert replies[-1].startswith((b"550 5.6.11 ", b"521 ")), replies[-1]
    assert gateway.ledger()["accepted"] == accepted


def test_a_peer_that_vanishes_before_the_final_dot(gateway):
    accepted = gateway.ledger()["accepted"]
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=60) as sock:
        file = sock.makefile("rb")
        read_reply(file)
        for command in (HELLO, MAIL, b"RCPT TO:<user@example.test>\r\n", b"DATA\r\n"):
            sock.sendall(command)
            read_reply(file)
        sock.sendall(b"Subject: half\r\n\r\nno end\r\n")
        session = gateway.told("connect")[-1]["session"]
        file.close()
    gateway.wait_for_event("disconnect", session=session)
    assert gateway.ledger()["accepted"] == accepted


def test_session_goes_on_until_the_error_limit(gateway):
    replies = gateway.dialog(HELLO, b"BOGUS\r\n", MAIL, *[b"BOGUS\r\n"] * 5)
    assert replies[2].startswith(b"500 5.5.") and replies[3].startswith(b"250 ")
    assert any(reply.startswith(b"421 ") for reply in replies)


def test_a_long_line_is_one_line(gateway):
    replies = gateway.dialog(HELLO, b"NOOP " + b"x" * 100_000 + b"MAIL FROM:<a@b.example>\r\n", b"NOOP\r\n")
    assert replies[2].startswith(b"500 ") and replies[3].startswith(b"250 ")


def test_refusals_are_events(gateway):
    gateway.dialog(HELLO, MAIL, b"RCPT TO:<logged@example.org>\r\n", b"QUIT\r\n")
    row = gateway.wait_for_event("reply_refused", recipient="logged@example.org")
    assert (row["code"], row["status"], row["address"]) == (550, "5.7.1", "127.0.0.1")


def test_what_is_accepted_arrives(gateway):
    replies = gateway.dialog(
        HELLO, MAIL, b"RCPT TO:<user@example.test>\r\n", b"DATA\r\n", b"Subject: good\r\n\r\n..dot\r\n.\r\n"
    )
    assert replies[-1].startswith(b"250 2.0.0 Queued as ")
    wait_until(
        lambda: any(b"Subject: good" in text and b"\n.dot\n" in text for text in gateway.sink.messages()), "the message"
    )
