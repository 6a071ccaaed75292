"""Where /proc hides what is not of this process (ProtectProc= and ProcSubset= of the units), the gateway still sees what it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.gateway import Gateway, is_root
from integration.nobody import NOBODY, as_nobody, find_python

from gatepost.privsep.roles import ROLES

HIDING = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    'mount -t proc -o hidepid=invisible,subset=pid proc /proc && exec "$@"',
    "sh",
]
NO_PTRACE = ["setpriv", "--bounding-set=-sys_ptrace"]  # with it root sees everything
ALSO_LOGS = 'sandbox_debug = "log"\n'  # a difference from the table


class HiddenGateway(Gateway):
    """As a unit with ProtectProc=invisible starts it; `user` begins its commands."""

    user: tuple[str, ...] = ()

    def configure(self) -> list[str]:
        super().configure()
        if self.user:
            os.chown(self.config, NOBODY, NOBODY)
        command = [*self.user, "run", "--config", str(self.config)] if self.user else [*NO_PTRACE, *self.command()]
        return [*HIDING, *command]

    def privs_inside(self) -> subprocess.CompletedProcess[str]:
        """`gatepost privs` where the gateway runs, as the one who started it."""
        command = [*self.user, "privs", "--config", str(self.config)]
        return subprocess.run([*HIDING, *command], capture_output=True, text=True, timeout=60, check=False)


def can_hide() -> bool:
    return is_root() and subprocess.run([*HIDING, "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture
def hidden(started_as: str) -> Iterator[HiddenGateway]:
    if not can_hide():
        pytest.skip("needs root that may mount /proc")
    directory = Path(tempfile.mkdtemp(prefix="gatepost-test-"))
    directory.chmod(0o755)
    try:
        gateway = HiddenGateway(directory, next_hop=f"maildir:{directory}/box")
        if started_as == "nobody":
            gateway.user = tuple(as_nobody(find_python(directory), "-I", "-m", "gatepost"))
            os.chown(directory, NOBODY, NOBODY)
        yield gateway
    finally:
        shutil.rmtree(directory)


def test_the_surroundings_of_the_host_are_read_also_where_proc_shows_processes_only() -> None:
    if not can_hide():
        pytest.skip("needs root that may mount /proc")
    program = (
        "from gatepost.config.neighbours import read_neighbours as read\n"
        "from gatepost.privsep.listeners import own_addresses\n"
        "print(read(), own_addresses(['0.0.0.0:25', '[::]:25']))"
    )
    seen = [
        subprocess.run([*around, sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for around in ([], HIDING)
    ]
    assert seen[0] == seen[1] and "127.0.0.1" in seen[0].partition(")")[0]


BOTH = pytest.mark.parametrize("started_as", ["root", "nobody"])


@BOTH
def test_every_role_is_compared_also_where_proc_hides_it(hidden: HiddenGateway) -> None:
    with hidden as gateway:
        seen = gateway.ask("status")["attestation"]
        assert seen["as_declared"] is True and seen["processes"] == len(ROLES) + 1
        assert {"descriptors", "namespaces"} <= set(seen["not_compared"])  # what was not is said
        assert "not compared, for root only: " in gateway.run("status").stdout


@BOTH
def test_a_difference_is_found_also_where_proc_hides_processes(hidden: HiddenGateway) -> None:
    hidden.top = ALSO_LOGS
    with hidden as gateway:
        done = gateway.run("status")
        assert done.returncode == 1
        assert done.stdout.count("PROBLEM") == done.stdout.count("only logs (sandbox_debug)") == len(ROLES)
        assert {row["name"] for row in gateway.told("privs_differ")} == set(ROLES)


@pytest.mark.parametrize("started_as", ["nobody"])  # who types it as root has all capabilities
def test_privs_says_that_it_cannot_see(hidden: HiddenGateway) -> None:
    with hidden as gateway:
        done = gateway.privs_inside()
        assert done.returncode == 1
        assert done.stderr.startswith("gatepost: /proc hides process ") and done.stderr.endswith("; run it as root\n")
