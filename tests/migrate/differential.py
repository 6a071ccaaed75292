"""The same probe sessions against a real server and against Gatepost with that server's configuration imported.

A probe is a client address, a reverse-path and a forward-path; what is compared is the first reply that is not 2xx (of the greeting, MAIL or
RCPT), or 250. The clients are loopback addresses, as all servers listen there. `docs/migration.md` holds the table that comes of
it; `python tests/migrate/test_differential.py` writes it anew.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

from integration.gateway import read_reply
from migrate.sendmail_peer import MC_HEAD

Probe = tuple[str, str, str]

SENDMAIL_FILES = {
    "sendmail.mc": MC_HEAD
    + """\
define(`confDOMAIN_NAME', `gate.example.net')dnl
define(`SMART_HOST', `smtp:[127.0.0.1]')dnl
define(`MAIL_HUB', `smtp:[127.0.0.1]')dnl
define(`ALIAS_FILE', `')dnl
FEATURE(`no_default_msa')dnl
FEATURE(`nocanonify')dnl
FEATURE(`accept_unresolvable_domains')dnl
FEATURE(`use_cw_file')dnl
FEATURE(`access_db', `hash -T<TMPF> /etc/mail/access', `skip')dnl
FEATURE(`blacklist_recipients')dnl
FEATURE(`mailertable', `hash /etc/mail/mailertable')dnl
FEATURE(`virtusertable', `hash /etc/mail/virtusertable')dnl
VIRTUSER_DOMAIN(`virtual.example')dnl
DAEMON_OPTIONS(`Name=MTA, Family=inet, Addr=127.0.0.1, Port={port}')dnl
MAILER(`local')dnl
MAILER(`smtp')dnl
""",
    "access": """\
Connect:127.1		RELAY
Connect:127.1.9		OK
Connect:127.2		REJECT
Connect:127.2.2		OK
Connect:127.3		ERROR:4.7.1:450 not now
Connect:127.4		550 go away
From:bad.example	REJECT
From:friend@bad.example	OK
From:later.example	ERROR:4.7.1:"450 come back later"
From:spam+*@tag.example	REJECT
noreply@		REJECT
To:closed@example.net	REJECT
To:gone@example.net	ERROR:5.1.1:550 left the company
To:relayed.example	RELAY
To:not.relayed.example	OK
To:refused.relayed.example	REJECT
tagless.example		RELAY
TLS_Clt:127.6		ENCR:112
TLS_Clt:127.6.1		TEMP+VERIFY
TLS_Clt:127.6.2		PERM+VERIFY:128
TLS_Clt:127.6.3		OK
TLS_Clt:127.6.4		VERIFY+CN:client.example
""",
    "mailertable": """\
relayed.example		smtp:[127.0.0.1]
.relayed.example	error:5.1.2:550 no such host
routed.example		error:nohost no mail for this domain
""",
    "virtusertable": """\
anna@virtual.example	anna@relayed.example
bob@virtual.example	error:nouser 550 Bob has left
carl@virtual.example	error:5.7.0:550 not for you
tag+*@virtual.example	tag-%2@relayed.example
""",
    "relay-domains": "partner.example\n127.5\n",
    "local-host-names": "example.net\n",
}
STRANGER, TRUSTED = "127.9.9.9", "127.1.1.1"
SENDMAIL_PROBES: list[Probe] = [
    (STRANGER, "a@good.example", "anna@example.net"),
    (STRANGER, "a@good.example", "x@else.example"),
    (TRUSTED, "a@good.example", "x@else.example"),
    ("127.1.9.1", "a@good.example", "x@else.example"),
    ("127.5.1.1", "a@good.example", "x@else.example"),
    ("127.0.0.1", "a@good.example", "x@else.example"),
    ("127.2.1.1", "a@good.example", "anna@example.net"),
    ("127.2.2.1", "a@good.example", "anna@example.net"),
    ("127.3.1.1", "a@good.example", "anna@example.net"),
    ("127.4.1.1", "a@good.example", "anna@example.net"),
    (STRANGER, "x@bad.example", "anna@example.net"),
    (STRANGER, "x@sub.bad.example", "anna@example.net"),
    (STRANGER, "friend@bad.example", "anna@example.net"),
    (STRANGER, "x@later.example", "anna@example.net"),
    (STRANGER, "spam+1@tag.example", "anna@example.net"),
    (STRANGER, "spam@tag.example", "anna@example.net"),
    (STRANGER, "noreply@any.example", "anna@example.net"),
    (STRANGER, "", "anna@example.net"),
    (STRANGER, "a@example.net", "x@else.example"),
    (TRUSTED, "x@bad.example", "anna@example.net"),
    (STRANGER, "a@good.example", "closed@example.net"),
    (STRANGER, "a@good.example", "CLOSED@Example.NET"),
    (STRANGER, "a@good.example", "gone@example.net"),
    (STRANGER, "a@good.example", "gone+tag@example.net"),
    (STRANGER, "a@good.example", "x@relayed.example"),
    (STRANGER, "a@good.example", "x@sub.relayed.example"),
    (STRANGER, "a@good.example", "x@not.relayed.example"),
    (STRANGER, "a@good.example", "x@refused.relayed.example"),
    (STRANGER, "a@good.example", "x@tagless.example"),
    (STRANGER, "a@good.example", "x@partner.example"),
    (STRANGER, "a@good.example", "x@sub.partner.example"),
    (TRUSTED, "a@good.example", "x@routed.example"),
    (STRANGER, "a@good.example", "anna@virtual.example"),
    (STRANGER, "a@good.example", "bob@virtual.example"),
    (STRANGER, "a@good.example", "carl@virtual.example"),
    (STRANGER, "a@good.example", "tag+x@virtual.example"),
    (STRANGER, "a@good.example", "nobody@virtual.example"),
    (STRANGER, "a@good.example", "x%else.example@example.net"),
    (STRANGER, "a@good.example", "else.example!x@example.net"),
    (STRANGER, "a@good.example", '"x@else.example"@example.net'),
    (STRANGER, "a@good.example", "@example.net:x@else.example"),
    (STRANGER, "a@good.example", "postmaster"),
    (STRANGER, "a@good.example", "anna"),
    (STRANGER, "a@good.example", "x@[192.0.2.1]"),
    (TRUSTED, "a@good.example", "x%else.example@example.net"),
    ("127.6.9.1", "a@good.example", "anna@example.net"),
    ("127.6.9.1", "", "anna@example.net"),
    ("127.6.9.1", "x@bad.example", "anna@example.net"),
    ("127.6.1.1", "a@good.example", "anna@example.net"),
    ("127.6.2.1", "a@good.example", "anna@example.net"),
    ("127.6.3.1", "a@good.example", "anna@example.net"),
    ("127.6.4.1", "a@good.example", "anna@example.net"),
]

POSTFIX_SETTINGS = {
    "myhostname": "gate.example.net",
    "mynetworks": "127.0.0.0/16 127.1.0.0/16 !127.1.9.0/24",
    "mydestination": "",
    "virtual_mailbox_domains": "",
    "virtual_mailbox_maps": "",
    "virtual_transport": "error:none",
    "relay_domains": "relayed.example, example.net",
    "relay_recipient_maps": "texthash:{dir}/recipients",
    "transport_maps": "texthash:{dir}/transport",
    "virtual_alias_maps": "texthash:{dir}/virtual",
    "relayhost": "[127.0.0.1]:9",
    "smtpd_client_restrictions": "check_client_access cidr:{dir}/clients",
    "smtpd_sender_restrictions": "check_sender_access texthash:{dir}/senders",
    "smtpd_recipient_restrictions": "check_recipient_access texthash:{dir}/rcpts",
    "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
    "recipient_delimiter": "+",
}
POSTFIX_FILES = {
    "recipients": "anna@example.net x\nbob@example.net x\n@relayed.example x\n",
    "transport": "relayed.example smtp:[127.0.0.1]:9\n.relayed.example error:5.1.2 no such host\nrouted.example error:5.1.2 no mail for this domain\n",
    "virtual": "virtual.example anything\nanna@virtual.example anna@example.net\nout@virtual.example x@else.example\n",
    "clients": "127.2.2.0/24 OK\n127.2.0.0/16 REJECT\n127.3.0.0/16 450 4.7.1 not now\n127.4.0.0/16 554 go away\n",
    "senders": "friend@bad.example OK\nbad.example REJECT\nlater.example DEFER come back later\nnoreply@ REJECT\n",
    "rcpts": "bob@example.net 550 5.1.1 left the company\n",
}
POSTFIX_PROBES: list[Probe] = [
    (STRANGER, "a@good.example", "anna@example.net"),
    (STRANGER, "a@good.example", "ANNA@Example.NET"),
    (STRANGER, "a@good.example", "nobody@example.net"),
    (STRANGER, "a@good.example", "bob@example.net"),
    (STRANGER, "a@good.example", "anna+tag@example.net"),
    (STRANGER, "a@good.example", "x@else.example"),
    (TRUSTED, "a@good.example", "x@else.example"),
    ("127.1.9.1", "a@good.example", "x@else.example"),
    ("127.0.0.1", "a@good.example", "x@else.example"),
    ("127.2.1.1", "a@good.example", "anna@example.net"),
    ("127.2.2.1", "a@good.example", "anna@example.net"),
    ("127.2.2.1", "a@good.example", "x@else.example"),
    ("127.3.1.1", "a@good.example", "anna@example.net"),
    ("127.4.1.1", "a@good.example", "anna@example.net"),
    (STRANGER, "x@bad.example", "anna@example.net"),
    (STRANGER, "x@sub.bad.example", "anna@example.net"),
    (STRANGER, "friend@bad.example", "anna@example.net"),
    (STRANGER, "friend@bad.example", "x@else.example"),
    (STRANGER, "x@later.example", "anna@example.net"),
    (STRANGER, "noreply@any.example", "anna@example.net"),
    (STRANGER, "", "anna@example.net"),
    (STRANGER, "a@example.net", "x@else.example"),
    (STRANGER, "a@good.example", "x@relayed.example"),
    (STRANGER, "a@good.example", "x@sub.relayed.example"),
    (TRUSTED, "a@good.example", "x@routed.example"),
    (STRANGER, "a@good.example", "anna@virtual.example"),
    (STRANGER, "a@good.example", "out@virtual.example"),
    (STRANGER, "a@good.example", "nobody@virtual.example"),
    (STRANGER, "a@good.example", "x%else.example@example.net"),
    (STRANGER, "a@good.example", "else.example!x@relayed.example"),
    (STRANGER, "a@good.example", '"x@else.example"@relayed.example'),
    (STRANGER, "a@good.example", "@example.net:x@else.example"),
    (STRANGER, "a@good.example", "postmaster"),
    (STRANGER, "a@good.example", "anna"),
    (STRANGER, "a@good.example", "x@[192.0.2.1]"),
    (STRANGER, "a@good.example", "postmaster@example.net"),
]


def ask(port: int, probe: Probe) -> str:
    """The reply of one session: "250", or code and enhanced status of the first refusal."""
    source, reverse_path, forward_path = probe
    with socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(source, 0)) as sock:
        file = sock.makefile("rb")
        reply = read_reply(file)
        for command in ("EHLO probe.example", f"MAIL FROM:<{reverse_path}>", f"RCPT TO:<{forward_path}>", "QUIT"):
            if not reply.startswith(b"2") or command == "QUIT":
                break
            sock.sendall(command.encode() + b"\r\n")
            reply = read_reply(file)
    return shown(reply)


def shown(reply: bytes) -> str:
    """`550 5.7.1` of a reply, `250` of an accepting one."""
    if reply.startswith(b"250"):
        return "250"
    match = re.match(rb"(\d{3})[ -]?(?:([245]\.\d+\.\d+))?", reply)
    assert match is not None, reply
    return " ".join(part.decode() for part in match.groups() if part)


def compare(probes: list[Probe], theirs: int, ours: int) -> list[tuple[Probe, str, str]]:
    """Each probe with both replies."""
    return [(probe, ask(theirs, probe), ask(ours, probe)) for probe in probes]


def verdict_of(theirs: str, ours: str) -> str:
    """How two replies differ."""
    if theirs == ours:
        return "same"
    if theirs[:3] == ours[:3]:
        return "other status"
    return "other code" if theirs[:1] == ours[:1] else "**other answer**"


def table_of(rows: list[tuple[Probe, str, str]], explained: dict[str, str]) -> str:
    """The rows of docs/migration.md."""
    lines = ["| client | from | to | there | here | |", "|---|---|---|---|---|---|"]
    for (source, reverse_path, forward_path), theirs, ours in rows:
        difference = verdict_of(theirs, ours)
        note = "" if difference == "same" else f"{difference}: {explained.get(f'{theirs} / {ours}', '?')}"
        cells = (source, f"`<{reverse_path}>`", f"`<{forward_path}>`", theirs, ours, note)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write_files(directory: Path, files: dict[str, str]) -> None:
    """The tables of a server."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text)


def imported_gateway(output: Path, port: int) -> str:
    """The imported configuration, made to listen on `port` with a spool in the test's directory."""
    path = output / "gatepost.toml"
    text = path.read_text()
    text = re.sub(r"^listen = .*$", f'listen = ["127.0.0.1:{port}"]', text, flags=re.MULTILINE)
    text = re.sub(r"^spool = .*$", f'spool = "{output}/spool"', text, flags=re.MULTILINE)
    queue = "" if "[queue]" in text else "\n[queue]\n"
    text += queue
    path.write_text(
        text.replace("[queue]\n", "[queue]\nallow_volatile = true\n")
        + f'\n[events]\noutput = "{output}/events.jsonl"\n'
    )
    return str(path)


def rows_as_text(rows: list[tuple[Any, str, str]]) -> list[str]:
    """For a failing test."""
    return [f"{probe}: there {theirs}, here {ours}" for probe, theirs, ours in rows]
