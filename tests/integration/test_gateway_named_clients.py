"""XCLIENT and TLS: what a proxy proves by its certificate is its own, and no right of the client that it names."""

from __future__ import annotations

import base64
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import certificates
import pytest
from integration.gateway import COMMAND, Gateway
from integration.nexthop import NextHop
from integration.talk import Talk
from peers import take_port

ANNA = "anna@example.test"
STRANGER = b"XCLIENT ADDR=198.51.100.9\r\n"


class Proxied(Gateway):
    """With a certificate of a client that may relay, and that is a user's too."""

    submission = 0
    client: Path
    authority: certificates.Authority


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    directory = tmp_path_factory.mktemp("named")
    directory.chmod(0o755)
    authority = certificates.Authority(directory)
    own = authority.issue("gate", ["DNS:localhost", "IP:127.0.0.1"])
    port = take_port()
    extra = (
        f'[[listeners]]\naddress = "127.0.0.1:{port}"\nclient_certificates = true\nrequire_tls = false\n[tls]\nclient_certificates = true\n'
        f'{certificates.config_rows(own)}[auth]\nusers_file = "users"\nmechanisms = ["EXTERNAL"]\n'
        f'[[relay.certificates]]\nca_file = "{authority.file}"\nnames = ["{ANNA}"]\n[smtp]\nxclient_from = ["127.0.0.1/32"]\n'
    )
    with NextHop() as hop:
        gateway = Proxied(directory, next_hop=hop.name, relay_next_hop=hop.name, extra=extra)
        gateway.submission, gateway.authority = port, authority
        gateway.client = authority.issue("client", [f"email:{ANNA}"], usage="clientAuth")
        gateway.write_config()
        adding = [*COMMAND, "user", "add", ANNA, "--stdin", "--config", str(gateway.config)]
        subprocess.run(adding, input="a long enough password\n", text=True, check=True, capture_output=True)
        with gateway:
            yield gateway
            gateway.assert_no_bugs()


def secure(talk: Talk, gateway: Proxied) -> None:
    """STARTTLS with the client's certificate."""
    context = ssl.create_default_context(cafile=str(gateway.authority.file))
    context.load_cert_chain(gateway.client, certificates.key_of(gateway.client))
    talk.hello()
    talk.say(b"STARTTLS\r\n", b"220")
    talk.sock = context.wrap_socket(talk.sock, server_hostname="localhost")
    talk.file = talk.sock.makefile("rb")


def name_the_client(talk: Talk, gateway: Proxied) -> None:
    talk.hello()
    talk.say(STRANGER, b"220")


ORDERS = {
    "by itself": ((secure,), True),
    "STARTTLS, XCLIENT": ((secure, name_the_client), False),
    "XCLIENT, STARTTLS": ((name_the_client, secure), False),
}


@pytest.mark.parametrize("order", ORDERS)
def test_the_right_of_a_certificate_is_its_holders(gateway: Proxied, order: str) -> None:
    acts, is_allowed = ORDERS[order]
    with Talk(gateway.port) as talk:
        for act in acts:
            act(talk, gateway)
        talk.hello()
        talk.say(b"MAIL FROM:<a@elsewhere.test>\r\n", b"250")
        talk.say(b"RCPT TO:<user@world.test>\r\n", b"250" if is_allowed else b"550 5.7.1")


@pytest.mark.parametrize("order", ORDERS)
def test_the_login_by_a_certificate_is_its_holders(gateway: Proxied, order: str) -> None:
    acts, is_allowed = ORDERS[order]
    with Talk(gateway.submission) as talk:
        for act in acts:
            act(talk, gateway)
        talk.hello()
        talk.say(b"AUTH EXTERNAL %b\r\n" % base64.b64encode(ANNA.encode()), b"235" if is_allowed else b"535")


def test_who_has_logged_in_names_no_client(gateway: Proxied) -> None:
    with Talk(gateway.submission) as talk:
        secure(talk, gateway)
        talk.hello()
        talk.say(b"AUTH EXTERNAL %b\r\n" % base64.b64encode(ANNA.encode()), b"235")
        talk.say(b"MAIL FROM:<%b>\r\n" % ANNA.encode(), b"250")
        talk.say(b"RCPT TO:<user@world.test>\r\n", b"250")
        talk.say(b"RSET\r\n", b"250")
        talk.say(STRANGER, b"550 5.7.0")  # it would be a client with the login of another
