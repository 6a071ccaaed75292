"""A real program as a child of the test: started, waited for, ended by process id with all it forked.

Invariants: after `stop` no descendant of the child is left and its own directory is gone. Nothing waits by sleeping
for a fixed time: `wait_until` polls a condition and names it when it does not come true.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")
PORTS = (20000, 32000)
BLOCK = 100  # ports
WAIT_S = 60.0  # of every wait that ends by an event: what a busy machine may need; costs nothing where things go well
GRACE_S = 5.0  # of processes whose parent has ended, before they are killed


class PeerStartError(Exception):
    """The program ended or did not answer; the message has its log."""


def take_port(address: str = "127.0.0.1") -> int:
    """A TCP port that was free a moment ago, and that no other run of the tests takes meanwhile.

    Below the range that the kernel gives to outgoing connections (from 32768 on), so that none of those takes it either. Each
    process of tests has a block of ports for itself, by the abstract name of a socket that it holds until it ends; it gives out one
    after the other, so that a port that something is to come back to is not given out again.
    """
    while True:
        port = next(_own_ports())
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind((address, port))
            return port


@functools.cache
def _own_ports() -> Iterator[int]:
    blocks = list(range(*PORTS, BLOCK))
    for block in random.sample(blocks, len(blocks)):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0gatepost-test-ports-{block}")
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return itertools.cycle(range(block, block + BLOCK))
    raise RuntimeError("every block of ports is in use by another run of the tests")


_claims: list[socket.socket] = []


def wait_until(condition: Callable[[], T], what: str, timeout_s: float = WAIT_S) -> T:
    """The first true value of `condition`; TimeoutError with `what` if there is none in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        is_last = time.monotonic() > deadline  # before the look: after a pause of the whole machine there is one more
        if value := condition():
            return value
        if is_last:
            raise TimeoutError(f"not in {timeout_s:.0f} s: {what}")
        time.sleep(0.01)


def open_directory(directory: Path) -> Path:
    """`directory` if every user can reach it, else a new one outside that `PeerProcess.stop` removes.

    pytest's temporary directories are closed to all but the user who runs the tests, and a server that changes its user
    could not enter its own queue there.
    """
    if all(parent.stat().st_mode & 0o001 for parent in (directory, *directory.parents)):
        return directory
    made = Path(tempfile.mkdtemp(prefix="gatepost-peer-"))
    made.chmod(0o755)
    return made


def is_greeting(port: int, prefix: bytes = b"220") -> bool:
    """Whether a server on loopback greets with `prefix` and takes QUIT."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        greeting = sock.recv(512)
        sock.sendall(b"QUIT\r\n")
        sock.recv(512)
        return greeting.startswith(prefix)
    return False


def list_processes() -> dict[int, tuple[int, str]]:
    """Live process -> (parent, start time); zombies are dead."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    found[int(entry)] = (int(fields[1]), fields[19])
    return found


class Family:
    """A process with all its descendants, also those whose parent has ended since; no number used anew is taken for one."""

    def __init__(self, first: int) -> None:
        processes = list_processes()
        self.known = {first: processes[first][1]} if first in processes else {}

    def list_living(self) -> list[int]:
        """Those alive now, oldest first."""
        processes = list_processes()
        living = {pid for pid, born in self.known.items() if pid in processes and processes[pid][1] == born}
        grown = True
        while grown:
            grown = False
            for pid, (parent, born) in processes.items():
                if parent in living and pid not in living:
                    living.add(pid)
                    self.known[pid] = born
                    grown = True
        return sorted(living)


class PeerProcess:
    """A context manager around one program; subclasses say how it is configured and when it is ready."""

    def __init__(self, directory: Path) -> None:
        self.directory = open_directory(directory)
        self.is_own_directory = self.directory != directory
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self) -> list[str]:
        """Write the configuration; the command that runs the program in the foreground."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Whether it serves."""
        raise NotImplementedError

    def read_log(self) -> str:
        """What it printed."""
        with contextlib.suppress(OSError):
            return (self.directory / "output").read_text(errors="replace")
        return ""

    def start(self) -> Self:
        """Start and wait until it is ready; PeerStartError with its log otherwise."""
        command = self.configure()
        with open(self.directory / "output", "ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        process = self.process

        def is_up() -> bool:
            if process.poll() is not None:
                raise PeerStartError(f"{command[0]} ended with {process.returncode}:\n{self.read_log()}")
            return self.is_ready()

        try:
            wait_until(is_up, f"{command[0]} is ready")
        except TimeoutError as error:
            log = self.read_log()
            self.stop()
            raise PeerStartError(f"{error}\n{log}") from error
        except PeerStartError:
            self.stop()
            raise
        return self

    def halt(self, timeout_s: float = WAIT_S) -> None:
        """End all its processes and keep its directory, so that it can be started again."""
        if self.process is None:
            return
        family = Family(self.process.pid)
        family.list_living()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout_s)
        begun = time.monotonic()
        while left := family.list_living():
            kind = signal.SIGTERM if time.monotonic() < begun + GRACE_S else signal.SIGKILL
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, kind)
            if time.monotonic() > begun + timeout_s:
                raise TimeoutError(f"processes {left} do not end")
            time.sleep(0.01)
        self.process.wait()
        self.process = None

    def stop(self) -> None:
        """`halt`, and remove the directory if it was made here."""
        self.halt()
        if self.is_own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
