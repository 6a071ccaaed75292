"""REQUIRETLS and "TLS-Required: No" (RFC 8689): who may have such a message, what its sender hears, and what is relaxed."""

from __future__ import annotations

import contextlib
import smtplib
import ssl

import pytest
from certificates import Authority, config_rows, key_of
from integration.gateway import Gateway
from integration.nexthop import EXTENSIONS, NextHop
from integration.queuebed import queue_section
from integration.talk import message

SENDER = "anna@senders.test"


class Bed:
    """A gateway with a certificate; next hops by what they promise."""

    def __init__(self, directory) -> None:
        directory.chmod(0o755)
        self.authority = Authority(directory)
        own = self.authority.issue("gate", ["DNS:localhost", "DNS:gate.example.test", "IP:127.0.0.1"])
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(own, key_of(own))
        names = (*EXTENSIONS, "REQUIRETLS")
        self.hops = {
            "good": NextHop(extensions=names, tls=context),
            "silent": NextHop(tls=context),
            "unverified": NextHop(extensions=names, tls=context),
            "clear": NextHop(extensions=names),
            "senders": NextHop(extensions=names, tls=context),
        }
        domains = "".join(f'[domains."{name}.test"]\nnext_hop = "{hop.name}"\n' for name, hop in self.hops.items())
        verified = '", "'.join(f"{name}.test" for name in ("good", "silent", "senders"))
        policies = f'[[tls.policies]]\ndomains = ["{verified}"]\nlevel = "verify"\nca_file = "{self.authority.file}"\n'
        extra = queue_section() + domains + config_rows(own) + policies
        self.gateway = Gateway(directory, next_hop=self.hops["clear"].name, extra=extra)

    def send(self, to: str, content: bytes | None = None, options: tuple[str, ...] = ("REQUIRETLS",)) -> str:
        """By STARTTLS; the gateway's number."""
        context = ssl.create_default_context(cafile=str(self.authority.file))
        with smtplib.SMTP("localhost", self.gateway.port, "client.test") as smtp:
            smtp.ehlo()
            assert not smtp.has_extn("requiretls")
            smtp.starttls(context=context)
            smtp.ehlo()
            assert smtp.has_extn("requiretls")
            assert smtp.mail(SENDER, options)[0] == 250
            assert smtp.rcpt(to)[0] == 250
            return smtp.data(content or message())[1].split()[-1].decode()


@pytest.fixture(scope="module")
def bed(tmp_path_factory):
    bed = Bed(tmp_path_factory.mktemp("bed"))
    with contextlib.ExitStack() as stack:
        for hop in bed.hops.values():
            stack.enter_context(hop)
        gateway = stack.enter_context(bed.gateway)
        yield bed
        gateway.assert_no_bugs()


def test_it_goes_to_a_verified_host_that_promises_the_same(bed):
    bed.send("one@good.test")
    assert "REQUIRETLS" in bed.hops["good"].wait_to("one@good.test").parameters.split()


def test_a_message_without_it_does_not_say_it(bed):
    bed.send("plain@good.test", options=())
    assert "REQUIRETLS" not in bed.hops["good"].wait_to("plain@good.test").parameters


@pytest.mark.parametrize("hop", ["silent", "unverified", "clear"])
def test_it_is_returned_where_it_cannot_be_kept(bed, hop):
    """RFC 8689 4.2.1 and 5: the notice needs TLS as well, and returns the header only."""
    recipient = f"secret-{hop}@{hop}.test"
    content = message("to " + hop, b"the body of it\r\n")
    message_id = bed.send(recipient, content, ("REQUIRETLS", "RET=FULL", f"ENVID={hop}"))
    row = bed.gateway.wait_for_event("bounced", id=message_id)
    assert row["status"] == "5.7.30"
    created = bed.gateway.wait_for_event("dsn_created", about=message_id)
    bed.gateway.wait_for_event("delivered", id=created["id"])
    dsn = next(t for t in bed.hops["senders"].taken if f"Original-Envelope-Id: {hop}".encode() in t.content)
    assert "REQUIRETLS" in dsn.parameters.split()
    assert dsn.reverse_path == ""
    assert b"Status: 5.7.30" in dsn.content
    assert b"the body of it" not in dsn.content
    assert bed.hops[hop].find(recipient) is None


def test_the_protocol_in_received(bed):
    """RFC 6531 4.3: UTF8SMTPS."""
    bed.send("utf@good.test", options=("SMTPUTF8",))
    assert b"with UTF8SMTPS id " in bed.hops["good"].wait_to("utf@good.test").content
    bed.send("ascii@good.test", options=())
    assert b"with ESMTPS id " in bed.hops["good"].wait_to("ascii@good.test").content
