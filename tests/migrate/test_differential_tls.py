"""Real sendmail with STARTTLS against Gatepost with the same access table: what TLS_Clt lines say of clients with and without TLS."""

from __future__ import annotations

import smtplib
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority, config_rows, key_of
from integration.gateway import Gateway
from integration.names import Names
from migrate import differential as d
from migrate.sendmail_peer import SendmailServer

ACCESS = """\
TLS_Clt:127.6.1  ENCR:112
TLS_Clt:127.6.2  TEMP+ENCR:256
TLS_Clt:127.6.3  VERIFY
TLS_Clt:127.6.4  PERM+VERIFY:128
TLS_Clt:127.6.5  VERIFY+CN:client
TLS_Clt:127.6.6  VERIFY+CN:other
TLS_Clt:127.6.7  VERIFY:128+CS:/CN=client++CI:/CN=Test+20ca
TLS_Clt:127.6.8  PERM+VERIFY+CI:/CN=Other
TLS_Clt:127.6.9  OK
TLS_Clt:127.6    PERM+ENCR:112
"""
CLEAR, WEAK, STRONG, KNOWN = "clear", "weak", "strong", "known"
KINDS = (CLEAR, WEAK, STRONG, KNOWN)
SOURCES = [f"127.6.{number}.1" for number in range(11)] + ["127.7.1.1"]
MACROS = """\
define(`confSERVER_CERT', `/etc/mail/server.pem')dnl
define(`confSERVER_KEY', `/etc/mail/server.key')dnl
define(`confCACERT', `/etc/mail/ca.pem')dnl
define(`confCACERT_PATH', `/etc/mail')dnl
MAILER(`local')dnl
"""


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gatepost-differential-") as temporary:
        made = Path(temporary)
        made.chmod(0o755)
        for name in ("peer", "ours", "mail"):
            (made / name).mkdir()
        yield made


def reply_to_mail(port: int, source: str, kind: str, certificate: Path) -> str:
    """Code and status, or 250."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if kind == WEAK:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    if kind == KNOWN:
        context.load_cert_chain(certificate, key_of(certificate))
    with smtplib.SMTP("127.0.0.1", port, source_address=(source, 0), timeout=60) as smtp:
        if kind != CLEAR:
            smtp.starttls(context=context)
        smtp.ehlo("probe.example")
        code, text = smtp.mail("a@good.example")
    return d.shown(b"%d %b" % (code, text))


def test_tls_clt_has_the_same_answers(place: Path) -> None:
    authority = Authority(place)
    server = authority.issue("server", ["DNS:gate.example.test"])
    client = authority.issue("client", ["DNS:client.test"], usage="clientAuth")
    macros = d.SENDMAIL_FILES["sendmail.mc"].replace("MAILER(`local')dnl\n", MACROS)
    d.write_files(place / "mail", {**d.SENDMAIL_FILES, "sendmail.mc": macros, "access": ACCESS})
    for path in (server, key_of(server), authority.file):
        (place / "mail" / path.name).write_bytes(path.read_bytes())
        (place / "mail" / path.name).chmod(0o600)
    tls = f'[tls]\nclient_certificates = true\n{config_rows(server)}[[relay.certificates]]\nca_file = "{authority.file}"\n'
    top = f'access = "sendmail-access:{place}/mail/access"\n'
    with (
        SendmailServer(place / "peer", place / "mail") as theirs,
        Gateway(place / "ours", top=top, extra=tls + 'names = ["nobody.test"]\n') as ours,
    ):
        found = {
            (source, kind): tuple(reply_to_mail(port, source, kind, client) for port in (theirs.port, ours.port))
            for source in SOURCES
            for kind in KINDS
        }
        ours.assert_no_bugs()
    assert {probe: replies for probe, replies in found.items() if replies[0] != replies[1]} == {}
    assert {replies[0] for replies in found.values()} == {"250", "454 4.7.0", "403 4.7.0", "503 5.7.0"}


HOSTS = {
    "127.8.1.1": "mail.bank.test",
    "127.8.1.2": "other.test",
    "127.8.1.3": "bad.test",
    "127.8.1.4": "ok.bad.test",
    "127.8.1.5": "skip.test",
    "127.8.1.6": "plain.test",
    "127.8.1.7": "drop.test",
}
NAMED = """\
TLS_Clt:bank.test     PERM+ENCR:112
TLS_Clt:127.8.1.2     TEMP+ENCR:256
Connect:bad.test      REJECT
Connect:ok.bad.test   OK
Connect:127.8.1.4     REJECT
Connect:skip.test     SKIP
Connect:127.8.1.5     REJECT
plain.test            REJECT
Connect:[127.8.1.8]   REJECT
Connect:drop.test     DISCARD
"""


def reply_in_clear(port: int, source: str) -> str:
    """Of MAIL or of what refuses before it; a refusal in the greeting is 554 here, as RFC 5321 3.1 wants, and there it comes at MAIL."""
    with smtplib.SMTP(timeout=60, source_address=(source, 0)) as smtp:
        code, text = smtp.connect("127.0.0.1", port)
        if code != 220:
            return d.shown(b"%d %b" % (550 if code == 554 else code, text))
        smtp.ehlo("probe.example")
        code, text = smtp.mail("a@good.example")
        if code == 250:
            code, text = smtp.rcpt("anna@example.net")
        return d.shown(b"%d %b" % (code, text))


def test_lines_by_the_name_of_a_client_have_the_same_answers(place: Path) -> None:
    d.write_files(place / "mail", {**d.SENDMAIL_FILES, "access": NAMED + "To:example.net RELAY\n"})
    zones = {
        "127.in-addr.arpa": "".join(
            f"{'.'.join(reversed(address.split('.')[1:]))} IN PTR {name}.\n" for address, name in HOSTS.items()
        ),
        "test": "".join(f"{name.removesuffix('.test')} IN A {address}\n" for address, name in HOSTS.items()),
    }
    hosts = "".join(f"{address} {name}\n" for address, name in HOSTS.items())
    top = f'access = "sendmail-access:{place}/mail/access"\n'
    with (
        Names(zones) as names,
        SendmailServer(place / "peer", place / "mail", hosts) as theirs,
        Gateway(place / "ours", top=top, extra=f'[dns]\nservers = ["{names.address}"]\n') as ours,
    ):
        found = {
            source: tuple(reply_in_clear(port, source) for port in (theirs.port, ours.port))
            for source in (*HOSTS, "127.8.1.8", "127.8.1.9")
        }
        ours.assert_no_bugs()
    assert {source: replies for source, replies in found.items() if replies[0] != replies[1]} == {}
    assert {replies[0] for replies in found.values()} == {"250", "503 5.7.0", "403 4.7.0", "550 5.7.1"}
