"""Keeps keys out of swap: mlockall(2) for a process that holds some, mlock(2) for a file in memory. And the supervisor's out of core files.

OpenSSL's keys lie wherever its allocator put them, so all memory of such a process is locked, what it has and what it will have, each page when it
is first touched. That needs a limit of locked memory (RLIMIT_MEMLOCK) that cannot be reached: with one that can, an
allocation would fail one day. Where none is to be had, what is there when the role locks itself in is locked, keys included, if limit or
capability allow that; else nothing is, and who calls says so. A lock is no shield against hibernation, nor against root. Decision 0010.
"""

from __future__ import annotations

import ctypes
import mmap
import resource
from collections.abc import Iterator

LOCKED, NOT_LOCKED = "memory locked", "MEMORY NOT LOCKED"
_EVERYTHING = 1 | 2 | 4  # MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT
_MLOCK_ONFAULT = 1
_CAP_IPC_LOCK = 14
_PR_SET_DUMPABLE = 4
_ENDLESS = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
_MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.mlock2.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
_libc.munmap.argtypes = _libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


def lock_all() -> str:
    """Lock the memory of a role that is about to lock itself in, for good; returns LOCKED, or NOT_LOCKED, and why not more."""
    if _raise_limit():
        return LOCKED if _libc.mlockall(_EVERYTHING) == 0 else f"{NOT_LOCKED} (mlockall was refused)"
    limit = f"LimitMEMLOCK is {resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] // 1024} KiB"
    if all(_libc.mlock2(start, size, _MLOCK_ONFAULT) == 0 for start, size in _own_memory()):
        return f"{LOCKED} as it was at the start ({limit})"
    _libc.munlockall()
    return f"{NOT_LOCKED} ({limit})"


def lock_supervisor() -> bool:
    """The same for the supervisor, which keeps its capabilities."""
    return (_raise_limit() or _has_capability(_CAP_IPC_LOCK)) and _libc.mlockall(_EVERYTHING) == 0


def refuse_dumps() -> None:
    """No core file of the supervisor, and no other process of its user that reads its memory: it has read keys and passwords."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl PR_SET_DUMPABLE failed")


def _raise_limit() -> bool:
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, _ENDLESS)
    except (ValueError, OSError):
        return False
    return True


def _has_capability(number: int) -> bool:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        held = next((line.split()[1] for line in file if line.startswith("CapEff:")), "0")
    return bool(int(held, 16) >> number & 1)


def _own_memory() -> Iterator[tuple[int, int]]:
    """Start and size of what this process has allocated. Not its stack: one that is locked could not grow behind the limit."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        lines = file.readlines()
    for line in lines:
        words = line.split()
        if words[1].startswith("rw-p") and (len(words) < 6 or words[5] == "[heap]"):
            start, end = (int(word, 16) for word in words[0].split("-"))
            yield start, end - start


class LockedFile:
    """The pages of a file in memory (memfd), locked for as long as this lives; `is_locked` says whether the limit allowed it."""

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        # Private, because a sealed file may not be mapped shared; nothing is ever written, so the pages are those of the file.
        flags, protection = mmap.MAP_PRIVATE, mmap.PROT_READ
        self._size = size_bytes
        self._address = _libc.mmap(None, size_bytes, protection, flags, descriptor, 0) if size_bytes else None
        if self._address == _MAP_FAILED:
            self._address = None
        self.is_locked = self._address is not None and _libc.mlock(self._address, size_bytes) == 0

    def close(self) -> None:
        """Unlock."""
        if self._address is not None:
            _libc.munmap(self._address, self._size)
            self._address = None


def why_never_swapped(pid: int) -> str:
    """What else keeps a process's memory out of swap: none on this machine, or none for its control group; empty: nothing does."""
    try:
        with open("/proc/swaps", encoding="ascii", errors="replace") as file:
            if len(file.readlines()) <= 1:
                return "this machine has no swap now"
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
            group = next((line[3:].strip() for line in file if line.startswith("0::")), "")
        with open(f"/sys/fs/cgroup{group}/memory.swap.max", encoding="ascii") as file:
            return "its control group may not swap" if file.read().strip() == "0" else ""
    except OSError:
        return ""
