"""Real clients and servers: swaks, curl, msmtp, smtplib and Postfix send through the gateway to a real Postfix and a real Dovecot."""

from __future__ import annotations

import pytest
from integration.gateway import Gateway
from peers import (
    DovecotLmtp,
    PostfixServer,
    send_with_curl,
    send_with_msmtp,
    send_with_smtplib,
    send_with_swaks,
)

USER = "user@example.test"

pytestmark = pytest.mark.peer("postfix")


@pytest.fixture(scope="module")
def to_postfix(tmp_path_factory):
    with (
        PostfixServer(tmp_path_factory.mktemp("inside"), users=("user", "other")) as inside,
        Gateway(
            tmp_path_factory.mktemp("gate"), next_hop=f"smtp://{inside.address}", recipients=["user", "other", "gone"]
        ) as gateway,
    ):
        yield gateway, inside
        gateway.assert_no_bugs()


@pytest.fixture(scope="module")
def to_dovecot(tmp_path_factory):
    with (
        DovecotLmtp(tmp_path_factory.mktemp("inside"), users=(USER, "other@example.test")) as inside,
        Gateway(tmp_path_factory.mktemp("gate"), next_hop=f"lmtp://{inside.address}") as gateway,
    ):
        yield gateway, inside
        gateway.assert_no_bugs()


@pytest.fixture(params=["to_postfix", "to_dovecot"])
def pair(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("send", [send_with_swaks, send_with_curl, send_with_msmtp])
def test_client_sends_through(pair, send):
    gateway, inside = pair
    before = len(inside.messages(USER))
    done = send(gateway.port)
    assert done.returncode == 0, done.stdout + done.stderr
    arrived = inside.wait_for_messages(before + 1, USER)[-1]
    assert b"Subject: Hello\n" in arrived
    assert b"by gate.example.test with ESMTP id " in arrived


def test_smtplib_sends_through(pair):
    gateway, inside = pair
    before = len(inside.messages(USER))
    assert send_with_smtplib(gateway.port, (USER,)) == {}
    assert b"Subject: Hello\n" in inside.wait_for_messages(before + 1, USER)[-1]


def test_postfix_sends_through(pair, tmp_path):
    gateway, inside = pair
    before = len(inside.messages(USER))
    with PostfixServer(tmp_path, domains=("outside.test",), relay_host=f"127.0.0.1:{gateway.port}") as outside:
        assert send_with_smtplib(outside.port, (USER,)) == {}
        assert b"Subject: Hello\n" in inside.wait_for_messages(before + 1, USER)[-1]


def test_both_recipients_get_it_in_one_transaction(pair):
    gateway, inside = pair
    before = [len(inside.messages(f"{name}@example.test")) for name in ("user", "other")]
    assert send_with_smtplib(gateway.port, (USER, "other@example.test")) == {}
    for count, name in zip(before, ("user", "other"), strict=True):
        inside.wait_for_messages(count + 1, f"{name}@example.test")
    session = gateway.told("accepted")[-1]
    assert session["recipients"] == 2


def test_unknown_inside_bounces_to_the_sender(to_postfix):
    """Our list knows "gone", the inside server does not: a DSN with the null reverse-path goes to the sender, who is of ours."""
    gateway, inside = to_postfix
    before = len(inside.messages(USER))
    assert send_with_smtplib(gateway.port, ("gone@example.test",), reverse_path=USER) == {}
    notice = inside.wait_for_messages(before + 1, USER)[-1]
    assert b"Return-Path: <>" in notice
    assert b"multipart/report" in notice and b"Action: failed" in notice and b"550 5.1.1" in notice
    assert gateway.wait_for_event("bounced", recipient="gone@example.test")["status"] == "5.1.1"


def test_ledger_balances(pair):
    gateway, _ = pair
    ledger = gateway.wait_until_empty()
    assert ledger["accepted"] == ledger["delivered"] + ledger["bounced"] > 0
