"""Sockets that were handed over: looked at one by one, and used by a whole gateway."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import take_port, wait_until
from servicebed import ServiceGateway, send_message

from gatepost.privsep.activation import ActivationError, Inherited, match, take_inherited

FIRST = 200  # tests do not have descriptor 3 to give away


@pytest.fixture
def opened() -> Iterator[list[int]]:
    """Descriptors from FIRST on, closed after the test."""
    found: list[int] = []
    yield found
    for fd in found:
        try:
            os.close(fd)
        except OSError:
            pass


def hand_over(opened: list[int], *socks: socket.socket) -> None:
    for sock in socks:
        opened.append(os.dup2(sock.fileno(), FIRST + len(opened)))
        sock.close()


def listening(host: str = "127.0.0.1", family: int = socket.AF_INET, v6only: int = 1) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    sock.bind((host, 0))
    sock.listen(1)
    return sock


def take(count: int | str, names: str = "", pid: str = "") -> list[Inherited]:
    environment = {"LISTEN_PID": pid or str(os.getpid()), "LISTEN_FDS": str(count), "LISTEN_FDNAMES": names}
    try:
        return take_inherited(environment, FIRST)
    finally:
        assert environment == {}


def has_ipv6() -> bool:
    try:
        listening("::1", socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_sockets_are_matched_by_address(opened: list[int]) -> None:
    four, six = listening(), listening("::1", socket.AF_INET6)
    ports = [four.getsockname()[1], six.getsockname()[1]]
    hand_over(opened, four, six)
    inherited = take(2, "smtp:smtp6")
    assert [one.name for one in inherited] == ["smtp", "smtp6"]
    listen = [f"[0:0::1]:{ports[1]}", f"127.0.0.1:{ports[0]}", "127.0.0.2:0"]
    assert match(inherited, listen) == {listen[0]: inherited[1], listen[1]: inherited[0]}
    assert not os.get_inheritable(FIRST)
    for one in inherited:
        one.sock.close()


def test_nothing_was_handed_over() -> None:
    assert take_inherited({}) == []
    assert take(3, pid=str(os.getppid())) == []  # meant for somebody else


def test_a_socket_that_nobody_would_serve_is_an_error(opened: list[int]) -> None:
    hand_over(opened, listening())
    inherited = take(1, "gatepost.socket")
    with pytest.raises(ActivationError, match=r"gatepost.socket listens on 127.0.0.1:\d+, which neither `listen` nor"):
        match(inherited, ["127.0.0.1:9"])
    inherited[0].sock.close()


def unconnected() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def datagram() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def both_families() -> socket.socket:
    return listening("::", socket.AF_INET6, v6only=0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (unconnected, "no listening stream socket"),
        (datagram, "no listening"),
        (both_families, "BindIPv6Only=ipv6-only"),
    ],
)
def test_what_cannot_be_used_is_refused(opened: list[int], make: object, words: str) -> None:
    hand_over(opened, make())  # type: ignore[operator]
    with pytest.raises(ActivationError, match=words):
        take(1)
    opened.clear()  # whoever looked at it has closed it


def test_what_is_no_socket_is_refused(opened: list[int]) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    opened.append(os.dup2(null, FIRST))
    os.close(null)
    with pytest.raises(ActivationError, match="is no socket"):
        take(1)


@pytest.mark.parametrize(("count", "words"), [(1, "is not open"), ("many", "no number"), (99999, "no number")])
def test_a_broken_environment_is_refused(count: int | str, words: str) -> None:
    with pytest.raises(ActivationError, match=words):
        take(count)


def test_one_address_twice_is_refused(opened: list[int]) -> None:
    sock = listening()
    again = sock.dup()
    address = f"127.0.0.1:{sock.getsockname()[1]}"
    hand_over(opened, sock, again)
    inherited = take(2, "one:two")
    with pytest.raises(ActivationError, match="two and one both listen"):
        match(inherited, [address])
    for one in inherited:
        one.sock.close()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[ServiceGateway]:
    gateway = ServiceGateway(tmp_path, [])
    yield gateway
    gateway.end()


def test_a_gateway_serves_what_it_was_given_and_keeps_it_over_a_reload(gateway: ServiceGateway) -> None:
    sock = listening()
    port = sock.getsockname()[1]
    waiting = socket.create_connection(("127.0.0.1", port))  # came before the gateway was there: the point of it all
    other = f"127.0.0.1:{take_port()}"
    gateway.listen = [f"127.0.0.1:{port}", other]
    gateway.write_config()
    gateway.start(descriptors=[sock.fileno()])
    assert f"127.0.0.1:{port}, {other}" in gateway.wait_ready()
    waiting.settimeout(60)
    assert waiting.recv(4) == b"220 "
    waiting.close()
    send_message(port)

    gateway.listen = [other]  # the service manager still listens there: it may not be given up
    gateway.write_config()
    gateway.signal(signal.SIGHUP)
    wait_until(lambda: "which neither `listen` nor" in gateway.output.read_text(), "the reload is refused")
    send_message(port)
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_end() == 0
    sock.close()


def test_a_gateway_does_not_start_on_a_socket_it_would_not_serve(gateway: ServiceGateway) -> None:
    sock = listening()
    gateway.listen = [f"127.0.0.1:{take_port()}"]
    gateway.write_config()
    gateway.start(descriptors=[sock.fileno()])
    assert gateway.wait_end() == 2
    assert "which neither `listen` nor" in gateway.output.read_text()
    sock.close()


def test_a_unix_socket_is_matched_by_path(opened: list[int], tmp_path: Path) -> None:
    path = str(tmp_path / "submit")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    hand_over(opened, sock)
    inherited = take(1, "submit")
    assert str(inherited[0]) == f"unix:{path}"
    assert match(inherited, ["127.0.0.1:25", f"unix:{path}"]) == {f"unix:{path}": inherited[0]}
    with pytest.raises(ActivationError, match="neither"):
        match(inherited, ["127.0.0.1:25"])
    inherited[0].sock.close()
