"""Switches beside real Postfix: the same sessions with it and with Gatepost with its configuration imported.

Keywords of EHLO, XCLIENT by address, next hops by sender.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from shutil import copy

import pytest
from integration.gateway import read_reply
from integration.peers.postfix import PostfixServer
from integration.peers.process import wait_until
from integration.peers.sink import SmtpSink
from migrate import differential as d
from migrate.test_differential import ImportedGateway
from migrate.test_differential_rewriting import send

SETTINGS = {
    "myhostname": "gate.example.net",
    "mynetworks": "127.1.0.0/16",
    "mydestination": "",
    "virtual_mailbox_domains": "",
    "virtual_mailbox_maps": "",
    "relay_domains": "example.net",
    "smtpd_discard_ehlo_keywords": "dsn, chunking, silent-discard",
    "smtputf8_enable": "no",
    "smtpd_authorized_xclient_hosts": "127.6.0.1",
    "sender_dependent_relayhost_maps": "texthash:{dir}/senders",
    "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
}
KEYWORDS = {"PIPELINING", "SIZE", "8BITMIME", "DSN", "CHUNKING", "SMTPUTF8", "ENHANCEDSTATUSCODES", "XCLIENT"}
TRUSTED, PROXY, STRANGER = "127.1.1.1", "127.6.0.1", "127.9.9.9"


@pytest.fixture
def open_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gatepost-switches-") as temporary:
        made = Path(temporary)
        made.chmod(0o755)
        for name in ("ours", "one", "two"):
            (made / name).mkdir(mode=0o777)
        yield made


def talk(port: int, source: str, *commands: str) -> list[bytes]:
    """The reply to each command, after the greeting."""
    with socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(source, 0)) as sock:
        file = sock.makefile("rb")
        read_reply(file)
        replies = []
        for command in commands:
            sock.sendall(command.encode() + b"\r\n")
            replies.append(read_reply(file))
        return replies


def keywords(port: int, source: str) -> set[str]:
    lines = talk(port, source, "EHLO probe.example")[0].decode().splitlines()
    return {line[4:].split()[0] for line in lines[1:]} & KEYWORDS


def whether_it_relays(port: int, source: str, address: str) -> list[str]:
    """Codes of a session that names another client by XCLIENT."""
    said = ("EHLO p", f"XCLIENT ADDR={address}", "EHLO c", "MAIL FROM:<a@good.example>", "RCPT TO:<x@else.example>")
    return [reply[:3].decode() for reply in talk(port, source, *said)]


def has(sink: SmtpSink, mark: str) -> bool:
    return any(mark.encode() in one and one.endswith(b"text\n\n") for one in sink.messages())


@pytest.mark.peer("postfix")
def test_switches_do_what_they_do_in_postfix(open_path: Path) -> None:
    files = open_path / "tables"
    with SmtpSink(open_path / "one", keep_messages=True) as one, SmtpSink(open_path / "two", keep_messages=True) as two:
        rows = f"boss@good.example [127.0.0.1]:{two.port}\n@news.example [127.0.0.1]:{two.port}\n"
        d.write_files(files, {"senders": rows})
        settings = {name: value.replace("{dir}", str(files)) for name, value in SETTINGS.items()}
        settings["relayhost"] = f"[127.0.0.1]:{one.port}"
        with PostfixServer(open_path, domains=(), settings=settings) as theirs:
            for name in ("main.cf", "master.cf"):
                copy(theirs.home / name, files)
            with ImportedGateway(open_path / "ours", "postfix", files) as ours:
                for source in (STRANGER, PROXY):
                    offered = keywords(ours.port, source)
                    assert offered == keywords(theirs.port, source)
                    assert ("XCLIENT" in offered) == (source == PROXY)
                    assert "PIPELINING" in offered and "DSN" not in offered
                for address, code in ((TRUSTED, "250"), (STRANGER, "55")):
                    there, here = (whether_it_relays(port, PROXY, address) for port in (theirs.port, ours.port))
                    assert there[:4] == here[:4]
                    assert there[4].startswith(code) and here[4].startswith(code)
                for sender, sink in (("boss@good.example", two), ("x@news.example", two), ("x@good.example", one)):
                    for server, mark in ((theirs, f"there-{sender}"), (ours, f"here-{sender}")):
                        send(server.port, (TRUSTED, sender, "x@else.example"), mark)
                        wait_until(lambda sink=sink, mark=mark: has(sink, mark), f"{mark} at its next hop")  # type: ignore[misc]
