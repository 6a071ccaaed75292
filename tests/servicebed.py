"""A whole gateway as a service manager starts it: environment, descriptors and a notification socket are the test's."""

from __future__ import annotations

import os
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import gatepost

WAIT_S = 60.0
STARTER = """
import os, sys
count = int(sys.argv[1])
given = [int(word) for word in sys.argv[2:2 + count]]
spare = [os.dup2(fd, 100 + i, inheritable=True) for i, fd in enumerate(given)]
for i, fd in enumerate(spare):
    os.dup2(fd, 3 + i, inheritable=True)
for fd in spare:
    os.close(fd)
if count:
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["LISTEN_FDS"] = str(count)
os.execv(sys.executable, [sys.executable, "-m", "gatepost", "run", "--config", sys.argv[2 + count]])
"""


class ManagerSocket:
    """What NOTIFY_SOCKET names; keeps what it was told."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind("\0" + address[1:] if address.startswith("@") else address)
        self.sock.settimeout(WAIT_S)

    def receive(self) -> dict[str, str]:
        """The next datagram as assignments."""
        return dict(line.split("=", 1) for line in self.sock.recv(65536).decode().splitlines())

    def receive_until(self, name: str) -> list[dict[str, str]]:
        """All that come up to and with the first that assigns `name`."""
        told = [self.receive()]
        while name not in told[-1]:
            told.append(self.receive())
        return told

    def close(self) -> None:
        self.sock.close()


class ServiceGateway:
    """`gatepost run` with a Maildir next hop below `directory`."""

    def __init__(self, directory: Path, listen: Sequence[str]) -> None:
        self.directory = directory
        self.config = directory / "gatepost.toml"
        self.listen = list(listen)
        self.process: subprocess.Popen[str] | None = None
        self.output = directory / "output.txt"
        self.write_config()

    def write_config(self, **top: str) -> None:
        lines = [
            'hostname = "gate.example.test"',
            f"listen = {self.listen!r}".replace("'", '"'),
            f'spool = "{self.directory / "spool"}"',
            'domains = ["example.test"]',
            f'next_hop = "maildir:{self.directory / "mail"}"',
            *(f"{name} = {value}" for name, value in top.items()),
            "[queue]",
            "allow_volatile = true",
        ]
        self.config.write_text("\n".join(lines) + "\n")
        self.config.chmod(0o600)

    def start(self, environment: Mapping[str, str] = {}, descriptors: Sequence[int] = ()) -> None:
        arguments = [str(len(descriptors)), *map(str, descriptors), str(self.config)]
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", STARTER, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                pass_fds=tuple(descriptors),
                env={**os.environ, "PYTHONPATH": str(Path(gatepost.__file__).parents[1]), **environment},
            )

    def wait_ready(self) -> str:
        """The line that says so."""
        assert self.process is not None and self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "ready" in line, self.output.read_text()
        return line

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait_end(self) -> int:
        assert self.process is not None
        return self.process.wait(WAIT_S)

    def end(self) -> None:
        """For the end of a test: asks first, so that no role is left over."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def send_message(port: int, text: str = "hello", host: str = "127.0.0.1") -> None:
    """One message through the real door."""
    with smtplib.SMTP(host, port, timeout=60) as client:
        client.sendmail("me@example.net", ["you@example.test"], f"Subject: test\r\n\r\n{text}\r\n")
