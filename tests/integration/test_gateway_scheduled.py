"""When a message goes: FUTURERELEASE (RFC 4865), MT-PRIORITY (RFC 6710) and DELIVERBY (RFC 2852) through the gateway."""

from __future__ import annotations

import re
import time
from datetime import datetime

import pytest
from integration.nexthop import EXTENSIONS, NextHop
from integration.queuebed import queue_bed
from integration.talk import HELLO, Refused, Talk, message, send
from peers import take_port, wait_until

INSIDER = "127.0.0.2"


@pytest.fixture(scope="module")
def bed(tmp_path_factory):
    port = take_port()
    with (
        NextHop(extensions=(*EXTENSIONS, "DSN", "MT-PRIORITY", "DELIVERBY 500")) as knowing,
        NextHop(lmtp=True) as store,
    ):
        extra = (
            f'[[listeners]]\naddress = "127.0.0.1:{port}"\nkind = "submission"\nrequire_tls = false\n'
            f'[domains."knowing.test"]\nnext_hop = "{knowing.name}"\n'
            f'[domains."store.test"]\nnext_hop = "{store.name}"\n'
            "[smtp]\nmax_hold_s = 10000\n"
        )
        with queue_bed(tmp_path_factory.mktemp("gate"), extra, defer_after_s=1) as bed:
            bed.knowing, bed.store, bed.submission = knowing, store, port
            yield bed


def submit(bed, recipient: str, parameters: str, sender: str = "anna@senders.test") -> str:
    return send(bed.submission, recipient, source=INSIDER, reverse_path=sender, parameters=parameters)


# --- FUTURERELEASE ----------------------------------------------------------------------------------------------------


def test_a_held_message_goes_at_its_time_and_not_before(bed):
    message_id = submit(bed, "later@example.test", "HOLDFOR=3")
    submit(bed, "now@example.test", "HOLDFOR=0")
    bed.inside.wait_to("now@example.test")
    bed.inside.wait_to("later@example.test")
    assert bed.outcome("delivered", message_id)["delay_s"] >= 2.99


def test_a_held_message_outlives_a_restart_and_the_operators_impatience(bed):
    long = submit(bed, "long@example.test", "HOLDFOR=1000")
    until_s = int(time.time()) + 6
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until_s))
    soon = submit(bed, "durable@example.test", f"HOLDUNTIL={stamp}")
    bed.gateway.halt()
    bed.gateway.start()
    assert bed.gateway.run("queue", "retry", long).returncode == 0
    submit(bed, "behind@example.test", "")
    bed.inside.wait_to("behind@example.test")
    bed.inside.wait_to("durable@example.test")
    assert time.time() >= until_s
    bed.outcome("delivered", soon)
    assert bed.inside.find("long@example.test") is None
    assert bed.gateway.run("queue", "remove", long).returncode == 0


def test_the_operator_sees_what_was_asked(bed):
    message_id = submit(bed, "shown@example.test", "HOLDFOR=1000 MT-PRIORITY=2 ENVID=e1 RET=HDRS")
    wait_until(lambda: bed.row(message_id), "the message in the queue")
    answer = bed.gateway.ask("queue", "show", message_id)
    assert re.fullmatch(r"RET=HDRS ENVID=e1 MT-PRIORITY=2 HOLDUNTIL=20\S+Z", answer["asked"])
    assert "MT-PRIORITY=2" in bed.gateway.run("queue", "show", message_id).stdout
    assert bed.gateway.run("queue", "remove", message_id).returncode == 0


def test_it_is_offered_to_those_who_submit_with_a_time_that_holds(bed):
    with Talk(bed.submission, source=INSIDER) as talk:
        match = re.search(rb"FUTURERELEASE 10000 (\S+)\r\n", talk.say(HELLO, b"250"))
        assert match is not None
        assert abs(datetime.fromisoformat(match[1].decode()).timestamp() - time.time() - 10000) < 1000
        talk.say(b"MAIL FROM:<anna@senders.test> HOLDFOR=10001\r\n", b"501 5.5.4")
        talk.say(b"MAIL FROM:<anna@senders.test> HOLDUNTIL=9999-12-31T23:59:59Z\r\n", b"501 5.5.4")
        talk.say(b"MAIL FROM:<anna@senders.test> HOLDFOR=9999\r\n", b"250")
    with Talk(bed.gateway.port, source=INSIDER) as talk:
        assert b"FUTURERELEASE" not in talk.say(HELLO, b"250")
        talk.say(b"MAIL FROM:<anna@senders.test> HOLDFOR=1\r\n", b"555 5.5.4")


# --- MT-PRIORITY ------------------------------------------------------------------------------------------------------


def test_a_priority_is_passed_on_and_written_into_received(bed):
    send(bed.gateway.port, "p@knowing.test", source=INSIDER, parameters="MT-PRIORITY=7")
    taken = bed.knowing.wait_to("p@knowing.test")
    assert "MT-PRIORITY=7" in taken.parameters.split()
    assert re.search(rb"(?s)^Received: .*for <p@knowing.test>\r\n\tPRIORITY 7; *\r?\n?\s*\w+, ", taken.content)
    send(bed.gateway.port, "p@example.test", source=INSIDER, parameters="MT-PRIORITY=-3")
    assert "MT-PRIORITY" not in bed.inside.wait_to("p@example.test").parameters


def test_a_stranger_cannot_overtake(bed):
    with Talk(bed.gateway.port) as talk:
        talk.say(HELLO, b"250")
        talk.say(b"MAIL FROM:<x@senders.test> MT-PRIORITY=9\r\n", b"250 2.3.6 0 ")
        talk.say(b"RCPT TO:<stranger@knowing.test>\r\n", b"250")
        talk.data(message())
        talk.say(b"MAIL FROM:<x@senders.test> MT-PRIORITY=-9\r\n", b"250 2.1.0")
    assert "MT-PRIORITY" not in bed.knowing.wait_to("stranger@knowing.test").parameters


# --- DELIVERBY --------------------------------------------------------------------------------------------------------


def test_what_is_left_of_the_time_is_passed_on(bed):
    send(bed.gateway.port, "by@knowing.test", parameters="BY=1000;R")
    match = re.search(r"BY=(\d+);R", bed.knowing.wait_to("by@knowing.test").parameters)
    assert match is not None
    assert 900 < int(match[1]) <= 1000
    send(bed.gateway.port, "past@knowing.test", parameters="BY=-100;N")
    assert re.search(r"BY=-1\d\d;N", bed.knowing.wait_to("past@knowing.test").parameters)


def test_a_message_that_must_be_returned_goes_to_nobody_who_would_not(bed):
    """RFC 2852 4.1.4.2; final delivery keeps the time by being done."""
    message_id = send(bed.gateway.port, "r@example.test", reverse_path="by1@senders.test", parameters="BY=1000;R")
    assert bed.outcome("bounced", message_id)["status"] == "5.3.3"
    bed.dsn_to("by1@senders.test")
    assert bed.inside.find("r@example.test") is None
    send(bed.gateway.port, "r@store.test", parameters="BY=1000;R")
    assert "BY=" not in bed.store.wait_to("r@store.test").parameters
    message_id = send(bed.gateway.port, "soon@knowing.test", reverse_path="by2@senders.test", parameters="BY=400;R")
    assert bed.outcome("bounced", message_id)["status"] == "5.4.7"  # it asks for at least 500 seconds


def test_notify_goes_on_and_a_trace_is_told(bed):
    send(bed.gateway.port, "n@example.test", parameters="BY=1000;N")
    bed.inside.wait_to("n@example.test")
    send(bed.gateway.port, "t@knowing.test", reverse_path="trace@senders.test", parameters="BY=1000;NT")
    assert b"Action: relayed" in bed.dsn_to("trace@senders.test").content
    assert "BY=" in bed.knowing.wait_to("t@knowing.test").parameters


def test_what_is_late_is_returned_or_told(bed):
    bed.store.close()
    returned = send(bed.gateway.port, "late@store.test", reverse_path="r@senders.test", parameters="BY=2;R")
    told = send(bed.gateway.port, "late@store.test", reverse_path="n@senders.test", parameters="BY=2;N")
    dsn = bed.dsn_to("r@senders.test").content
    assert b"Action: failed" in dsn
    assert b"Status: 5.4.7" in dsn
    bed.outcome("expired", returned)
    assert b"Action: delayed" in bed.dsn_to("n@senders.test").content
    bed.gateway.wait_for_event("delay_notice", id=told)
    bed.store.open()
    bed.outcome("delivered", told)


def test_etrn_is_refused_for_what_it_is(bed):
    with Talk(bed.gateway.port) as talk:
        talk.say(HELLO, b"250")
        talk.say(b"ETRN example.test\r\n", b"502 5.5.1 ETRN is not offered")
        with pytest.raises(Refused):
            talk.say(b"ETRN @example.test\r\n", b"25")
