"""MTA-STS with the real roles: the resolver, locked in, fetches by HTTPS; mail goes, waits, and bounces by what it finds.

The web server has a certificate for each name; the MX hosts are addresses of loopback at one port, with STARTTLS at 127.0.0.21 and
without at 127.0.0.22.
"""

from __future__ import annotations

import ssl
import threading

import pytest
from certificates import Authority, key_of
from integration.names import Names
from integration.nexthop import NextHop
from integration.queuebed import queue_bed
from integration.talk import send
from peers import take_port, wait_until
from webserver import TEXT, WebServer

INSIDER = "127.0.0.2"
SECURED, PLAIN = "127.0.0.21", "127.0.0.22"
POLICY = "version: STSv1\r\nmode: {mode}\r\nmx: {mx}\r\nmax_age: 86400\r\n"
RECORD = '_mta-sts 1 TXT "v=STSv1; id=1;"\nmta-sts 1 A 127.0.0.1\n'
AT = {
    "good": SECURED, "other-host": SECURED, "other-name": SECURED, "clear": PLAIN, "trial": PLAIN, "off": PLAIN, "moved": PLAIN,
    "large": PLAIN, "other-web": PLAIN, "slow": PLAIN, "page": PLAIN, "stale": PLAIN, "patient": PLAIN, "unlisted": PLAIN,
}  # fmt: skip
MODES = {"trial": "testing", "off": "none"}
NAMED = {"other-host": "other.good.test", "trial": "other.trial.test", "good": "*.good.test"}


def zone(name: str) -> str:
    """Each domain has one MX host, `mx`; all but one say that they have a policy."""
    return f"@ 1 MX 10 mx\nmx 1 A {AT[name]}\n" + (RECORD if name != "unlisted" else "mta-sts 1 A 127.0.0.1\n")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Names, a web server, MX hosts."""
    directory = tmp_path_factory.mktemp("world")
    directory.chmod(0o755)
    authority = Authority(directory)
    authority.file.chmod(0o644)
    hosts = authority.issue("hosts", [f"DNS:mx.{name}.test" for name in AT if name != "other-name"])
    webs = authority.issue("webs", [f"DNS:mta-sts.{name}.test" for name in AT if name != "other-web"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(hosts, key_of(hosts))
    port = take_port()
    with (
        Names({f"{name}.test": zone(name) for name in AT}) as names,
        WebServer({"webs": webs}) as web,
        NextHop(address=SECURED, port=port, tls=context) as secured,
        NextHop(address=PLAIN, port=port) as plain,
    ):
        for name in AT:
            mx = NAMED.get(name, f"mx.{name}.test")
            web.policy(f"{name}.test", POLICY.format(mode=MODES.get(name, "enforce"), mx=mx))
        path = "/.well-known/mta-sts.txt"
        web.answers["mta-sts.moved.test", path] = (
            302,
            {"Location": f"https://mta-sts.clear.test:{web.port}{path}"},
            b"",
        )
        policy = POLICY.format(mode="enforce", mx="mx.large.test") + "x-filler: y\r\n" * 6000
        web.answers["mta-sts.large.test", path] = (200, TEXT, policy.encode())
        web.answers["mta-sts.page.test", path] = (
            200,
            {"Content-Type": "text/html"},
            POLICY.format(mode="enforce", mx="x").encode(),
        )
        web.port_of_mail = port
        web.extra = (
            f'[dns]\nservers = ["{names.address}"]\ntimeout_s = 10\nattempts = 2\nmax_negative_ttl_s = 0\n'
            f'[delivery]\nport = {port}\n[tls]\nca_file = "{authority.file}"\n[tls.sts]\nport = {web.port}\n'
        )
        web.secured, web.plain, web.names = secured, plain, names
        yield web


@pytest.fixture(scope="module")
def bed(world, tmp_path_factory):
    with queue_bed(tmp_path_factory.mktemp("gate"), world.extra, port=world.port_of_mail) as bed:
        yield bed


def relay(bed, name: str) -> tuple[str, str]:
    """Mail from inside to a domain; sender and message id."""
    sender, _ = bed.names_of_two()
    return sender, send(bed.gateway.port, f"user@{name}.test", reverse_path=sender, source=INSIDER)


def test_mail_goes_to_the_host_that_the_policy_names_with_its_certificate_verified(bed, world):
    relay(bed, "good")
    world.secured.wait_to("user@good.test")
    row = bed.gateway.wait_for_event("sts_policy", domain="good.test")
    assert (row["mode"], row["policy_id"], row["max_age_s"]) == ("enforce", "1", 86400)
    row = bed.gateway.wait_for_event("connect_out", next_hop="mx:good.test")
    assert row["policy"] == "sts" and row["verified"] is True and row["tls"].startswith("TLSv1.")


@pytest.mark.parametrize(
    ("name", "status", "why"),
    [
        ("other-host", "4.7.4", "does not name it"),
        ("other-name", "4.7.5", "Hostname mismatch"),
        ("clear", "4.7.4", "STARTTLS"),
    ],
)
def test_enforce_keeps_mail_from_any_other_host(bed, world, name, status, why):
    _, message_id = relay(bed, name)
    row = bed.outcome("deferred", message_id)
    assert (row["status"], row["stage"]) == (status, "tls")
    assert why in row["text"]
    assert world.plain.find(f"user@{name}.test") is None and world.secured.find(f"user@{name}.test") is None


@pytest.mark.parametrize("name", ["trial", "off"])
def test_testing_and_none_never_block(bed, world, name):
    relay(bed, name)
    world.plain.wait_to(f"user@{name}.test")
    bed.gateway.wait_for_event("sts_policy", domain=f"{name}.test", mode=MODES[name])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("moved", "sts-policy-fetch-error: the server answers with status 302"),
        ("large", "sts-policy-fetch-error: the answer has more than 65536 octets"),
        ("page", "sts-policy-fetch-error: the answer is of type 'text/html'"),
        ("other-web", "sts-webpki-invalid: "),
    ],
)
def test_what_is_no_policy_is_told_and_mail_goes_as_without(bed, world, name, why):
    relay(bed, name)
    row = bed.gateway.wait_for_event("sts_failed", domain=f"{name}.test")
    assert row["reason"].startswith(why) and row["left_s"] == 0
    world.plain.wait_to(f"user@{name}.test")


def test_a_slow_web_server_costs_its_time_and_no_more(world, tmp_path):
    done = threading.Event()

    def wait(_):
        done.wait(60)
        return 200, TEXT, b""

    world.answers["mta-sts.slow.test", "/.well-known/mta-sts.txt"] = wait
    try:
        with queue_bed(tmp_path, world.extra + "timeout_s = 1\n", port=take_port()) as bed:
            relay(bed, "slow")
            row = bed.gateway.wait_for_event("sts_failed", domain="slow.test")
            assert row["reason"] == "sts-policy-fetch-error: no answer within 1 s"
            world.plain.wait_to("user@slow.test")
    finally:
        done.set()


def test_without_a_record_nobody_is_asked(bed, world):
    relay(bed, "unlisted")
    world.plain.wait_to("user@unlisted.test")
    assert not world.count("mta-sts.unlisted.test")


def test_the_operator_sees_what_holds_and_why(bed):
    shown = bed.gateway.ask("tls", "show", "good.test")
    assert shown["mta_sts"] == "enforce, for *.good.test (id 1)"
    (host,) = shown["hosts"]
    assert (host["level"], host["verified"]) == ("sts", True) and "says enforce" in host["why"]
    (host,) = bed.gateway.ask("tls", "show", "other-host.test")["hosts"]
    assert "does not name it" in host["why"]
    shown = bed.gateway.ask("tls", "show", "moved.test")
    assert "sts-policy-fetch-error: the server answers with status 302" in shown["mta_sts"]


def test_what_was_fetched_outlives_a_restart_a_reload_and_the_web_server(world, tmp_path):
    with queue_bed(tmp_path, world.extra, port=take_port()) as bed:
        gateway = bed.gateway
        relay(bed, "stale")
        gateway.wait_for_event("sts_policy", domain="stale.test")
        gateway.wait_for_event("deferred", recipient="user@stale.test")
        gateway.halt()
        world.close()
        try:
            gateway.start()
            _, message_id = relay(bed, "stale")
            row = bed.outcome("deferred", message_id)
            assert row["status"] == "4.7.4"
            assert gateway.run("reload").returncode == 0  # another resolver
            _, message_id = relay(bed, "stale")
            assert bed.outcome("deferred", message_id)["status"] == "4.7.4"
            assert world.plain.find("user@stale.test") is None
        finally:
            world.open()


def test_mail_that_cannot_go_as_the_policy_says_bounces_with_the_reason(world, tmp_path):
    with queue_bed(tmp_path, world.extra, port=take_port(), lifetime_s=4.0, delay_notice_s=0) as bed:
        sender, _ = relay(bed, "patient")
        bed.gateway.wait_for_event("expired", recipient="user@patient.test")
        dsn = wait_until(lambda: bed.senders.find(sender), "the bounce")
        assert b"Status: 5.7.4" in dsn.content and b"STARTTLS" in dsn.content
        assert world.plain.find("user@patient.test") is None


def test_a_message_whose_sender_asks_for_it_is_not_held_up(bed, world):
    """RFC 8689 4.3: "TLS-Required: No"."""
    text = b"From: a@senders.test\r\nTLS-Required: No\r\nSubject: news\r\n\r\ntext\r\n"
    send(bed.gateway.port, "relaxed@clear.test", text, reverse_path="a@senders.test", source=INSIDER)
    world.plain.wait_to("relaxed@clear.test")
    send(bed.gateway.port, "relaxed@other-name.test", text, reverse_path="a@senders.test", source=INSIDER)
    world.secured.wait_to("relaxed@other-name.test")
