"""Attestation of the live processes: what the kernel's records say of each, beside what the table of roles declares.

The one place that puts both together, for `gatepost privs` and for the supervisor's check every hour. Reads /proc only: never what a
process says of itself, but for its tries, made before it saw a byte from outside. Loads nothing that parses mail or the
network; of strangers it meets addresses in the kernel's tables and names of files, which it copies and does not understand.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from gatepost.config.maildirfiles import group_id
from gatepost.config.schema import Config
from gatepost.config.users import role_ids
from gatepost.privsep.ground import root_of
from gatepost.privsep.kernel import Difference, ProcessFacts, Records, compare, compare_dumps, read_process
from gatepost.privsep.memorylock import LOCKED, NOT_LOCKED, why_never_swapped
from gatepost.privsep.rights import LOOP_DESCRIPTORS, RoleRights, TryResult
from gatepost.privsep.roles import ROLES
from gatepost.privsep.writable import writable_paths

LOCKED_STATES = ("ready", "draining")
ENDED = "the process has ended"
SUPERVISOR = (
    "binds, starts and wires roles, reads configuration and tables; parses nothing from the network or of a message"
)


class Declared(msgspec.Struct, frozen=True):
    """What the table of roles says, in the words of the kernel's records."""

    user: str
    uid: int
    group: str
    root: str  # empty: that of the machine, because Gatepost was not started as root
    capabilities: str
    no_new_privs: bool
    seccomp: str
    syscalls: list[str]
    socket_families: list[str]
    landlock_files: list[list[str]]
    may_connect: bool
    may_accept: bool
    namespaces: str
    descriptors: list[str]
    open_files: int
    holds_keys: bool
    peers: dict[str, list[str]]


class RoleReport(msgspec.Struct):
    """One process: what the kernel says, what is declared, and where the two differ."""

    role: str
    instance: int
    generation: int
    pid: int
    kernel: ProcessFacts | None = None
    declared: Declared | None = None
    says: str = ""  # the line with which the role locked itself in
    writable: list[str] | None = None  # None: could not be found out
    writable_is_complete: bool = True
    landlock: str = ""
    refused: int = 0
    tried: int = 0
    differences: list[str] = []


def attest(
    config: Config, processes: Iterable[Mapping[str, Any]], records: Mapping[int, Records] = MappingProxyType({})
) -> list[RoleReport]:
    """A report for each process of the supervisor's list; one that is still starting has no differences yet.

    `records` are what the supervisor holds open, by process. Raises OSError where the supervisor's own cannot be read.
    """
    rows = list(processes)
    supervisor = read_process(next(row["pid"] for row in rows if row["role"] == "supervisor"))
    return [_report(config, row, supervisor, records.get(row["pid"])) for row in rows]


def declare(config: Config, role: str, instance: int, supervisor: ProcessFacts) -> Declared:
    """The row of a role, for a gateway that this supervisor started."""
    rights = ROLES[role]
    as_root = supervisor.uids[1] == 0
    uid, _, user = role_ids(config, supervisor.uids[1])[role]
    return Declared(
        user=user,
        uid=uid,
        group=_declared_group(config, role),
        root=root_of(config, role, instance) if as_root else "",
        capabilities="none",
        no_new_privs=True,
        seccomp="filter",
        syscalls=sorted(rights.syscalls),
        socket_families=sorted(rights.socket_families),
        landlock_files=[list(rule) for rule in rights.landlock_fs],
        may_connect=rights.may_connect,
        may_accept=rights.may_accept,
        namespaces="of the supervisor",
        descriptors=sorted(rights.descriptors | LOOP_DESCRIPTORS),
        open_files=rights.nofile,
        holds_keys=rights.holds_keys,
        peers={peer: sorted(kind.__name__ for kind in kinds) for peer, kinds in sorted(rights.peers.items())},
    )


def _report(config: Config, row: Mapping[str, Any], supervisor: ProcessFacts, records: Records | None) -> RoleReport:
    role = row["role"]
    tries = msgspec.convert(row["tries"], list[TryResult])
    report = RoleReport(role, row["instance"], row["generation"], row["pid"], says=row["rights"])
    report.tried, report.refused = len(tries), sum(not each.succeeded for each in tries)
    try:
        facts = report.kernel = read_process(row["pid"], records)
    except ProcessLookupError:
        report.differences = [ENDED]
        return report
    except PermissionError as error:
        report.differences = [f"what it may do cannot be read: {error}"]
        return report
    if role == "supervisor":
        report.says = SUPERVISOR
        report.differences = [str(difference) for difference in compare_dumps(facts)]
        return report
    try:
        declared = report.declared = declare(config, role, row["instance"], supervisor)
    except IndexError:  # a Maildir root that the new configuration does not have; its process is draining
        return report
    if row["state"] not in LOCKED_STATES:
        return report
    found: list[Difference] = compare(
        facts,
        ROLES[role],
        as_root=supervisor.uids[1] == 0,
        uid=declared.uid,
        root=declared.root,
        inherited_filters=supervisor.seccomp_filters,
        tries=tries,
    )
    found += _compare_namespaces(facts, supervisor)
    report.landlock = _landlock(report, tries)
    found += _compare_group(facts, config, role, as_root=supervisor.uids[1] == 0)
    found += _compare_means(report, config)
    if declared.root:
        found += _find_writable(report, facts, ROLES[role])
    report.differences = [str(difference) for difference in found]
    return report


def _compare_namespaces(facts: ProcessFacts, supervisor: ProcessFacts) -> Iterable[Difference]:
    for name, namespace in facts.namespaces.items():
        ours = supervisor.namespaces.get(name, namespace)
        if namespace != ours:
            yield Difference(f"namespace {name}", f"that of the supervisor, {ours}", namespace)


def _declared_group(config: Config, role: str) -> str:
    return f"that of maildir.group, {config.maildir.group}" if role == "maildir" and config.maildir.group else "its own"


def _compare_group(facts: ProcessFacts, config: Config, role: str, *, as_root: bool) -> Iterable[Difference]:
    """Whether the role that writes mail is in the group that is to read it, and in no other if it has a user of its own."""
    if role != "maildir" or config.maildir.group is None:
        return
    wanted = _declared_group(config, role)
    try:
        gid = group_id(config)
    except OSError:
        yield Difference("group", wanted, "there is no such group any more")
        return
    found = {*facts.gids, *facts.groups}
    if gid not in found or (as_root and found != {gid}):
        yield Difference("group", f"{wanted}: {gid}", " ".join(str(each) for each in sorted(found)))


def _landlock(report: RoleReport, tries: list[TryResult]) -> str:
    """The kernel keeps no record of Landlock; what was tried behind it alone is what is known."""
    behind = [each for each in tries if each.layer == "landlock"]
    in_force = next((part for part in report.says.split(", ") if part.startswith("landlock")), "")
    if not in_force and not behind:
        return "none"
    refused = sum(not each.succeeded for each in behind)
    abi = " ".join(in_force.split()[1:3])
    return f"{abi or 'in force'}; {refused} of {len(behind)} acts tried behind it alone refused"


def _compare_means(report: RoleReport, config: Config) -> Iterable[Difference]:
    """What no file in /proc shows: whether Landlock holds, and whether the filter kills."""
    if "NO LANDLOCK" in report.says or report.landlock == "none":
        yield Difference("Landlock", "in force", f"not in force (sandbox = {config.sandbox!r})")
    if "NO SECCOMP" in report.says:
        yield Difference("system call filter", "in force", f"not in force (sandbox = {config.sandbox!r})")
    if f", {LOCKED}" in report.says and report.kernel is not None and not report.kernel.locked_bytes:
        yield Difference("memory", "locked", "not locked")
    if "seccomp log" in report.says:
        yield Difference("system call filter", "kills", "only logs (sandbox_debug)")


def _find_writable(report: RoleReport, facts: ProcessFacts, rights: RoleRights) -> Iterable[Difference]:
    try:
        report.writable, report.writable_is_complete = writable_paths(
            f"/proc/{facts.pid}/root", facts.uids[1], {facts.gids[1], *facts.groups}
        )
    except OSError:
        return
    if report.writable and not rights.has_files:
        yield Difference("writable paths", "none", ", ".join(report.writable[:5]))


def swap_notes(reports: Iterable[RoleReport]) -> list[str]:
    """Which live roles hold keys in memory that is not locked, and what else keeps it out of swap."""
    found = []
    for report in reports:
        if NOT_LOCKED in report.says and report.kernel is not None:
            told = why_never_swapped(report.pid) or "it MAY BE SWAPPED: set LimitMEMLOCK=infinity or MemorySwapMax=0"
            found.append(f"the memory of {report.role}/{report.instance}, which holds keys, is not locked; {told}")
    return found


def notes(config: Config) -> list[str]:
    """What weakens the gateway as it is configured, to be said at every start, by privs and by status."""
    said = []
    if config.sandbox != "enforce":
        said.append(f'sandbox = "{config.sandbox}": the gateway also runs on a kernel without Landlock or seccomp')
    if config.sandbox_debug != "off":
        said.append(
            f'sandbox_debug = "{config.sandbox_debug}": forbidden system calls are logged by the kernel and PASS'
        )
    if os.geteuid() != 0:
        said.append("not started as root: the roles have no user and no root directory of their own")
    return said
