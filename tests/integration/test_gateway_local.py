"""Unix sockets: LMTP from a server of this host, submission by its users, who are who the kernel says they are."""

from __future__ import annotations

import grp
import pwd
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.gateway import Gateway, is_root, read_reply
from integration.nexthop import NextHop
from integration.talk import message
from peers import PostfixServer

pytestmark = pytest.mark.skipif(not is_root(), reason="becoming other users needs root")

LISTED, UNLISTED, MEMBER = "daemon", "nobody", "games"
_CLIENT = """
import os, socket, sys
path, uid, gid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.setgroups([int(g) for g in sys.argv[4].split(",") if g]); os.setgid(gid); os.setuid(uid)
sock = socket.socket(socket.AF_UNIX); sock.settimeout(60); sock.connect(path)
file = sock.makefile("rb")
def hear():
    lines = []
    while line := file.readline():
        lines.append(line)
        if line[3:4] != b"-": break
    return b"".join(lines)
out = [hear()]
for line in sys.stdin.buffer.read().split(b"\\0"):
    sock.sendall(line + b"\\r\\n"); out.append(hear())
sys.stdout.buffer.write(b"".join(out))
"""


@pytest.fixture(scope="module")
def inside() -> Iterator[NextHop]:
    with NextHop() as hop:
        yield hop


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, inside: NextHop) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("local"), next_hop=inside.name, relay_next_hop=inside.name)
    gateway.extra = (
        f'[[listeners]]\naddress = "unix:{gateway.directory}/lmtp"\nkind = "lmtp"\nmode = "0666"\n'
        f'[[listeners]]\naddress = "unix:{gateway.directory}/few"\nmode = "0640"\nowner = "{LISTED}"\n'
        f'[local]\nsocket = "{gateway.directory}/submit"\nusers = ["root", "{LISTED}"]\ngroups = ["audio"]\n'
        f'senders = {{ {LISTED} = ["*@lists.test"] }}\n'
    )
    with gateway:
        yield gateway
        gateway.assert_no_bugs()


def talk_as(gateway: Gateway, user: str, *lines: str, name: str = "submit", groups: str = "") -> list[str]:
    """What each command was answered, the greeting and EHLO left out."""
    entry = pwd.getpwnam(user)
    command = [
        sys.executable,
        "-I",
        "-c",
        _CLIENT,
        str(gateway.directory / name),
        str(entry.pw_uid),
        str(entry.pw_gid),
        groups,
    ]
    hello = "LHLO" if name == "lmtp" else "EHLO"
    text = "\0".join([f"{hello} client.test", *lines]).encode()
    done = subprocess.run(command, input=text, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    replies = [line for line in done.stdout.decode().splitlines() if line[3:4] != "-"]
    return replies[2:]


RELAY = "RCPT TO:<user@world.test>"


@pytest.mark.parametrize(
    ("user", "path", "mail", "rcpt"),
    [
        (LISTED, f"{LISTED}@gate.example.test", "250", "250"),
        (LISTED, "", "250", "250"),
        (LISTED, "anything@lists.test", "250", "250"),
        (LISTED, "user@example.test", "553 5.7.1", "503"),
        (LISTED, "root@gate.example.test", "553 5.7.1", "503"),
        ("root", "user@example.test", "250", "250"),
        ("root", "user@gate.example.test", "250", "250"),
        ("root", "user@elsewhere.test", "553 5.7.1", "503"),
        (UNLISTED, f"{UNLISTED}@gate.example.test", "550 5.7.1", "503"),
        (UNLISTED, "", "550 5.7.1", "503"),
    ],
)
def test_who_may_send_from_where(gateway: Gateway, user: str, path: str, mail: str, rcpt: str) -> None:
    answers = talk_as(gateway, user, f"MAIL FROM:<{path}>", RELAY)
    assert answers[0].startswith(mail), answers
    assert answers[1].startswith(rcpt), answers


def test_a_group_that_is_listed(gateway: Gateway) -> None:
    audio = str(grp.getgrnam("audio").gr_gid)
    lines = (f"MAIL FROM:<{MEMBER}@gate.example.test>", RELAY)
    assert talk_as(gateway, MEMBER, *lines)[0].startswith("550 5.7.1")
    assert talk_as(gateway, MEMBER, *lines, groups=audio)[1].startswith("250")


def test_auth_tls_and_lhlo_do_not_exist_on_a_socket_for_users(gateway: Gateway) -> None:
    answers = talk_as(gateway, LISTED, "STARTTLS", "AUTH PLAIN AAAA", "LHLO client.test", "XCLIENT ADDR=192.0.2.1")
    assert [answer[:9] for answer in answers] == ["502 5.5.1", "502 5.5.1", "500 5.5.1", "550 5.7.0"]


def test_the_right_and_the_client_of_a_message(gateway: Gateway, inside: NextHop) -> None:
    mail = (f"MAIL FROM:<{LISTED}@gate.example.test>", "RCPT TO:<local@world.test>", "DATA", "Subject: x\r\n\r\nx\r\n.")
    assert talk_as(gateway, LISTED, *mail)[3].startswith("250")
    assert f"([local/{LISTED}])".encode() in inside.wait_to("local@world.test").content
    row = gateway.wait_for_event("accepted", recipient="local@world.test")
    assert (row["permit"], row["address"]) == (f"local user {LISTED}", f"local/{LISTED}")


def test_lmtp_answers_each_recipient_and_relays_for_nobody(gateway: Gateway, inside: NextHop) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(str(gateway.directory / "lmtp"))
    file = sock.makefile("rb")

    def ask(octets: bytes) -> bytes:
        sock.sendall(octets)
        return read_reply(file)

    assert read_reply(file) == b"220 gate.example.test LMTP Gatepost\r\n"
    assert ask(b"EHLO a\r\n").startswith(b"500 5.5.1")
    offered = ask(b"LHLO a\r\n")
    assert b"PIPELINING" in offered and b"CHUNKING" not in offered and b"FUTURERELEASE" not in offered
    assert ask(b"MAIL FROM:<list@elsewhere.test>\r\n").startswith(b"250")
    assert ask(b"RCPT TO:<user@world.test>\r\n").startswith(b"550 5.7.1"), "root is listed, and this is LMTP"
    assert ask(b"RCPT TO:<one@example.test>\r\n").startswith(b"250")
    assert ask(b"RCPT TO:<two@example.test>\r\n").startswith(b"250")
    assert ask(b"DATA\r\n").startswith(b"354")
    first = ask(message() + b".\r\n")
    assert first.startswith(b"250") and read_reply(file) == first
    content = inside.wait_to("one@example.test").content
    assert b"with LMTP id" in content and b"([local/root])" in content
    file.close()
    sock.close()


def test_postfix_delivers_by_lmtp(tmp_path: Path, gateway: Gateway, inside: NextHop) -> None:
    with PostfixServer(tmp_path, domains=["example.test"], transport=f"lmtp:unix:{gateway.directory}/lmtp") as postfix:
        postfix.submit(b"Subject: hello\n\ntext\n", ["three@example.test", "four@example.test"])
        taken = inside.wait_to("four@example.test")
        line = postfix.wait_for_log("to=<three@example.test>")
    assert b"([local/postfix])" in taken.content
    assert "status=sent" in line


def test_files_of_the_sockets(gateway: Gateway) -> None:
    few = (gateway.directory / "few").stat()
    assert (stat.S_IMODE(few.st_mode), few.st_uid) == (0o640, pwd.getpwnam(LISTED).pw_uid)
    assert stat.S_IMODE((gateway.directory / "submit").stat().st_mode) == 0o666
    (gateway.directory / "few").chmod(0o666)
    done = gateway.run("check")
    assert "more may connect than is configured" in done.stdout + done.stderr
    (gateway.directory / "few").chmod(0o640)
    statement = gateway.run("check").stdout
    assert f"On this host the users root, {LISTED} and the members of audio may send" in statement


def test_a_reload_keeps_the_sockets(gateway: Gateway) -> None:
    assert gateway.run("reload").returncode == 0
    assert talk_as(gateway, LISTED, f"MAIL FROM:<{LISTED}@gate.example.test>")[0].startswith("250")
    assert gateway.run("privs").returncode == 0, "as declared"


def test_the_sockets_are_gone_when_it_has_stopped(tmp_path: Path) -> None:
    made = Gateway(tmp_path)
    made.extra = f'[local]\nsocket = "{made.directory}/submit"\n'
    with made:
        assert (made.directory / "submit").exists()
        made.halt()
        assert not (made.directory / "submit").exists()
