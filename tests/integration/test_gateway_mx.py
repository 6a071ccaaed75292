"""Mail for the world: the resolver role asks, and the MX hosts are tried as RFC 5321 5.1 and RFC 7505 say.

The MX hosts are addresses of loopback, all with the port that the gateway itself listens on at 127.0.0.1.
"""

from __future__ import annotations

import os
import signal
import socket

import pytest
from integration.names import Names
from integration.nexthop import NextHop
from integration.queuebed import QueueBed, queue_bed
from integration.talk import Talk, send
from peers import take_port, wait_until

INSIDER = "127.0.0.2"
ONE, TWO, DEAD = "127.0.0.11", "127.0.0.12", "127.0.0.13"
ZONES = {
    "order.test": f"@ 300 MX 20 mx2\n@ 300 MX 10 mx1\nmx1 300 A {ONE}\nmx2 300 A {TWO}\n",
    "failover.test": f"@ 300 MX 10 dead\n@ 300 MX 20 mx2\ndead 300 A {DEAD}\nmx2 300 A {TWO}\n",
    "addresses.test": f"@ 300 MX 10 mx\nmx 300 A {DEAD}\nmx 300 A {TWO}\n",
    "implicit.test": f"@ 300 A {ONE}\n",
    "alias.test": "@ 300 MX 10 mx1.order.test.\n",
    "null.test": "@ 300 MX 0 .\n",
    "no-address.test": "@ 300 MX 10 mx\nmx 300 TXT nothing\n",
    "loop.test": "@ 300 MX 10 mx\nmx 300 A 127.0.0.1\n",
    "loop-by-name.test": "@ 300 MX 10 gate.example.test.\n",
    "backup.test": f"@ 300 MX 10 mx1\n@ 300 MX 20 self\n@ 300 MX 30 mx2\nmx1 300 A {DEAD}\nself 300 A 127.0.0.1\nmx2 300 A {TWO}\n",
    "bücher.test".encode("idna").decode(): f"@ 300 MX 10 mx\nmx 300 A {ONE}\n",
    "ours-too.test": f"@ 300 MX 10 mx1\n@ 300 MX 20 self\n@ 300 MX 30 mx2\nmx1 300 A {ONE}\nself 300 A 127.0.0.1\nmx2 300 A {TWO}\n",
    "ours-first.test": f"@ 300 MX 10 self\n@ 300 MX 20 mx2\nself 300 A 127.0.0.1\nmx2 300 A {TWO}\n",
    "ours-not.test": f"@ 300 MX 10 mx1\n@ 300 MX 20 mx2\nmx1 300 A {ONE}\nmx2 300 A {TWO}\n",
    "late.test": f"@ 300 MX 10 mx\nmx 300 A {ONE}\n",
    "dark.test": f"@ 300 MX 10 mx\nmx 300 A {ONE}\n",
}


@pytest.fixture(scope="module")
def bed(tmp_path_factory):
    port = take_port()
    with Names(ZONES) as names, NextHop(address=ONE, port=port) as one, NextHop(address=TWO, port=port) as two:
        extra = (
            f'[dns]\nservers = ["{names.address}"]\ntimeout_s = 10\nattempts = 2\nmax_negative_ttl_s = 0\n'
            f'[delivery]\nport = {port}\n[domains."ours-too.test"]\nbackup_mx = true\nrecipients = ["anna"]\n'
            '[domains."ours-first.test"]\nbackup_mx = true\nrecipients = ["anna"]\n'
            '[domains."ours-not.test"]\nbackup_mx = true\nrecipients = ["anna"]\n'
        )
        with queue_bed(tmp_path_factory.mktemp("gate"), extra, port=port) as bed:
            bed.names, bed.one, bed.two = names, one, two
            yield bed


def relay(bed: QueueBed, recipient: str) -> tuple[str, str]:
    """From inside to the world; sender and message id."""
    sender, _ = bed.names_of_two()
    return sender, send(bed.gateway.port, recipient, reverse_path=sender, source=INSIDER)


def test_the_best_preference_is_tried_first(bed):
    relay(bed, "user@order.test")
    bed.one.wait_to("user@order.test")
    assert bed.two.find("user@order.test") is None
    assert ("order.test", "MX") in bed.names.asked


@pytest.mark.parametrize("domain", ["failover.test", "addresses.test"])
def test_the_next_host_or_address_is_tried_when_one_is_down(bed, domain):
    _, message_id = relay(bed, f"user@{domain}")
    bed.two.wait_to(f"user@{domain}")
    assert TWO in bed.outcome("delivered", message_id)["host"]


def test_a_domain_without_mx_is_its_own_host(bed):
    relay(bed, "user@implicit.test")
    bed.one.wait_to("user@implicit.test")


def test_an_mx_host_in_another_zone(bed):
    relay(bed, "user@alias.test")
    bed.one.wait_to("user@alias.test")


def test_an_address_literal_is_not_looked_up(bed):
    """One of loopback is refused, so this needs another address of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but those of loopback")
        address = sock.getsockname()[0]
    with NextHop(address=address, port=bed.one.port) as literal:
        relay(bed, f"user@[{address}]")
        literal.wait_to(f"user@[{address}]")
    assert not [name for name, _ in bed.names.asked if address in name]


@pytest.mark.parametrize("address", ["127.0.0.1", ONE])
def test_an_address_literal_of_loopback_is_refused_at_once(bed, address):
    with Talk(bed.gateway.port, source=INSIDER) as talk:
        talk.hello()
        talk.say(b"MAIL FROM:<s@senders.test>\r\n", b"250")
        assert talk.say(f"RCPT TO:<user@[{address}]>\r\n".encode())[:7] in (b"550 5.1", b"550 5.4")


def test_a_domain_of_another_script(bed):
    sender, _ = bed.names_of_two()
    send(bed.gateway.port, "user@bücher.test", reverse_path=sender, source=INSIDER, parameters="SMTPUTF8")
    bed.one.wait_to("user@bücher.test")


@pytest.mark.parametrize(
    ("domain", "status"),
    [
        ("null.test", "5.1.10"),
        ("no-such-domain.test", "5.1.2"),
        ("no-address.test", "5.4.4"),
        ("loop.test", "5.4.6"),
        ("loop-by-name.test", "5.4.6"),
    ],
)
def test_a_domain_that_takes_no_mail_comes_back(bed, domain, status):
    sender, message_id = relay(bed, f"user@{domain}")
    row = bed.outcome("bounced", message_id)
    assert (row["status"], row["stage"]) == (status, "mx"), row
    assert f"Status: {status}\r\n".encode() in bed.dsn_to(sender).content


def test_a_backup_mx_takes_mail_of_strangers_and_passes_it_on_to_the_better_host(bed):
    sender, _ = bed.names_of_two()
    send(bed.gateway.port, "anna@ours-too.test", reverse_path=sender)
    bed.one.wait_to("anna@ours-too.test")
    assert bed.two.find("anna@ours-too.test") is None


@pytest.mark.parametrize(
    ("domain", "text"), [("ours-first.test", "loops back"), ("ours-not.test", "not among its MX hosts")]
)
def test_a_backup_mx_whose_zone_is_wrong_keeps_the_mail(bed, domain, text):
    sender, _ = bed.names_of_two()
    message_id = send(bed.gateway.port, f"anna@{domain}", reverse_path=sender)
    row = bed.outcome("deferred", message_id)
    assert (row["status"], row["stage"]) == ("4.4.6", "mx") and text in row["text"], row
    assert bed.one.find(f"anna@{domain}") is None and bed.two.find(f"anna@{domain}") is None
    bed.gateway.ask("queue", "remove", message_id)


def test_only_hosts_better_than_ourselves_are_tried(bed):
    _, message_id = relay(bed, "user@backup.test")
    row = bed.outcome("deferred", message_id)
    assert DEAD in row["host"] or "Connection refused" in row["text"]
    assert bed.two.find("user@backup.test") is None
    bed.gateway.ask("queue", "remove", message_id)


def test_a_lookup_that_fails_defers(bed):
    bed.names.broken.add("late.test")
    sender, message_id = relay(bed, "user@late.test")
    row = bed.outcome("deferred", message_id)
    assert (row["status"], row["stage"]) == ("4.4.3", "mx")
    wait_until(
        lambda: [row for row in bed.gateway.events("resolver_trouble") if row["name"] == "late.test"],
        "the trouble is told",
    )
    bed.names.broken.clear()
    bed.one.wait_to("user@late.test")
    assert bed.senders.find(sender) is None


def test_a_lookup_outlives_the_resolver(bed):
    """The resolver is killed and its mail still goes at the first attempt, when it is back."""
    pid = bed.gateway.roles()["resolver"]
    os.kill(pid, signal.SIGKILL)
    _, message_id = relay(bed, "user@dark.test")
    bed.one.wait_to("user@dark.test")
    assert bed.outcome("delivered", message_id)["attempts"] == 1
    wait_until(lambda: bed.gateway.roles()["resolver"] != pid, "the resolver is back")
    rows = [row for row in bed.gateway.events() if row["event"] != "role_died"]
    bed.gateway.events_file.write_text("")  # the death was ours
    assert not [row for row in rows if row["event"] in ("bug", "internal_error")]


def test_own_addresses_are_known_when_all_of_them_are_listened_on(tmp_path):
    """`0.0.0.0` is every address of this host: mail for a domain whose MX is one of them would come back for ever."""
    port = take_port()
    with Names({"loop.test": "@ 300 MX 10 mx\nmx 300 A 127.0.0.1\n"}) as names:
        extra = f'[dns]\nservers = ["{names.address}"]\n[delivery]\nport = {port}\n'
        with queue_bed(tmp_path, extra, port=port, listen="0.0.0.0") as bed:
            sender, message_id = relay(bed, "user@loop.test")
            assert bed.outcome("bounced", message_id)["status"] == "5.4.6"
            bed.dsn_to(sender)
            assert bed.gateway.ledger()["messages_accepted"] == 2
