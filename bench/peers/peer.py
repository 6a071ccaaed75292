"""What every measured server has: a directory, a port, a process to start and to stop.

Not here: how a server is configured (its own file) or measured (`measure.py`). Invariants: a peer's processes are all in
its own accounting group, and after `stop` none of them is left, whatever they forked.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from accounting import Accounting, open_accounting

DOMAIN = "example.test"
RECIPIENT = f"bench@{DOMAIN}"
MAX_MESSAGE_BYTES = 50 * 1024 * 1024  # the same limit for all, above the largest message of the bench


class PeerError(Exception):
    """A peer did not start, did not stop, or died."""


def take_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Peer:
    """One server under test, from configuration to the death of its last process."""

    name = ""
    sessions = 40  # of the source at a time
    speaks_tls = False  # `configure` knows how
    idle_limit: int | None = None  # sessions it can hold idle, None: no limit that the bench would meet
    idle_note = ""  # why it has that limit
    domain = DOMAIN  # of the mail it is sent

    def __init__(self, directory: Path, sink_port: int) -> None:
        self.directory = directory
        self.sink_port = sink_port
        self.port = take_port()
        self.accounting: Accounting | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.tls = False  # set before start: whether it shall offer STARTTLS
        self.idle_sessions = 0  # set before start: the sessions it shall be able to hold

    @classmethod
    def prepare(cls, cache: Path) -> str | None:
        """Make the server's program available; a reason if it cannot be had here."""
        raise NotImplementedError

    @classmethod
    def version(cls) -> str:
        """The version as the program or its package tells it."""
        raise NotImplementedError

    def configure(self) -> list[str]:
        """Write the configuration below `directory`; the command that runs the server in the foreground."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Whether it greets a client."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as sock:
                greeted = sock.recv(512).startswith(b"220")
                sock.sendall(b"QUIT\r\n")
                return greeted and bool(sock.recv(512))
        except OSError:
            return False

    def start(self, timeout_s: float = 30.0) -> None:
        """Start it in an accounting group of its own and wait until it greets."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        os.chmod(self.directory, 0o755)
        command = self.configure()
        self.accounting = open_accounting(f"gatepost-bench-{os.getpid()}-{self.name}")
        with open(self.directory / "output", "ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=self.accounting.enter,  # noqa: PLW1509 - only writes a file; see Accounting.enter
            )
        self.accounting.watch(self.process.pid)
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            if self.process.poll() is not None:
                raise PeerError(f"{self.name} ended at once:\n{self.last_output()}")
            if time.monotonic() > deadline:
                raise PeerError(f"{self.name} did not greet in {timeout_s:.0f} s:\n{self.last_output()}")
            time.sleep(0.05)

    def last_output(self) -> str:
        """The end of what it printed, for an error message."""
        return (self.directory / "output").read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        """SIGTERM, then SIGKILL for whatever is left in its group; its directory is removed."""
        if self.process is not None and self.accounting is not None:
            self.end_processes(self.process, self.accounting)
            self.accounting.close()
        self.process = self.accounting = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def end_processes(self, process: subprocess.Popen[bytes], accounting: Accounting) -> None:
        """The part of `stop` that signals."""
        pids = accounting.pids()
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            pass
        deadline = time.monotonic() + 10
        while left := accounting.still_there(pids):
            for pid in left:
                try:
                    os.kill(pid, signal.SIGTERM if time.monotonic() < deadline - 7 else signal.SIGKILL)
                except ProcessLookupError:
                    pass
            if time.monotonic() > deadline:
                raise PeerError(f"{self.name}: processes {left} do not end")
            time.sleep(0.05)
        process.wait(5)


def first_line(command: list[str]) -> str:
    """The first line a program prints, for its version."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    lines = (done.stdout or done.stderr).splitlines()
    return lines[0].strip() if lines else ""
