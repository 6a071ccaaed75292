"""Scenario "faults": system calls of a live role fail, as the kernel would have them fail, while mail comes.

strace attaches to the role and replaces chosen calls by an error: nothing in the product knows of it, and the role stays locked in
(the call made instead is getpid, which every role may make). The service must go on, or be back within two seconds of the last
fault by itself; while no data can be made durable, nothing may be acknowledged; and nothing acknowledged may be lost.
"""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import time
from pathlib import Path

from bench.crash import processes
from bench.crash.bed import Bed, Options, Result, tell
from bench.crash.books import Arrival, read_book
from bench.crash.processes import Skip
from bench.crash.proof import Disturbance

NAME = "faults"
FAULT_S = 1.2
LONG_FAULT_S = 3.0
MOST_S = 60.0  # until a rare call is made
QUICK_FAULT_S = 0.6
BACK_LIMIT_S = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """Calls of one role that fail."""

    role: str
    calls: str
    error: str
    when: str = ""  # strace's when=: which of the calls; empty: all
    below: str = ""  # only on files that are open now below this directory of the spool
    silences: bool = False  # nothing may be answered 250 while it lasts
    refuses: bool = False  # nothing of the queue can be made durable, so nothing may be promised to its operator
    is_quick: bool = False
    is_long: bool = False  # such calls are rare
    may_miss: bool = False  # a process that has all the memory it needs asks for none

    @property
    def name(self) -> str:
        return f"{self.role}: {self.calls.replace(',', ', ')} {self.error}" + (f" ({self.below})" if self.below else "")


FAULTS = (
    Fault("receiver", "fdatasync", "EIO", silences=True, is_quick=True),
    Fault("receiver", "fdatasync", "ENOSPC", silences=True),
    Fault("receiver", "writev", "ENOSPC", below="segments", silences=True),
    Fault("receiver", "writev", "EIO", below="segments"),
    Fault("receiver", "writev,write", "EIO", below="bodies"),
    Fault("receiver", "accept4,accept", "EMFILE", is_quick=True),
    Fault("receiver", "accept4,accept", "ENFILE"),
    Fault("receiver", "accept4,accept", "ENOMEM"),
    Fault("receiver", "accept4,accept", "ECONNABORTED"),
    Fault("receiver", "recvmsg", "ECONNRESET", when="1+50"),
    Fault("receiver", "sendmsg,sendto", "EPIPE", when="1+50"),
    Fault("receiver", "recvmsg", "ENOMEM", when="1+2"),
    Fault("receiver", "mmap,mremap,brk", "ENOMEM", is_long=True, may_miss=True),
    Fault("queue", "fdatasync", "EIO", refuses=True, is_quick=True),
    Fault("queue", "fsync", "EIO"),
    Fault("queue", "fsync,fdatasync", "ENOSPC", refuses=True),
    Fault("queue", "pwrite64", "EIO"),
    Fault("queue", "pwrite64,fallocate", "ENOSPC"),
    Fault("queue", "openat", "EMFILE", is_quick=True),
    Fault("queue", "openat", "ENOSPC"),
    Fault("queue", "openat", "EIO"),
    Fault("queue", "pread64", "EIO", is_long=True),
    Fault("queue", "unlink,unlinkat", "EIO"),
    Fault("queue", "statfs,fstatfs", "EIO", is_long=True),
    Fault("queue", "recvmsg", "ECONNRESET", when="1+50", is_quick=True),
    Fault("queue", "sendmsg,sendto", "ENOBUFS", when="1+2"),
    Fault("queue", "mmap,mremap,brk", "ENOMEM", is_long=True, may_miss=True),
    Fault("deliverer", "socket", "EMFILE"),
    Fault("deliverer", "connect", "ENETUNREACH"),
    Fault("deliverer", "pread64", "EIO"),
    Fault("deliverer", "recvmsg", "ECONNRESET", when="1+50"),
    Fault("deliverer", "mmap,mremap,brk", "ENOMEM", is_long=True, may_miss=True),
    Fault("maildir", "openat", "EMFILE"),
    Fault("maildir", "fsync", "EIO"),
    Fault("maildir", "link,linkat", "ENOSPC", is_long=True),
    Fault("resolver", "socket", "EMFILE", is_long=True),
    Fault("resolver", "sendto,sendmsg,sendmmsg", "ENETUNREACH", is_long=True),
    Fault("control", "accept4,accept", "EMFILE"),
)


def run(options: Options) -> Result:
    """One gateway, one fault after the other."""
    if os.geteuid() != 0:
        raise Skip("a role cannot be traced by its own user: needs root")
    if not shutil.which("strace"):
        raise Skip("strace is missing: install the package strace")
    faults = [fault for fault in FAULTS if fault.is_quick or not options.quick]
    # so that no role dies so often that its restarts are slowed
    random.Random(f"{options.seed} {NAME}").shuffle(faults)
    shown: dict[str, dict[str, float | int]] = {}
    problems: list[str] = []
    with Bed(NAME, options, rate=250.0) as bed:
        bed.gateway.start()
        bed.start_load()
        bed.run_load(1.0)
        for fault in faults:
            seconds = QUICK_FAULT_S if options.quick else LONG_FAULT_S if fault.is_long else FAULT_S
            figures = _inject(bed, fault, seconds, problems)
            shown[fault.name] = figures
            tell(f"{NAME}: {fault.name}: {figures}")
        result = bed.finish()
    result.problems[:0] = problems
    result.figures["faults"] = shown
    result.figures["accepted_again_s"] = max(float(figures["accepted_again_s"]) for figures in shown.values())
    result.figures["arrived_again_s"] = max(float(figures["arrived_again_s"]) for figures in shown.values())
    return result


def _inject(bed: Bed, fault: Fault, seconds: float, problems: list[str]) -> dict[str, float | int]:
    """One fault, from attaching to recovery."""
    processes.wait_until(lambda: fault.role in bed.gateway.roles(), f"{fault.role} lives", BACK_LIMIT_S)
    pid = bed.gateway.roles()[fault.role]
    log = bed.directory / "strace"
    command = ["strace", "-f", "-o", log, "-p", pid, "-e", f"trace={fault.calls}"]
    command += [
        "-e",
        f"inject={fault.calls}:error={fault.error}:syscall=getpid" + (f":when={fault.when}" if fault.when else ""),
    ]
    for path in _open_files(pid, fault.below) if fault.below else ():
        command += ["-P", path]
    began_s = time.monotonic()
    with open(bed.directory / "strace.errors", "wb+") as errors:
        strace = processes.start([str(part) for part in command], stderr=errors)
        try:
            processes.wait_until(
                lambda: _is_attached(errors.name) or strace.poll() is not None, "strace attaches", BACK_LIMIT_S
            )
            if b"not permitted" in Path(errors.name).read_bytes():
                raise Skip("strace may not attach to processes here: needs CAP_SYS_PTRACE")
            attached_s = time.monotonic()
            if fault.role == "control":
                bed.gateway.knock()
            bed.run_load(seconds)
            if fault.refuses and bed.gateway.ask("queue", "retry", "--all")[0] == 0:
                problems.append(f"{fault.name}: the operator was told that it is done")
            while not fault.may_miss and not _count_hits(log) and time.monotonic() < attached_s + MOST_S:
                bed.run_load(0.5)
        finally:
            detach_s = time.monotonic()
            processes.stop(strace)
    end_s = time.monotonic()
    bed.disturbances.append(Disturbance(fault.role, began_s, end_s))
    hits = _count_hits(log)
    accepted_s = bed.wait_accepted(end_s, BACK_LIMIT_S, f"after {fault.name}")
    arrived_s = _wait_arrived(bed, end_s, fault)
    status, answer = bed.gateway.ask("ledger")
    if status != 0:
        problems.append(f"{fault.name}: the administrator is not answered: {answer}")
    rows = [row for row in bed.read_sent() if began_s <= row.ended_s <= end_s]
    # One that was begun before may be answered: its commit was under way.
    during = [row for row in rows if row.code == 250 and attached_s < row.begun_s and row.ended_s < detach_s]
    if not hits and not fault.may_miss:
        problems.append(f"{fault.name}: no call was hit")
    if fault.silences and during:
        problems.append(f"{fault.name}: {len(during)} messages were acknowledged meanwhile")
    if max(accepted_s, arrived_s) > bed.options.back_goal_s:
        problems.append(f"{fault.name}: accepting after {accepted_s:.1f} s, delivering after {arrived_s:.1f} s")
    return {
        "hits": hits,
        "refused": sum(400 <= row.code < 500 for row in rows),
        "accepted_meanwhile": len(during),
        "accepted_again_s": round(accepted_s, 2),
        "arrived_again_s": round(arrived_s, 2),
    }


def _count_hits(log: Path) -> int:
    """Calls that have failed so far."""
    return log.read_bytes().count(b"(INJECTED)") if log.exists() else 0


def _is_attached(path: str) -> bool:
    """Whether strace has said that it is attached to all threads."""
    return b" attached" in Path(path).read_bytes()


def _open_files(pid: int, directory: str) -> list[str]:
    """Files below a directory of the spool that a process has open."""
    found = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        try:
            path = os.readlink(f"/proc/{pid}/fd/{descriptor}")
        except OSError:
            continue
        if f"/spool/{directory}/" in path:
            found.add(path)
    return sorted(found)


def _wait_arrived(bed: Bed, since_s: float, fault: Fault) -> float:
    """Seconds until the sink has got a message in a transaction begun after `since_s`."""
    position = bed.arrived_book.stat().st_size if bed.arrived_book.exists() else 0
    start = max(0, position - 65536)

    def first() -> float:
        data, _ = read_book(bed.arrived_book, Arrival, _line_start(bed.arrived_book, start))
        return min((row.ended_s for row in data if row.begun_s >= since_s), default=0.0)  # type: ignore[attr-defined]

    return processes.wait_until(first, f"a message arrives after {fault.name}", BACK_LIMIT_S) - since_s


def _line_start(path: Path, at: int) -> int:
    """Where the first whole line behind `at` begins."""
    if not at or not path.exists():
        return 0
    with open(path, "rb") as file:
        file.seek(at)
        file.readline()
        return file.tell()
