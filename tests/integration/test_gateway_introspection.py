"""Tokens that an authorization server is asked about: a real gateway, its resolver role under its filter, an https server of the test."""

from __future__ import annotations

import base64
import json
import os
import signal
import smtplib
import ssl
import time
from collections.abc import Iterator
from urllib.parse import parse_qs

import certificates
import pytest
from integration.gateway import Gateway
from integration.names import Names
from integration.peers.clients import run_client
from integration.peers.packages import require
from integration.peers.process import take_port, wait_until
from webserver import WebServer

ANNA = "anna@example.test"
HOST, PATH = "login.example.test", "/introspect"
JSON = {"Content-Type": "application/json"}


class Login(WebServer):
    """An authorization server: `tokens` are those that it knows, with what it says of them."""

    def __init__(self, certificate: object) -> None:
        super().__init__({HOST: certificate})
        self.answers[HOST, PATH] = self.introspect
        self.tokens: dict[str, dict[str, object]] = {
            "good.token": {"active": True, "aud": "gatepost", "exp": int(time.time()) + 600, "username": ANNA},
            "of-nobody": {"active": True, "aud": "gatepost", "username": "nobody@example.test"},
            "for-a-shop": {"active": True, "aud": "shop", "username": ANNA},
        }

    def introspect(self, asked: object) -> tuple[int, dict[str, str], bytes]:
        right = "Basic " + base64.b64encode(b"gate:s3cret").decode()
        if asked.method != "POST" or asked.headers.get("Authorization") != right:
            return 401, JSON, b"{}"
        [token] = parse_qs(asked.body.decode())["token"]
        return 200, JSON, json.dumps(self.tokens.get(token, {"active": False})).encode()


class Submission(Gateway):
    """A gateway with a port for submission in TLS and one user."""

    login: Login
    names: Names

    def prepare(self, authority: certificates.Authority) -> None:
        self.authority = authority
        certificate = authority.issue("gate", ["DNS:localhost"])
        self.submissions = take_port()
        secret = self.directory / "introspection"
        secret.write_text("gate:s3cret\n")
        secret.chmod(0o600)
        self.extra = f"""
[auth]
users_file = "users"
delay_s = 0.01
max_delay_s = 0.05
audience = "gatepost"
user_claim = "username"
introspection_url = "https://{HOST}:{self.login.port}{PATH}"
introspection_credentials_file = "introspection"
introspection_ca_file = "{authority.file}"
introspection_timeout_s = 30
introspection_keep_s = 0
[dns]
servers = ["{self.names.address}"]
timeout_s = 10
attempts = 1
[tls]
outbound = "opportunistic"
[[tls.certificates]]
certificate_file = "{certificate}"
key_file = "{certificates.key_of(certificate)}"
[[listeners]]
address = "127.0.0.1:{self.submissions}"
kind = "submissions"
"""
        self.write_config()
        done = run_client([*self.configure()[:4], "user", "add", ANNA, "--generate", "--config", str(self.config)], b"")
        assert done.returncode == 0, done.stderr

    def secured(self) -> smtplib.SMTP:
        context = ssl.create_default_context(cafile=str(self.authority.file))
        client = smtplib.SMTP_SSL("localhost", self.submissions, "client.test", context=context, timeout=60)
        client.ehlo()
        return client

    def reply_to(self, token: str, user: str = ANNA) -> tuple[int, bytes]:
        """The last reply to an exchange."""
        client = self.secured()
        message = base64.b64encode(f"n,a={user},\1auth=Bearer {token}\1\1".encode()).decode()
        code, reply = client.docmd("AUTH", f"OAUTHBEARER {message}")
        if code == 334:
            code, reply = client.docmd("AQ==")
        client.close()
        return code, reply


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Submission]:
    directory = tmp_path_factory.mktemp("introspection")
    directory.chmod(0o755)
    authority = certificates.Authority(directory)
    authority.file.chmod(0o644)
    made = Submission(directory)
    with (
        Names({"example.test": "login 1 A 127.0.0.1\n"}) as made.names,
        Login(authority.issue("login", [f"DNS:{HOST}"])) as made.login,
    ):
        made.prepare(authority)
        with made:
            yield made
            bad = [row for row in made.events() if row["event"] in ("bug", "error", "internal_error", "event_unknown")]
            assert not bad, bad
            written = made.events_file.read_text()
            assert "good.token" not in written and "s3cret" not in written


def test_a_client_logs_in_with_a_token_and_has_the_rights_of_its_user(gateway: Submission) -> None:
    done = run_client(
        [
            require("curl"), "--silent", "--show-error", "--verbose", "--cacert", str(gateway.authority.file), "--url",
            f"smtps://localhost:{gateway.submissions}/client.test", "--mail-from", ANNA, "--mail-rcpt", "bob@far.test", "--upload-file",
            "-", "--user", f"{ANNA}:", "--oauth2-bearer", "good.token", "--login-options", "AUTH=OAUTHBEARER",
        ],
        f"From: {ANNA}\r\n\r\ntext\r\n".encode(),
    )  # fmt: skip
    assert done.returncode == 0 and "235 2.7.0" in done.stderr, done.stderr
    assert gateway.wait_for_event("accepted", recipient="bob@far.test")["permit"] == f"identity {ANNA}"


@pytest.mark.parametrize(
    ("token", "user"),
    [
        ("unknown", ANNA),
        ("of-nobody", "nobody@example.test"),
        ("for-a-shop", ANNA),
        ("good.token", "boss@example.test"),
    ],
)
def test_tokens_that_are_not_good_are_refused_like_any_login(gateway: Submission, token: str, user: str) -> None:
    assert gateway.reply_to(token, user)[0] == 535
    if token == "for-a-shop":
        assert gateway.wait_for_event("token_refused")["reason"] == "its aud is not auth.audience"


def test_where_nobody_can_say_it_is_neither_yes_nor_no(gateway: Submission) -> None:
    login = gateway.login
    good, login.answers[HOST, PATH] = login.answers[HOST, PATH], (500, JSON, b'{"active": true}')
    code, reply = gateway.reply_to("good.token")
    assert (code, reply[:5]) == (454, b"4.7.0")
    login.answers[HOST, PATH] = good
    login.close()
    assert gateway.reply_to("unknown")[0] == 454
    login.open()
    reasons = [row["reason"] for row in gateway.told("auth_away")]
    assert f"{HOST}: the server answers with status 500" in reasons[0]
    wait_until(lambda: gateway.reply_to("good.token")[0] == 235, "a login when the server is back")


def test_a_resolver_that_dies_meanwhile_is_no_answer_and_the_next_one_asks(gateway: Submission) -> None:
    login = gateway.login
    good = login.answers[HOST, PATH]

    def kill(asked: object) -> tuple[int, dict[str, str], bytes]:
        login.answers[HOST, PATH] = good
        os.kill(gateway.roles()["resolver"], signal.SIGKILL)
        return 200, JSON, b'{"active": true}'

    login.answers[HOST, PATH] = kill
    assert gateway.reply_to("good.token")[0] == 454
    wait_until(lambda: gateway.reply_to("good.token")[0] == 235, "a login by the next resolver")


def test_a_file_that_others_may_read_is_refused(gateway: Submission) -> None:
    secret = gateway.directory / "introspection"
    secret.chmod(0o644)
    done = gateway.run("check")
    secret.chmod(0o600)
    assert done.returncode != 0 and "may read this secret" in done.stdout + done.stderr
