"""Behind a load balancer: the client that the PROXY header names decides, and nobody but the load balancer may send one."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority, key_of
from integration.gateway import Gateway, read_reply
from integration.nexthop import NextHop
from integration.talk import Talk, message
from peers import HaProxy, take_port

PROXY = "127.0.0.2"
TRUSTED = "192.0.2.7"
STRANGER = "198.51.100.9"


def v1(source: str) -> bytes:
    return f"PROXY TCP4 {source} 203.0.113.25 40000 25\r\n".encode()


def v2(source: str, command: int = 0x21) -> bytes:
    block = socket.inet_aton(source) + socket.inet_aton("203.0.113.25") + b"\x9c\x40\x00\x19"
    return b"\r\n\r\n\x00\r\nQUIT\n" + bytes([command, 0x11, 0, 12]) + block


@pytest.fixture(scope="module")
def inside() -> Iterator[NextHop]:
    with NextHop() as hop:
        yield hop


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, inside: NextHop) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("proxied")
    certificate = Authority(directory).issue("gate", ["DNS:gate.example.test"])
    secure = take_port()
    extra = (
        f'[smtp]\nproxy_from = ["{PROXY}/32"]\nproxy_timeout_s = 300\nmax_connections_per_client = 3\n'
        f'[[listeners]]\naddress = "127.0.0.1:{secure}"\nkind = "submissions"\nproxy_from = ["{PROXY}/32"]\n'
        f'[[tls.certificates]]\ncertificate_file = "{certificate}"\nkey_file = "{key_of(certificate)}"\n'
    )
    with Gateway(
        directory,
        next_hop=inside.name,
        relay_next_hop=inside.name,
        networks=[f"{TRUSTED}/32", f"{PROXY}/32"],
        extra=extra,
    ) as gateway:
        gateway.secure = secure  # type: ignore[attr-defined]
        yield gateway
        gateway.assert_no_bugs()


class Behind:
    """A connection from an address, which says `header` first."""

    def __init__(self, port: int, header: bytes, source: str = PROXY) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(source, 0))
        self.file = self.sock.makefile("rb")
        self.sock.sendall(header)

    def ask(self, octets: bytes) -> bytes:
        self.sock.sendall(octets)
        return read_reply(self.file)

    def hear(self) -> bytes:
        try:
            return read_reply(self.file)
        except ConnectionResetError:
            return b""

    def relay(self) -> bytes:
        """The reply to a recipient elsewhere."""
        assert self.hear().startswith(b"220"), "no greeting"
        assert self.ask(b"EHLO client.outside.test\r\n").startswith(b"250")
        assert self.ask(b"MAIL FROM:<a@elsewhere.test>\r\n").startswith(b"250")
        return self.ask(b"RCPT TO:<user@world.test>\r\n")

    def close(self) -> None:
        self.file.close()
        self.sock.close()


@pytest.mark.parametrize("header", [v1, v2])
@pytest.mark.parametrize(("source", "reply"), [(TRUSTED, b"250"), (STRANGER, b"550 5.7.1")])
def test_the_named_client_decides_who_may_relay(gateway: Gateway, header, source: str, reply: bytes) -> None:  # type: ignore[no-untyped-def]
    behind = Behind(gateway.port, header(source))
    assert behind.relay().startswith(reply)
    behind.close()


def test_a_header_octet_by_octet(gateway: Gateway) -> None:
    behind = Behind(gateway.port, b"")
    behind.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for octet in v2("192.0.2.77"):
        behind.sock.sendall(bytes([octet]))
    assert behind.relay().startswith(b"550 5.7.1")
    row = gateway.wait_for_event("proxied", address="192.0.2.77")
    assert (row["proxy"], row["version"], row["local"]) == (PROXY, 2, False)
    behind.close()


@pytest.mark.parametrize(
    "header", [b"EHLO client.outside.test\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", v2(TRUSTED, 0x22)]
)
def test_without_a_good_header_the_load_balancer_is_closed(gateway: Gateway, header: bytes) -> None:
    behind = Behind(gateway.port, header)
    assert behind.hear() == b""
    gateway.wait_for_event("violation", kind="proxy", address=PROXY)
    behind.close()


def test_without_any_header_it_is_closed_after_a_time(tmp_path: Path) -> None:
    with Gateway(tmp_path, extra=f'[smtp]\nproxy_from = ["{PROXY}/32"]\nproxy_timeout_s = 1.0\n') as gateway:
        behind = Behind(gateway.port, b"PROXY ")
        assert behind.hear() == b""
        gateway.wait_for_event("violation", kind="proxy", detail="no header in time")
        behind.close()


def test_from_anywhere_else_the_header_ends_the_connection(gateway: Gateway) -> None:
    behind = Behind(gateway.port, b"", source="127.0.0.3")
    assert behind.hear().startswith(b"220")
    assert behind.ask(v1(TRUSTED)).startswith(b"521 5.7.1")
    assert behind.hear() == b"", "its client would go on with the rights of the load balancer"
    gateway.wait_for_event("violation", kind="proxy")
    behind.close()


def test_a_client_without_an_address_has_no_right_though_the_load_balancer_has(gateway: Gateway) -> None:
    behind = Behind(gateway.port, b"PROXY UNKNOWN\r\n")
    assert behind.relay().startswith(b"550 5.7.1")
    behind.close()
    own = Behind(gateway.port, v2(STRANGER, 0x20))
    assert own.relay().startswith(b"250"), "LOCAL is the load balancer itself, which is in relay.networks here"
    own.close()


def test_limits_and_trace_are_about_the_named_client(gateway: Gateway, inside: NextHop) -> None:
    first = [Behind(gateway.port, v1("192.0.2.90")) for _ in range(3)]
    assert all(behind.hear().startswith(b"220") for behind in first)
    fourth, other = Behind(gateway.port, v1("192.0.2.90")), Behind(gateway.port, v1("192.0.2.91"))
    assert fourth.hear().startswith(b"421 4.7.0")
    assert other.hear().startswith(b"220")
    assert other.ask(b"EHLO client.outside.test\r\n").startswith(b"250")
    for line in (b"MAIL FROM:<a@elsewhere.test>\r\n", b"RCPT TO:<traced@example.test>\r\n"):
        assert other.ask(line).startswith(b"250")
    assert other.ask(b"DATA\r\n").startswith(b"354")
    assert other.ask(message() + b".\r\n").startswith(b"250")
    assert b"([192.0.2.91])" in inside.wait_to("traced@example.test").content
    assert gateway.wait_for_event("accepted", recipient="traced@example.test")["address"] == "192.0.2.91"
    for behind in (*first, fourth, other):
        behind.close()


def test_the_header_comes_in_front_of_the_handshake(gateway: Gateway) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    behind = Behind(gateway.secure, v1(TRUSTED))  # type: ignore[attr-defined]
    with context.wrap_socket(behind.sock) as secured:
        file = secured.makefile("rb")
        assert read_reply(file).startswith(b"220")
        secured.sendall(b"EHLO client.outside.test\r\n")
        assert read_reply(file).startswith(b"250")
        file.close()
    assert gateway.wait_for_event("tls", address=TRUSTED)["version"] == "TLSv1.3"
    behind.close()


def test_check_says_who_is_believed(gateway: Gateway) -> None:
    done = gateway.run("check", "--json")
    report = json.loads(done.stdout)
    findings = [row["problem"] for row in report["findings"]]
    assert any("says who the client is" in text for text in findings)
    assert any("what it says it opened itself may relay" in text for text in findings), findings
    assert report["proof"]["believed"] == [f"{PROXY}/32"]
    assert "whoever sends from there can say any" in gateway.run("check").stdout


@pytest.mark.parametrize("version", [1, 2])
def test_through_haproxy(tmp_path: Path, gateway: Gateway, version: int) -> None:
    with HaProxy(tmp_path, gateway.port, PROXY) as haproxy:
        with Talk(haproxy.ports[version], source="127.0.0.77") as talk:
            talk.hello()
            talk.say(b"MAIL FROM:<a@elsewhere.test>\r\n", b"250")
            talk.say(b"RCPT TO:<user@world.test>\r\n", b"550 5.7.1")
            talk.say(b"RCPT TO:<user@example.test>\r\n", b"250")
        gateway.wait_for_event("proxied", address="127.0.0.77", version=version)
        with socket.create_connection(("127.0.0.1", haproxy.ports[0]), timeout=60) as plain:
            plain.sendall(b"EHLO client.outside.test\r\n")
            assert plain.recv(512) == b"", "without a header the connection of a load balancer is closed"
