"""The Debian package in a minimal Debian without systemd: installed, used, upgraded over a running queue, removed, purged."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from boxes import Box
from building import build
from inbox import give, init, send, start_sink, stop_sink, wait_arrived, wait_until_deferred

from gatepost.config.users import ROLE_USERS, SERVICE_USER

pytestmark = [pytest.mark.installation, pytest.mark.timeout(600)]

PORT = 2525
AS_SERVICE = ("setpriv", f"--reuid={SERVICE_USER}", f"--regid={SERVICE_USER}", "--init-groups")
SPOOL = "/var/spool/gatepost"


def install(box: Box, package: Path) -> str:
    return box.run("apt-get", "install", "-y", "-q", give(box, package))


def start(box: Box) -> subprocess.Popen[str]:
    gateway = box.start(*AS_SERVICE, "gatepost", "run")
    assert gateway.stdout is not None
    line = gateway.stdout.readline()
    assert "ready on" in line, box.console()[-3000:]
    return gateway


def stop(box: Box, gateway: subprocess.Popen[str]) -> None:
    pid = next(line.split()[0] for line in box.run("sh", "-c", LIST_PROCESSES).splitlines() if "gatepost run" in line)
    box.run("sh", "-c", f"kill {pid}")
    assert gateway.wait(60) == 0


LIST_PROCESSES = (
    'for p in /proc/[0-9]*; do printf "%s " "${p#/proc/}"; tr "\\0" " " < $p/cmdline; echo; done 2>/dev/null'
)


def test_two_builds_give_the_same_bytes(package: Path, source: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(source, tmp_path / "another" / "place", symlinks=True)
    again = build(elsewhere, tmp_path)
    assert again.name == package.name
    assert again.read_bytes() == package.read_bytes()


def test_installing_makes_users_and_starts_nothing(box: Box, package: Path) -> None:
    output = install(box, package)
    assert "1 newly installed" in output, "the minimal Debian lacks nothing that it needs"
    assert "gatepost init" in output
    for user in (SERVICE_USER, *ROLE_USERS.values()):
        assert box.run("getent", "passwd", user).endswith(":/nonexistent:/usr/sbin/nologin")
    assert box.run("stat", "-c", "%a %U %G", "/etc/gatepost", SPOOL).splitlines() == [
        "2750 root gatepost",
        "711 gatepost gatepost",
    ]
    assert box.run("gatepost", "version").startswith("gatepost ")
    assert "reload" in box.run("gatepost-sendmail", "-bi"), "as newaliases"
    assert "gatepost" not in box.run("sh", "-c", "ls -R /etc/systemd/system"), "not enabled without a configuration"
    writable = "find /usr/lib/gatepost /usr/bin/gatepost /usr/lib/systemd/system/gatepost* ! -type l"
    assert box.run("sh", "-c", rf"{writable} \( ! -user root -o -perm /022 \)") == ""
    for path in ("man/man1/gatepost.1.gz", "man/man5/gatepost.toml.5.gz", "bash-completion/completions/gatepost"):
        # a minimal Debian may be told to leave pages out
        assert box.exists(f"/usr/share/{path}") or "man/" in path, path
    assert box.run("dpkg", "--verify", "gatepost") == "" or "/usr/share/" in box.run("dpkg", "--verify", "gatepost")


def test_init_writes_what_the_service_may_read_and_nobody_else(box: Box, package: Path) -> None:
    install(box, package)
    init(box)
    assert box.run("stat", "-c", "%a %U %G", "/etc/gatepost/gatepost.toml") == "640 root gatepost"
    assert "the configuration is good" in box.run("gatepost", "check")
    assert "the configuration is good" in box.run(*AS_SERVICE, "gatepost", "check")


def test_an_upgrade_over_a_running_queue_loses_nothing(box: Box, package: Path, newer_package: Path) -> None:
    install(box, package)
    init(box, "--listen", f"127.0.0.1:{PORT}")
    gateway = start(box)
    sink = start_sink(box)
    send(box, "delivered at once", PORT)
    wait_arrived(box, "delivered at once")
    stop_sink(box, sink)
    send(box, "deferred before the upgrade", PORT)
    wait_until_deferred(box)

    assert "99.0" in install(box, newer_package)
    assert gateway.poll() is None, "without a service manager the running gateway is left alone"
    send(box, "sent between upgrade and restart", PORT)
    stop(box, gateway)

    gateway = start(box)
    queued = json.loads(box.run("gatepost", "queue", "list", "--json"))
    assert queued["total"] == 2
    sink = start_sink(box)
    box.run("gatepost", "queue", "retry", "--all")
    wait_arrived(box, "deferred before the upgrade")
    wait_arrived(box, "sent between upgrade and restart")
    stop(box, gateway)

    assert "left in the queue" not in box.run("apt-get", "remove", "-y", "-q", "gatepost")
    assert box.exists("/etc/gatepost/gatepost.toml") and box.exists(SPOOL)
    assert not box.exists("/usr/lib/gatepost") and not box.exists("/usr/bin/gatepost")
    box.run("apt-get", "purge", "-y", "-q", "gatepost")
    for path in ("/etc/gatepost", SPOOL, "/var/lib/gatepost", "/usr/share/doc/gatepost"):
        assert not box.exists(path), path
    assert box.run("getent", "passwd", SERVICE_USER), "users stay: their numbers may not come to somebody else"
    stop_sink(box, sink)


def test_a_purge_keeps_mail_and_a_new_installation_delivers_it(box: Box, package: Path) -> None:
    install(box, package)
    init(box, "--listen", f"127.0.0.1:{PORT}")
    gateway = start(box)
    send(box, "survives a purge", PORT)
    wait_until_deferred(box)
    stop(box, gateway)
    output = box.run("apt-get", "purge", "-y", "-q", "gatepost")
    assert "1 message left in the queue" in output
    assert f"mail is left in {SPOOL}; it is kept" in output
    assert not box.exists("/etc/gatepost")

    install(box, package)
    init(box, "--listen", f"127.0.0.1:{PORT}")
    sink = start_sink(box)
    gateway = start(box)
    box.run("gatepost", "queue", "retry", "--all")
    wait_arrived(box, "survives a purge")
    stop(box, gateway)
    stop_sink(box, sink)


def test_a_purge_without_the_programs_verdict_keeps_what_may_be_mail(box: Box, package: Path) -> None:
    install(box, package)
    init(box, "--listen", f"127.0.0.1:{PORT}")
    gateway = start(box)
    send(box, "nobody looks at me", PORT)
    wait_until_deferred(box)
    stop(box, gateway)
    box.run("rm", "-r", "/usr/lib/gatepost/lib")  # the program is broken
    assert "it is kept" in box.run("apt-get", "purge", "-y", "-q", "gatepost")
    assert box.exists(f"{SPOOL}/segments")


def test_a_purge_of_what_was_never_used_leaves_nothing(box: Box, package: Path) -> None:
    before = box.run("sh", "-c", FILES)
    install(box, package)
    box.run("apt-get", "purge", "-y", "-q", "gatepost")
    left = set(box.run("sh", "-c", FILES).splitlines()) - set(before.splitlines())
    assert {
        path
        for path in left
        if not path.startswith(("/etc/", "/var/log", "/var/lib/dpkg", "/var/lib/apt", "/var/cache", "/var/tmp"))
    } == set()
    assert {path for path in left if path.startswith("/etc/")} <= {
        "/etc/passwd-",
        "/etc/group-",
        "/etc/shadow-",
        "/etc/gshadow-",
        "/etc/subuid-",
        "/etc/subgid-",
    }


FILES = "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /run \\) -prune -o -print"


def test_the_service_is_enabled_only_where_a_configuration_was_there_first(box: Box, package: Path) -> None:
    links = "cd /etc/systemd/system && ls */gatepost* || true"
    install(box, package)
    init(box)
    install(box, package)
    assert "cannot access" in box.run("sh", "-c", links), "who installed it first and configured it then decides"
    box.run("cp", "-a", "/etc/gatepost", "/root/gatepost")
    box.run("apt-get", "purge", "-y", "-q", "gatepost")
    box.run("cp", "-a", "/root/gatepost", "/etc/gatepost")
    install(box, package)
    assert sorted(box.run("sh", "-c", links).splitlines()) == [
        "multi-user.target.wants/gatepost.service",
        "sockets.target.wants/gatepost.socket",
    ]
    box.run("apt-get", "purge", "-y", "-q", "gatepost")
    assert "cannot access" in box.run("sh", "-c", links)
