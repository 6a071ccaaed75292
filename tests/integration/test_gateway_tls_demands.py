"""TLS_Clt, TLS_Srv and TLS_Rcpt of an access table on the real gateway: clients with and without TLS, next hops with and without."""

from __future__ import annotations

import smtplib
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from certificates import Authority, config_rows, key_of
from integration.gateway import Gateway
from integration.talk import send
from integration.tlshop import TlsHop
from peers import wait_until

ACCESS = """\
TLS_Clt:127.0.0.21  ENCR:112
TLS_Clt:127.0.0.22  TEMP+ENCR:256
TLS_Clt:127.0.0.23  PERM+VERIFY
TLS_Clt:127.0.0.24  VERIFY:128+CS:/CN=client++CI:/CN=Test+20ca
TLS_Clt:127.0.0.25  VERIFY+CN:somebody.else
TLS_Srv:127.0.0.31  ENCR:256
TLS_Srv:127.0.0.32  ENCR:112
TLS_Srv:127.0.0.33  PERM+ENCR:112
TLS_Srv:127.0.0.34  VERIFY:128+CI:/CN=Test+20ca
TLS_Srv:127.0.0.35  VERIFY
TLS_Srv:127.0.0.37  VERIFY+CN:hop.test
TLS_Rcpt:secret@d36.test  ENCR:112
TLS_Srv:127.0.0.38  VERIFY+CITag:MyCA
TLS_Srv:127.0.0.39  VERIFY+CITag:Other
MyCA:/CN=Test+20ca  OK
Other:/CN=Somebody  OK
Try_TLS:127.0.0.40  NO
Try_TLS:127.0.0.41  NO
TLS_Srv:127.0.0.41  ENCR:112
"""


class Bed:
    """A gateway, and a next hop for each domain dNN.test at 127.0.0.NN."""

    def __init__(self, directory, stack: ExitStack) -> None:
        authority = Authority(directory)
        (directory / "else").mkdir()
        others = Authority(directory / "else", "others")
        self.client = authority.issue("client", ["DNS:client.test"], usage="clientAuth")
        certificates = {
            31: authority.issue("h31", ["IP:127.0.0.31"]),
            32: None,
            33: None,
            34: authority.issue("h34", ["IP:127.0.0.34"]),
            35: others.issue("h35", ["IP:127.0.0.35"]),
            36: None,
            37: authority.issue("h37", ["DNS:hop.test"]),
            38: authority.issue("h38", ["IP:127.0.0.38"]),
            39: authority.issue("h39", ["IP:127.0.0.39"]),
            40: authority.issue("h40", ["IP:127.0.0.40"]),
            41: authority.issue("h41", ["IP:127.0.0.41"]),
        }
        self.hops = {}
        domains = ""
        for number, certificate in certificates.items():
            key = key_of(certificate) if certificate is not None else None
            hop = self.hops[number] = stack.enter_context(TlsHop(f"127.0.0.{number}", 0, certificate, key))
            port = hop.server_address[1]
            domains += f'[domains."d{number}.test"]\nnext_hop = "smtp://127.0.0.{number}:{port}"\n'
        assert self.hops[31].context is not None
        self.hops[31].context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.hops[31].context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        (directory / "access").write_text(ACCESS)
        rows = config_rows(authority.issue("gate", ["DNS:gate.example.test"]))
        tls = f'[tls]\nclient_certificates = true\nca_file = "{authority.file}"\n{rows}'
        rights = f'[[relay.certificates]]\nca_file = "{authority.file}"\nnames = ["nobody.test"]\n'
        top = f'access = "sendmail-access:{directory}/access"\n'
        self.gateway = stack.enter_context(Gateway(directory, top=top, extra=domains + tls + rights))

    def client_reply(self, source: str, *, tls: bool = True, certificate=None, weak: bool = False) -> str:
        """The reply to MAIL."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if weak:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        if certificate is not None:
            context.load_cert_chain(certificate, key_of(certificate))
        with smtplib.SMTP("127.0.0.1", self.gateway.port, source_address=(source, 0), timeout=60) as smtp:
            if tls:
                smtp.starttls(context=context)
            smtp.ehlo()
            code, text = smtp.mail("")
            return f"{code} {text.decode()}"

    def send(self, *recipients: str) -> None:
        send(self.gateway.port, recipients)


@pytest.fixture(scope="module")
def bed(tmp_path_factory) -> Iterator[Bed]:
    directory = tmp_path_factory.mktemp("bed")
    directory.chmod(0o755)
    with ExitStack() as stack:
        bed = Bed(directory, stack)
        yield bed
        bed.gateway.assert_no_bugs()


def test_clients_without_tls_hear_what_sendmail_says(bed: Bed):
    assert bed.client_reply("127.0.0.20", tls=False).startswith("250 ")
    assert bed.client_reply("127.0.0.21", tls=False).startswith(
        "454 4.7.0 encryption too weak 0 less than 112; use STARTTLS"
    )
    assert bed.client_reply("127.0.0.22", tls=False).startswith("403 4.7.0 encryption too weak 0 less than 256")
    assert bed.client_reply("127.0.0.23", tls=False).startswith("503 5.7.0 other side does not support STARTTLS")


def test_the_bits_of_the_cipher_count(bed: Bed):
    assert bed.client_reply("127.0.0.21", weak=True).startswith("250 ")
    assert bed.client_reply("127.0.0.22", weak=True).startswith("403 4.7.0 encryption too weak 128 less than 256")
    assert bed.client_reply("127.0.0.22").startswith("250 ")


def test_a_certificate_that_was_verified_counts_and_its_names(bed: Bed):
    assert bed.client_reply("127.0.0.23").startswith("503 5.7.0 not authenticated")
    assert bed.client_reply("127.0.0.23", certificate=bed.client).startswith("250 ")
    assert bed.client_reply("127.0.0.24", certificate=bed.client).startswith("250 ")
    refused = bed.client_reply("127.0.0.25", certificate=bed.client)
    assert refused.startswith("454 4.7.0 CN client does not match somebody.else")


def test_swaks_is_taken_with_tls_and_not_without(bed: Bed):
    def swaks(*options: str) -> subprocess.CompletedProcess[str]:
        where = ["--server", "127.0.0.1", "--port", str(bed.gateway.port), "--local-interface", "127.0.0.21"]
        command = [
            "swaks",
            *where,
            "--to",
            "user@d36.test",
            "--from",
            "a@outside.test",
            "--quit-after",
            "MAIL",
            *options,
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert "454 4.7.0" in swaks().stdout
    assert "250 2.1.0" in swaks("--tls").stdout


def test_a_next_hop_that_fulfils_them_gets_the_mail(bed: Bed):
    bed.send("user@d34.test", "user@d37.test", "user@d38.test")
    for number in (34, 37, 38):
        taken = wait_until(lambda number=number: bed.hops[number].find(f"user@d{number}.test"), f"mail for {number}")
        assert taken.tls == "TLSv1.3"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (31, "encryption too weak 128 less than 256"),
        (32, "the access table demands it"),
        (35, "certificate not verified"),
        (39, "not acceptable"),
    ],
)
def test_mail_waits_for_a_next_hop_that_does_not(bed: Bed, number: int, why: str):
    bed.send(f"user@d{number}.test")
    told = bed.gateway.wait_for_event("deferred", recipient=f"user@d{number}.test")
    assert why in told["text"] and told["status"].startswith("4.7.")
    assert not bed.hops[number].taken and b"MAIL" not in bed.hops[number].verbs


def test_tls_is_not_tried_where_it_is_said_but_where_it_is_demanded(bed: Bed):
    bed.send("user@d40.test", "user@d41.test")
    clear = wait_until(lambda: bed.hops[40].find("user@d40.test"), "mail in clear")
    secret = wait_until(lambda: bed.hops[41].find("user@d41.test"), "mail by TLS")
    assert (clear.tls, secret.tls) == ("", "TLSv1.3")  # type: ignore[union-attr]
    assert "Try_TLS in the access table says so" in bed.gateway.run("tls", "show", "d40.test").stdout


def test_mail_is_returned_where_perm_says_so(bed: Bed):
    bed.send("user@d33.test")
    told = bed.gateway.wait_for_event("bounced", recipient="user@d33.test")
    assert told["status"] == "5.7.0" and not bed.hops[33].taken


def test_a_recipient_with_a_demand_waits_and_the_others_do_not(bed: Bed):
    bed.send("secret@d36.test", "user@d36.test")
    taken = wait_until(lambda: bed.hops[36].find("user@d36.test"), "mail for the other")
    assert taken.recipients == ["user@d36.test"] and taken.tls == ""  # type: ignore[union-attr]
    told = bed.gateway.wait_for_event("deferred", recipient="secret@d36.test")
    assert told["status"].startswith("4.7.")


def test_explain_and_tls_show_tell_it_beforehand(bed: Bed):
    explain = ["explain", "--ip", "127.0.0.22", "--to", "user@d36.test"]
    assert "403 4.7.0" in bed.gateway.run(*explain).stdout
    assert "403 4.7.0" in bed.gateway.run(*explain, "--tls-bits", "128").stdout
    assert "403 4.7.0" not in bed.gateway.run(*explain, "--tls-bits", "256").stdout
    shown = bed.gateway.run("tls", "show", "d34.test")
    assert "the access table demands it" in shown.stdout, shown.stdout + shown.stderr
