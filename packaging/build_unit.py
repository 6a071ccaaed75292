"""Writes the systemd units, the sysusers and the tmpfiles entries below packaging/systemd/ from the table of roles.

What the units allow is what `privsep/roles.py` gives any role, and what the supervisor needs to start them (`SUPERVISOR_CALLS`); nothing
is said twice. The result is committed, so that it can be read; `--check` (and a test) compares. Two services, one of which runs:

- gatepost.service: one user without any right, sockets from gatepost.socket. The default, because nothing of it ever is root.
- gatepost-separated.service: started as root with seven capabilities, so that every role gets a user and a root directory of its own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sourcetree import ROOT

from gatepost.config.users import ROLE_USERS
from gatepost.privsep.roles import ROLES
from gatepost.privsep.supervisor import KILL_AFTER_S, ROLES_END_S, SESSIONS_END_S, START_LIMIT_S

TARGET = ROOT / "packaging" / "systemd"
SERVICE_USER = "gatepost"
PROGRAM = "/usr/lib/gatepost/bin/gatepost"
CONFIG = "/etc/gatepost/gatepost.toml"
SPOOL = "/var/spool/gatepost"

SUPERVISOR_CALLS: dict[str, str] = {
    "arch_prctl": "start of a program",
    "execve": "starts the roles",
    "vfork": "starts a program",
    "clone3": "starts a program; glibc tries it first (RestrictNamespaces= answers ENOSYS, glibc then takes clone)",
    "wait4": "the exit status of a role",
    "bind": "the administrator's socket",
    "chmod": "directories of the spool",
    "mlock": "keys are not swapped",
    "mlock2": "keys are not swapped",
    "munlockall": "keys are not swapped: a lock that came to half",
    "mlockall": "keys are not swapped: a role that holds some locks its memory",
    "memfd_create": "keys and certificates go to the roles as sealed memory",
    "capset": "a role gives up what it has",
    "seccomp": "a role's system call filter",
    "landlock_create_ruleset": "a role's Landlock rules",
    "landlock_add_rule": "a role's Landlock rules",
    "landlock_restrict_self": "a role's Landlock rules",
}
"""Beyond the system calls of the roles, in both services; the reason of each. A role's own filter takes them away again."""

SEPARATING_CALLS: dict[str, str] = {
    "chown": "a Maildir root for the role that writes there",
    "fchown": "the spool's directories for the queue",
    "chroot": "a role's root directory",
    "setgroups": "a role has no supplementary groups",
    "setresgid": "a role's group",
    "setresuid": "a role's user",
}
"""Where every role gets a user and a root directory of its own."""

SEPARATING_CAPABILITIES: dict[str, str] = {
    "CAP_CHOWN": "gives the spool's directories to the queue",
    "CAP_KILL": "stops roles, which are other users",
    "CAP_NET_BIND_SERVICE": "port 25",
    "CAP_SETGID": "a role's group",
    "CAP_SETPCAP": "a role empties its bounding set",
    "CAP_SETUID": "a role's user",
    "CAP_SYS_CHROOT": "a role's root directory",
}
"""Each was taken away by trial: without it the gateway does not start, or cannot end a role (tests/packaging/test_systemd.py)."""

_FAMILIES = {"inet": "AF_INET", "inet6": "AF_INET6", "unix": "AF_UNIX"}
_START_S = START_LIMIT_S + 30
_STOP_S = SESSIONS_END_S + 2 * ROLES_END_S + 3 * KILL_AFTER_S + 10
_MAX_LINE = 110


def address_families() -> list[str]:
    """What any role may make a socket of, and AF_UNIX: links between roles, the administrator's socket, the journal."""
    found = {_FAMILIES[family] for row in ROLES.values() for family in row.socket_families} | {"AF_UNIX"}
    if any(row.may_accept for row in ROLES.values()):
        found |= {"AF_INET", "AF_INET6"}  # the supervisor's listening sockets
    return sorted(found)


def system_calls(*more: dict[str, str]) -> list[str]:
    """Every call of any role and of the supervisor."""
    found = set(SUPERVISOR_CALLS).union(*(row.syscalls for row in ROLES.values()), *more)
    return sorted(found)


def open_files() -> int:
    """The hard limit that the hungriest role raises its own to."""
    return max(row.nofile for row in ROLES.values())


def _wrap(key: str, words: list[str]) -> list[str]:
    """A list setting over several lines; systemd joins settings of one name."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + len(word) < _MAX_LINE:
            lines[-1] += f" {word}"
        else:
            lines.append(f"{key}={word}")
    return lines


def _unit_head(description: str, *more: str) -> list[str]:
    return [
        "# Made by packaging/build_unit.py from the table of roles. Change it with: systemctl edit UNIT",
        "[Unit]",
        f"Description={description}",
        "Documentation=man:gatepost(1) man:gatepost.toml(5)",
        *more,
    ]


def _life() -> list[str]:
    return [
        "Type=notify",
        f"ExecStart={PROGRAM} run --config {CONFIG}",
        "# Ends only when the new configuration serves, and fails, with the reason, when it does not.",
        f"ExecReload={PROGRAM} reload --config {CONFIG}",
        "Restart=always",
        "RestartSec=1",
        "# A bad configuration or a wrong mode does not get better by itself.",
        "RestartPreventExitStatus=2",
        f"TimeoutStartSec={_START_S:.0f}",
        f"TimeoutStopSec={_STOP_S:.0f}",
        "# Pinged only while every role has a process and answers.",
        "WatchdogSec=60",
        "KillMode=mixed",
        "# A role that runs out of memory is started again; the others go on.",
        "OOMPolicy=continue",
    ]


def _fences() -> list[str]:
    return [
        "",
        "# Fences. Raise MemoryMax= with queue.max_messages and processes.receivers.",
        "MemoryMax=2G",
        "MemorySwapMax=0",
        "TasksMax=1024",
        "IOWeight=200",
        f"LimitNOFILE={open_files()}",
        "LimitCORE=0",
        "# Roles that hold keys lock their memory; the others set this to 0 for themselves. Behind it stands MemorySwapMax=0.",
        "LimitMEMLOCK=infinity",
    ]


def _walls(calls: list[str]) -> list[str]:
    return [
        "",
        "# Files. A Maildir next hop needs: ReadWritePaths=/ITS/DIRECTORY",
        "ProtectSystem=strict",
        f"ReadWritePaths={SPOOL}",
        "ProtectHome=yes",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "DevicePolicy=closed",
        "PrivateMounts=yes",
        "# Nothing runs but Python; there is no shell.",
        "NoExecPaths=/",
        "ExecPaths=/usr/lib /usr/lib64 /usr/bin/python3.11",
        "UMask=0077",
        "# For local.socket = \"/run/gatepost/submit\", and other Unix sockets for programs of this host.",
        "RuntimeDirectory=gatepost",
        "RuntimeDirectoryMode=0755",
        "",
        "# The kernel.",
        "NoNewPrivileges=yes",
        "ProtectClock=yes",
        "ProtectControlGroups=yes",
        "ProtectHostname=yes",
        "ProtectKernelLogs=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelTunables=yes",
        "ProtectProc=invisible",
        "ProcSubset=pid",
        "LockPersonality=yes",
        "MemoryDenyWriteExecute=yes",
        "RemoveIPC=yes",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "KeyringMode=private",
        f"RestrictAddressFamilies={' '.join(address_families())}",
        "",
        "# System calls: those of the roles together, and what it takes to start them. Each role has a filter of its own behind this.",
        "SystemCallArchitectures=native",
        "SystemCallErrorNumber=EPERM",
        *_wrap("SystemCallFilter", calls),
    ]


def unprivileged_service() -> list[str]:
    """gatepost.service."""
    return [
        *_unit_head(
            "Gatepost SMTP gateway",
            "Requires=gatepost.socket",
            "After=gatepost.socket network.target nss-lookup.target",
            "Conflicts=gatepost-separated.service",
            f"ConditionPathExists={CONFIG}",
        ),
        "",
        "[Service]",
        *_life(),
        "",
        "# One user without any right. The listening sockets come from gatepost.socket.",
        f"User={SERVICE_USER}",
        f"Group={SERVICE_USER}",
        "CapabilityBoundingSet=",
        "AmbientCapabilities=",
        # No PrivateUsers=: in a user namespace the kernel calls all local users by one number, and they submit by Unix socket.
        "SocketBindDeny=any",
        *_fences(),
        *_walls(system_calls()),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
        "Also=gatepost.socket",
    ]


def separated_service() -> list[str]:
    """gatepost-separated.service."""
    return [
        *_unit_head(
            "Gatepost SMTP gateway, every role with a user of its own",
            "After=network.target nss-lookup.target",
            "Conflicts=gatepost.service gatepost.socket",
            f"ConditionPathExists={CONFIG}",
        ),
        "",
        "[Service]",
        *_life(),
        "",
        "# Root, with nothing of root's but this; every role gives up the rest before it sees a byte from outside.",
        "User=root",
        "Group=root",
        *_wrap("CapabilityBoundingSet", sorted(SEPARATING_CAPABILITIES)),
        *_fences(),
        *_walls(system_calls(SEPARATING_CALLS)),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]


def socket_unit() -> list[str]:
    """gatepost.socket."""
    return [
        *_unit_head("Gatepost SMTP gateway, listening sockets", f"ConditionPathExists={CONFIG}"),
        "",
        "[Socket]",
        "# The same as `listen` in the configuration. Others: systemctl edit gatepost.socket, with an empty ListenStream= first.",
        "ListenStream=0.0.0.0:25",
        "ListenStream=[::]:25",
        "BindIPv6Only=ipv6-only",
        "FileDescriptorName=smtp",
        "Backlog=4096",
        "",
        "[Install]",
        "WantedBy=sockets.target",
    ]


def selftest_service() -> list[str]:
    """gatepost-selftest.service: looks and asks, and may change nothing."""
    return [
        *_unit_head("Gatepost SMTP gateway, self-test", "After=gatepost.service gatepost-separated.service", f"ConditionPathExists={CONFIG}"),
        "",
        "[Service]",
        "Type=oneshot",
        "# Fails, and stands in `systemctl --failed`, when something is wrong; the journal has what.",
        f"ExecStart={PROGRAM} selftest --config {CONFIG}",
        "TimeoutStartSec=900",
        "# The one who started the gateway: only that user may open its socket. With gatepost-separated.service: User=root, Group=root.",
        f"User={SERVICE_USER}",
        f"Group={SERVICE_USER}",
        "CapabilityBoundingSet=",
        "AmbientCapabilities=",
        "",
        "# It has to see owners, processes, the clock and the network as they are, so these are not hidden from it.",
        "ProtectSystem=strict",
        "ReadOnlyPaths=/",
        "ProtectHome=read-only",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "NoNewPrivileges=yes",
        "ProtectControlGroups=yes",
        "ProtectHostname=yes",
        "ProtectKernelLogs=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelTunables=yes",
        "LockPersonality=yes",
        "MemoryDenyWriteExecute=yes",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "SystemCallFilter=~@privileged @resources",
        "SystemCallErrorNumber=EPERM",
        "MemoryMax=512M",
        "MemorySwapMax=0",
        "TasksMax=64",
        "Nice=10",
    ]


def selftest_timer() -> list[str]:
    """gatepost-selftest.timer: every day, where an administrator switches it on."""
    return [
        *_unit_head("Gatepost SMTP gateway, self-test every day"),
        "",
        "[Timer]",
        "OnCalendar=daily",
        "RandomizedDelaySec=2h",
        "Persistent=yes",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]


def sysusers() -> list[str]:
    """sysusers.d/gatepost.conf: the user of gatepost.service, and those of gatepost-separated.service."""
    lines = ["# Made by packaging/build_unit.py.", f'u {SERVICE_USER:<15} - "Gatepost SMTP gateway"']
    return lines + [f'u {user:<15} - "Gatepost, role {role}"' for role, user in ROLE_USERS.items()]


def tmpfiles() -> list[str]:
    """tmpfiles.d/gatepost.conf. The colons leave alone what exists: gatepost-separated.service has the spool belong to root."""
    return [
        "# Made by packaging/build_unit.py.",
        f"d /etc/gatepost :2750 :root :{SERVICE_USER}",
        f"d {SPOOL} :0711 :{SERVICE_USER} :{SERVICE_USER}",
    ]


FILES = {
    "gatepost.service": unprivileged_service,
    "gatepost.socket": socket_unit,
    "gatepost-separated.service": separated_service,
    "gatepost-selftest.service": selftest_service,
    "gatepost-selftest.timer": selftest_timer,
    "gatepost.sysusers": sysusers,
    "gatepost.tmpfiles": tmpfiles,
}


def find_differences(directory: Path = TARGET) -> list[str]:
    """Names of the files that are not as the table says."""
    return [
        name
        for name, build in FILES.items()
        if not (directory / name).is_file() or (directory / name).read_text() != "\n".join(build()) + "\n"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the systemd units from the table of roles.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not as the table says")
    if parser.parse_args().check:
        if stale := find_differences():
            sys.exit(
                f"{', '.join(stale)}: not as the table of roles says; run: .venv/bin/python packaging/build_unit.py"
            )
        return
    TARGET.mkdir(exist_ok=True)
    for name, build in FILES.items():
        (TARGET / name).write_text("\n".join(build()) + "\n")


if __name__ == "__main__":
    main()
