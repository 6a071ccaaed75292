"""AUTH with real clients over 587 (STARTTLS) and 465 (TLS from the first octet), and what a login gives and does not."""

from __future__ import annotations

import base64
import hashlib
import json
import smtplib
import ssl
import time
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import certificates
import jwt
import pytest
import scramp
from cryptography.hazmat.primitives.asymmetric import ec
from integration.gateway import Gateway
from integration.nexthop import NextHop
from integration.peers.clients import run_client
from integration.peers.packages import require
from integration.peers.process import take_port

ANNA, PASSWORD = "anna@example.test", "correct horse battery"
ISSUER, AUDIENCE = "https://login.example.test", "gatepost"


def text(sender: str = ANNA) -> bytes:
    return f"From: {sender}\r\nTo: bob@far.test\r\nSubject: Hello\r\n\r\nA line of text.\r\n".encode()


class Submission(Gateway):
    """A gateway with a submission port, a TLS port and two users; mail for the world goes to the next hop."""

    key = ec.generate_private_key(ec.SECP256R1())
    max_failures = 100

    def prepare(self) -> None:
        self.authority = certificates.Authority(self.directory)
        self.certificate = self.authority.issue("gate", ["DNS:localhost", "IP:127.0.0.1"])
        self.submission, self.submissions = take_port(), take_port()
        jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key())) | {"kid": "one", "alg": "ES256"}
        (self.directory / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
        self.extra = f"""
[auth]
users_file = "users"
mechanisms = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "EXTERNAL", "OAUTHBEARER", "XOAUTH2", "PLAIN", "LOGIN"]
delay_s = 0.01
max_delay_s = 0.05
max_failures = {self.max_failures}
jwks_file = "jwks.json"
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
[[tls.certificates]]
certificate_file = "{self.certificate}"
key_file = "{certificates.key_of(self.certificate)}"
[[listeners]]
address = "127.0.0.1:{self.submission}"
kind = "submission"
[[listeners]]
address = "127.0.0.1:{self.submissions}"
kind = "submissions"
client_certificates = true
[[relay.certificates]]
ca_file = "{self.authority.file}"
names = ["relay.example.test"]
"""
        self.write_config()
        self.add(ANNA)
        self.add("scanner", "--verifier", "argon2id", "--from", "scan+*@example.test")

    def add(self, name: str, *options: str) -> None:
        command = ["user", "add", name, "--stdin", *options, "--config", str(self.config)]
        done = run_client([*self.configure()[:4], *command], f"{PASSWORD}\n".encode())
        assert done.returncode == 0, done.stderr

    @property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority.file))

    def login(self, user: str = ANNA, password: str = PASSWORD) -> smtplib.SMTP:
        """A client that has sent STARTTLS and AUTH."""
        client = smtplib.SMTP("localhost", self.submission, "client.test", timeout=60)
        client.starttls(context=self.context)
        client.login(user, password)
        return client

    def secured(self) -> smtplib.SMTP:
        client = smtplib.SMTP("localhost", self.submission, "client.test", timeout=60)
        client.starttls(context=self.context)
        client.ehlo()
        return client

    def token(self, **changes: object) -> str:
        claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 600, "email": ANNA} | changes
        return jwt.encode(claims, self.key, "ES256", headers={"kid": "one"})


@pytest.fixture(scope="module")
def hop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NextHop]:
    with NextHop() as server:
        yield server


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, hop: NextHop) -> Iterator[Submission]:
    made = Submission(tmp_path_factory.mktemp("auth"), relay_next_hop=f"smtp://127.0.0.1:{hop.port}")
    made.prepare()
    with made:
        yield made
        made.assert_no_bugs()
        assert PASSWORD not in made.events_file.read_text()


def test_what_is_offered_where(gateway: Submission) -> None:
    edge = smtplib.SMTP("localhost", gateway.port, "client.test")
    edge.ehlo()
    assert not edge.has_extn("auth")
    assert edge.docmd("AUTH", "PLAIN AGEAYg==")[0] == 502
    edge.close()
    clear = smtplib.SMTP("localhost", gateway.submission, "client.test")
    clear.ehlo()
    assert not clear.has_extn("auth")
    assert clear.docmd("AUTH", "PLAIN AGEAYg==")[0] == 538
    assert clear.docmd("MAIL", "FROM:<anna@example.test>")[0] == 530
    clear.close()
    client = gateway.secured()
    offered = client.esmtp_features["auth"].split()
    assert offered == ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2", "PLAIN", "LOGIN"]
    code, reply = client.docmd("MAIL", f"FROM:<{ANNA}>")
    assert (code, reply[:5]) == (530, b"5.7.0")
    client.close()


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("implicit", [False, True])
def test_swaks(gateway: Submission, mechanism: str, implicit: bool) -> None:
    port, tls = (gateway.submissions, "--tls-on-connect") if implicit else (gateway.submission, "--tls")
    for password, code in ((PASSWORD, 0), ("wrong", 28)):
        done = run_client(
            [
                require("swaks"), "--server", "127.0.0.1", "--port", str(port), tls, "--auth", mechanism, "--auth-user", ANNA,
                "--auth-password", password, "--from", ANNA, "--to", "bob@far.test", "--data", "-", "--helo", "client.test",
            ],
            text(),
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert ("535 5.7.8" in done.stdout) is (password == "wrong")


@pytest.mark.parametrize(
    "options", [("AUTH=PLAIN",), ("AUTH=LOGIN",), ("AUTH=SCRAM-SHA-256",), ("AUTH=XOAUTH2",), ("AUTH=OAUTHBEARER",), ()]
)
@pytest.mark.parametrize("implicit", [False, True])
def test_curl(gateway: Submission, options: tuple[str, ...], implicit: bool) -> None:
    url = f"smtps://localhost:{gateway.submissions}" if implicit else f"smtp://localhost:{gateway.submission}"
    secret = ["--user", f"{ANNA}:{PASSWORD}"]
    if options and options[0].endswith(("XOAUTH2", "BEARER")):
        secret = ["--user", f"{ANNA}:", "--oauth2-bearer", gateway.token()]
    login = ["--login-options", options[0]] if options else []
    done = run_client(
        [
            require("curl"), "--silent", "--show-error", "--verbose", "--ssl-reqd", "--cacert", str(gateway.authority.file), "--url",
            f"{url}/client.test", "--mail-from", ANNA, "--mail-rcpt", "bob@far.test", "--upload-file", "-", *secret, *login,
        ],
        text(),
    )  # fmt: skip
    if options == ("AUTH=SCRAM-SHA-256",) and "GSASL" not in run_client([require("curl"), "--version"]).stdout.upper():
        assert "no auth mechanisms were offered or recognized" in done.stderr or done.returncode == 67
        return
    assert done.returncode == 0, done.stderr
    assert "235 2.7.0" in done.stderr


@pytest.mark.parametrize("method", ["on", "plain", "login", "scram-sha-256", "oauthbearer", "xoauth2"])
@pytest.mark.parametrize("implicit", [False, True])
def test_msmtp(gateway: Submission, method: str, implicit: bool) -> None:
    port = gateway.submissions if implicit else gateway.submission
    secret = gateway.token() if method in ("oauthbearer", "xoauth2") else PASSWORD
    file = gateway.directory / f"msmtprc-{method}-{implicit}"
    file.write_text(
        f"account default\nhost localhost\nport {port}\ntls on\ntls_starttls {'off' if implicit else 'on'}\n"
        f"tls_trust_file {gateway.authority.file}\nauth {method}\nuser {ANNA}\npassword {secret}\nfrom {ANNA}\ndomain client.test\n"
    )
    file.chmod(0o600)
    done = run_client([require("msmtp"), f"--file={file}", "--debug", "bob@far.test"], text().replace(b"\r\n", b"\n"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "235 2.7.0" in done.stdout


def test_smtplib_and_what_arrives(gateway: Submission, hop: NextHop) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = f"Anna <{ANNA}>", "carol@far.test", "by smtplib"
    message.set_content("text")
    with gateway.login() as client:
        client.send_message(message)
    accepted = gateway.wait_for_event("accepted", recipient="carol@far.test")
    assert accepted["permit"] == f"identity {ANNA}"
    gateway.wait_for_event("delivered", id=accepted["id"])
    (arrived,) = [m for m in hop.taken if b"by smtplib" in m.content]
    assert b"with ESMTPSA" in arrived.content.replace(b"\r\n\t", b" ").replace(b"\r\n ", b" ")
    login = gateway.wait_for_event("auth_ok", session=accepted["session"])
    assert login["user"] == ANNA


@pytest.mark.parametrize("plus", [False, True])
def test_scram(gateway: Submission, plus: bool) -> None:
    name = "SCRAM-SHA-256-PLUS" if plus else "SCRAM-SHA-256"
    client = gateway.secured()
    binding = None
    if plus:
        shown = client.sock.getpeercert(True)  # type: ignore[union-attr]
        binding = ("tls-server-end-point", hashlib.sha256(shown).digest())
    scram = scramp.ScramClient([name], ANNA, PASSWORD, channel_binding=binding)
    code, first = client.docmd("AUTH", f"{name} {base64.b64encode(scram.get_client_first().encode()).decode()}")
    assert code == 334
    scram.set_server_first(base64.b64decode(first).decode())
    code, last = client.docmd(base64.b64encode(scram.get_client_final().encode()).decode())
    assert code == 334, last
    scram.set_server_final(base64.b64decode(last).decode())
    assert client.docmd("")[0] == 235
    client.close()


@pytest.mark.parametrize(("address", "code"), [(ANNA, 235), ("nobody@example.test", 535)])
def test_external_by_client_certificate(gateway: Submission, address: str, code: int) -> None:
    issued = gateway.authority.issue(f"client{code}", [f"email:{address}"], usage="clientAuth")
    context = gateway.context
    context.load_cert_chain(issued, certificates.key_of(issued))
    client = smtplib.SMTP_SSL("localhost", gateway.submissions, "client.test", context=context)
    client.ehlo()
    assert "EXTERNAL" in client.esmtp_features["auth"]
    assert client.mail(address)[0] == 530  # the certificate alone is no right here
    assert client.docmd("AUTH", f"EXTERNAL {base64.b64encode(b'boss@example.test').decode()}")[0] == 535
    assert client.docmd("AUTH", "EXTERNAL =")[0] == code
    if code == 235:
        assert client.mail(ANNA)[0] == 250
        assert client.rcpt("bob@far.test")[0] == 250
    client.close()


def test_external_without_a_certificate(gateway: Submission) -> None:
    client = smtplib.SMTP_SSL("localhost", gateway.submissions, "client.test", context=gateway.context)
    client.ehlo()
    assert client.docmd("AUTH", "EXTERNAL =")[0] == 535
    client.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "other"},
        {"iss": "https://evil.test"},
        {"exp": 1},
        {"email": "nobody@example.test"},
        {"email_verified": False},
        {"email": 5},
    ],
)
def test_tokens_that_are_not_good(gateway: Submission, changes: dict[str, object]) -> None:
    _refused_token(gateway, gateway.token(**changes))


def test_tokens_that_are_forged(gateway: Submission) -> None:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 600, "email": ANNA}
    other = ec.generate_private_key(ec.SECP256R1())
    _refused_token(gateway, jwt.encode(claims, other, "ES256", headers={"kid": "one"}))
    _refused_token(gateway, jwt.encode(claims, None, "none", headers={"kid": "one"}))
    _refused_token(gateway, jwt.encode(claims, "x" * 64, "HS256", headers={"kid": "one"}))
    _refused_token(gateway, gateway.token()[:-4])


def _refused_token(gateway: Submission, token: str) -> None:
    client = gateway.secured()
    message = base64.b64encode(f"user={ANNA}\1auth=Bearer {token}\1\1".encode()).decode()
    code, challenge = client.docmd("AUTH", f"XOAUTH2 {message}")
    assert (code, base64.b64decode(challenge)) == (334, b'{"status":"invalid_token"}')
    assert client.docmd("")[0] == 535
    client.close()


def test_only_own_addresses(gateway: Submission) -> None:
    client = gateway.login()
    assert client.mail("boss@example.test")[0] == 553
    assert client.mail(ANNA)[0] == 250
    assert client.rcpt("bob@far.test")[0] == 250
    code, reply = client.data(text("Boss <boss@example.test>"))
    assert (code, reply[:5]) == (550, b"5.7.1")
    assert client.mail("")[0] == 250
    client.rcpt("bob@far.test")
    code, reply = client.data(text().replace(b"From:", b"From: boss@example.test\r\nFrom:"))
    assert (code, reply[:5]) == (550, b"5.7.1")
    assert client.mail(ANNA)[0] == 250
    client.rcpt("bob@far.test")
    assert client.data(text() + b"x" * 300_000)[0] == 250  # over to a body file
    client.mail(ANNA)
    client.rcpt("bob@far.test")
    assert client.data(text("boss@example.test") + b"x" * 300_000)[0] == 550
    for field in (b"Sender: boss@example.test", b"Resent-From: boss@example.test"):
        client.mail(ANNA)
        client.rcpt("bob@far.test")
        code, reply = client.data(field + b"\r\n" + text())
        assert (code, reply[:5]) == (550, b"5.7.1")
    client.quit()
    refused = gateway.wait_for_event("reply_refused", verb="DATA", cause="identity")
    assert refused["status"] == "5.7.1"


def test_patterns_argon2_and_bare_lf(gateway: Submission, hop: NextHop) -> None:
    client = gateway.login("scanner")
    assert client.mail("scan@example.test")[0] == 553
    assert client.mail("scan+roof@example.test")[0] == 250
    client.rcpt("dave@far.test")
    client.putcmd("DATA")
    assert client.getreply()[0] == 354
    client.send(b"From: scan+roof@example.test\nSubject: bare\n\nline\r\n.\r\n")
    assert client.getreply()[0] == 250
    client.quit()
    gateway.wait_for_event("delivered", recipient="dave@far.test")
    (arrived,) = [m for m in hop.taken if b"Subject: bare" in m.content]
    assert b"Subject: bare\r\n\r\nline\r\n" in arrived.content


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Submission]:
    made = Submission(tmp_path)
    made.max_failures = 8
    made.prepare()
    with made:
        yield made
        made.assert_no_bugs()


def test_guessing_is_locked_out_and_never_says_what_was_wrong(strict: Submission) -> None:
    gateway = strict
    gateway.login().quit()
    replies = []
    for n in range(9):
        client = smtplib.SMTP("localhost", gateway.submission, "client.test", source_address=("127.0.9.9", 0))
        client.starttls(context=gateway.context)
        client.ehlo()
        name = ANNA if n % 2 else f"nobody{n}@example.test"
        guess = base64.b64encode(f"\0{name}\0guess{n}".encode()).decode()
        code, reply = client.docmd("AUTH", f"PLAIN {guess}")
        replies.append((code, reply.partition(b" (")[0]))
        client.close()
    assert len(set(replies[:8])) == 1
    assert replies[0][0] == 535
    assert replies[8][0] == 454
    gateway.wait_for_event("auth_failed", address="127.0.9.9", cause="locked out")
    failures = [row for row in gateway.events("auth_failed") if row["address"] == "127.0.9.9"]
    assert {row["cause"] for row in failures} == {"wrong name or password", "locked out"}
    gateway.login().quit()  # anna herself, from where she was before, still can


def test_a_reload_takes_up_users(gateway: Submission) -> None:
    gateway.add("new@example.test")
    assert gateway.run("reload").returncode == 0
    client = smtplib.SMTP("localhost", gateway.submission, "client.test", source_address=("127.0.7.7", 0))
    client.starttls(context=gateway.context)
    client.login("new@example.test", PASSWORD)
    client.quit()
    (gateway.directory / "users").chmod(0o644)
    done = gateway.run("reload")
    (gateway.directory / "users").chmod(0o600)
    assert done.returncode != 0
    assert "chmod 0600" in done.stdout + done.stderr


def test_a_gateway_without_users_says_so(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, extra='[auth]\nusers_file = "users"\n')
    gateway.write_config()
    done = gateway.run("check")
    assert "user add" in done.stdout + done.stderr
