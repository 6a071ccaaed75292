"""DSN (RFC 3461) through the gateway: what next hops are told, and what senders hear, with next hops that know it and that do not."""

from __future__ import annotations

import email
import email.policy

import pytest
from integration.gateway import Gateway
from integration.nexthop import EXTENSIONS, NextHop
from integration.peers.maildir import wait_for_messages
from integration.peers.postfix import PostfixServer
from integration.queuebed import queue_bed
from integration.talk import HELLO, Talk, message

NO_DSN = {"smtpd_discard_ehlo_keywords": "dsn"}


def report_of(content: bytes):
    """Fields of the message, of the recipients, and the type and text of what was returned."""
    parsed = email.message_from_bytes(content, policy=email.policy.default)
    _, status, returned = parsed.get_payload()
    whole, *recipients = status.get_payload()
    return whole, recipients, returned


def ask(port: int, recipients: list[tuple[str, str]], reverse_path: str, mail: str = "") -> str:
    """A message whose recipients have parameters; the gateway's number for it."""
    with Talk(port) as talk:
        talk.say(HELLO, b"250")
        talk.say(f"MAIL FROM:<{reverse_path}>{mail}\r\n".encode(), b"250")
        for path, more in recipients:
            talk.say(f"RCPT TO:<{path}>{more}\r\n".encode(), b"250")
        return talk.data(message()).split()[-1].decode()


@pytest.fixture(scope="module")
def bed(tmp_path_factory):
    directory = tmp_path_factory.mktemp("gate")
    boxes = directory / "boxes"
    with NextHop(extensions=(*EXTENSIONS, "DSN")) as knowing, NextHop(lmtp=True) as store:
        extra = (
            f'[domains."knowing.test"]\nnext_hop = "{knowing.name}"\n'
            f'[domains."store.test"]\nnext_hop = "{store.name}"\n'
            f'[domains."box.test"]\nnext_hop = "maildir:{boxes}/{{local}}"\n'
        )
        with queue_bed(directory, extra) as bed:
            bed.knowing, bed.store, bed.boxes = knowing, store, boxes
            yield bed


@pytest.fixture(autouse=True)
def all_is_well_again(bed):
    yield
    for hop in (bed.inside, bed.senders, bed.knowing, bed.store):
        hop.accept()


def test_what_was_asked_is_passed_on_unchanged(bed):
    """RFC 3461 5.2.1."""
    ask(
        bed.gateway.port,
        [("a@knowing.test", " NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@example.org"), ("b@knowing.test", "")],
        "s1@senders.test",
        " RET=HDRS ENVID=QQ314159",
    )
    taken = bed.knowing.wait_to("a@knowing.test")
    assert taken.parameters.split(" ", 1)[1] == "RET=HDRS ENVID=QQ314159"
    assert taken.wanted == ["NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@example.org", ""]
    bed.wait_until_empty()
    assert bed.senders.find("s1@senders.test") is None  # the next hop tells


def test_a_message_that_asked_for_nothing_has_nothing_added(bed):
    ask(bed.gateway.port, [("plain@knowing.test", "")], "plain@senders.test")
    taken = bed.knowing.wait_to("plain@knowing.test")
    assert "ENVID" not in taken.parameters
    assert "RET" not in taken.parameters
    assert taken.wanted == [""]


def test_a_relayed_notice_where_the_next_hop_knows_no_dsn(bed):
    """RFC 3461 5.2.2."""
    message_id = ask(
        bed.gateway.port,
        [("r@example.test", " NOTIFY=SUCCESS ORCPT=rfc822;orig+2B1@example.org"), ("quiet@example.test", "")],
        "s2@senders.test",
        " ENVID=two",
    )
    taken = bed.inside.wait_to("r@example.test")
    assert "ENVID" not in taken.parameters
    assert taken.wanted == ["", ""]
    whole, recipients, returned = report_of(bed.dsn_to("s2@senders.test").content)
    assert whole["Original-Envelope-Id"] == "two"
    assert [row["Action"] for row in recipients] == ["relayed"]
    assert recipients[0]["Original-Recipient"] == "rfc822; orig+1@example.org"
    assert recipients[0]["Final-Recipient"] == "rfc822; r@example.test"
    assert recipients[0]["Status"].startswith("2.")
    assert returned.get_content_type() == "text/rfc822-headers"
    assert bed.gateway.wait_for_event("dsn_created", about=message_id)["kind"] == "relayed"


def test_a_delivered_notice_for_lmtp_and_maildir(bed):
    ask(bed.gateway.port, [("l@store.test", " NOTIFY=SUCCESS")], "s3@senders.test")
    bed.store.wait_to("l@store.test")
    _, recipients, _ = report_of(bed.dsn_to("s3@senders.test").content)
    assert [row["Action"] for row in recipients] == ["delivered"]
    ask(bed.gateway.port, [("m@box.test", " NOTIFY=SUCCESS,FAILURE")], "s4@senders.test")
    wait_for_messages(bed.boxes / "m", 1)
    dsn = bed.dsn_to("s4@senders.test").content
    _, recipients, _ = report_of(dsn)
    assert [row["Action"] for row in recipients] == ["delivered"]
    assert str(bed.boxes).encode() not in dsn


def test_never_and_success_alone_suppress_the_notice_of_failure(bed):
    bed.inside.refuse("rcpt", b"550 5.1.1 no such user")
    for number, notify in enumerate(("NEVER", "SUCCESS", "DELAY")):
        message_id = ask(bed.gateway.port, [("x@example.test", f" NOTIFY={notify}")], f"never{number}@senders.test")
        row = bed.gateway.wait_for_event("dsn_suppressed", id=message_id)
        assert row["cause"].startswith("NOTIFY")
    message_id = ask(bed.gateway.port, [("x@example.test", " NOTIFY=FAILURE")], "fails@senders.test")
    bed.dsn_to("fails@senders.test")
    assert bed.wait_until_empty()["queued"] == 0
    assert not any(bed.senders.find(f"never{number}@senders.test") for number in range(3))


@pytest.mark.parametrize(("ret", "kind"), [("FULL", "message/rfc822"), ("HDRS", "text/rfc822-headers")])
def test_what_is_returned(bed, ret, kind):
    bed.inside.refuse("rcpt", b"550 5.1.1 no such user")
    sender = f"{ret.lower()}@senders.test"
    ask(bed.gateway.port, [("x@example.test", "")], sender, f" RET={ret}")
    _, recipients, returned = report_of(bed.dsn_to(sender).content)
    assert [row["Action"] for row in recipients] == ["failed"]
    assert returned.get_content_type() == kind


def test_the_null_reverse_path_gets_no_notice_of_success(bed):
    message_id = ask(bed.gateway.port, [("null@example.test", " NOTIFY=SUCCESS")], "")
    bed.inside.wait_to("null@example.test")
    bed.outcome("delivered", message_id)
    bed.wait_until_empty()
    assert not [row for row in bed.gateway.events("dsn_created") if row["about"] == message_id]


def test_a_dsn_of_ours_says_never(bed):
    """RFC 3461 6.1."""
    bed.inside.refuse("rcpt", b"550 5.1.1 no such user")
    ask(bed.gateway.port, [("x@example.test", "")], "bounced@knowing.test")
    taken = bed.knowing.wait_to("bounced@knowing.test")
    assert taken.reverse_path == ""
    assert taken.wanted == ["NOTIFY=NEVER"]


def test_postfix_asks_and_postfix_answers(tmp_path):
    """Postfix as sender; as next hops one that knows DSN and one that does not; the notices reach the sender's Postfix."""
    gateway = Gateway(tmp_path, networks=["127.0.0.1/32"])
    relay = f"127.0.0.1:{gateway.port}"
    with (
        PostfixServer(tmp_path, domains=("knowing.test",), relay_host=relay) as knowing,
        PostfixServer(tmp_path, domains=("deaf.test",), settings=NO_DSN) as deaf,
        PostfixServer(tmp_path, domains=("senders.test",), relay_host=relay) as sender,
    ):
        for domain, postfix in {"knowing": knowing, "deaf": deaf, "senders": sender}.items():
            gateway.extra += f'[domains."{domain}.test"]\nnext_hop = "smtp://{postfix.address}"\n'
        with gateway:
            options = ("-N", "success,failure", "-V", "envelope-1")
            sender.submit(message("deaf"), ["user@deaf.test"], "anna@senders.test", options)
            found = sender.wait_for_messages(1, "anna@senders.test")
            assert b"Action: relayed" in found[0]
            assert b"Original-Envelope-Id: envelope-1" in found[0]
            assert b"Original-Recipient: rfc822; user@deaf.test" in found[0]
            assert b"Reporting-MTA: dns; gate.example.test" in found[0]
            sender.submit(message("knowing"), ["user@knowing.test"], "anna@senders.test", options)
            both = sender.wait_for_messages(2, "anna@senders.test")
            others = [content for content in both if b"Reporting-MTA: dns; postfix.test" in content]
            assert len(others) == 1
            assert b"Action: delivered" in others[0]
            assert b"Original-Envelope-Id: envelope-1" in others[0]
            gateway.assert_no_bugs()
