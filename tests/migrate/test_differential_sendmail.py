"""Rewriting beside real sendmail: the same mail through it and through Gatepost with its configuration imported.

Masquerading, genericstable, domaintable and virtusertable with `+detail`; what is compared are the paths and the addresses of header fields,
since sendmail writes a field anew and we change nothing but the address.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from email.utils import getaddresses
from pathlib import Path

import pytest
from integration.peers.process import wait_until
from integration.peers.sink import SmtpSink
from migrate import differential as d
from migrate.sendmail_peer import MC_HEAD, SendmailServer
from migrate.test_differential import ImportedGateway
from migrate.test_differential_rewriting import send

MC = (
    MC_HEAD
    + """\
define(`confDOMAIN_NAME', `gate.example.net')dnl
define(`RELAY_MAILER_ARGS', `TCP $h {sink}')dnl
define(`SMART_HOST', `relay:[127.0.0.1]')dnl
define(`MAIL_HUB', `relay:[127.0.0.1]')dnl
define(`ALIAS_FILE', `')dnl
FEATURE(`no_default_msa')dnl
FEATURE(`nocanonify')dnl
FEATURE(`accept_unresolvable_domains')dnl
FEATURE(`use_cw_file')dnl
FEATURE(`access_db', `hash -T<TMPF> /etc/mail/access', `skip')dnl
FEATURE(`virtusertable', `hash /etc/mail/virtusertable')dnl
FEATURE(`genericstable', `hash /etc/mail/genericstable')dnl
FEATURE(`domaintable', `hash /etc/mail/domaintable')dnl
FEATURE(`masquerade_envelope')dnl
FEATURE(`masquerade_entire_domain')dnl
MASQUERADE_AS(`example.net')dnl
MASQUERADE_DOMAIN(`pc.example.net')dnl
MASQUERADE_EXCEPTION(`lab.pc.example.net')dnl
EXPOSED_USER(`root')dnl
GENERICS_DOMAIN(`example.net')dnl
GENERICS_DOMAIN(`pc.example.net')dnl
VIRTUSER_DOMAIN(`virtual.example')dnl
DAEMON_OPTIONS(`Name=MTA, Family=inet, Addr=127.0.0.1, Port={port}')dnl
MAILER(`local')dnl
MAILER(`smtp')dnl
"""
)
FILES = {
    "access": "Connect:127.1\tRELAY\n",
    "genericstable": "anna@example.net\tanna.smith@example.net\nbob@pc.example.net\trobert@other.example\n",
    "domaintable": "old.example\tnew.example\n",
    "virtusertable": (
        "info@virtual.example\tinfo@else.example\nsales+*@virtual.example\tsales-%2@else.example\n@virtual.example\t%1@else.example\n"
    ),
    "local-host-names": "example.net\n",
}
TRUSTED, STRANGER = "127.1.1.1", "127.9.9.9"
PROBES = [
    (TRUSTED, "anna@example.net", "x@else.example"),  # genericstable
    (TRUSTED, "bob@pc.example.net", "x@else.example"),  # the same, to a domain elsewhere, which is final
    (TRUSTED, "carl@pc.example.net", "carl@pc.example.net"),  # masquerading
    (TRUSTED, "carl@a.pc.example.net", "x@else.example"),  # below the domain
    (TRUSTED, "carl@lab.pc.example.net", "x@else.example"),  # the exception
    (TRUSTED, "root@pc.example.net", "x@else.example"),  # the exposed user
    (TRUSTED, "carl@old.example", "x@old.example"),  # domaintable
    (TRUSTED, "carl@else.example", "INFO@virtual.example"),  # virtusertable
    (STRANGER, "carl@else.example", "sales+north@virtual.example"),
    (STRANGER, "carl@else.example", "any.one@virtual.example"),
]
FIELDS = ("From", "Sender", "Reply-To", "To", "Cc")


@pytest.fixture
def open_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gatepost-sendmail-") as temporary:
        made = Path(temporary)
        made.chmod(0o755)
        for name in ("peer", "ours"):
            (made / name).mkdir()
        yield made


def arrived(sink: SmtpSink, mark: str) -> dict[str, list[str]]:
    """Paths and header addresses of the message with this mark."""

    def find() -> bytes | None:
        return next((one for one in sink.messages() if mark.encode() in one and one.endswith(b"text\n\n")), None)

    text = re.sub(r"\n[ \t]+", " ", wait_until(find, f"message {mark}").decode())
    found = {name: re.findall(rf"^{name}: *<(.*?)>", text, re.MULTILINE) for name in ("X-Mail-Args", "X-Rcpt-Args")}
    for name in FIELDS:
        values = re.findall(rf"^{name}: *(.*)$", text, re.MULTILINE)
        found[name] = [address for _, address in getaddresses(values) if address]
    return found


@pytest.mark.peer("postfix")  # its smtp-sink
def test_sendmail_rewrites_alike(open_path: Path) -> None:
    with SmtpSink(open_path, keep_messages=True) as sink:
        d.write_files(open_path / "mail", {**FILES, "sendmail.mc": MC.replace("{sink}", str(sink.port))})
        with (
            SendmailServer(open_path / "peer", open_path / "mail") as theirs,
            ImportedGateway(open_path / "ours", "sendmail", theirs.home / "upper/etc/mail") as ours,
        ):
            for number, probe in enumerate(PROBES):
                send(theirs.port, probe, f"theirs-{number}-")
                send(ours.port, probe, f"ours-{number}-")
            found = [(arrived(sink, f"theirs-{n}-"), arrived(sink, f"ours-{n}-")) for n in range(len(PROBES))]
    differ = [
        f"{probe}: {name}: there {there[name]}, here {here[name]}"
        for probe, (there, here) in zip(PROBES, found, strict=True)
        for name in there
        if there[name] != here[name]
    ]
    assert differ == []
    reverse_paths = [here["X-Mail-Args"] for _, here in found]
    assert reverse_paths[:3] == [["anna.smith@example.net"], ["robert@other.example"], ["carl@example.net"]]
    assert found[8][1]["X-Rcpt-Args"] == ["sales-north@else.example"]
