"""XCLIENT and XFORWARD: a listed proxy says who the client is, and that one's rights count; for everybody else they do not exist."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.gateway import Gateway, gatepost
from integration.nexthop import NextHop
from integration.talk import Talk, message
from peers import PostfixServer, send_with_swaks

PROXY, PLAIN_CLIENT = "127.0.0.1", "127.0.0.3"
TRUSTED = "192.0.2.7"
ANNA = "anna@example.test"


@pytest.fixture(scope="module")
def inside() -> Iterator[NextHop]:
    with NextHop() as hop:
        yield hop


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, inside: NextHop) -> Iterator[Gateway]:
    networks = [f"{TRUSTED}/32", f"{PROXY}/32"]
    gateway = Gateway(
        tmp_path_factory.mktemp("introduced"),
        next_hop=inside.name,
        relay_next_hop=inside.name,
        networks=networks,
        extra=f'[smtp]\nxclient_from = ["{PROXY}/32"]\nxforward_from = ["{PROXY}/32"]\nxclient_login = true\n[auth]\nusers_file = "users"\n',
    )
    gateway.write_config()
    users = gateway.directory / "users"
    done = gatepost("user", "add", ANNA, "--config", str(gateway.config), "--generate")
    assert done.returncode == 0 and users.exists(), done.stderr
    with gateway:
        yield gateway
        gateway.assert_no_bugs()


def introduce(talk: Talk, attributes: str, expect: bytes = b"220") -> bytes:
    talk.hello()
    return talk.say(b"XCLIENT %b\r\n" % attributes.encode(), expect)


def relay(talk: Talk, reverse_path: str = "a@elsewhere.test") -> bytes:
    talk.hello()
    answer = talk.say(b"MAIL FROM:<%b>\r\n" % reverse_path.encode())
    return talk.say(b"RCPT TO:<user@world.test>\r\n") if answer.startswith(b"250") else answer


@pytest.mark.parametrize(
    ("attributes", "reply"),
    [
        (f"ADDR={TRUSTED}", b"250"),
        ("ADDR=198.51.100.9", b"550 5.7.1"),
        ("ADDR=IPV6:2001:db8::9", b"550 5.7.1"),
        ("ADDR=[UNAVAILABLE]", b"550 5.7.1"),
        ("NAME=client.example", b"250"),  # it stays the proxy itself
        (f"ADDR=198.51.100.9 LOGIN={ANNA}", b"553 5.7.1"),  # from somebody else's address
    ],
)
def test_the_named_client_decides_who_may_relay(gateway: Gateway, attributes: str, reply: bytes) -> None:
    with Talk(gateway.port, source=PROXY) as talk:
        introduce(talk, attributes)
        assert relay(talk).startswith(reply)


@pytest.mark.parametrize("named", ["ADDR=198.51.100.9", "ADDR=[UNAVAILABLE]", "ADDR=IPV6:2001:db8::9 HELO=x"])
def test_a_named_client_cannot_name_another(gateway: Gateway, named: str) -> None:
    with Talk(gateway.port, source=PROXY) as talk:  # a proxy that passes on what the client says
        introduce(talk, named)
        assert not {b"XCLIENT", b"XFORWARD"} & set(talk.hello().replace(b"-", b" ").split())
        introduce(talk, f"ADDR={TRUSTED}", b"550 5.7.0")
        introduce(talk, f"ADDR={PROXY} LOGIN={ANNA}", b"550 5.7.0")
        talk.say(f"XFORWARD ADDR={TRUSTED}\r\n".encode(), b"550 5.7.0")
        assert relay(talk).startswith(b"550 5.7.1")


def test_a_proxy_may_say_it_in_two_commands(gateway: Gateway) -> None:
    with Talk(gateway.port, source=PROXY) as talk:
        introduce(talk, "NAME=client.example HELO=client.example")
        introduce(talk, f"ADDR={TRUSTED}")
        assert relay(talk).startswith(b"250")


def test_a_login_that_the_proxy_names(gateway: Gateway) -> None:
    with Talk(gateway.port, source=PROXY) as talk:
        introduce(talk, f"ADDR=198.51.100.10 LOGIN={ANNA}")
        assert relay(talk, ANNA).startswith(b"250")
        talk.data(b"From: boss@example.test\r\n\r\nx\r\n", b"550 5.7.1")  # held to his addresses as after AUTH
        assert relay(talk, ANNA).startswith(b"250")
        talk.data(f"From: {ANNA}\r\n\r\nx\r\n".encode())
    assert gateway.wait_for_event("introduced", address="198.51.100.10")["user"] == ANNA
    with Talk(gateway.port, source=PROXY) as talk:
        introduce(talk, "ADDR=198.51.100.10 LOGIN=nobody@example.test", b"550 5.7.0")


def test_for_others_it_does_not_exist(gateway: Gateway) -> None:
    with Talk(gateway.port, source=PLAIN_CLIENT) as talk:
        assert b"XCLIENT" not in talk.hello() + talk.hello()
        talk.say(f"XCLIENT ADDR={TRUSTED}\r\n".encode(), b"550 5.7.0")
        talk.say(f"XFORWARD ADDR={TRUSTED}\r\n".encode(), b"550 5.7.0")
        assert relay(talk).startswith(b"550 5.7.1")


def test_swaks(gateway: Gateway, inside: NextHop) -> None:
    options = ["--xclient-addr", "192.0.2.99", "--xclient-helo", "named.example", "--xclient-name", "named.example"]
    done = send_with_swaks(gateway.port, ["swaks@example.test"], options=options)
    assert done.returncode == 0, done.stdout
    row = gateway.wait_for_event("introduced", address="192.0.2.99")
    assert (row["proxy"], row["helo"]) == (PROXY, "named.example")
    assert b"([192.0.2.99])" in inside.wait_to("swaks@example.test").content


def test_xforward_is_for_the_log_only(gateway: Gateway, inside: NextHop) -> None:
    with Talk(gateway.port, source=PROXY) as talk:
        assert b"XFORWARD" in talk.hello()
        talk.say(b"XFORWARD NAME=client.example ADDR=198.51.100.66 HELO=client.example SOURCE=REMOTE\r\n", b"250")
        talk.send("forwarded@example.test", message())
    assert gateway.wait_for_event("forwarded", address="198.51.100.66")["source"] == "REMOTE"
    assert gateway.wait_for_event("accepted", recipient="forwarded@example.test")["address"] == PROXY


def test_xforward_of_postfix(tmp_path: Path, gateway: Gateway) -> None:
    settings = {"smtp_send_xforward_command": "yes"}
    with PostfixServer(
        tmp_path, domains=["other.test"], relay_host=f"127.0.0.1:{gateway.port}", settings=settings
    ) as postfix:
        with smtplib.SMTP("127.0.0.1", postfix.port, "client.outside.test", source_address=("127.0.0.88", 0)) as client:
            client.sendmail("a@elsewhere.test", ["postfix@example.test"], b"Subject: x\r\n\r\nx\r\n")
        first = gateway.wait_for_event("forwarded", address="127.0.0.88")
        second = gateway.wait_for_event("forwarded", helo="client.outside.test")  # Postfix sends two commands
    assert first["session"] == second["session"] and first["proxy"] == PROXY
    assert {first["source"], second["source"]} == {"", "REMOTE"}
    assert first["ident"] or second["ident"]
