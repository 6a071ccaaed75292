"""What a peer can make slow: every way to hold a connection ends, and is told as it is.

One gateway for each limit, so that on a machine that is busy no other limit is met before. All clients wait at the same time, each
in a thread of its own, and are asked afterwards.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from integration.gateway import Gateway
from integration.nexthop import NextHop
from integration.talk import HELLO, Talk, message

LIMITS = {
    "command": "command_timeout_s = 2",
    "data": "data_timeout_s = 2\nmin_rate_bytes_s = 0",
    "message": "message_timeout_s = 3\nmin_rate_bytes_s = 0",
    "rate": "min_rate_bytes_s = 1000\nrate_window_s = 2",
}
COMMAND_LIMIT_S = 2.0
GIVE_UP_S = 60.0


def drip(talk: Talk, octets: bytes, every_s: float = 0.1) -> bytes:
    """Send again and again until the gateway answers or closes; its last words, also if they came with the reply before."""
    is_heard = threading.Event()

    def go_on() -> None:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # what it said before can still be read
            while not is_heard.wait(every_s):
                talk.sock.sendall(octets)

    dripping = threading.Thread(target=go_on)
    dripping.start()
    try:
        return talk.hear()
    finally:
        is_heard.set()
        dripping.join()


def in_the_text(talk: Talk) -> None:
    talk.hello()
    talk.envelope(["slow@example.test"])
    talk.say(b"DATA\r\n", b"354")


def says_nothing(talk: Talk) -> bytes:
    return talk.hear()


def says_hello_and_no_more(talk: Talk) -> bytes:
    """What it hears of its limit may be the reply to its greeting already, where it was kept waiting for its own turn."""
    reply = talk.say(HELLO)
    return talk.hear() if reply.startswith(b"250") else reply


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
    """One that is slow, but within the limit. It is asked again where it was kept waiting for its own turn longer than the limit."""
    port, (source, _) = talk.sock.getpeername()[1], talk.sock.getsockname()
    while True:
        sent_s = time.monotonic()
        with Talk(port, source=source) as slow:
            last_s, sent_s = sent_s, time.monotonic()
            if not slow.say(HELLO).startswith(b"250"):
                assert time.monotonic() - last_s > COMMAND_LIMIT_S
                continue
            for _ in range(4):
                slow.sock.settimeout(COMMAND_LIMIT_S / 2)
                with contextlib.suppress(TimeoutError):
                    heard = slow.sock.recv(1000)
                    assert time.monotonic() - sent_s > COMMAND_LIMIT_S, heard
                    break
                slow.sock.settimeout(GIVE_UP_S)
                slow.file = slow.sock.makefile("rb")
                last_s, sent_s = sent_s, time.monotonic()
                if not slow.say(b"NOOP\r\n").startswith(b"250"):
                    assert time.monotonic() - last_s > COMMAND_LIMIT_S
                    break
            else:
                return b"went on"


CLIENTS: dict[Callable[[Talk], bytes], tuple[str, str]] = {
    says_nothing: ("command", "no command in time"),
    says_hello_and_no_more: ("command", "no command in time"),
    never_ends_its_command: ("command", "no command in time"),
    stops_in_the_text: ("data", "no data in time"),
    stops_in_a_chunk: ("data", "no data in time"),
    never_ends_its_text: ("message", "message took too long"),
    sends_slowly: ("rate", "slower than the minimum rate"),
    goes_on: ("command", ""),
}


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Client -> its last words and the event that tells of it."""
    with contextlib.ExitStack() as stack:
        hop = stack.enter_context(NextHop())
        pool = stack.enter_context(ThreadPoolExecutor(len(CLIENTS)))

        def start(limit: str) -> Gateway:
            directory: Path = tmp_path_factory.mktemp(limit)
            return Gateway(directory, next_hop=hop.name, extra=f"[smtp]\n{LIMITS[limit]}\n").start()

        gateways = dict(zip(LIMITS, pool.map(start, LIMITS), strict=True))
        for gateway in gateways.values():
            stack.callback(gateway.stop)

        def run(client: Callable[[Talk], bytes], number: int) -> bytes:
            with Talk(gateways[CLIENTS[client][0]].port, source=f"127.0.0.{100 + number}") as talk:
                return client(talk)

        futures: dict[Callable, Future] = {
            client: pool.submit(run, client, number) for number, client in enumerate(CLIENTS)
        }
        words = {client: future.result(300) for client, future in futures.items()}
        details: dict[str, str] = {}
        for gateway in gateways.values():
            details |= {row["address"]: row["detail"] for row in gateway.told("violation") if row["kind"] == "timeout"}
        yield {client: (words[client], details.get(f"127.0.0.{100 + n}")) for n, client in enumerate(CLIENTS)}
        for gateway in gateways.values():
            assert gateway.ledger()["accepted"] == 0
            gateway.assert_no_bugs()


@pytest.mark.parametrize(
    "client", [client for client in CLIENTS if client is not goes_on], ids=lambda client: client.__name__
)
def test_a_slow_client_is_told_and_cut(ends, client):
    words, detail = ends[client]
    assert words.startswith(b"421 4.4.2 "), words
    assert detail == CLIENTS[client][1]


def test_a_client_within_the_limits_goes_on(ends):
    assert ends[goes_on][0] == b"went on"
