"""Passwords checked by a real Dovecot: over its Unix socket and over TCP, gone and back again, from a gateway that is locked in."""

from __future__ import annotations

import smtplib
import ssl

import pytest
from certificates import Authority, config_rows
from integration.gateway import Gateway
from integration.nexthop import NextHop
from integration.peers.dovecot_logins import DovecotLogins
from peers import take_port, wait_until

USERS = {"anna": "wren", "bert@other.test": "blue Wren"}


class Bed:
    """A gateway with a submission port, its Dovecot and what is inside."""

    def __init__(self, directory, dovecot: DovecotLogins, hop: NextHop, name: str) -> None:
        authority = Authority(directory)
        pair = authority.issue("gate", ["DNS:localhost"])
        self.context = ssl.create_default_context(cafile=str(authority.file))
        self.submission = take_port()
        self.dovecot = dovecot
        extra = f'[[listeners]]\naddress = "127.0.0.1:{self.submission}"\n[tls]\n{config_rows(pair)}\n[auth]\ndovecot = "{name}"\ndelay_s = 0.0\n'
        self.gateway = Gateway(directory, next_hop=hop.name, relay_next_hop=hop.name, networks=[], extra=extra)

    def session(self) -> smtplib.SMTP:
        client = smtplib.SMTP("localhost", self.submission, "client.test")
        client.starttls(context=self.context)
        client.ehlo()
        return client

    def login(self, name: str, password: str) -> int:
        with self.session() as client:
            try:
                return client.login(name, password)[0]
            except smtplib.SMTPAuthenticationError as error:
                return error.smtp_code


@pytest.fixture(scope="module", params=["unix", "inet"])
def bed(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("dovecot")
    directory.chmod(0o755)
    with NextHop() as hop, DovecotLogins(directory, USERS) as dovecot:
        name = f"unix:{dovecot.socket}" if request.param == "unix" else f"inet:127.0.0.1:{dovecot.port}"
        made = Bed(directory, dovecot, hop, name)
        with made.gateway:
            yield made, hop
            made.gateway.assert_no_bugs()


def test_who_logs_in_may_relay_from_his_own_address_only(bed):
    made, hop = bed
    with made.session() as client:
        assert client.esmtp_features["auth"].split() == ["PLAIN", "LOGIN"]
        client.login("anna", "wren")
        assert client.mail("anna@example.test")[0] == 250
        assert client.rcpt("someone@elsewhere.test")[0] == 250
        assert client.data(b"From: anna@example.test\r\n\r\nHello\r\n")[0] == 250
        assert client.mail("bert@other.test")[0] == 553
    assert hop.wait_to("someone@elsewhere.test").reverse_path == "anna@example.test"
    made.gateway.wait_for_event("auth_ok", user="anna")
    with made.session() as client:
        client.login("bert@other.test", "blue Wren")
        assert client.mail("bert@other.test")[0] == 250


def test_who_does_not_is_refused(bed):
    made, _ = bed
    assert made.login("anna", "wrong") == 535
    assert made.login("nobody", "wren") == 535
    row = made.gateway.wait_for_event("auth_failed", user="nobody")
    assert row["cause"] == "wrong name or password"
    with made.session() as client:
        assert client.mail("anna@example.test")[0] == 530


def test_while_dovecot_is_away_nobody_is_let_in_or_refused(bed):
    made, _ = bed
    assert made.login("anna", "wren") == 235
    made.dovecot.stop()
    assert made.login("anna", "wren") == 454
    made.gateway.wait_for_event("auth_away")
    made.dovecot.start()
    wait_until(lambda: made.login("anna", "wren") == 235, "Dovecot is back")


def test_the_rights_are_as_declared(bed):
    made, _ = bed
    assert made.login("anna", "wren") == 235
    assert made.gateway.run("privs").returncode == 0
