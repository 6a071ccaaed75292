"""What a peer can make slow: every way to hold a connection ends, and is told as it is.

All of them wait at the same time, each in a thread of its own, and are asked afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from integration.gateway import Gateway
from integration.nexthop import NextHop
from integration.talk import Talk, message

LIMITS = "[smtp]\ncommand_timeout_s = 2\ndata_timeout_s = 2\nmessage_timeout_s = 7\nmin_rate_bytes_s = 1000\nrate_window_s = 4\n"
GIVE_UP_S = 30.0


def drip(talk: Talk, octets: bytes, every_s: float = 0.1) -> bytes:
    """Send again and again until the gateway answers or closes; its last words."""
    end = time.monotonic() + GIVE_UP_S
    talk.sock.settimeout(every_s)
    while time.monotonic() < end:
        try:
            talk.sock.sendall(octets)
            return talk.sock.recv(1000)
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            return b"reset"
    return b"still open"


def in_the_text(talk: Talk) -> None:
    talk.hello()
    talk.envelope(["slow@example.test"])
    talk.say(b"DATA\r\n", b"354")


def says_nothing(talk: Talk) -> bytes:
    return talk.hear()


def says_hello_and_no_more(talk: Talk) -> bytes:
    talk.hello()
    return talk.hear()


def never_ends_its_command(talk: Talk) -> bytes:
    return drip(talk, b"x")


def stops_in_the_text(talk: Talk) -> bytes:
    in_the_text(talk)
    talk.sock.sendall(message())
    return talk.hear()


def never_ends_its_text(talk: Talk) -> bytes:
    in_the_text(talk)
    return drip(talk, b"x" * 500 + b"\r\n")


def sends_slowly(talk: Talk) -> bytes:
    in_the_text(talk)
    return drip(talk, b"x\r\n")


def stops_in_a_chunk(talk: Talk) -> bytes:
    talk.hello()
    talk.envelope(["slow@example.test"])
    talk.sock.sendall(b"BDAT 1000\r\nSubject: x\r\n")
    return talk.hear()


def goes_on(talk: Talk) -> bytes:
    """One that is slow, but within all limits."""
    talk.hello()
    for _ in range(4):
        talk.sock.settimeout(1.0)
        with pytest.raises(TimeoutError):
            talk.sock.recv(1)
        talk.sock.settimeout(GIVE_UP_S)
        talk.file = talk.sock.makefile("rb")
        talk.say(b"NOOP\r\n", b"250")
    return b"went on"


CLIENTS: dict[Callable[[Talk], bytes], str] = {
    says_nothing: "no command in time",
    says_hello_and_no_more: "no command in time",
    never_ends_its_command: "no command in time",
    stops_in_the_text: "no data in time",
    never_ends_its_text: "message took too long",
    sends_slowly: "slower than the minimum rate",
    stops_in_a_chunk: "no data in time",
}


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Client -> its last words and the event that tells of it."""
    with (
        NextHop() as hop,
        Gateway(tmp_path_factory.mktemp("gate"), next_hop=hop.name, extra=LIMITS) as gateway,
        ThreadPoolExecutor(len(CLIENTS) + 1) as pool,
    ):

        def run(client: Callable[[Talk], bytes], number: int) -> bytes:
            with Talk(gateway.port, source=f"127.0.0.{100 + number}") as talk:
                return client(talk)

        futures: dict[Callable, Future] = {
            client: pool.submit(run, client, number) for number, client in enumerate([*CLIENTS, goes_on])
        }
        words = {client: future.result(60) for client, future in futures.items()}
        details = {row["address"]: row["detail"] for row in gateway.told("violation") if row["kind"] == "timeout"}
        yield {
            client: (words[client], details.get(f"127.0.0.{100 + number}"))
            for number, client in enumerate([*CLIENTS, goes_on])
        }
        assert gateway.ledger()["accepted"] == 0
        gateway.assert_no_bugs()


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_a_slow_client_is_told_and_cut(ends, client):
    words, detail = ends[client]
    assert words.startswith(b"421 4.4.2 "), words
    assert detail == CLIENTS[client]


def test_a_client_within_the_limits_goes_on(ends):
    assert ends[goes_on] == (b"went on", None)
