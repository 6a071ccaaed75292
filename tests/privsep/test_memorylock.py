"""Memory with keys is locked, by the kernel's own record; where it may not be, that is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from integration.gateway import is_root
from integration.nobody import as_nobody

from gatepost.privsep import memorylock
from gatepost.privsep.memorylock import LOCKED, NOT_LOCKED, LockedFile, _has_capability, why_never_swapped

LIMIT = 8 << 20
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable  # any user may execute it
SOURCE = Path(memorylock.__file__).read_text()  # and nobody may not read this copy of the program
ASK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_MEMLOCK, (int(sys.argv[1]),) * 2)
kept = bytearray(16 << 20)
print({"all": lock_all, "supervisor": lock_supervisor}[sys.argv[2]]())
def locked():
    return next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmLck"))
before = locked()
more = bytearray(32 << 20)
print(before, locked())
"""
needs_the_capability = pytest.mark.skipif(not _has_capability(14), reason="needs CAP_IPC_LOCK")


def ask(what: str, *command: str) -> tuple[str, int, int]:
    """What it says, and KiB locked before and after 32 MiB more were allocated."""
    done = subprocess.run(
        [*command, PYTHON, "-I", "-c", SOURCE + ASK, str(LIMIT), what], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said, locked = done.stdout.splitlines()
    before, after = map(int, locked.split())
    return said, before, after


@needs_the_capability
def test_what_is_there_is_locked_where_the_limit_cannot_be_raised_but_the_capability_is_held() -> None:
    said, before, after = ask("all")
    assert said.startswith(LOCKED) and before > (16 << 10)
    if said != LOCKED:  # nobody may raise the limit here
        assert said == f"{LOCKED} as it was at the start (LimitMEMLOCK is 8192 KiB)" and after < before + (8 << 10)


@needs_the_capability
def test_the_supervisor_locks_also_what_comes_later() -> None:
    said, before, after = ask("supervisor")
    assert said == "True" and before > (16 << 10) and after >= before + (32 << 10)


def test_the_supervisor_leaves_no_core_file_and_is_not_read_by_others_of_its_user() -> None:
    # PR_GET_DUMPABLE
    program = SOURCE + "\nrefuse_dumps()\nprint(_libc.prctl(3), *resource.getrlimit(resource.RLIMIT_CORE))"
    done = subprocess.run([PYTHON, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0", "0"]


def test_without_limit_and_capability_nothing_is_locked_and_that_is_said() -> None:
    user = as_nobody() if is_root() else []
    assert ask("all", *user) == (f"{NOT_LOCKED} (LimitMEMLOCK is 8192 KiB)", 0, 0)
    assert ask("supervisor", *user) == ("False", 0, 0)


def test_the_pages_of_a_file_in_memory_are_locked_until_they_are_given_up() -> None:
    descriptor = os.memfd_create("material")
    os.write(descriptor, b"k" * 5000)
    before = own_locked_kib()
    locked = LockedFile(descriptor, 5000)
    assert locked.is_locked and own_locked_kib() == before + 8
    locked.close()
    locked.close()
    assert own_locked_kib() == before
    assert not LockedFile(descriptor, 0).is_locked
    os.close(descriptor)


def own_locked_kib() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmLck"))


def test_what_else_keeps_memory_out_of_swap_is_told_or_nothing() -> None:
    told = why_never_swapped(os.getpid())
    assert told in ("", "this machine has no swap now", "its control group may not swap")
    with open("/proc/swaps", encoding="ascii") as file:
        assert (told == "this machine has no swap now") == (len(file.readlines()) == 1)
