"""`gatepost privs`: what each live process may do, read from the kernel, beside what the table of roles declares."""

from __future__ import annotations

import os

import click

from gatepost.cli.ask import ask_or_exit, running_config
from gatepost.cli.options import config_option, json_option
from gatepost.cli.output import complain, emit
from gatepost.privsep.attest import Declared, RoleReport, attest, notes, swap_notes
from gatepost.privsep.kernel import ProcessFacts, count_kinds

SOCKETS_SHOWN = 8
NAMESPACES_SHOWN = ("mnt", "net", "pid", "user")  # the JSON has all
_WIDTH = 58


@click.command()
@config_option
@json_option
def privs(config_path: str, as_json: bool) -> None:
    """Print what each live process may do, from the kernel's records.

    Left what the kernel says, right what the table of roles declares. Run it as root, or as the user who started the gateway. Ends
    with "as declared" or the differences; the exit status is 1 if there are any. "Writable" is what user, groups and modes would
    let the process write below its root directory, if Landlock and the system call filter were not there.
    """
    config = running_config(config_path)
    try:
        reports = attest(config, ask_or_exit(config_path, "roles"))
    except OSError as error:
        complain(f"gatepost: {error}; run it as root")
        raise click.exceptions.Exit(1) from error
    differences = sum(len(report.differences) for report in reports)
    lines = [line for report in reports for line in report_lines(report)]
    said = notes(config) + swap_notes(reports)
    lines += [f"note: {note}" for note in said]
    unread = sorted({item for report in reports if report.kernel for item in report.kernel.unreadable})
    if unread:
        lines.append(
            f"note: only root may read {', '.join(unread)} of a process of the gateway; those are not compared"
        )
    lines.append("as declared" if not differences else f"{differences} differences from the table of roles")
    if as_json:
        data = {
            "as_declared": not differences, "kernel": os.uname().release, "notes": said, "processes": reports,
        }  # fmt: skip
        emit(data, True, "")
    else:
        emit(reports, False, lines)
    if differences:
        raise click.exceptions.Exit(1)


def report_lines(report: RoleReport) -> list[str]:
    """One process as text."""
    lines = [f"{report.role}/{report.instance} (generation {report.generation}), pid {report.pid}"]
    facts, declared = report.kernel, report.declared
    if facts is None:
        return [*lines, *(f"  DIFFERENT {difference}" for difference in report.differences)]
    rows = _rows(report, facts, declared)
    lines += [f"  {name:<13}{kernel:<{_WIDTH}} {table and '| ' + table}".rstrip() for name, kernel, table in rows]
    if report.role == "supervisor":
        lines.append(f"  declared     {report.says}")
    elif report.says:
        lines.append(f"  locked in    {report.says.partition(': ')[2]}")
    lines += [f"  DIFFERENT {difference}" for difference in report.differences]
    return lines


def _rows(report: RoleReport, facts: ProcessFacts, declared: Declared | None) -> list[tuple[str, str, str]]:
    effective = facts.capabilities.get("CapEff", "?").lstrip("0") or "none"
    bounding = facts.capabilities.get("CapBnd", "?").lstrip("0") or "none"
    nofile = facts.limits.get("Max open files", ("?", "?"))[1]
    core = facts.limits.get("Max core file size", ("?", "?"))[1]
    dumpable = {None: "not readable", True: "yes", False: "no"}[facts.dumpable]
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(count_kinds(facts).items())) or "not readable"
    d = declared
    rows = [
        ("", "kernel", "table of roles" if d else ""),
        ("uid", " ".join(str(uid) for uid in sorted(set(facts.uids))), f"{d.uid} ({d.user})" if d else ""),
        ("gids", f"{' '.join(str(g) for g in sorted(set(facts.gids)))}; groups {facts.groups or 'none'}", f"{d.group}; groups none" if d and d.root else ""),
        ("capabilities", f"{effective}; bounding {bounding}", "none" if d else ""),
        ("no_new_privs", "yes" if facts.no_new_privs else "no", "yes" if d else ""),
        ("seccomp", f"{facts.seccomp}, {facts.seccomp_filters} filters", _calls(d) if d else ""),
        ("root", facts.root or "not readable", (d.root or "that of the machine") if d else ""),
        ("landlock", report.landlock or "-", _landlock(d) if d else ""),
        ("namespaces", _namespaces(facts), d.namespaces if d else ""),
        ("descriptors", kinds, ", ".join(d.descriptors) if d else ""),
        *[("", socket, "") for socket in _sockets(facts)],
        ("writable", _writable(report), _writable_declared(d) if d else ""),
        ("limits", f"open files {nofile}, core {core}, dumpable {dumpable}, umask {facts.umask}", f"open files {d.open_files}, core 0, dumpable no" if d else ""),
        ("memory", f"{facts.locked_bytes // 1024} KiB of address space locked", "locked, if the start could raise the limit" if d and d.holds_keys else ""),
        ("size", f"{facts.threads} threads, {facts.rss_bytes // 1024} KiB", ""),
    ]  # fmt: skip
    if report.tried:
        rows.append(("tried", f"{report.refused} of {report.tried} forbidden acts refused", "all"))
    return rows


def _calls(declared: Declared) -> str:
    families = ", ".join(declared.socket_families) or "none"
    return f"filter that kills; {len(declared.syscalls)} system calls, new sockets: {families}"


def _landlock(declared: Declared) -> str:
    files = ", ".join(f"{path} {access}" for path, access in declared.landlock_files) or "none"
    return f"files {files}; tcp {'connect' if declared.may_connect else 'none'}"


def _namespaces(facts: ProcessFacts) -> str:
    named = {name: target.partition("[")[2][:-1] for name, target in facts.namespaces.items()}
    return " ".join(f"{name} {named[name]}" for name in NAMESPACES_SHOWN if name in named) or "not readable"


def _sockets(facts: ProcessFacts) -> list[str]:
    named = [d for d in facts.descriptors if d.kind.startswith(("tcp", "udp")) or d.kind.endswith("-listen")]
    named.sort(key=lambda d: (not d.kind.endswith("listen"), d.number))
    shown = [f"{d.number}: {d.kind} {d.target}".rstrip() for d in named[:SOCKETS_SHOWN]]
    return shown + ([f"and {len(named) - SOCKETS_SHOWN} more"] if len(named) > SOCKETS_SHOWN else [])


def _writable(report: RoleReport) -> str:
    if report.writable is None:
        return "what its user may write (no root directory of its own)" if report.declared else "not looked at"
    names = ", ".join(report.writable[:6]) or "nothing"
    more = f" and {len(report.writable) - 6} more" if len(report.writable) > 6 else ""
    return names + more + ("" if report.writable_is_complete else " (not all looked at)")


def _writable_declared(declared: Declared) -> str:
    files = [path for path, access in declared.landlock_files if access == "read-write"]
    return f"below {', '.join(files)}" if files else "nothing"
