"""The instruments: a counting sink, a source, idle sessions.

Source and sink are Postfix's own smtp-source and smtp-sink, the same for every server. The sink reports each end of
data on a pipe (`-c`), and a round ends when it has reported the last message: not when the server has accepted it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from peers.peer import PeerError, take_port

POLL_S = 0.005
PIPE_BYTES = 1 << 20
SESSIONS_PER_SOURCE_ADDRESS = 50  # idle sessions come from many addresses, as servers limit each


class Sink:
    """smtp-sink on a free port, and how many messages it has taken."""

    def __init__(self) -> None:
        self.port = take_port()
        self.count = 0
        self.rest = b""
        unprivileged = ["-u", "nobody"] if os.geteuid() == 0 else []
        address = f"127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            ["smtp-sink", *unprivileged, "-c", "-m", "2000", address, "1000"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self.pipe = self.process.stdout.fileno()
        os.set_blocking(self.pipe, False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        deadline = time.monotonic() + 10
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise PeerError("smtp-sink does not start")
            time.sleep(0.02)

    def is_ready(self) -> bool:
        """Whether it listens."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def read_count(self) -> int:
        """The messages taken so far, from what the pipe holds: "sess=9 quit=9 mesg=9" with a CR behind each."""
        with contextlib.suppress(BlockingIOError):
            while block := os.read(self.pipe, PIPE_BYTES):
                reports = (self.rest + block).rpartition(b"\r")
                self.rest = reports[2]
                last = reports[0].rpartition(b"mesg=")[2]
                if last.strip().isdigit():
                    self.count = int(last)
        return self.count

    def wait_for(self, count: int, timeout_s: float, tick: Callable[[], None] | None = None) -> float:
        """Wait until it has `count` messages in all; the monotonic time then. PeerError after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while self.read_count() < count:
            if time.monotonic() > deadline:
                raise PeerError(f"the sink has {self.count} of {count} messages after {timeout_s:.0f} s")
            if tick is not None:
                tick()
            time.sleep(POLL_S)
        return time.monotonic()

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        os.close(self.pipe)
        self.process.stdout = None


@contextlib.contextmanager
def open_source(
    port: int, recipient: str, messages: int, size_bytes: int, sessions: int, *, keep: bool
) -> Iterator[subprocess.Popen[str]]:
    """smtp-source at work; `keep` sends one message after the other on each connection."""
    command = ["smtp-source", "-s", str(min(sessions, messages)), "-m", str(messages), "-l", str(size_bytes)]
    command += ["-d"] if keep else []
    command += ["-f", "sender@outside.test", "-t", recipient, f"127.0.0.1:{port}"]
    source = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield source
    finally:
        if source.poll() is None:
            source.kill()
        source.wait()
        if source.stderr is not None:
            source.stderr.close()


def send_load(
    sink: Sink,
    port: int,
    recipient: str,
    messages: int,
    size_bytes: int,
    sessions: int,
    *,
    keep: bool,
    timeout_s: float,
    tick: Callable[[], None] | None = None,
) -> float:
    """Seconds from the start of the source until the sink has the last message."""

    def watch_source() -> None:
        if source.poll() not in (None, 0):
            assert source.stderr is not None
            raise PeerError(f"smtp-source ended with {source.returncode}: {source.stderr.read().strip()[-300:]}")
        if tick is not None:
            tick()

    wanted = sink.read_count() + messages
    start = time.monotonic()
    with open_source(port, recipient, messages, size_bytes, sessions, keep=keep) as source:
        end = sink.wait_for(wanted, timeout_s, watch_source)
        source.wait(30)
    return end - start


def open_idle_sessions(port: int, count: int, timeout_s: float = 120.0) -> list[socket.socket]:
    """`count` sessions that have said EHLO and got the reply, from many addresses of 127.0.0.0/8."""
    sockets: list[socket.socket] = []
    try:
        for first in range(0, count, 25):  # small steps, so that no listen queue overflows
            step = [open_session(port, number) for number in range(first, min(first + 25, count))]
            sockets += step
            converse(step, b"220", b"EHLO idle.example.test\r\n", timeout_s)
        converse(sockets, b"250", b"", timeout_s)
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise PeerError(f"{len(sockets)} of {count} idle sessions, then: {error}") from error
    return sockets


def open_session(port: int, number: int) -> socket.socket:
    """One connection, its source address chosen by its number."""
    block = number // SESSIONS_PER_SOURCE_ADDRESS
    sock = socket.socket()
    sock.bind((f"127.0.{block // 250}.{block % 250 + 1}", 0))
    sock.settimeout(30)
    sock.connect(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


def converse(sockets: list[socket.socket], expect: bytes, send: bytes, timeout_s: float) -> None:
    """Wait for one reply on each socket, then send on each. OSError on any other reply or none in time."""
    deadline = time.monotonic() + timeout_s
    with select.epoll() as poll:
        waiting = {sock.fileno(): (sock, bytearray()) for sock in sockets}
        for number in waiting:
            poll.register(number, select.EPOLLIN)
        while waiting:
            ready = poll.poll(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise OSError(f"no reply from {len(waiting)} sessions")
            for number, _ in ready:
                sock, reply = waiting[number]
                block = sock.recv(4096)
                reply += block
                if not block or not reply.startswith(expect):
                    raise OSError(f"reply {bytes(reply[:200])!r}")
                last = reply[reply.rfind(b"\n", 0, -1) + 1 :]
                if reply.endswith(b"\n") and last[3:4] == b" ":
                    poll.unregister(number)
                    del waiting[number]
                    if send:
                        sock.sendall(send)


def read_machine() -> dict[str, object]:
    """What a reader of the results needs to know of the machine."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    system = os.uname()
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": model,
        "memory_mb": memory_kb // 1024,
        "kernel": f"{system.sysname} {system.release}",
    }
