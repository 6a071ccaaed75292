"""Rewriting beside the real ones: the same mail through Postfix and through Gatepost with its configuration imported, and SRS beside postsrsd."""

from __future__ import annotations

import re
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import copy

import pytest
from integration.gateway import read_reply
from integration.peers.postfix import PostfixServer
from integration.peers.process import PeerProcess, take_port, wait_until
from integration.peers.sink import SmtpSink
from migrate import differential as d
from migrate.debian import unpacked
from migrate.test_differential import ImportedGateway

from gatepost.mail.srs import Srs

SETTINGS = {
    "myhostname": "gate.example.net",
    "myorigin": "example.net",
    "mynetworks": "127.1.0.0/16",
    "mydestination": "",
    "virtual_mailbox_domains": "",
    "virtual_mailbox_maps": "",
    "relay_domains": "example.net",
    "recipient_delimiter": "+",
    "canonical_maps": "texthash:{dir}/canonical",
    "sender_canonical_maps": "texthash:{dir}/senders",
    "masquerade_domains": "!keep.example.net example.net",
    "masquerade_exceptions": "root",
    "local_header_rewrite_clients": "permit_mynetworks",
    "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
}
FILES = {
    "canonical": "anna@example.net anna.smith\nx@loop.example y@loop.example\ny@loop.example z@loop.example\n",
    "senders": "bob@example.net robert@example.net\n",
}
TRUSTED, STRANGER = "127.1.1.1", "127.9.9.9"
PROBES = [
    (TRUSTED, "anna+tag@example.net", "x@loop.example"),
    (TRUSTED, "bob@example.net", "bob@example.net"),
    (TRUSTED, "carl@pc.example.net", "carl@pc.example.net"),
    (TRUSTED, "root@pc.example.net", "dora@a.keep.example.net"),
    (TRUSTED, "carl@else.example", "ANNA@Example.NET"),
    (STRANGER, "carl@pc.example.net", "anna@example.net"),
]
CONTENT = (
    'From: "A, B" (c) <{0}>\r\nSender: {0}\r\nReply-To: {0},\r\n\troot@pc.example.net\r\nTo: g: {1}, bob@example.net;, e@f.example\r\n'
    "Cc: =?utf-8?q?=C3=A4?= <carl@pc.example.net>\r\nSubject: {2} {0}\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\n"
    "Message-ID: <1@pc.example.net>\r\n\r\ntext\r\n.\r\n"
)
FIELDS = ("X-Mail-Args", "X-Rcpt-Args", "From", "Sender", "Reply-To", "To", "Cc", "Subject", "Message-ID")


def send(port: int, probe: tuple[str, str, str], mark: str) -> None:
    client, sender, recipient = probe
    with socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(client, 0)) as sock:
        file = sock.makefile("rb")
        for line in ("EHLO x", f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>", "DATA"):
            assert read_reply(file)[:1] == b"2"
            sock.sendall(line.encode() + b"\r\n")
        assert read_reply(file)[:3] == b"354"
        sock.sendall(CONTENT.format(sender, recipient, mark).encode())
        assert read_reply(file)[:3] == b"250"


def arrived(sink: SmtpSink, mark: str) -> dict[str, list[str]]:
    """The fields that are compared, unfolded."""

    def find() -> bytes | None:
        return next((one for one in sink.messages() if mark.encode() in one and one.endswith(b"text\n\n")), None)

    text = re.sub(r"\n[ \t]+", " ", wait_until(find, f"message {mark}").decode())
    found: dict[str, list[str]] = {name: re.findall(rf"^{name}: *(.*)$", text, re.MULTILINE) for name in FIELDS}
    for name in ("X-Mail-Args", "X-Rcpt-Args"):  # paths alone: extensions differ
        found[name] = [value.partition(">")[0] for value in found[name]]
    return found


@pytest.fixture
def open_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gatepost-rewriting-") as temporary:
        made = Path(temporary)
        made.chmod(0o755)
        (made / "ours").mkdir()
        yield made


@pytest.mark.peer("postfix")
def test_postfix_rewrites_alike(open_path: Path) -> None:
    files = open_path / "tables"
    d.write_files(files, FILES)
    with SmtpSink(open_path, keep_messages=True) as sink:
        settings = {name: value.replace("{dir}", str(files)) for name, value in SETTINGS.items()}
        settings["relayhost"] = f"[127.0.0.1]:{sink.port}"
        with PostfixServer(open_path, domains=(), settings=settings) as theirs:
            for name in ("main.cf", "master.cf"):
                copy(theirs.home / name, files)
            with ImportedGateway(open_path / "ours", "postfix", files) as ours:
                for number, probe in enumerate(PROBES):
                    send(theirs.port, probe, f"theirs-{number}-")
                    send(ours.port, probe, f"ours-{number}-")
                for number, probe in enumerate(PROBES):
                    there, here = arrived(sink, f"theirs-{number}-"), arrived(sink, f"ours-{number}-")
                    there["Subject"] = [text.replace("theirs-", "ours-") for text in there["Subject"]]
                    assert all(here.values()) and here == there, probe
                    if number == 2:
                        assert (here["X-Mail-Args"], here["Sender"]) == (["<carl@example.net"], ["carl@example.net"])


class PostSrsd(PeerProcess):
    """postsrsd out of its package, in the foreground."""

    def __init__(self, directory: Path, secrets: str) -> None:
        super().__init__(directory)
        self.ports = take_port(), take_port()
        self.secrets = self.directory / "secrets"
        self.secrets.write_text(secrets)

    def configure(self) -> list[str]:
        program = str(unpacked("postsrsd") / "usr/sbin/postsrsd")
        forward, reverse = map(str, self.ports)
        return [
            program,
            "-4",
            "-s",
            str(self.secrets),
            "-d",
            "srs.test",
            "-f",
            forward,
            "-r",
            reverse,
            "-n",
            "6",
            "-N",
            "6",
        ]

    def is_ready(self) -> bool:
        try:
            return self.ask(1, "nobody@else.test").startswith("500")
        except OSError:
            return False

    def ask(self, which: int, address: str) -> str:
        with socket.create_connection(("127.0.0.1", self.ports[which]), timeout=60) as sock:
            sock.sendall(f"get {address}\n".encode())
            return sock.makefile().readline().strip()


def test_postsrsd_makes_and_takes_the_same_addresses(open_path: Path) -> None:
    new, old = "the secret of this year", "the secret of last year"
    ours = Srs("srs.test", [new.encode(), old.encode()])
    before = Srs("srs.test", [old.encode()])
    with PostSrsd(open_path, f"{new}\n{old}\n") as theirs:
        for text in (
            "user@a.example",
            "First.Last@sub.domain.example",
            "a+b=c@x.example",
            "SRS0=AbCdEf=AA=o.example=u@f.example",
        ):
            parts = text.rsplit("@", 1)
            now_s, said = time.time(), theirs.ask(0, text)
            made = said.removeprefix("200 ")
            assert made in (ours.forward(*parts, now_s), ours.forward(*parts, time.time()))  # midnight may lie between
            assert theirs.ask(1, made) == f"200 {text}"
            assert ours.reverse(made.rpartition("@")[0], now_s) == tuple(text.rsplit("@", 1))
            assert theirs.ask(1, before.forward(*text.rsplit("@", 1), now_s)) == f"200 {text}"
        assert theirs.ask(1, "SRS0=AAAAAA=AA=a.example=b@srs.test").startswith("500")
