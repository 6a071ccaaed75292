"""Strangers against a gateway with everything configured that touches addresses or clients: whoever asks, however, nothing leaves.

The proxies and this host's own addresses may relay here, so that a right which leaks from them shows. Every form of address goes
through every kind of listener, about every domain that is ours in another way.
"""

from __future__ import annotations

import pwd
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority, config_rows
from integration.gateway import Gateway, is_root
from integration.nexthop import NextHop
from integration.talk import Talk
from peers import take_port

from gatepost.mail.srs import Srs
from gatepost.selftest.forms import relay_forms, relay_senders

SECRET = "a secret of sixteen octets or more"
STRANGER, PROXY = "127.0.0.5", "127.0.0.7"
OURS = ("example.test", "former.test", "lists.test", "below.lab.test", "srs.test")
TOP = """
detail_separator = "+"
domaintable = "inline:{former.test = example.test, lost.test = away.test}"
virtual = "inline:{@lists.test = @example.test, away@example.test = someone@away.test}"
"""
EXTRA = """
[domains."lists.test"]
next_hop = "pool:inside"
[domains.".lab.test"]
next_hop = "hold:mx"
[domains."srs.test"]
next_hop = "error:550 5.1.1 no such mailbox"
[[pools.inside.members]]
next_hop = "{hop}"
[[relay.rules]]
name = "bounces"
networks = ["192.0.2.0/24"]
reverse_paths = ["<>"]
[[relay.rules]]
name = "job"
identities = ["uid:daemon"]
domains = ["example.org"]
[[rewrite.rules]]
name = "moved"
directions = ["inbound", "outbound"]
parts = ["forward-path"]
tables = ["inline:{{old@example.test = new@example.test, out@example.test = victim@example.org}}"]
[[rewrite.rules]]
name = "mask"
domains = ["inside.test"]
to_domain = "example.test"
[rewrite.srs]
domain = "srs.test"
secrets_file = "srs.secrets"
[smtp]
max_errors = 1000
max_idle_commands = 10000
max_unknown_recipients = 0
proxy_from = ["127.0.0.7/32"]
proxy_timeout_s = 300
xclient_from = ["127.0.0.9/32"]
[local]
socket = "{directory}/submit"
users = ["root", "daemon"]
[[listeners]]
address = "unix:{directory}/lmtp"
kind = "lmtp"
mode = "0666"
[[listeners]]
address = "127.0.0.1:{submission}"
require_tls = false
{tls}
"""
_AS_USER = """
import os, socket, sys
uid = int(sys.argv[2]); os.setgroups([]); os.setgid(uid); os.setuid(uid)
sock = socket.socket(socket.AF_UNIX); sock.settimeout(60); sock.connect(sys.argv[1]); file = sock.makefile("rb")
def hear():
    while (line := file.readline())[3:4] == b"-": pass
    return line or b"\\n"
out = [hear()]
for line in sys.stdin.buffer.read().split(b"\\n"):
    sock.sendall(line + b"\\r\\n"); out.append(hear())
sys.stdout.buffer.write(b"".join(out))
"""


class Fooled(Gateway):
    """The gateway, with the ports of its listeners."""

    ports: dict[str, int]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fooled]:
    directory = tmp_path_factory.mktemp("fooled")
    directory.chmod(0o755)
    ports = {name: take_port() for name in ("submission",)}
    with NextHop() as hop:
        pair = Authority(directory).issue("gate", ["DNS:localhost"])
        networks = [f"{PROXY}/32", "127.0.0.9/32", "10.0.0.0/8"]
        gateway = Fooled(directory, next_hop=hop.name, relay_next_hop=hop.name, networks=networks, top=TOP)
        gateway.extra = EXTRA.format(directory=gateway.directory, hop=hop.name, tls=config_rows(pair), **ports)
        gateway.ports = ports | {"edge": gateway.port}
        secrets: Path = gateway.directory / "srs.secrets"
        secrets.write_text(SECRET)
        secrets.chmod(0o600)
        with gateway:
            yield gateway
            gateway.assert_no_bugs()


class Client(Talk):
    """One that may say something in front of the greeting."""

    def __init__(self, port: int, source: str, first: bytes = b"") -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(source, 0))
        self.sock.sendall(first)
        self.file = self.sock.makefile("rb")
        self.greeting = self.expect(b"220")

    def secure(self) -> None:
        """STARTTLS."""
        self.hello()
        self.say(b"STARTTLS\r\n", b"220")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.sock = context.wrap_socket(self.sock)
        self.file = self.sock.makefile("rb")


def tcp_client(gateway: Fooled, who: str) -> Client:
    """A stranger, by that way; greeted, and nothing said yet."""
    ports = gateway.ports
    match who:
        case "PROXY of a stranger":
            return Client(ports["edge"], PROXY, b"PROXY TCP4 198.51.100.7 192.0.2.5 1000 25\r\n")
        case "PROXY of nobody":
            return Client(ports["edge"], PROXY, b"PROXY UNKNOWN\r\n")
        case "PROXY of a mapped address":
            return Client(ports["edge"], PROXY, b"PROXY TCP6 ::ffff:198.51.100.7 ::ffff:192.0.2.5 1000 25\r\n")
        case "XCLIENT" | "XCLIENT inside TLS" | "XCLIENT of nobody":
            client = Client(ports["edge"], "127.0.0.9")
            if who.endswith("TLS"):
                client.secure()
            client.hello()
            named = b"[UNAVAILABLE]" if who.endswith("nobody") else b"198.51.100.7"
            client.say(b"XCLIENT ADDR=%b HELO=pc.example.test\r\n" % named, b"220")
            return client
    client = Client(ports[who.split()[0]], STRANGER)
    if who.endswith("TLS"):
        client.secure()
    return client


TCP = (
    "edge", "edge inside TLS", "submission", "submission inside TLS", "PROXY of a stranger", "PROXY of nobody",
    "PROXY of a mapped address", "XCLIENT", "XCLIENT inside TLS", "XCLIENT of nobody",
)  # fmt: skip
TO_ITS_DOMAIN = {
    "victim@example.org", "VICTIM@EXAMPLE.ORG", "victim@example.org.", "out@example.test", "OUT@Example.Test.", '"out"@example.test',
}  # fmt: skip
SOCKETS = ("submit as nobody", "lmtp as nobody", "lmtp as daemon", "lmtp as root")


def ask(gateway: Fooled, who: str, lines: list[str]) -> list[str]:
    """The replies to these lines, behind a greeting and EHLO."""
    hello = "LHLO" if "lmtp" in who else "EHLO"
    lines = [f"{hello} pc.example.test", *lines]
    if who in SOCKETS:
        name, _, user = who.partition(" as ")
        command = [sys.executable, "-I", "-c", _AS_USER, str(gateway.directory / name), str(pwd.getpwnam(user).pw_uid)]
        done = subprocess.run(command, input="\n".join(lines).encode(), capture_output=True, timeout=120, check=True)
        return done.stdout.decode().splitlines()[2:]
    with tcp_client(gateway, who) as client:
        return [client.say(line.encode() + b"\r\n").decode() for line in lines][1:]


def forward_paths() -> list[str]:
    """Every form about every domain that is ours, and return addresses that we have not signed, or long ago."""
    found = [form for ours in OURS for form in relay_forms(ours, "gate.example.test").values() if "\0" not in form]
    found += ["anna+victim%example.org@example.test", '"anna+victim@example.org"@example.test', "victim@lost.test"]
    found += ["out@example.test", "OUT@Example.Test.", '"out"@example.test', "victim%example.org@former.test"]
    ours, strangers = Srs("srs.test", [SECRET.encode()]), Srs("srs.test", [b"another secret of that length"])
    now_s = time.time()
    for srs, at_s in ((ours, now_s - 40 * 86400.0), (ours, now_s + 40 * 86400.0), (strangers, now_s)):
        text = srs.forward("victim", "example.org", at_s)
        found += [
            text,
            text.lower(),
            text.upper(),
            text.replace("=victim", "=other"),
            f'"{text.partition("@")[0]}"@srs.test',
        ]
    good = ours.forward("victim", "example.org", now_s)
    nested = ours.forward("SRS0=abcdef=AB=third.test=victim", "example.org", now_s)
    for text in (good, nested):
        found += [text.replace("example.org", "example.com"), text.replace("victim", "postmaster"), f"x{text}"]
        found += [text.replace("srs.test", "lost.test"), text.replace("srs.test", "away.test")]
    found.remove("victim@notbelow.lab.test")  # which is below lab.test as well
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("who", [*TCP, *SOCKETS])
def test_nobody_relays(gateway: Fooled, who: str) -> None:
    if who in SOCKETS and not is_root():
        pytest.skip("becoming other users needs root")
    paths = forward_paths()
    for name, sender in relay_senders("example.test", "gate.example.test").items():
        mail, *replies = ask(gateway, who, [f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{path}>" for path in paths)])
        if "lmtp as root" not in who and "lmtp as daemon" not in who:
            assert mail[:3] in ("250", "530", "550"), (name, mail)
        taken = {path: reply for path, reply in zip(paths, replies, strict=True) if not reply.startswith(("5", "451"))}
        if who == "lmtp as daemon":  # a rule names it, for this domain
            # source routes are dropped
            taken = {path: reply for path, reply in taken.items() if path.rpartition(":")[2] not in TO_ITS_DOMAIN}
        assert taken == {}, name


def test_what_is_meant_to_be_taken_is(gateway: Fooled) -> None:
    signed = Srs("srs.test", [SECRET.encode()]).forward("victim", "example.org", time.time())
    lines = [
        "MAIL FROM:<>",
        f"RCPT TO:<{signed}>",
        "RCPT TO:<old@example.test>",
        "RCPT TO:<anna@lists.test>",
        "RCPT TO:<away@example.test>",
    ]
    assert [reply[:3] for reply in ask(gateway, "edge", lines)] == ["250"] * 5
    lines[0] = "MAIL FROM:<a@example.org>"
    assert [reply[:3] for reply in ask(gateway, "edge", lines)] == ["250", "550", "250", "250", "250"]
