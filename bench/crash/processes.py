"""Child processes that cannot outlive this program, and what /proc tells of others.

Every child gets SIGKILL from the kernel when its parent ends (PR_SET_PDEATHSIG), however that happened. Signals go to process
ids that were started here or found below them, never to a name; a number is compared with its start time before it is used.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
POLL_S = 0.01
PORTS = (14000, 20000)  # below those of the tests
PR_SET_PDEATHSIG = 1
CLONE_NEWNS = 0x00020000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


class CrashError(Exception):
    """The run cannot go on: something did not start, answer or end."""


class Skip(Exception):
    """A scenario cannot run here; the text says why."""


def die_with_parent() -> None:
    """In a child before exec."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def start(command: Sequence[str | Path], **settings: object) -> subprocess.Popen[bytes]:
    """Start a program that ends with this one."""
    settings = {"stdin": subprocess.DEVNULL, "start_new_session": True, "preexec_fn": die_with_parent, **settings}
    return subprocess.Popen([str(part) for part in command], **settings)  # type: ignore[call-overload]


def stop(process: subprocess.Popen[bytes] | None, timeout_s: float = 10.0) -> int | None:
    """SIGTERM, then SIGKILL; the exit status."""
    if process is None:
        return None
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    return process.returncode


def wait_until(condition: Callable[[], T], what: str, timeout_s: float) -> T:
    """The first true value of `condition`; CrashError with `what` if there is none in time."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise CrashError(f"not in {timeout_s:.0f} s: {what}")
        time.sleep(POLL_S)
    return value


class Pauses:
    """`longest_s` is the longest time for which this program got no turn though it was due: others of the machine may have had none either."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pauses", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        before_s = time.monotonic()
        while not self._end.wait(POLL_S):
            now_s = time.monotonic()
            self.longest_s = max(self.longest_s, now_s - before_s - POLL_S)
            before_s = now_s

    def close(self) -> None:
        self._end.set()
        self._thread.join()


def take_port() -> int:
    """A TCP and UDP port that was free on every address of loopback a moment ago.

    Below the range of outgoing connections: the load makes thousands, and the gateway comes back to its ports. No other run of
    the tests takes it, for the abstract name of a socket says that it is taken until this process ends.
    """
    while True:
        port = random.randrange(*PORTS)
        claim = socket.socket(socket.AF_UNIX)
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
            try:
                stream.bind(("0.0.0.0", port))
                datagram.bind(("0.0.0.0", port))
                claim.bind(f"\0gatepost-crash-port-{port}")
            except OSError:
                claim.close()
                continue
        _claims.append(claim)
        return port


_claims: list[socket.socket] = []


def read_stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat behind the name; None for a process that is gone or a zombie."""
    try:
        fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields


def born(pid: int) -> str:
    """When a process was started, in ticks; empty if it is gone."""
    fields = read_stat(pid)
    return fields[19] if fields else ""


def list_children(parent: int) -> list[int]:
    """Live children of a process."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = read_stat(int(entry))
            if fields and int(fields[1]) == parent:
                found.append(int(entry))
    return found


def read_arguments(pid: int) -> list[str]:
    """The command line of a process; empty if it is gone."""
    try:
        return Path("/proc", str(pid), "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def send_signal(pid: int, started: str, number: int) -> bool:
    """Signal a process if it is still the one that was meant."""
    if not started or born(pid) != started:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def enter_private_mounts() -> None:
    """From now on, mounts of this process and its children are seen by nobody else, and go with the last of them."""
    if _libc.unshare(CLONE_NEWNS) != 0 or _libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        number = ctypes.get_errno()
        raise Skip(f"no private mount namespace: {os.strerror(number)}")


def mount(source: str, target: Path, kind: str, options: str) -> None:
    """mount(2), or CrashError."""
    if _libc.mount(source.encode(), str(target).encode(), kind.encode(), 2 | 4, options.encode()) != 0:
        raise CrashError(f"mount {kind} on {target}: {os.strerror(ctypes.get_errno())}")


def unmount(target: Path) -> None:
    """Detach whatever is mounted there."""
    _libc.umount2(str(target).encode(), MNT_DETACH)
