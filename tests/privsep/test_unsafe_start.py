"""What cannot be locked in is refused, with advice; what the machine does not give is named."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from gatepost.privsep import kernel

Ask = Callable[..., Any]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
CAP_SYS_RESOURCE = 24
MAY_RAISE_LIMITS = int(kernel.read_process(os.getpid()).capabilities["CapEff"], 16) >> CAP_SYS_RESOURCE & 1

UNSAFE = {
    "2 threads run already": "threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); lock(RECEIVER)",
    "is the directory /etc": "os.open('/etc', os.O_RDONLY); lock(RECEIVER)",
    "no Landlock": "landlock.probe_abi = lambda: 0; lock(RECEIVER)",
    "libseccomp or the kernel's seccomp is not there": "seccomp.libseccomp.library = None; lock(RECEIVER)",
}

UNSAFE_AS_ROOT = {
    "has no user; make the user with: adduser --system": "sandbox.lock_in(RECEIVER, root=ROOT, uid=-1, gid=-1)",
    "is not empty": "open(ROOT + '/x', 'w').close(); lock(RECEIVER)",
    "can be written to by others": "os.chmod(ROOT, 0o777); lock(RECEIVER)",
    "cannot read /nowhere": "lock(RECEIVER, root='/nowhere')",
}

CATCH = """
try:
    {body}
except sandbox.SandboxError as error:
    assert error.problem and error.advice
    answer(str(error))
os._exit(0)
"""


@pytest.mark.parametrize("problem", UNSAFE)
def test_what_is_not_safe_is_refused(ask_role: Ask, started_as: str, problem: str) -> None:
    assert problem in str(ask_role(CATCH.format(body=UNSAFE[problem]), started_as))


@needs_root
@pytest.mark.parametrize("problem", UNSAFE_AS_ROOT)
def test_what_is_not_safe_for_root_is_refused(ask_role: Ask, problem: str) -> None:
    assert problem in str(ask_role(CATCH.format(body=UNSAFE_AS_ROOT[problem])))


def test_an_io_uring_is_refused(ask_role: Ask) -> None:
    body = CATCH.format(
        body="""
    libc = ctypes.CDLL(None, use_errno=True)
    number = libc.syscall(ctypes.c_long(seccomp.number_of("io_uring_setup")), 8, ctypes.create_string_buffer(120))
    if number < 0:
        answer("an io_uring is open, would it say; this kernel has none")
        os._exit(0)
    lock(RECEIVER)"""
    )
    assert "an io_uring is open" in str(ask_role(body, "nobody"))


def test_best_effort_goes_on_and_says_so(ask_role: Ask, started_as: str) -> None:
    body = (
        "landlock.probe_abi = lambda: 0; seccomp.libseccomp.library = None; answer(lock(RECEIVER, mode='best-effort'))"
    )
    line = str(ask_role(body, started_as))
    assert "NO LANDLOCK" in line
    assert "NO SECCOMP" in line


# --- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not MAY_RAISE_LIMITS, reason="needs CAP_SYS_RESOURCE")
def test_root_raises_the_limit_of_open_files_for_its_roles(ask_role: Ask) -> None:
    body = """
import dataclasses, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
line = lock(dataclasses.replace(RECEIVER, nofile=300))
answer([line, resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_CORE)])
"""
    line, nofile, core = ask_role(body)
    assert "nofile 300," in line
    assert (nofile, core) == ([300, 300], [0, 0])


def test_a_limit_that_cannot_be_raised_is_named(ask_role: Ask) -> None:
    body = """
import dataclasses, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
answer([lock(dataclasses.replace(RECEIVER, nofile=300)), resource.getrlimit(resource.RLIMIT_NOFILE)])
"""
    line, nofile = ask_role(body, "nobody")
    assert "nofile 100 (wants 300)" in line
    assert nofile == [100, 100]
