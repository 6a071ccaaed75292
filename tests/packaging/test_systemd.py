"""The services under a real systemd: as shipped, with every restriction of the unit in force."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from boxes import ROOT, Box
from build_unit import SEPARATING_CAPABILITIES
from inbox import give, init, send, start_sink, stop_sink, wait_arrived, wait_until_deferred
from peers import require, wait_until

pytestmark = [pytest.mark.installation, pytest.mark.timeout(600)]

UNIT = "gatepost.service"
SEPARATED = "gatepost-separated.service"
SPOOL = "/var/spool/gatepost"
DROP_IN = f"/etc/systemd/system/{SEPARATED}.d"


def install(box: Box, package: Path) -> None:
    box.run("apt-get", "install", "-y", "-q", give(box, package))
    init(box)


def main_pid(box: Box, unit: str = UNIT) -> int:
    return int(box.run("systemctl", "show", "-p", "MainPID", "--value", unit))


def journal(box: Box, unit: str = UNIT) -> str:
    return box.run("journalctl", "--no-pager", "-o", "cat", "-u", unit)


@pytest.fixture
def service(systemd_box: Box, package: Path) -> Box:
    """The default service, running."""
    install(systemd_box, package)
    systemd_box.run("systemctl", "enable", "--now", UNIT)
    return systemd_box


def test_the_service_takes_and_delivers_mail_without_any_right_of_roots(service: Box) -> None:
    start_sink(service)
    send(service, "through the service")
    send(service, "over IPv6", host="::1")
    wait_arrived(service, "through the service")
    wait_arrived(service, "over IPv6")
    status = service.run("systemctl", "status", "--no-pager", UNIT)
    assert "Listens on 0.0.0.0:25, [::]:25; configuration 1, 5 roles" in status
    facts = service.path(f"/proc/{main_pid(service)}/status").read_text()
    assert re.search(r"^Uid:\s+(\d+)\s+\1\s+\1\s+\1$", facts, re.MULTILINE) and "Uid:\t0" not in facts
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert f"{name}:\t0000000000000000" in facts
    assert "NoNewPrivs:\t1" in facts and "Seccomp:\t2" in facts
    assert service.run("gatepost", "privs").endswith("as declared")
    seen = json.loads(service.run("gatepost", "status", "--json"))["attestation"]
    # it saw the roles, which /proc hides from it
    assert seen["as_declared"] is True and "descriptors" in seen["not_compared"]


def test_nothing_else_can_be_run_where_it_runs(service: Box) -> None:
    place = ["nsenter", "-t", str(main_pid(service)), "-m"]
    for program in ("sh", "cat", "mount"):
        assert "Permission denied" in service.run(*place, program, check=False)
    written = service.run(*place, "/usr/bin/python3.11", "-I", "-c", WRITE).splitlines()
    assert written == ["/etc/x EROFS", "/usr/x EROFS", "/var/lib/x EROFS", f"{SPOOL}/x done"]


WRITE = """
import errno
for path in ("/etc/x", "/usr/x", "/var/lib/x", "/var/spool/gatepost/x"):
    try:
        open(path, "w").close()
        print(path, "done")
    except OSError as error:
        print(path, errno.errorcode[error.errno])
"""


@pytest.mark.parametrize(("unit", "limit"), [(UNIT, 1.5), (SEPARATED, 3.0)])
def test_the_exposure_as_systemd_reckons_it(systemd_box: Box, package: Path, unit: str, limit: float) -> None:
    install(systemd_box, package)
    report = systemd_box.run("systemd-analyze", "security", "--no-pager", unit)
    line = report.splitlines()[-1]
    print(f"\n{line}")
    assert float(re.findall(r"exposure level for \S+: ([0-9.]+)", line)[0]) <= limit


def test_a_reload_ends_when_the_new_configuration_serves_and_fails_with_a_bad_one(service: Box) -> None:
    service.run("systemctl", "reload", UNIT)
    assert "configuration 2" in service.run("systemctl", "status", "--no-pager", UNIT)
    config = service.path("/etc/gatepost/gatepost.toml")
    good = config.read_text()
    config.write_text(good + "nonsense = 1\n")
    assert "failed" in service.run("systemctl", "reload", UNIT, check=False)
    assert "nonsense" in journal(service)
    assert service.run("systemctl", "is-active", UNIT) == "active"
    config.write_text(good)
    service.run("systemctl", "reload", UNIT)
    assert "configuration 3" in service.run("systemctl", "status", "--no-pager", UNIT)


def test_a_killed_supervisor_and_one_that_hangs_are_started_again(service: Box) -> None:
    start_sink(service)
    first = main_pid(service)
    service.run("systemctl", "kill", "--kill-whom=main", "-s", "KILL", UNIT)
    send(service, "while it was dead")  # the socket takes the connection, whoever serves it
    wait_arrived(service, "while it was dead")
    assert main_pid(service) != first

    service.path(f"/etc/systemd/system/{UNIT}.d").mkdir()
    service.path(f"/etc/systemd/system/{UNIT}.d/watchdog.conf").write_text(
        "[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\n"
    )
    service.run("systemctl", "daemon-reload")
    service.run("systemctl", "restart", UNIT)
    second = main_pid(service)
    service.run("systemctl", "kill", "--kill-whom=main", "-s", "STOP", UNIT)
    wait_until(lambda: not service.exists(f"/proc/{second}"), "the watchdog ends it")
    send(service, "after it hung")
    wait_arrived(service, "after it hung")
    assert "Watchdog timeout" in service.console()


def test_an_upgrade_restarts_it_refuses_nobody_and_loses_nothing(service: Box, newer_package: Path) -> None:
    send(service, "deferred before the upgrade")
    wait_until_deferred(service)
    before = main_pid(service)
    clients = service.start("python3", "-c", KNOCK)
    assert clients.stdout is not None and clients.stdout.readline() == "knocking\n"
    service.run("apt-get", "install", "-y", "-q", give(service, newer_package))
    assert main_pid(service) not in (0, before)
    service.run("touch", "/var/tmp/enough")
    assert clients.stdout.readline() == "refused 0\n"
    start_sink(service)
    service.run("gatepost", "queue", "retry", "--all")
    wait_arrived(service, "deferred before the upgrade")


KNOCK = """
import os, socket, sys, time
print("knocking", flush=True)
refused = 0
while not os.path.exists("/var/tmp/enough"):
    try:
        with socket.create_connection(("127.0.0.1", 25), timeout=60) as sock:
            sock.recv(100)
    except ConnectionRefusedError:
        refused += 1
    except ConnectionResetError:
        pass  # in the middle of a stop: a client comes again
    time.sleep(0.01)
print("refused", refused, flush=True)
"""


def test_removing_it_stops_it_and_a_purge_leaves_no_unit(service: Box) -> None:
    pid = main_pid(service)
    service.run("apt-get", "remove", "-y", "-q", "gatepost")
    assert not service.exists(f"/proc/{pid}")
    assert "refused" in service.run(
        "python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 25))", check=False
    )
    assert service.exists("/etc/gatepost/gatepost.toml")
    service.run("apt-get", "purge", "-y", "-q", "gatepost")
    assert not service.exists(SPOOL) and not service.exists("/etc/gatepost")
    assert "gatepost" not in service.run("systemctl", "list-units", "--all", "--no-pager", "--no-legend", "--plain")
    assert "gatepost" not in service.run("sh", "-c", "ls -R /etc/systemd/system")


def test_without_a_configuration_starting_it_does_nothing(systemd_box: Box, package: Path) -> None:
    systemd_box.run("apt-get", "install", "-y", "-q", give(systemd_box, package))
    systemd_box.run("systemctl", "start", UNIT)
    assert systemd_box.run("systemctl", "is-active", UNIT, check=False) == "inactive"
    assert systemd_box.run("systemctl", "is-failed", UNIT, check=False) == "inactive"


def test_sysusers_and_tmpfiles_make_what_the_installation_made(systemd_box: Box, package: Path) -> None:
    systemd_box.run("apt-get", "install", "-y", "-q", give(systemd_box, package))
    users = systemd_box.run("getent", "passwd")
    look = ("stat", "-c", "%a %U %G", "/etc/gatepost", SPOOL)
    made = systemd_box.run(*look)
    systemd_box.run("systemd-sysusers", "gatepost.conf")
    assert systemd_box.run("getent", "passwd") == users
    systemd_box.run("systemd-tmpfiles", "--create", "gatepost.conf")
    assert systemd_box.run(*look) == made
    systemd_box.run("rmdir", "/etc/gatepost", SPOOL)
    systemd_box.run("systemd-tmpfiles", "--create", "gatepost.conf")
    assert systemd_box.run(*look) == made
    systemd_box.run("chown", "root:root", SPOOL)
    systemd_box.run("systemd-tmpfiles", "--create", "gatepost.conf")
    assert systemd_box.run(*look).splitlines()[1] == "711 root root", "of the separated service: left alone"


def test_sockets_for_another_address_than_the_configurations_are_an_error_with_advice(service: Box) -> None:
    config = service.path("/etc/gatepost/gatepost.toml")
    config.write_text(re.sub(r"(?m)^listen = .*", 'listen = ["127.0.0.1:25"]', config.read_text()))
    service.run("systemctl", "stop", UNIT)
    assert "failed" in service.run("systemctl", "start", UNIT, check=False)
    assert "smtp listens on 0.0.0.0:25, which neither `listen` nor" in journal(service)


@pytest.fixture
def separated(systemd_box: Box, package: Path) -> Box:
    """Installed for the other service, as docs/release.md says how to change over."""
    install(systemd_box, package)
    systemd_box.run("chown", "root:root", SPOOL)
    return systemd_box


def test_the_separated_service_gives_every_role_a_user_and_a_root(separated: Box) -> None:
    separated.run("systemctl", "enable", "--now", SEPARATED)
    sink = start_sink(separated)
    send(separated, "through the separated service")
    wait_arrived(separated, "through the separated service")
    assert separated.run("gatepost", "privs").endswith("as declared")
    supervisor = main_pid(separated, SEPARATED)
    children = separated.path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    facts = [separated.path(f"/proc/{pid}/status").read_text() for pid in children]
    uids = [re.findall(r"^Uid:\t(\d+)", text, re.MULTILINE)[0] for text in facts]
    assert len(set(uids)) == len(uids) == 5 and "0" not in uids
    assert all("CapEff:\t0000000000000000" in text for text in facts)
    roots = {separated.run("readlink", f"/proc/{pid}/root") for pid in children}
    assert roots == {f"{SPOOL}/run/empty", SPOOL}
    stop_sink(separated, sink)
    separated.run("systemctl", "reload", SEPARATED)
    separated.run("systemctl", "restart", SEPARATED)
    separated.run("systemctl", "stop", SEPARATED)
    assert separated.run("systemctl", "show", "-p", "Result", "--value", SEPARATED) == "success"


@pytest.mark.parametrize("capability", sorted(SEPARATING_CAPABILITIES))
def test_the_separated_service_needs_each_of_its_capabilities(separated: Box, capability: str) -> None:
    rest = " ".join(sorted(SEPARATING_CAPABILITIES.keys() - {capability}))
    separated.path(DROP_IN).mkdir()
    separated.path(f"{DROP_IN}/less.conf").write_text(
        f"[Service]\nRestart=no\nTimeoutStopSec=5\nCapabilityBoundingSet=\nCapabilityBoundingSet={rest}\n"
    )
    separated.run("systemctl", "daemon-reload")
    output = separated.run("systemctl", "start", SEPARATED, check=False)
    if capability != "CAP_KILL":
        assert "failed" in output
        return
    assert output == ""  # it starts, but a role that hangs cannot be ended
    pid = main_pid(separated, SEPARATED)
    separated.run("sh", "-c", STOP_A_ROLE)
    separated.run("sh", "-c", f"kill {pid}")
    wait_until(lambda: '"stopping"' in journal(separated, SEPARATED), "it begins to stop")
    separated.run("sh", "-c", f"kill {pid}")  # a second time: at once
    wait_until(lambda: not separated.exists(f"/proc/{pid}"), "it ends")
    assert "Operation not permitted" in journal(separated, SEPARATED)


STOP_A_ROLE = 'for p in /proc/[0-9]*; do if tr "\\0" " " < $p/cmdline 2>/dev/null | grep -q "roles [r]esolver"; then kill -STOP ${p#/proc/}; fi; done'


TLS = """
[[listeners]]
address = "0.0.0.0:587"
kind = "submission"

[[tls.certificates]]
certificate_file = "/etc/gatepost/tls/cert.pem"
key_file = "/etc/gatepost/tls/key.pem"
"""
STARTTLS = """
import smtplib, ssl
context = ssl._create_unverified_context()
with smtplib.SMTP("127.0.0.1", 25, timeout=60) as client:
    client.starttls(context=context)
    client.sendmail("me@example.net", ["you@example.test"], "Subject: over TLS\\r\\n\\r\\nhello\\r\\n")
with smtplib.SMTP("127.0.0.1", 587, timeout=60) as client:
    print(client.starttls(context=context)[0])
"""


def test_keys_and_a_submission_listener_under_the_unit(service: Box, tmp_path: Path) -> None:
    """The supervisor reads keys and hands them over as sealed memory; another socket comes by a drop-in."""
    command = [
        require("openssl"),
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-subj", "/CN=gate.example.test", "-addext", "subjectAltName=DNS:gate.example.test", "-days", "30"]
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    service.path("/etc/gatepost/tls").mkdir(mode=0o755)
    for file in (key, certificate):
        service.path(f"/etc/gatepost/tls/{file.name}").write_bytes(file.read_bytes())
    service.run("chmod", "0400", "/etc/gatepost/tls/key.pem")
    service.run("chown", "gatepost:gatepost", "/etc/gatepost/tls/key.pem", "/etc/gatepost/tls/cert.pem")
    config = service.path("/etc/gatepost/gatepost.toml")
    config.write_text(config.read_text() + TLS)
    service.path("/etc/systemd/system/gatepost.socket.d").mkdir()
    service.path("/etc/systemd/system/gatepost.socket.d/submission.conf").write_text(
        "[Socket]\nListenStream=0.0.0.0:587\n"
    )
    service.run("gatepost", "check")
    service.run("systemctl", "daemon-reload")
    service.run("systemctl", "stop", UNIT)
    service.run("systemctl", "restart", "gatepost.socket")
    assert service.run("systemctl", "start", UNIT, check=False) == "", journal(service)[-2000:]
    start_sink(service)
    assert service.run("python3", "-c", STARTTLS) == "220"
    wait_arrived(service, "over TLS")
    assert service.run("gatepost", "privs").endswith("as declared")


CHANGE_OVER = f"""
systemctl disable --now gatepost.service gatepost.socket
chown -R gatepost-queue:gatepost-queue {SPOOL}
chown -R root:root {SPOOL}/run
chown root:root {SPOOL}
systemctl enable --now {SEPARATED}
""".strip().splitlines()


def test_the_queue_comes_along_when_the_service_is_changed(service: Box) -> None:
    """The commands of packaging/README.md."""
    readme = (ROOT / "packaging" / "README.md").read_text()
    for line in CHANGE_OVER:
        assert f"    {line}\n" in readme
    send(service, "queued by one service")
    wait_until_deferred(service)
    for line in CHANGE_OVER:
        service.run("sh", "-c", line)
    start_sink(service)
    service.run("gatepost", "queue", "retry", "--all")
    wait_arrived(service, "queued by one service")
    assert "the configuration is good" in service.run("gatepost", "check")
    assert service.run("systemctl", "is-active", SEPARATED) == "active"
