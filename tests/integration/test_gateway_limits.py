"""What a peer can make many or large: connections, recipients, header, hops, errors, idle commands, memory, unread replies."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
from pathlib import Path

import pytest
from integration.gateway import Gateway
from integration.nexthop import NextHop
from integration.talk import HELLO, Talk, message, send
from peers import wait_until

SESSIONS = 1000


@pytest.fixture(scope="module")
def hop():
    with NextHop() as hop:
        yield hop


@pytest.fixture(scope="module")
def strict(tmp_path_factory, hop):
    """A gateway with small limits."""
    limits = {
        "max_connections": 8, "max_connections_per_client": 5, "max_recipients": 3, "max_header_bytes": 2000,
        "max_received_hops": 5, "max_errors": 4, "max_idle_commands": 6, "max_commands": 60, "max_transactions": 10,
    }  # fmt: skip
    extra = "[smtp]\n" + "".join(f"{key} = {value}\n" for key, value in limits.items())
    with Gateway(tmp_path_factory.mktemp("strict"), next_hop=hop.name, extra=extra) as gateway:
        yield gateway
        gateway.assert_no_bugs()


@pytest.fixture(scope="module")
def roomy(tmp_path_factory, hop):
    """A gateway with room for connections and little for message text."""
    extra = (
        "[smtp]\nmax_connections_per_client = 10000\nmemory_bytes = 1048576\nbody_file_bytes = 131072\n"
        "max_commands = 10000000\nmax_transactions = 1000000\n"
        "min_rate_bytes_s = 0\ndata_timeout_s = 1800\n"  # half a message waits until all other clients have come
    )
    with Gateway(tmp_path_factory.mktemp("roomy"), next_hop=hop.name, extra=extra) as gateway:
        yield gateway
        gateway.assert_no_bugs()


def open_sessions(gateway: Gateway) -> int:
    return gateway.stats()["receiver/0"]["open"]


def wait_until_closed(gateway: Gateway) -> None:
    wait_until(lambda: open_sessions(gateway) == 0, "all sessions have ended")


def body_bytes(gateway: Gateway) -> int:
    """In all body files; one may be removed meanwhile."""
    total = 0
    for path in (gateway.spool / "bodies").iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def rss_bytes(gateway: Gateway, role: str = "receiver") -> int:
    status = Path(f"/proc/{gateway.roles()[role]}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


# --- many --------------------------------------------------------------------------------------------------------------


def test_connections_of_one_client_are_limited(strict):
    wait_until_closed(strict)
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            assert stack.enter_context(Talk(strict.port)).greeting.startswith(b"220")
        over = stack.enter_context(Talk(strict.port))
        assert over.greeting.startswith(b"421 4.7.0 ") and over.is_closed()
        other = stack.enter_context(Talk(strict.port, source="127.0.0.5"))
        assert other.greeting.startswith(b"220")
    wait_until_closed(strict)
    with Talk(strict.port) as talk:
        assert talk.greeting.startswith(b"220")
    refused = strict.wait_for_event("connection_refused")
    assert (refused["address"], refused["code"], refused["status"]) == ("127.0.0.1", 421, "4.7.0")


def test_connections_in_all_are_limited(strict):
    wait_until_closed(strict)
    with contextlib.ExitStack() as stack:
        for number in range(8):
            talk = stack.enter_context(Talk(strict.port, source=f"127.0.0.{10 + number % 4}"))
            assert talk.greeting.startswith(b"220")
        over = stack.enter_context(Talk(strict.port, source="127.0.0.20"))
        assert over.greeting.startswith(b"421 4.3.2 ") and over.is_closed()
    wait_until_closed(strict)


def test_recipients_are_limited_and_the_others_get_their_mail(strict, hop):
    with Talk(strict.port) as talk:
        talk.hello()
        talk.envelope(["a@example.test", "b@example.test", "c@example.test"])
        for number in range(6):  # not an error: the client sends the rest in the next transaction
            talk.say(b"RCPT TO:<d%d@example.test>\r\n" % number, b"452 4.5.3 ")
        talk.data(message())
        assert hop.wait_to("a@example.test").recipients == ["a@example.test", "b@example.test", "c@example.test"]


@pytest.mark.parametrize("by", ["data", "bdat"])
def test_the_header_is_limited(strict, hop, by):
    content = b"Subject: x\r\n" + b"X-Field: value\r\n" * 200 + b"\r\nbody\r\n"
    with Talk(strict.port) as talk:
        talk.hello()
        talk.envelope(["header@example.test"])
        getattr(talk, by)(content, expect=b"552 5.3.4 ")
        talk.send("header-after@example.test", message())
    hop.wait_to("header-after@example.test")
    assert hop.find("header@example.test") is None


def test_hops_are_limited(strict, hop):
    field = b"Received: from a.test by b.test; Tue, 14 Nov 2023 22:13:20 +0000\r\n"
    with Talk(strict.port) as talk:
        talk.hello()
        talk.envelope(["hops@example.test"])
        talk.data(field * 6 + message(), expect=b"554 5.4.6 ")
        talk.send("few-hops@example.test", field * 4 + message())
    hop.wait_to("few-hops@example.test")
    assert hop.find("hops@example.test") is None


def test_errors_are_limited(strict):
    with Talk(strict.port) as talk:
        talk.hello()
        for _ in range(4):
            talk.say(b"BOGUS\r\n", b"500 5.5.")
        talk.expect(b"421 4.7.0 ")
        assert talk.is_closed()


def test_commands_without_a_message_are_limited(strict):
    with Talk(strict.port) as talk:
        for _ in range(6):
            talk.hello()
        talk.say(b"NOOP\r\n", b"421 4.7.0 ")
        assert talk.is_closed()


def test_messages_of_a_session_are_limited(strict):
    with Talk(strict.port) as talk:
        talk.hello()
        for number in range(10):
            talk.send(f"t{number}@example.test", message())
        talk.say(b"MAIL FROM:<a@b.example>\r\n", b"421 4.7.0 ")
        assert talk.is_closed()


# --- large -------------------------------------------------------------------------------------------------------------


def used_bytes(directory: Path) -> int:
    """The sizes of the files there; one that is removed meanwhile has none."""
    total = 0
    for path in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def test_many_half_sent_large_messages_are_not_held_in_memory(roomy):
    """200 clients that send 100 kB each and then nothing: what is held stays below the budget and 16 KiB for each."""
    before = rss_bytes(roomy)
    half = message("half", b"0123456789\r\n" * 8_000)
    with contextlib.ExitStack() as stack:
        talks = [stack.enter_context(Talk(roomy.port)) for _ in range(200)]
        for talk in talks:
            talk.hello()
            talk.envelope(["half@example.test"])
            talk.say(b"DATA\r\n", b"354")
            talk.sock.sendall(half)
        bound = 1_048_576 + 200 * 16_384
        wait_until(lambda: roomy.stats()["receiver/0"]["held_bytes"] < bound, "text goes to body files")
        assert rss_bytes(roomy) - before < 20_000_000
        talks[7].say(b".\r\n", b"250 2.0.0 Queued")
    wait_until_closed(roomy)
    wait_until(lambda: roomy.stats()["receiver/0"]["held_bytes"] == 0, "nothing is held any more")
    wait_until(lambda: body_bytes(roomy) == 0, "half messages leave no body file")


def test_a_thousand_idle_sessions_take_little_memory(roomy):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < SESSIONS + 200:
        pytest.skip(f"this test may open only {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, SESSIONS + 200), hard))
    sockets = []
    try:
        send(roomy.port, "warm@example.test")
        before = rss_bytes(roomy)
        for _ in range(SESSIONS):
            sock = socket.create_connection(("127.0.0.1", roomy.port), timeout=60)
            sockets.append(sock)
            sock.sendall(HELLO) if sock.recv(1000).startswith(b"220") else None
        wait_until(lambda: open_sessions(roomy) == SESSIONS, "all sessions")
        for sock in sockets:
            assert b"250" in sock.recv(2000)
        assert rss_bytes(roomy) - before < 10_000_000
    finally:
        for sock in sockets:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wait_until_closed(roomy)


def test_a_client_that_does_not_read_its_replies_is_not_read_either(roomy):
    """It sends until nobody takes more; all that was taken is answered once it reads."""
    before = rss_bytes(roomy)
    group = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<unread@example.test>\r\nRSET\r\n"
    block = group * 1000
    sent = 0
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(60)
        sock.connect(("127.0.0.1", roomy.port))
        assert sock.recv(1000).startswith(b"220")
        sock.sendall(HELLO)
        assert sock.recv(2000).startswith(b"250")  # nothing may be sent before that
        sock.settimeout(1.0)
        with pytest.raises(TimeoutError):
            while sent < 50_000_000:  # more than the kernel keeps
                sent += sock.send(block[sent % len(block) :])
        assert rss_bytes(roomy) - before < 20_000_000  # all replies to 50 MB would be 70 MB
        sock.settimeout(60)
        wanted = sent // len(group) * 3
        answered, tail = 0, b""
        while answered < wanted and (data := sock.recv(1 << 20)):
            lines = (tail + data).split(b"\r\n")
            tail = lines.pop()
            answered += sum(line.startswith((b"250 2.1.0", b"250 2.1.5", b"250 2.0.0")) for line in lines)
        assert answered >= wanted
    wait_until_closed(roomy)
