"""The running gateway shows what its processes may do, notices when that changes, and says how it is."""

from __future__ import annotations

import datetime
import os
import signal

import pytest
from integration.gateway import Gateway, is_root
from integration.peers.process import wait_until

from gatepost.privsep.roles import ROLES


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    directory = tmp_path_factory.mktemp("gate")
    (directory / "mail").mkdir(mode=0o700)
    top = (
        f'[[exceptions]]\npath = "{directory}/elsewhere"\nowner = "Anna"\nuntil = {next_year()}\nreason = "a test"\n'
        "[processes]\nrecheck_s = 0.1\n"
    )
    with Gateway(directory, next_hop=f"maildir:{directory}/box", recipients=["user"], top=top) as server:
        yield server


def next_year() -> str:
    return str(datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=300))


def test_every_process_is_as_declared(gateway):
    report = gateway.ask("privs")
    assert report["as_declared"] is True
    found = {process["role"]: process for process in report["processes"]}
    assert found.keys() == {"supervisor", *ROLES}
    for name, process in found.items():
        if name == "supervisor":
            assert process["kernel"]["limits"]["Max core file size"] == [0, 0]
            continue
        kernel, declared = process["kernel"], process["declared"]
        assert process["differences"] == []
        assert process["tried"] == process["refused"] >= 20
        assert kernel["no_new_privs"] and kernel["seccomp"] == "filter"
        assert {kernel["capabilities"][each] for each in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
        assert process["landlock"].startswith("abi ")
        assert declared["syscalls"] == sorted(ROLES[name].syscalls)
        if "memory locked" in process["says"]:
            assert kernel["locked_bytes"] > 4 << 20  # never swapped, says the kernel
        else:
            assert kernel["locked_bytes"] == 0
            assert ROLES[name].holds_keys == ("MEMORY NOT LOCKED" in process["says"])
        if is_root():
            assert set(kernel["uids"]) == {declared["uid"]}
            assert kernel["limits"]["Max processes"] == [ROLES[name].nproc] * 2
            assert kernel["limits"]["Max core file size"] == [0, 0]
            assert kernel["root"] == os.path.realpath(declared["root"])
            assert kernel["namespaces"] and kernel["descriptors"] and kernel["unreadable"] == []
            assert process["writable"] is not None
            assert bool(process["writable"]) == ROLES[name].has_files


def test_the_text_has_both_columns_and_the_verdict(gateway):
    done = gateway.run("privs")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[-1] == "as declared"
    seccomp = [line for line in lines if line.startswith("  seccomp ") and "|" in line]
    assert len(seccomp) == len(ROLES) and all("filter that kills" in line for line in seccomp)
    for word in (
        "uid",
        "gids",
        "capabilities",
        "no_new_privs",
        "root",
        "landlock",
        "namespaces",
        "descriptors",
        "writable",
        "memory",
    ):
        assert sum(line.startswith(f"  {word} ") for line in lines) == len(ROLES) + 1


def test_status(gateway):
    state = gateway.ask("status")
    assert state["problems"] == [] and state["spool"]["accepting"] is True
    assert state["attestation"]["as_declared"] is True and state["attestation"]["checks"] >= 1
    assert [row["state"] for row in state["roles"]] == ["ready"] * len(state["roles"])
    assert state["exceptions"][0]["owner"] == "Anna"
    text = gateway.run("status").stdout
    assert "attestation  as declared" in text and "sandbox      enforce" in text and "(Anna)" in text


@pytest.mark.skipif(not is_root(), reason="needs root: only then a role has a root directory of its own")
def test_a_difference_that_comes_later_is_told_once_and_counted(gateway):
    path = gateway.spool / "run" / "empty" / "planted"
    path.touch()
    path.chmod(0o666)
    try:
        # each role with an empty root has it: four, which may be found by two looks, as the file is there before its mode
        rows = wait_until(lambda: (now := gateway.events("privs_differ"))[3:] and now, "an event for each role")
        wanted = ["writable paths: the table says none, the kernel says /planted"]
        assert [row["differences"] for row in rows] == [wanted] * 4
        assert "receiver" in {row["name"] for row in rows}
        done = gateway.run("privs")
        assert done.returncode == 1
        assert "DIFFERENT writable paths" in done.stdout
        assert done.stdout.splitlines()[-1].endswith("differences from the table of roles")
        status = gateway.run("status")
        assert status.returncode == 1 and "PROBLEM" in status.stdout
    finally:
        path.unlink()
    checks = gateway.ask("stats")["supervisor/0"]["privs_checks"]
    wait_for_checks(gateway, checks + 2)
    counters = gateway.ask("stats")["supervisor/0"]
    assert counters["privs_differences"] == 0
    assert counters["privs_differences_ever"] == len(gateway.events("privs_differ")) == 4


def test_what_comes_by_a_death_or_a_reload_is_looked_at_before_the_next_hour(tmp_path):
    with Gateway(tmp_path) as server:
        assert server.ask("status")["attestation"]["checks"] == 1
        killed = server.roles()["receiver"]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: server.roles()["receiver"] != killed, "another receiver")
        seen = wait_until_looked_at_newest(server, checks=1)
        assert server.run("reload").returncode == 0
        seen = wait_until_looked_at_newest(server, seen["checks"])
        assert seen["as_declared"] is True and seen["processes"] >= len(ROLES)


def wait_until_looked_at_newest(gateway, checks):
    """What the look says that came behind the newest process and behind so many others; there may have been one while it started."""
    ready = max(row["time"] for row in gateway.told("role_ready"))

    def look():
        seen = gateway.ask("status")["attestation"]
        return seen if seen["checks"] > checks and seen["checked_at"][:19] >= ready[:19] else None

    return wait_until(look, "a look at the newest process")


def wait_for_checks(gateway, number):
    wait_until(lambda: gateway.ask("stats")["supervisor/0"]["privs_checks"] >= number, "another check")


def test_debugging_the_filter_is_said_everywhere(tmp_path):
    with Gateway(tmp_path, top='sandbox_debug = "log"\n') as server:
        assert 'sandbox_debug = "log"' in server.read_log()
        assert server.events("weakened")[0]["why"].startswith('sandbox_debug = "log"')
        done = server.run("privs")
        assert done.returncode == 1
        assert "only logs (sandbox_debug)" in done.stdout and "PASS" in done.stdout
        assert "DEBUG: logs only" in server.run("status").stdout
        assert all("seccomp log" in row["rights"] for row in server.events("role_ready"))


def test_best_effort_is_said_everywhere(tmp_path):
    with Gateway(tmp_path, top='sandbox = "best-effort"\n') as server:
        for text in (
            server.read_log(),
            server.run("privs").stdout,
            server.run("status").stdout,
            server.run("check").stderr,
        ):
            assert "without Landlock or seccomp" in text
        assert server.events("weakened")
        assert server.ask("privs")["as_declared"] is True  # this kernel has both
