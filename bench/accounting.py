"""CPU time and memory of a server with all its processes.

As root the processes are in a control group of their own (cpuacct of version 1, or version 2), whose CPU clock is exact
and includes processes that ended. Otherwise the tree below the first process is walked in /proc, with the times of the
children each process has reaped; that is as exact as long as no process leaves the tree. Memory is PSS: shared
pages are divided among those that share them, so the sum is what the machine spends. Kernel memory (socket
buffers, page tables) is in none of these numbers.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

CPUACCT = Path("/sys/fs/cgroup/cpuacct")
UNIFIED = Path("/sys/fs/cgroup")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Accounting:
    """Of a process tree, found through /proc."""

    kind = "process tree"

    def __init__(self) -> None:
        self.root = 0

    def enter(self) -> None:
        """Called in the child before exec: from now on it counts here."""

    def watch(self, pid: int) -> None:
        """The first process."""
        self.root = pid

    def pids(self) -> list[int]:
        """All live processes."""
        children: dict[int, list[int]] = {}
        for pid, fields in list_stats():
            children.setdefault(int(fields[1]), []).append(pid)
        found, waiting = [], [self.root]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            waiting.extend(children.get(pid, ()))
        return found

    def still_there(self, pids: list[int]) -> list[int]:
        """Which of `pids`, and what has been started since, have not ended."""
        return [pid for pid in pids if is_alive(pid)]

    def cpu_s(self) -> float:
        """CPU seconds used so far, by the living and the reaped."""
        wanted = set(self.pids())
        ticks = sum(sum(map(int, fields[11:15])) for pid, fields in list_stats() if pid in wanted)
        return ticks / TICKS_PER_S

    def pss_bytes(self) -> int:
        """The proportional set size of all live processes, summed."""
        return sum(map(read_pss, self.pids()))

    def close(self) -> None:
        """Remove what was made in the system."""


class ControlGroup(Accounting):
    """Of a control group."""

    kind = "control group"

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        path.mkdir()
        self.is_unified = not (path / "cpuacct.usage").exists()

    def enter(self) -> None:
        (self.path / "cgroup.procs").write_text("0")

    def pids(self) -> list[int]:
        return [int(line) for line in (self.path / "cgroup.procs").read_text().split()]

    def still_there(self, pids: list[int]) -> list[int]:
        return self.pids()

    def cpu_s(self) -> float:
        if not self.is_unified:
            return int((self.path / "cpuacct.usage").read_text()) / 1e9
        for line in (self.path / "cpu.stat").read_text().splitlines():
            if line.startswith("usage_usec "):
                return int(line.split()[1]) / 1e6
        raise OSError(f"{self.path}/cpu.stat has no usage_usec")

    def close(self) -> None:
        for _ in range(100):  # a process just killed leaves the group a moment later
            try:
                self.path.rmdir()
            except OSError:
                time.sleep(0.05)
            else:
                return


def open_accounting(name: str) -> Accounting:
    """The most exact accounting that this machine and user allow."""
    for parent in (CPUACCT, UNIFIED):
        if not (parent / "cgroup.procs").exists():
            continue
        try:
            return ControlGroup(parent / name)
        except OSError:
            continue
    return Accounting()


def list_stats() -> list[tuple[int, list[str]]]:
    """(pid, the fields of /proc/PID/stat behind the name) of all processes."""
    stats = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            text = Path("/proc", entry, "stat").read_text()
        except OSError:
            continue
        stats.append((int(entry), text.rpartition(")")[2].split()))
    return stats


def is_alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def read_pss(pid: int) -> int:
    """Bytes; 0 for a process that has ended meanwhile."""
    try:
        for line in Path("/proc", str(pid), "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
