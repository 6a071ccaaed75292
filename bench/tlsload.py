"""The instruments of the TLS rows: a source that speaks STARTTLS (smtp-source does not), and idle sessions inside TLS.

    bench/tlsload.py HOST:PORT messages|handshakes COUNT SIZE RECIPIENT THREADS

The source runs as processes of its own, so that it does not stand in the server's CPU time; it is the same for every server. It verifies
nothing, resumes nothing, and pipelines as smtp-source does not: what it measures is the server.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from measure import POLL_S, Sink, open_session
from peers.peer import PeerError

HELLO = b"EHLO source.example.test\r\n"
PROCESSES = 2


def new_context() -> ssl.SSLContext:
    """A client that verifies nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def read_reply(sock: socket.socket, count: int = 1) -> bytes:
    """The last of `count` replies."""
    octets = b""
    while True:
        block = sock.recv(65536)
        if not block:
            raise OSError(f"closed behind {octets[-200:]!r}")
        octets += block
        lines = octets.split(b"\r\n")
        if not lines[-1] and sum(1 for line in lines if line[3:4] == b" ") >= count:
            return lines[-2]


def secure(sock: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Greeting, EHLO, STARTTLS, handshake, EHLO."""
    read_reply(sock)
    sock.sendall(HELLO)
    read_reply(sock)
    sock.sendall(b"STARTTLS\r\n")
    read_reply(sock)
    secured = context.wrap_socket(sock)
    secured.sendall(HELLO)
    read_reply(secured)
    return secured


def send_messages(address: tuple[str, int], count: int, size_bytes: int, recipient: str) -> None:
    """Kept connections, a hundred messages on each."""
    context = new_context()
    envelope = f"MAIL FROM:<sender@outside.test>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode()
    header = b"From: sender@outside.test\r\nSubject: bench\r\n\r\n"
    text = header + b"x" * 70 + b"\r\n"
    text += (b"x" * 70 + b"\r\n") * max(0, (size_bytes - len(text)) // 72) + b".\r\n"
    while count > 0:
        with secure(socket.create_connection(address, timeout=60), context) as sock:
            for _ in range(min(count, 100)):
                sock.sendall(envelope)
                read_reply(sock, 3)
                sock.sendall(text)
                if not read_reply(sock).startswith(b"250"):
                    raise OSError("a message was refused")
            sock.sendall(b"QUIT\r\n")
        count -= 100


def shake_hands(address: tuple[str, int], count: int) -> None:
    """A connection for each handshake."""
    context = new_context()
    for _ in range(count):
        with secure(socket.create_connection(address, timeout=60), context) as sock:
            sock.sendall(b"QUIT\r\n")
            read_reply(sock)


def send_load(
    sink: Sink,
    port: int,
    recipient: str,
    count: int,
    size_bytes: int,
    sessions: int,
    what: str,
    timeout_s: float,
    tick: Callable[[], None] | None,
) -> float:
    """Seconds until the sink has the last message, or the last handshake is done."""
    wanted = sink.read_count() + count
    share = [count // PROCESSES + (number < count % PROCESSES) for number in range(PROCESSES)]
    threads = max(1, sessions // PROCESSES)
    start = time.monotonic()
    sources = [
        subprocess.Popen(
            [sys.executable, __file__, f"127.0.0.1:{port}", what, str(one), str(size_bytes), recipient, str(threads)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for one in share
    ]
    try:
        if what == "messages":

            def watch() -> None:
                for source in sources:
                    if source.poll() not in (None, 0):
                        raise PeerError(f"the source ended: {source.communicate()[1][-300:]}")
                if tick is not None:
                    tick()

            return sink.wait_for(wanted, timeout_s, watch) - start
        while any(source.poll() is None for source in sources):
            if time.monotonic() > start + timeout_s:
                raise PeerError(f"{count} handshakes take longer than {timeout_s:.0f} s")
            if tick is not None:
                tick()
            time.sleep(POLL_S)
        if any(source.returncode for source in sources):
            raise PeerError(f"the source ended: {sources[0].communicate()[1][-300:]}")
        return time.monotonic() - start
    finally:
        for source in sources:
            if source.poll() is None:
                source.kill()
            source.communicate()


def open_idle_sessions(port: int, count: int) -> list[socket.socket]:
    """Sessions that have said EHLO inside TLS."""
    context = new_context()
    opened: list[socket.socket] = []
    try:
        for number in range(count):
            sock = open_session(port, number)
            sock.settimeout(60)
            opened.append(secure(sock, context))
    except OSError as error:
        for sock in opened:
            sock.close()
        raise PeerError(f"{len(opened)} of {count} idle sessions, then: {error}") from error
    return opened


def main(arguments: list[str]) -> int:
    """One process of the source."""
    host, _, port = arguments[0].rpartition(":")
    what, count, size_bytes, recipient = arguments[1], int(arguments[2]), int(arguments[3]), arguments[4]
    threads = min(int(arguments[5]), max(count, 1))
    failed: list[str] = []

    def work(share: int) -> None:
        try:
            if what == "messages":
                send_messages((host, int(port)), share, size_bytes, recipient)
            else:
                shake_hands((host, int(port)), share)
        except OSError as error:
            failed.append(str(error))

    shares = [count // threads + (number < count % threads) for number in range(threads)]
    running = [threading.Thread(target=work, args=(share,)) for share in shares if share]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    sys.stderr.write("\n".join(failed[:3]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
