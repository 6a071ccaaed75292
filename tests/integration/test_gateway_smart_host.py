"""AUTH to a smart host: our own submission listener, and Postfix with Dovecot's SASL; what is refused waits, and nothing goes in clear."""

from __future__ import annotations

import json
from pathlib import Path

import certificates
import pytest
from integration.gateway import Gateway
from integration.nexthop import NextHop
from integration.peers.clients import run_client
from integration.peers.dovecot_logins import DovecotLogins
from integration.peers.postfix import PostfixServer
from integration.peers.process import take_port
from integration.talk import send

USER, PASSWORD = "anna@inner.test", "correct horse battery"


class SmartHost(Gateway):
    """A second gateway with a submission listener, by whose user the first one sends."""

    def prepare(self) -> None:
        self.authority = certificates.Authority(self.directory)
        certificate = self.authority.issue("smart", ["DNS:localhost", "IP:127.0.0.1"])
        self.submission = take_port()
        self.extra = f"""
[auth]
users_file = "users"
delay_s = 0.01
max_delay_s = 0.05
max_failures = 1000
[[tls.certificates]]
certificate_file = "{certificate}"
key_file = "{certificates.key_of(certificate)}"
[[listeners]]
address = "127.0.0.1:{self.submission}"
kind = "submission"
"""
        self.write_config()
        command = ["user", "add", USER, "--stdin", "--from", "*@inner.test", "--config", str(self.config)]
        done = run_client([*self.configure()[:4], *command], f"{PASSWORD}\n".encode())
        assert done.returncode == 0, done.stderr


def secret(directory: Path, text: str) -> Path:
    path = directory / "smart.password"
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def sender(directory: Path, host: str, port: int, extra: str, password: str = PASSWORD, user: str = USER) -> Gateway:
    """A gateway whose mail for the world goes to host and port, with a login."""
    rows = f'[[delivery.credentials]]\nnext_hop = "smtp://{host}:{port}"\nuser = "{user}"\npassword_file = "smart.password"\n'
    directory.mkdir(exist_ok=True)
    gateway = Gateway(
        directory,
        networks=["127.0.0.1/32"],
        relay_next_hop=f"smtp://{host}:{port}",
        extra=rows + extra,
    )
    secret(gateway.directory, password)
    return gateway


def mail() -> bytes:
    return b"From: anna@inner.test\r\nTo: bob@far.test\r\nSubject: out\r\n\r\ntext\r\n"


def test_our_own_submission_listener(tmp_path):
    with NextHop() as world:
        (tmp_path / "smart").mkdir()
        smart = SmartHost(tmp_path / "smart", relay_next_hop=world.name)
        smart.prepare()
        extra = f'[tls]\nca_file = "{smart.authority.file}"\n'
        with smart, sender(tmp_path / "inner", "127.0.0.1", smart.submission, extra) as inner:
            sent = send(inner.port, "bob@far.test", mail(), reverse_path="anna@inner.test")
            inner.wait_for_event("delivered", id=sent)
            world.wait_to("bob@far.test")
            assert smart.wait_for_event("auth_ok", user=USER)["mechanism"] == "SCRAM-SHA-256-PLUS"
            told = inner.wait_for_event("connect_out", login="SCRAM-SHA-256-PLUS")
            assert told["verified"]
            assert PASSWORD not in inner.events_file.read_text() + smart.events_file.read_text()
            inner.assert_no_bugs()


def test_a_refused_login_waits_and_a_new_password_is_taken(tmp_path):
    with NextHop() as world:
        (tmp_path / "smart").mkdir()
        smart = SmartHost(tmp_path / "smart", relay_next_hop=world.name)
        smart.prepare()
        extra = f'[tls]\nca_file = "{smart.authority.file}"\n'
        with smart, sender(tmp_path / "inner", "127.0.0.1", smart.submission, extra, password="wrong") as inner:
            sent = send(inner.port, "bob@far.test", mail(), reverse_path="anna@inner.test")
            told = inner.wait_for_event("auth_out_failed")
            assert told["mechanism"] == "SCRAM-SHA-256-PLUS" and told["reason"].startswith("535 5.7.8")
            outcome = inner.wait_for_event("deferred", id=sent)
            assert (outcome["stage"], outcome["code"], outcome["status"]) == ("auth", 535, "4.7.8")
            assert not inner.events("bounced")
            secret(inner.directory, PASSWORD)
            assert inner.run("reload").returncode == 0
            inner.run("queue", "retry", "--all")
            inner.wait_for_event("delivered", id=sent)
            world.wait_to("bob@far.test")


@pytest.fixture
def sasl_postfix(tmp_path):
    authority = certificates.Authority(tmp_path)
    certificate = authority.issue("postfix", ["DNS:localhost", "IP:127.0.0.1"])
    with DovecotLogins(tmp_path, {"gate": PASSWORD}, "plain login scram-sha-256") as sasl:
        settings = {
            "smtpd_tls_security_level": "may",
            "smtpd_tls_auth_only": "yes",
            "smtpd_tls_chain_files": f"{certificates.key_of(certificate)}, {certificate}",
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_sasl_type": "dovecot",
            "smtpd_sasl_path": f"inet:127.0.0.1:{sasl.port}",
            "mynetworks": "192.0.2.0/24",
            "smtpd_client_restrictions": "permit_sasl_authenticated, reject",
        }
        with PostfixServer(tmp_path, settings=settings) as postfix:
            yield postfix, authority


@pytest.mark.parametrize(("mechanisms", "used"), [([], "SCRAM-SHA-256"), (["PLAIN"], "PLAIN"), (["LOGIN"], "LOGIN")])
def test_postfix_with_dovecot(tmp_path, sasl_postfix, mechanisms: list[str], used: str):
    postfix, authority = sasl_postfix
    listed = f"mechanisms = {json.dumps(mechanisms)}\n" if mechanisms else ""
    extra = listed + f'[tls]\nca_file = "{authority.file}"\n'
    with sender(tmp_path / "inner", "127.0.0.1", postfix.port, extra, user="gate") as inner:
        sent = send(inner.port, "bob@elsewhere.test", mail(), reverse_path="anna@inner.test")
        inner.wait_for_event("connect_out", login=used)
        inner.wait_for_event("delivered", id=sent)  # Postfix takes nothing from who has not logged in


def test_a_host_that_is_not_verified_gets_scram_only(tmp_path, sasl_postfix):
    postfix, _ = sasl_postfix
    hop = f"smtp://127.0.0.1:{postfix.port}"
    rows = f'[[tls.policies]]\nlevel = "encrypt"\nnext_hops = ["{hop}"]\n'
    with sender(
        tmp_path / "inner", "127.0.0.1", postfix.port, 'mechanisms = ["PLAIN", "LOGIN"]\n' + rows, user="gate"
    ) as inner:
        sent = send(inner.port, "bob@elsewhere.test", mail(), reverse_path="anna@inner.test")
        outcome = inner.wait_for_event("deferred", id=sent)
        assert outcome["stage"] == "auth" and "only SCRAM is used" in outcome["text"]
    with sender(tmp_path / "other", "127.0.0.1", postfix.port, rows, user="gate") as inner:
        send(inner.port, "bob@elsewhere.test", mail(), reverse_path="anna@inner.test")
        inner.wait_for_event("connect_out", login="SCRAM-SHA-256")


def test_nothing_without_tls(tmp_path):
    """The smart host offers AUTH and no STARTTLS: the login is not sent, and the mail waits."""
    with (
        NextHop(extensions=["PIPELINING", "AUTH PLAIN LOGIN SCRAM-SHA-256"]) as smart,
        sender(tmp_path / "inner", "127.0.0.1", smart.port, "") as inner,
    ):
        sent = send(inner.port, "bob@far.test", mail(), reverse_path="anna@inner.test")
        outcome = inner.wait_for_event("deferred", id=sent)
        assert outcome["stage"] in ("tls", "auth") and not smart.taken


def test_a_secret_that_others_can_read_is_refused(tmp_path):
    gateway = sender(tmp_path / "inner", "127.0.0.1", 25, "")
    gateway.write_config()
    (gateway.directory / "smart.password").chmod(0o644)
    done = gateway.run("check")
    assert done.returncode != 0 and "smart.password" in done.stdout + done.stderr
