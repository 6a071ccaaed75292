"""A row that contradicts itself cannot be built, and every system call in a group is known and has a reason."""

from __future__ import annotations

import dataclasses

import pytest

from gatepost.privsep import rights, seccomp
from gatepost.privsep.rights import BASE, FILES, SOCKET_ACCEPT, SOCKET_CONNECT, RoleRights

CONTRADICTIONS = {
    "no role may have execve": {"syscalls": BASE | {"execve"}},
    "no reason is given for quotactl": {"syscalls": BASE | {"quotactl"}},
    "root 'home' is none of": {"root": "home"},
    "unknown socket family packet": {"socket_families": {"packet"}, "syscalls": BASE | {"socket"}},
    "unknown kind of descriptor floppy": {"descriptors": frozenset({"floppy"})},
    "may_connect and the connect": {"may_connect": True},
    "socket_families and the socket": {"syscalls": BASE | SOCKET_CONNECT, "may_connect": True},
    "may_accept and the accept4": {"syscalls": BASE | SOCKET_ACCEPT},
    "landlock_fs and the openat": {"root": "spool", "syscalls": BASE | FILES},
    "a role with files needs a root": {"syscalls": BASE | FILES, "landlock_fs": (("/", "read"),)},
    "access 'all' is neither": {"root": "spool", "syscalls": BASE | FILES, "landlock_fs": (("/", "all"),)},
    "a role that accepts must not make sockets": {
        "syscalls": BASE | SOCKET_ACCEPT | SOCKET_CONNECT,
        "may_accept": True,
        "may_connect": True,
        "socket_families": frozenset({"inet"}),
    },
}


@pytest.mark.parametrize("problem", CONTRADICTIONS)
def test_a_row_that_contradicts_itself_is_refused(problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        RoleRights(name="x", user="gatepost-x", **CONTRADICTIONS[problem])


def test_the_default_row_has_no_way_out() -> None:
    row = RoleRights(name="x", user="gatepost-x")
    assert not row.syscalls & {"openat", "socket", "connect", "listen", "accept4", "unlink", "rename", "mkdir"}
    assert not row.has_files


def test_a_row_can_be_varied() -> None:
    row = dataclasses.replace(RoleRights(name="x", user="gatepost-x"), nofile=12345)
    assert row.nofile == 12345


def test_every_call_has_a_reason_and_none_is_forbidden() -> None:
    assert all(reason and not reason.endswith(".") for reason in rights.REASONS.values())
    assert not rights.NEVER & rights.REASONS.keys()


def test_no_name_is_misspelt() -> None:
    undefined = -1  # libseccomp's answer to a name it has never heard of
    names = rights.REASONS.keys() | rights.NEVER | seccomp.SOFT.keys()
    assert [name for name in sorted(names) if seccomp.number_of(name) == undefined] == []
