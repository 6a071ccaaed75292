"""DANE on the real gateway: unbound that validates a signed zone, hosts with right, wrong, missing, expired and bogus TLSA records.

All hosts of MX records are addresses of loopback with the port of the Postfix that is one of them.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from certificates import Authority, key_of
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from integration.gateway import Gateway
from integration.nexthop import NextHop
from integration.peers.unbound import Unbound
from integration.talk import send
from integration.tlshop import TlsHop
from peers import PostfixServer, wait_until

ZONE = "signed.test"
INSIDER = "127.0.0.2"
QUEUE = "[queue]\nallow_volatile = true\nretry_min_s = 0.5\nretry_max_s = 1.0\nnext_hop_retry_s = 0.5\n"


def tlsa(usage: int, selector: int, matching: int, certificate: Path) -> str:
    """A record for a certificate, made by another implementation than ours."""
    decoded = x509.load_pem_x509_certificate(certificate.read_bytes())
    data = decoded.public_bytes(Encoding.DER)
    if selector:
        data = decoded.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = {0: data.hex, 1: hashlib.sha256(data).hexdigest, 2: hashlib.sha512(data).hexdigest}[matching]
    return f"{usage} {selector} {matching} {digest()}"


class Bed:
    """Hosts, their certificates, the zone; `rows` says for each domain below the zone where its MX is and what it publishes."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        directory.chmod(0o755)
        authority, stranger = Authority(directory), Authority(directory, "stranger")
        names = [f"DNS:*.{ZONE}", "DNS:localhost"]
        good, forged = authority.issue("good", names), stranger.issue("forged", names)
        other = authority.issue("other", ["DNS:mx.elsewhere.test"])
        late = authority.issue("late", names, days=-1)

        def chain(name: str, *certificates: Path) -> Path:
            path = directory / f"{name}-chain.pem"
            path.write_text("".join(one.read_text() for one in certificates))
            return path

        settings = {
            "smtpd_tls_cert_file": str(good),
            "smtpd_tls_key_file": str(key_of(good)),
            "smtpd_tls_security_level": "may",
        }
        domains = [f"postfix.{ZONE}", f"postfix-wrong.{ZONE}"]
        self.postfix = stack.enter_context(PostfixServer(directory, domains=domains, settings=settings))
        self.port = port = self.postfix.port
        hosts = {
            "good": (chain("good", good, authority.file), good),
            "forged": (chain("forged", forged, authority.file), forged),  # sends an authority that has not signed it
            "other": (chain("other", other, authority.file), other),
            "late": (chain("late", late, authority.file), late),
            "alone": (good, good),
        }
        self.addresses = {name: f"127.0.0.{number}" for number, name in enumerate((*hosts, "clear"), 21)} | {
            "postfix": "127.0.0.1"
        }
        self.hops = {
            name: stack.enter_context(TlsHop(self.addresses[name], port, file, key_of(leaf)))
            for name, (file, leaf) in hosts.items()
        }
        self.hops["clear"] = stack.enter_context(TlsHop(self.addresses["clear"], port))
        ee, ta = tlsa(3, 1, 1, good), tlsa(2, 1, 1, authority.file)
        wrong = "3 1 1 " + "ab" * 32
        self.rows = {
            "postfix": ("postfix", ee),
            "postfix-wrong": ("postfix", wrong),
            "ee": ("good", ee),
            "ee-whole": ("good", tlsa(3, 0, 0, good)),
            "ee-512": ("good", tlsa(3, 0, 2, good)),
            "ee-name": ("other", tlsa(3, 1, 1, other)),  # names are of no account
            "ee-late": ("late", tlsa(3, 1, 1, late)),  # nor are dates
            "ta": ("good", ta),
            "ta-whole": ("alone", tlsa(2, 0, 0, authority.file)),  # the authority is in the record, and not sent
            "ta-name": ("other", ta),
            "ta-late": ("late", ta),
            "ta-forged": ("forged", ta),
            "ta-not-sent": ("alone", ta),
            "wrong": ("good", wrong),
            "clear": ("clear", ee),
            "expired": ("good", ee),
            "bogus": ("good", ee),
            "unusable": ("good", "1 1 1 " + "ab" * 32),
            "missing": ("good", ""),
            "missing-clear": ("clear", ""),
        }  # fmt: skip
        text = ""
        for name, (host, record) in self.rows.items():
            text += f"{name} 60 IN MX 10 mx-{name}\nmx-{name} 60 IN A {self.addresses[host]}\n"
            text += f"_{port}._tcp.mx-{name} 60 IN TLSA {record}\n" if record else ""
        text += f"implicit 60 IN A {self.addresses['good']}\n_{port}._tcp.implicit 60 IN TLSA {ee}\n"
        text += "alias 60 IN MX 10 alias-mx\nalias-mx 60 IN CNAME mx-ee\n"
        text += "second 60 IN MX 10 mx-wrong\nsecond 60 IN MX 20 mx-ee\n"
        plain = f"@ 60 IN MX 10 mx\nmx 60 IN A {self.addresses['good']}\n_{port}._tcp.mx 60 IN TLSA {wrong}\n"
        self.unbound = stack.enter_context(
            Unbound(
                directory,
                ZONE,
                text,
                expired=[f"_{port}._tcp.mx-expired"],
                bogus=[f"_{port}._tcp.mx-bogus"],
                plain={"plain.test": plain},
            )
        )

    def extra(self, more: str = "") -> str:
        dns = f'[dns]\nservers = ["{self.unbound.address}"]\nprobe = "{ZONE}"\ntimeout_s = 10\n'
        return f"{QUEUE}{dns}[delivery]\nport = {self.port}\n{more}"


@pytest.fixture(scope="module")
def bed(tmp_path_factory) -> Iterator[Bed]:
    with ExitStack() as stack:
        yield Bed(tmp_path_factory.mktemp("bed"), stack)


@pytest.fixture(scope="module")
def gateway(bed, tmp_path_factory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("gate"), extra=bed.extra(), networks=(f"{INSIDER}/32",)) as gateway:
        yield gateway
        gateway.assert_no_bugs()


def relay(gateway: Gateway, domain: str) -> str:
    return send(gateway.port, f"user@{domain}", reverse_path="user@senders.test", source=INSIDER)


def arrived(bed: Bed, host: str, recipient: str) -> str:
    """By which TLS it came."""
    found = wait_until(lambda: bed.hops[host].find(recipient), f"mail to {recipient}")
    return found.tls


@pytest.mark.parametrize("name", ["ee", "ee-whole", "ee-512", "ee-name", "ee-late", "ta", "ta-whole"])
def test_what_the_records_say_is_verified(bed, gateway, name):
    relay(gateway, f"{name}.{ZONE}")
    host = bed.rows[name][0]
    assert arrived(bed, host, f"user@{name}.{ZONE}") == "TLSv1.3"
    row = gateway.wait_for_event("connect_out", next_hop=f"mx:{name}.{ZONE}")
    assert (row["policy"], row["verified"]) == ("dane", True)


@pytest.mark.peer("postfix")
def test_postfix_with_the_right_record_and_with_the_wrong_one(bed, gateway):
    relay(gateway, f"postfix.{ZONE}")
    bed.postfix.wait_for_messages(1)
    assert gateway.wait_for_event("connect_out", next_hop=f"mx:postfix.{ZONE}")["verified"] is True
    message_id = relay(gateway, f"postfix-wrong.{ZONE}")
    assert gateway.wait_for_event("deferred", id=message_id)["status"] == "4.7.5"
    assert len(bed.postfix.messages()) == 1


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [
        ("wrong", "4.7.5", "no certificate matches the TLSA records"),
        ("ta-name", "4.7.5", "the certificate is for none of"),
        ("ta-late", "4.7.5", "expired"),
        ("ta-forged", "4.7.5", "certificate not verified"),
        ("ta-not-sent", "4.7.5", "no certificate matches the TLSA records"),
        ("clear", "4.7.4", "STARTTLS"),
        ("expired", "4.7.5", "failed or is bogus"),
        ("bogus", "4.7.5", "failed or is bogus"),
    ],
)
def test_what_does_not_fit_waits(bed, gateway, name, status, says):
    message_id = relay(gateway, f"{name}.{ZONE}")
    row = gateway.wait_for_event("deferred", id=message_id)
    assert row["status"] == status and says in row["text"], row
    assert bed.hops[bed.rows[name][0]].find(f"user@{name}.{ZONE}") is None


@pytest.mark.parametrize(
    ("domain", "host", "policy", "tls"),
    [
        (f"unusable.{ZONE}", "good", "encrypt", "TLSv1.3"),
        (f"missing.{ZONE}", "good", "opportunistic", "TLSv1.3"),
        (f"missing-clear.{ZONE}", "clear", "opportunistic", ""),
        ("plain.test", "good", "opportunistic", "TLSv1.3"),  # its wrong record is not secure, so it says nothing
    ],
)
def test_without_records_that_hold_it_is_as_without_dane(bed, gateway, domain, host, policy, tls):
    relay(gateway, domain)
    assert arrived(bed, host, f"user@{domain}") == tls
    row = gateway.wait_for_event("connect_out", next_hop=f"mx:{domain}")
    assert row["policy"] == policy and not row.get("verified")


def test_an_mx_host_that_is_an_alias_is_held_to_the_records_at_its_end(bed, gateway):
    relay(gateway, f"alias.{ZONE}")
    assert arrived(bed, "good", f"user@alias.{ZONE}") == "TLSv1.3"
    assert gateway.wait_for_event("connect_out", next_hop=f"mx:alias.{ZONE}")["verified"] is True


def test_a_domain_without_mx_is_its_own_host(bed, gateway):
    relay(gateway, f"implicit.{ZONE}")
    assert arrived(bed, "good", f"user@implicit.{ZONE}") == "TLSv1.3"
    assert gateway.wait_for_event("connect_out", next_hop=f"mx:implicit.{ZONE}")["verified"] is True


@pytest.mark.parametrize(
    ("name", "level", "status", "reason"),
    [
        ("wrong", "best", b"5.7.5", b"no certificate matches the TLSA records"),
        ("missing", "dane-only", b"5.7.4", b"there are no TLSA records"),
        ("bogus", "dane", b"5.7.5", b"failed or is bogus"),
    ],
)
def test_what_waits_comes_back_with_the_reason(bed, tmp_path, name, level, status, reason):
    extra = bed.extra().replace("allow_volatile", "lifetime_s = 4.0\ndelay_notice_s = 0\nallow_volatile")
    extra += f'[[tls.policies]]\ndomains = [".{ZONE}"]\nlevel = "{level}"\n'
    with NextHop() as hop, Gateway(tmp_path, next_hop=hop.name, extra=extra, networks=(f"{INSIDER}/32",)) as gateway:
        bounce = hop.wait_to(expire_tried(gateway, f"user@{name}.{ZONE}"))
        assert b"Status: " + status in bounce.content and reason in b" ".join(bounce.content.split()), bounce.content
        gateway.assert_no_bugs()
    assert bed.hops["good"].find(f"user@{name}.{ZONE}") is None or name == "missing"


def expire_tried(gateway: Gateway, recipient: str) -> str:
    """A sender whose message has expired, and was tried before: its time may be over sooner than the first attempt of a busy machine."""
    for number in itertools.count():
        sender = f"user{number}@example.test"
        message_id = send(gateway.port, recipient, reverse_path=sender, source=INSIDER)
        if gateway.wait_for_event("expired", id=message_id)["attempts"]:
            return sender
    raise AssertionError


def test_the_next_host_is_tried_where_one_does_not_fit(bed, gateway):
    relay(gateway, f"second.{ZONE}")
    assert arrived(bed, "good", f"user@second.{ZONE}") == "TLSv1.3"
    row = gateway.wait_for_event("connect_out", next_hop=f"mx:second.{ZONE}")
    assert row["host"].startswith(f"mx-ee.{ZONE}")


# --- what is remembered, and what is shown --------------------------------------------------------------------------------


class Changing:
    """A zone of its own: `set` publishes other records for the same host."""

    def __init__(self, directory: Path, bed: Bed, stack: ExitStack) -> None:
        self.bed = bed
        self.directory, self.stack = directory, stack
        self.good = bed.rows["ee"][1]
        self.unbound = stack.enter_context(Unbound(directory, "change.test", self.text("good", self.good)))

    def text(self, host: str, record: str) -> str:
        text = f"@ 60 IN MX 10 mx\nmx 60 IN A {self.bed.addresses[host]}\n"
        return text + (f"_{self.bed.port}._tcp.mx 60 IN TLSA {record}\n" if record else "")

    def set(self, host: str, record: str) -> None:
        self.unbound.halt()
        self.unbound.text = self.text(host, record)
        self.unbound.start()


def test_a_domain_that_was_verified_is_not_sent_in_clear_until_it_is_forgotten(bed, tmp_path):
    domain, hop = "change.test", "mx:change.test"
    with ExitStack() as stack:
        zone = Changing(tmp_path, bed, stack)
        extra = (
            f'{QUEUE}[dns]\nservers = ["{zone.unbound.address}"]\nprobe = "{domain}"\ntimeout_s = 10\nmax_ttl_s = 1\nmax_negative_ttl_s = 1\n'
            f"[delivery]\nport = {bed.port}\nkeep_idle_s = 0\n"
        )
        gateway = stack.enter_context(Gateway(tmp_path, extra=extra, networks=(f"{INSIDER}/32",)))
        relay(gateway, domain)
        gateway.wait_for_event("connect_out", next_hop=hop, policy="dane")
        gateway.wait_for_event("delivered")
        wait_until(lambda: gateway.ask("tls", "remembered"), "what is remembered")
        wait_until(lambda: (gateway.spool / "tls" / "remembered").exists(), "the file")
        gateway.halt()
        zone.set("clear", "")  # now it publishes nothing, and its host has no TLS
        gateway.start()
        assert [row["domain"] for row in gateway.ask("tls", "remembered")] == [domain]
        message_id = relay(gateway, domain)
        row = gateway.wait_for_event("deferred", id=message_id)
        assert row["status"] == "4.7.4" and f"gatepost tls forget {domain}" in row["text"]
        assert gateway.wait_for_event("tls_downgrade", domain=domain)["remembered"].startswith(
            f"{domain} was verified by DANE"
        )
        shown = gateway.ask("tls", "show", domain)
        assert shown["remembered"] and shown["hosts"][0]["level"] == "encrypt"
        assert gateway.run("tls", "forget", "nothing.test").returncode == 1
        assert gateway.ask("tls", "forget", domain)["forgotten"] == [domain]
        assert gateway.wait_for_event("delivered", id=message_id)
        assert gateway.wait_for_event("connect_out", next_hop=hop, tls="")["policy"] == "opportunistic"
        assert gateway.ask("tls", "remembered") == []
        gateway.assert_no_bugs()


def test_show_says_what_would_be_used_and_why(bed, gateway):
    assert gateway.wait_for_event("dane")["in_effect"] is True
    shown = gateway.ask("tls", "show", f"ee.{ZONE}")
    assert (shown["policy"]["level"], shown["dane"], shown["mta_sts"]) == ("best", "in effect", "none")
    (host,) = shown["hosts"]
    assert (host["level"], host["tls"], host["verified"]) == ("dane", "always", True)
    assert host["records"] == [bed.rows["ee"][1]]
    printed = gateway.run("tls", "show", f"second.{ZONE}").stdout
    assert printed.index(f"mx-wrong.{ZONE}") < printed.index(f"mx-ee.{ZONE}") and "TLSA 3 1 1" in printed
    (host,) = gateway.ask("tls", "show", f"bogus.{ZONE}")["hosts"]
    assert host["tls"] == "not used" and "bogus" in host["why"]
    (host,) = gateway.ask("tls", "show", "plain.test")["hosts"]
    assert host["level"] == "opportunistic" and "not secure" in host["why"]
    shown = gateway.ask("tls", "show", "smtp://127.0.0.1:25")
    assert shown["hosts"][0]["level"] == "opportunistic" and "the configuration names" in shown["hosts"][0]["why"]
    assert gateway.run("tls", "show", "nosuch.invalid").returncode == 1
    assert "DANE         in effect" in gateway.run("status").stdout


def test_without_a_resolver_that_validates_it_says_so(bed, tmp_path):
    with ExitStack() as stack:
        unbound = stack.enter_context(Unbound(tmp_path, "change.test", "mx 60 IN A 127.0.0.1\n", validates=False))
        extra = f'{QUEUE}[dns]\nservers = ["{unbound.address}"]\nprobe = "change.test"\ntimeout_s = 10\n'
        gateway = stack.enter_context(Gateway(tmp_path, extra=extra))
        assert gateway.wait_for_event("dane")["in_effect"] is False
        assert "DANE         not in effect: the DNS servers do not say" in gateway.run("status").stdout
        assert "not in effect" in gateway.run("check").stdout
        gateway.assert_no_bugs()


def test_check_asks_the_resolver(bed, gateway):
    assert "DANE for outgoing mail: in effect" in gateway.run("check").stdout
