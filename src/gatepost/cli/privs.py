"""`gatepost privs`: what each live process may do, read from the kernel, beside what the table of roles says."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from gatepost.cli.ask import ask_or_exit
from gatepost.cli.options import config_option, json_option
from gatepost.cli.output import emit
from gatepost.config.load import load_config
from gatepost.config.schema import Config
from gatepost.config.users import role_ids
from gatepost.privsep.ground import root_of
from gatepost.privsep.kernel import Difference, ProcessFacts, compare, count_kinds, read_process
from gatepost.privsep.roles import ROLES
from gatepost.privsep.rights import TryResult


class RoleReport(msgspec.Struct):
    """One process: what the kernel says, and where that differs from the table."""

    role: str
    instance: int
    generation: int
    pid: int
    kernel: ProcessFacts | None
    declared: str
    refused: int
    tried: int
    differences: list[str]


@click.command()
@config_option
@json_option
def privs(config_path: str, as_json: bool) -> None:
    """Print what each live process may do, from the kernel's records.

    Run it as root, or as the user who started the gateway. Ends with "as declared" or the differences; the exit status is 1 if
    there are any.
    """
    config = load_config(config_path)
    processes = ask_or_exit(config_path, "roles")
    supervisor = read_process(next(p["pid"] for p in processes if p["role"] == "supervisor"))
    reports = [_report(config, process, supervisor) for process in processes]
    differences = sum(len(report.differences) for report in reports)
    lines = [line for report in reports for line in _lines(report)]
    lines.append("as declared" if not differences else f"{differences} differences from the table of roles")
    emit(reports, as_json, lines)
    if differences:
        raise click.exceptions.Exit(1)


def _report(config: Config, process: dict[str, Any], supervisor: ProcessFacts) -> RoleReport:
    role = process["role"]
    tries = msgspec.convert(process["tries"], list[TryResult])
    report = RoleReport(
        role, process["instance"], process["generation"], process["pid"], None, process["rights"],
        sum(not t.succeeded for t in tries), len(tries), [],
    )  # fmt: skip
    try:
        facts = report.kernel = read_process(process["pid"])
    except ProcessLookupError:
        report.differences.append("the process has ended")
        return report
    if role == "supervisor":
        report.declared = "supervisor: binds, starts and wires roles; parses nothing from the network or of a message"
        return report
    as_root = supervisor.uids[1] == 0
    found: list[Difference] = compare(
        facts,
        ROLES[role],
        as_root=as_root,
        uid=role_ids(config)[role][0] if as_root else supervisor.uids[1],
        root=root_of(config, role, process["instance"]) if as_root else "",
        inherited_filters=supervisor.seccomp_filters,
        tries=tries,
    )
    report.differences += [str(difference) for difference in found]
    return report


def _lines(report: RoleReport) -> list[str]:
    lines = [f"{report.role}/{report.instance} (generation {report.generation}), pid {report.pid}"]
    facts = report.kernel
    if facts is not None:
        capabilities = facts.capabilities.get("CapEff", "?")
        lines += [
            f"  kernel    uid {facts.uids[1]}, gid {facts.gids[1]}, groups {facts.groups or 'none'}, root {facts.root or '(not readable)'}",
            f"            capabilities {capabilities.lstrip('0') or 'none'}, no_new_privs {'yes' if facts.no_new_privs else 'no'}, "
            f"seccomp {facts.seccomp}, {facts.threads} threads, {facts.rss_bytes // 1024} KiB",
            "            descriptors "
            + ", ".join(f"{count} {kind}" for kind, count in sorted(count_kinds(facts).items())),
        ]
        lines += [f"            not readable: {item}" for item in facts.unreadable]
    lines.append(f"  declared  {report.declared}")
    if report.tried:
        lines.append(f"  tried     {report.refused} of {report.tried} forbidden acts refused")
    lines += [f"  DIFFERENT {difference}" for difference in report.differences]
    return lines
