"""The tries of a child show what its cage refuses, and show it when the cage has a hole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Ask = Callable[..., Any]

ATTEST = """
{before}
sandbox.before_loop()
loop = uvloop.new_event_loop()
try:
    results = trying.attest_by_trying({row}, ROOT, NOBODY, NOBODY{mode})
except sandbox.SandboxError as error:
    answer({{"error": str(error)}})
else:
    answer({{"all": [[r.layer, r.what] for r in results], "holes": sorted({{r.what for r in results if r.succeeded}})}})
assert os.geteuid() == (0 if os.getuid() == 0 else NOBODY)
open("/etc/passwd").close()
"""


def attest(ask_role: Ask, started_as: str, row: str, before: str = "", mode: str = "") -> Any:
    return ask_role(ATTEST.format(row=row, before=before, mode=mode), started_as)


@pytest.mark.parametrize("row", ["RECEIVER", "DELIVERER"])
def test_everything_forbidden_is_refused(ask_role: Ask, started_as: str, row: str) -> None:
    result = attest(ask_role, started_as, row)
    assert result["holes"] == []
    assert ["filter", "execute a program"] in result["all"]
    assert ["landlock", "read /etc/passwd"] in result["all"]
    assert len(result["all"]) >= 20


@pytest.mark.usefixtures("spool_directory")
def test_everything_forbidden_to_the_queue_is_refused(ask_role: Ask, started_as: str) -> None:
    result = attest(ask_role, started_as, "QUEUE")
    assert result["holes"] == []
    assert ["filter", "list the root directory"] not in result["all"]


@pytest.mark.usefixtures("spool_directory")
@pytest.mark.parametrize("name", ["tmp", "dev/shm"])
def test_a_directory_of_that_name_below_the_root_is_not_outside(ask_role: Ask, started_as: str, name: str) -> None:
    """A Maildir that is the root directory of its role has a tmp: the role did not start any more."""
    before = f"os.umask(0); os.makedirs(ROOT + '/{name}', 0o777, exist_ok=True)"
    assert attest(ask_role, started_as, "QUEUE", before)["holes"] == []


def test_a_missing_filter_shows(ask_role: Ask) -> None:
    result = attest(ask_role, "nobody", "DELIVERER", "seccomp.load_filter = lambda rights, denied: ''")
    assert {"fork", "ptrace", "map executable memory", "memfd_create"} <= set(result["holes"])


def test_one_hole_in_the_filter_shows(ask_role: Ask) -> None:
    before = """
real = seccomp.compile_filter
def compile_with_hole(rights, denied):
    program = real(rights, denied)
    program.add_rule(seccomp.libseccomp.ALLOW, "memfd_create")
    return program
seccomp.compile_filter = compile_with_hole
"""
    assert attest(ask_role, "nobody", "RECEIVER", before)["holes"] == ["memfd_create"]


def test_a_missing_landlock_shows(ask_role: Ask) -> None:
    before = "landlock.restrict = lambda paths, **options: ''"
    holes = attest(ask_role, "nobody", "RECEIVER", before)["holes"]
    assert {"read /etc/passwd", "list the root directory", "write a file outside its root"} <= set(holes)


def test_a_child_that_cannot_lock_in_says_why(ask_role: Ask) -> None:
    result = attest(ask_role, "nobody", "RECEIVER", "os.open('/etc', os.O_RDONLY)")
    assert "is the directory /etc" in result["error"]


def test_a_child_that_dies_is_an_error(ask_role: Ask) -> None:
    result = attest(ask_role, "nobody", "RECEIVER", "landlock.restrict = lambda *a, **o: os.kill(os.getpid(), 9)")
    assert "died" in result["error"]


def test_best_effort_without_landlock_tries_the_filter_only(ask_role: Ask) -> None:
    result = attest(ask_role, "nobody", "RECEIVER", "landlock.probe_abi = lambda: 0", ", 'best-effort'")
    assert {layer for layer, _ in result["all"]} == {"filter"}
    assert result["holes"] == []
