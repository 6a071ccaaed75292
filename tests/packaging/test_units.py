"""The committed units are what the table of roles says, and what systemd reckons of them."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import build_unit
import pytest

from gatepost.config.users import ROLE_USERS, SERVICE_USER
from gatepost.privsep.rights import NEVER
from gatepost.privsep.roles import ROLES

SERVICES = ("gatepost.service", "gatepost-separated.service")
NEEDED_TO_START = {"execve", "vfork", "clone3", "capset", "seccomp", "bind", "memfd_create"}


def settings(name: str) -> dict[str, list[str]]:
    """Each setting of a unit with the words of all its lines."""
    found: dict[str, list[str]] = {}
    for line in (build_unit.TARGET / name).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).extend(value.split())
    return found


def test_the_committed_files_are_what_the_table_says() -> None:
    assert build_unit.find_differences() == [], "run: .venv/bin/python packaging/build_unit.py"


def test_a_changed_table_is_noticed(tmp_path: Path) -> None:
    for name in build_unit.FILES:
        shutil.copy(build_unit.TARGET / name, tmp_path / name)
    assert build_unit.find_differences(tmp_path) == []
    unit = tmp_path / "gatepost.service"
    unit.write_text(unit.read_text().replace(" AF_INET6", ""))
    (tmp_path / "gatepost.socket").unlink()
    assert build_unit.find_differences(tmp_path) == ["gatepost.service", "gatepost.socket"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_role_has_what_it_needs_and_the_rest_is_for_starting_them(name: str) -> None:
    calls = set(settings(name)["SystemCallFilter"])
    for row in ROLES.values():
        assert row.syscalls <= calls, row.name
    separated = name != SERVICES[0]
    beyond = calls - set().union(*(row.syscalls for row in ROLES.values()))
    assert beyond == set(build_unit.SUPERVISOR_CALLS) | (set(build_unit.SEPARATING_CALLS) if separated else set())
    landlock = {call for call in NEVER if call.startswith("landlock_")}
    of_roots = {"chroot", "setgroups", "setresgid", "setresuid"} if separated else set()
    assert calls & NEVER == NEEDED_TO_START | landlock | of_roots
    assert all(build_unit.SUPERVISOR_CALLS.values()) and all(build_unit.SEPARATING_CALLS.values())


def test_limits_fit_the_table() -> None:
    found = settings("gatepost.service")
    assert found["LimitNOFILE"] == [str(max(row.nofile for row in ROLES.values()))]
    assert set(found["RestrictAddressFamilies"]) == {"AF_INET", "AF_INET6", "AF_UNIX"}


def test_the_default_service_has_no_right_of_roots() -> None:
    found = settings("gatepost.service")
    assert found["User"] == [SERVICE_USER]
    assert found["CapabilityBoundingSet"] == [] and found["AmbientCapabilities"] == []
    assert settings("gatepost-separated.service")["CapabilityBoundingSet"] == sorted(build_unit.SEPARATING_CAPABILITIES)


@pytest.mark.parametrize("name", SERVICES)
def test_fences_and_watchdog_are_set(name: str) -> None:
    found = settings(name)
    for key in ("MemoryMax", "TasksMax", "IOWeight", "WatchdogSec", "ExecReload"):
        assert found[key]
    assert found["Type"] == ["notify"]


def test_the_sockets_are_what_init_listens_on() -> None:
    assert settings("gatepost.socket")["ListenStream"] == ["0.0.0.0:25", "[::]:25"]
    assert settings("gatepost.socket")["BindIPv6Only"] == ["ipv6-only"]


def test_sysusers_name_every_user_of_the_roles() -> None:
    lines = (build_unit.TARGET / "gatepost.sysusers").read_text()
    assert set(re.findall(r"^u (\S+)", lines, re.MULTILINE)) == {SERVICE_USER, *ROLE_USERS.values()}


@pytest.mark.parametrize(("name", "limit"), [(SERVICES[0], 1.5), (SERVICES[1], 3.0)])
def test_the_exposure_is_within_its_limit(name: str, limit: float) -> None:
    """1.5 is the promise for the default service; what root can reach is told, not promised."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip(
            "systemd-analyze is not installed: apt install systemd (make test-deb asks it in a Debian of its own)"
        )
    result = subprocess.run(
        [program, "security", "--offline=yes", "--no-pager", str(build_unit.TARGET / name)],
        capture_output=True,
        text=True,
        check=False,
    )
    line = result.stdout.strip().splitlines()[-1]
    print(f"\n{line}")
    assert float(re.findall(r": ([0-9.]+)", line)[-1]) <= limit


@pytest.mark.parametrize("name", [*SERVICES, "gatepost.socket"])
def test_a_unit_has_no_section_that_systemd_does_not_know(name: str) -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read(build_unit.TARGET / name)
    kind = "Socket" if name.endswith(".socket") else "Service"
    assert parser.sections() == ["Unit", kind, "Install"]
