"""From accept to delivery or bounce: what the next hops say, and what the sender hears of it."""

from __future__ import annotations

import pytest
from integration.nexthop import NextHop
from integration.queuebed import queue_bed
from integration.talk import Talk, message, send
from peers import take_port, wait_until


@pytest.fixture(scope="module")
def dead_port():
    return take_port()


@pytest.fixture(scope="module")
def bed(tmp_path_factory, dead_port):
    with NextHop() as first, NextHop(extensions=("PIPELINING", "SIZE")) as plain:
        extra = (
            f'[domains."both.test"]\nnext_hop = ["{first.name}", "smtp://127.0.0.1:{dead_port}"]\n'
            f'[domains."plain.test"]\nnext_hop = "{plain.name}"\n'
            f'[domains."dead.test"]\nnext_hop = "smtp://127.0.0.1:{dead_port}"\n'
            "[delivery]\nkeep_idle_s = 600\n"  # connections are counted: none ends because the machine is slow
        )
        with queue_bed(tmp_path_factory.mktemp("gate"), extra) as bed:
            bed.first, bed.plain = first, plain
            yield bed


@pytest.fixture(autouse=True)
def all_is_well_again(bed):
    yield
    for hop in (bed.inside, bed.senders, bed.first, bed.plain):
        hop.accept()


# --- failing and trying again ------------------------------------------------------------------------------------------


def test_a_next_hop_that_is_down_gets_its_mail_when_it_is_back(bed):
    bed.inside.close()
    sender, recipient, message_id = bed.send()
    row = bed.outcome("deferred", message_id)
    assert (row["status"], row["stage"]) == ("4.4.1", "connect")
    assert bed.gateway.ledger()["queued"] == 1
    bed.inside.open()
    assert bed.inside.wait_to(recipient).reverse_path == sender
    bed.outcome("delivered", message_id)
    bed.wait_until_empty()
    assert bed.senders.find(sender) is None


def test_the_next_of_several_hosts_is_tried_when_the_first_is_down(bed, dead_port):
    send(bed.gateway.port, "one@both.test")
    bed.first.wait_to("one@both.test")
    bed.first.close()
    with NextHop(port=dead_port) as second:
        message_id = send(bed.gateway.port, "two@both.test")
        second.wait_to("two@both.test")
        assert str(dead_port) in bed.outcome("delivered", message_id)["host"]
    bed.first.open()
    message_id = send(bed.gateway.port, "three@both.test")
    bed.first.wait_to("three@both.test")
    assert str(bed.first.port) in bed.outcome("delivered", message_id)["host"]


@pytest.mark.parametrize("stage", ["greeting", "mail", "rcpt", "data", "body"])
def test_a_temporary_refusal_is_tried_again(bed, stage):
    bed.inside.close()  # so that no kept connection is past its greeting
    bed.inside.open()
    bed.inside.refuse(stage, b"451 4.7.1 not now, please")
    sender, recipient, message_id = bed.send()
    row = bed.outcome("deferred", message_id)
    assert (row["code"], row["status"], row["stage"], row["text"]) == (451, "4.7.1", stage, "451 4.7.1 not now, please")
    bed.inside.accept()
    bed.inside.wait_to(recipient)
    assert bed.outcome("delivered", message_id)["attempts"] >= 2
    assert bed.senders.find(sender) is None


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "body"])
def test_a_permanent_refusal_comes_back_to_the_sender(bed, stage):
    bed.inside.refuse(stage, b"550 5.7.1 not you <a@b>")
    sender, recipient, message_id = bed.send()
    row = bed.outcome("bounced", message_id)
    assert (row["code"], row["status"], row["stage"], row["text"]) == (550, "5.7.1", stage, "550 5.7.1 not you <a@b>")
    content = bed.dsn_to(sender).content
    for part in (
        b"Action: failed\r\n",
        b"Status: 5.7.1\r\n",
        b"550 5.7.1 not you <a@b>",
        f"rfc822;{recipient}".encode(),
    ):
        assert part in content.replace(b"rfc822; ", b"rfc822;"), part
    assert f"Subject: to {recipient}\r\n".encode() in content
    created = bed.gateway.wait_for_event("dsn_created", about=message_id)
    assert bed.outcome("delivered", created["id"])["reverse_path"] == ""


def test_a_lost_connection_is_no_loss(bed):
    bed.inside.refuse("body", b"")  # closes behind the final dot, without a word
    _, recipient, message_id = bed.send()
    row = bed.outcome("deferred", message_id)
    assert row["status"] == "4.4.2" and "may have been delivered" in row["text"]
    bed.inside.accept()
    bed.inside.wait_to(recipient)


def test_a_thousand_messages_for_a_dead_next_hop_hold_up_nobody_else(bed, dead_port):
    with Talk(bed.gateway.port) as talk:
        talk.hello()
        for number in range(1000):
            talk.send(f"u{number}@dead.test", message())
    dead = f"smtp://127.0.0.1:{dead_port}"

    def waiting() -> int:
        hops = bed.gateway.ask("queue", "list", "--limit", "1")["next_hops"]
        return next((hop["waiting"] + hop["active"] for hop in hops if hop["next_hop"] == dead), 0)

    wait_until(lambda: waiting() == 1000, "a thousand that wait")
    _, recipient, message_id = bed.send()
    bed.inside.wait_to(recipient)
    bed.outcome("delivered", message_id)
    assert waiting() == 1000
    with NextHop(port=dead_port) as back:
        back.wait_for(1000)
        bed.wait_until_empty()  # before it goes: the queue has not heard of all of them yet


# --- bounces that must not be --------------------------------------------------------------------------------------------


def test_a_dsn_never_begets_a_dsn(bed):
    bed.inside.refuse("rcpt", b"550 5.1.1 unknown")
    bed.senders.refuse("body", b"554 5.6.0 no reports here")
    sender, _, message_id = bed.send()
    created = bed.gateway.wait_for_event("dsn_created", about=message_id)
    bed.outcome("bounced", created["id"])
    assert bed.gateway.wait_for_event("dsn_suppressed", id=created["id"])["cause"] == "null reverse-path"
    bed.wait_until_empty()
    assert not [row for row in bed.gateway.told("dsn_created") if row["about"] == created["id"]]
    assert bed.senders.find(sender) is None


def test_nobody_is_told_when_the_reverse_path_is_null(bed):
    bed.inside.refuse("rcpt", b"550 5.1.1 unknown")
    _, recipient = bed.names_of_two()
    message_id = send(bed.gateway.port, recipient, reverse_path="")
    bed.outcome("bounced", message_id)
    bed.gateway.wait_for_event("dsn_suppressed", id=message_id)
    bed.wait_until_empty()
    assert not [row for row in bed.gateway.told("dsn_created") if row["about"] == message_id]


# --- what a next hop cannot take -----------------------------------------------------------------------------------------


def test_8bit_mail_for_a_next_hop_without_8bitmime_comes_back(bed):
    sender, _ = bed.names_of_two()
    content = message("8 bit", "Grüße\r\n".encode())
    message_id = send(bed.gateway.port, "eight@plain.test", content, reverse_path=sender, parameters="BODY=8BITMIME")
    assert bed.outcome("bounced", message_id)["status"] == "5.6.3"
    assert b"Status: 5.6.3\r\n" in bed.dsn_to(sender).content
    assert bed.plain.find("eight@plain.test") is None


def test_internationalised_mail_for_a_next_hop_without_smtputf8_comes_back(bed):
    recipient = "grüße@plain.test"
    sender, _ = bed.names_of_two()
    message_id = send(bed.gateway.port, recipient, message("utf8"), reverse_path=sender, parameters="SMTPUTF8")
    assert bed.outcome("bounced", message_id)["status"] == "5.6.7"
    told = bed.dsn_to(sender)
    assert b"Status: 5.6.7\r\n" in told.content and told.content.isascii() and "SMTPUTF8" not in told.parameters
    assert bed.plain.find(recipient) is None


def test_mail_that_only_says_smtputf8_goes_to_such_a_next_hop(bed):
    sender, _ = bed.names_of_two()
    send(bed.gateway.port, "ascii@plain.test", message("utf8"), reverse_path=sender, parameters="SMTPUTF8")
    assert "SMTPUTF8" not in bed.plain.wait_to("ascii@plain.test").parameters


def test_internationalised_mail_goes_where_it_is_taken(bed):
    sender, _ = bed.names_of_two()
    send(
        bed.gateway.port, "grüße@example.test", message("für"), reverse_path=sender, parameters="SMTPUTF8 BODY=8BITMIME"
    )
    assert "SMTPUTF8" in bed.inside.wait_to("grüße@example.test").parameters


# --- several recipients ------------------------------------------------------------------------------------------------


def test_only_the_recipients_that_failed_are_reported(bed):
    sender, good = bed.names_of_two()
    _, bad = bed.names_of_two()
    _, late = bed.names_of_two()
    replies = {bad: b"550 5.1.1 unknown", late: b"450 4.2.1 not now"}
    bed.inside.answer = lambda stage, what: replies.get(what) if stage == "rcpt" else None
    connections = bed.inside.connections
    message_id = send(bed.gateway.port, [good, bad, late, "elsewhere@plain.test"], reverse_path=sender)
    assert bed.inside.wait_to(good).recipients == [good]
    dsn = bed.dsn_to(sender).content
    assert bad.encode() in dsn and good.encode() not in dsn and late.encode() not in dsn
    bed.plain.wait_to("elsewhere@plain.test")
    bed.outcome("deferred", message_id, recipient=late)
    # next hops have a message a moment before the queue knows
    wait_until(lambda: bed.gateway.ledger()["queued"] == 1, "only the late recipient is left")
    bed.inside.accept()
    assert bed.inside.wait_to(late).recipients == [late]
    bed.wait_until_empty()
    assert [taken.recipients for taken in bed.inside.taken if good in taken.recipients] == [[good]]
    assert bed.inside.connections - connections <= 2


def test_many_recipients_of_one_next_hop_are_one_transaction(bed):
    sender, _ = bed.names_of_two()
    recipients = [f"many{number}@example.test" for number in range(50)]
    send(bed.gateway.port, recipients, reverse_path=sender)
    assert bed.inside.wait_to(recipients[0]).recipients == recipients


def test_the_ledger_knows_all_of_it(bed):
    ledger = bed.wait_until_empty()
    assert ledger["accepted"] == ledger["delivered"] + ledger["bounced"]
    assert ledger["bounced"] == len(bed.gateway.told("bounced"))
    assert ledger["delivered"] == len(bed.gateway.told("delivered"))
