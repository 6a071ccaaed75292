"""`gatepost check`: everything that can be said of a configuration without starting it.

All errors with exit 2; paths that others could change with exit 2; warnings with exit 0. It prints who may relay, in words,
so that an operator reads it before the internet tries it.
"""

from __future__ import annotations

import os
import time

import click
import msgspec

from gatepost.cli.believed import Believed, believe
from gatepost.cli.check_dane import dane_statement
from gatepost.cli.check_tls import inspect_tls
from gatepost.cli.main import EXIT_USAGE
from gatepost.cli.options import config_option, json_option
from gatepost.cli.output import complain, emit
from gatepost.config.authvalues import has_users
from gatepost.config.errors import ConfigError, ConfigErrors
from gatepost.config.listening import is_unix, takes_local_users
from gatepost.config.load import load_config
from gatepost.config.neighbours import Finding, findings_of, read_neighbours
from gatepost.config.paths import PathProblem, inspect_paths, unused_exceptions
from gatepost.config.schema import Config, Domain
from gatepost.config.users import NOT_YET, missing_users, name_of_uid, role_ids, starter_of
from gatepost.config.warnings import Warning, warnings_of
from gatepost.policy.proof import Proof, prove
from gatepost.policy.rulereview import review_rules, rule_text

_CONFIRM = "look at the file; if it is right: gatepost recipients confirm"


class Report(msgspec.Struct, kw_only=True):
    """What `gatepost check --json` prints."""

    file: str
    ok: bool
    errors: list[ConfigError] = []
    paths: list[PathProblem] = []
    warnings: list[Warning] = []
    relay: list[str] = []
    proof: Proof | None = None
    findings: list[Finding] = []
    users: dict[str, str] = {}
    dane: str = ""
    lists: Believed = msgspec.field(default_factory=Believed)


@click.command()
@config_option
@json_option
@click.pass_context
def check(ctx: click.Context, config_path: str, as_json: bool) -> None:
    """Check the configuration, file permissions, and who may relay.

    Ends 0 if the gateway would start, 2 if not.
    """
    report = build_report(config_path)
    if not as_json:
        complain(*(f"error: {error}" for error in report.errors))
        complain(*(f"error: {problem}" for problem in report.paths))
        complain(*(f"warning: {warning}" for warning in report.warnings))
        complain(*(f"warning: {finding}" for finding in report.findings))
    emit(report, as_json, _text(report))
    ctx.exit(0 if report.ok else EXIT_USAGE)


def build_report(config_path: str) -> Report:
    """Load and inspect; never raises for what is wrong with the configuration."""
    path = os.path.abspath(config_path)
    try:
        config = load_config(path)
    except ConfigErrors as errors:
        return Report(file=path, ok=False, errors=errors.errors)
    config, believed = believe(config)
    starter = starter_of(config)
    problems = inspect_paths(config, path, starter)
    warnings = [*warnings_of(config), *_of_users(config, starter), *_of_auth(config)]
    warnings += [
        Warning("exceptions", f"nothing is wrong with {unused}", "remove the exception")
        for unused in unused_exceptions(config, path, starter)
    ]
    tls_errors, tls_warnings = inspect_tls(config, path, time.time())
    warnings += tls_warnings
    warnings += [
        Warning(
            one.name, f"the file has lost {one.gone} of {one.kept} recipients, so the list of before holds", _CONFIRM
        )
        for one in believed.held
    ]
    proof = prove(config)
    return Report(
        file=path,
        ok=not problems and not tls_errors and proof.holds,
        errors=tls_errors,
        proof=proof,
        findings=[*findings_of(config, read_neighbours()), *review_rules(config)],
        paths=problems,
        warnings=warnings,
        relay=relay_statement(config),
        dane=dane_statement(config),
        lists=believed,
        users={role: name for role, (_, _, name) in role_ids(config, starter).items() if role not in NOT_YET},
    )


def relay_statement(config: Config) -> list[str]:
    """Who may send where, in words; complete: what is not named here is refused."""
    lines = []
    for name, domain in config.domains.items():
        lines.append(
            f"Anyone may send to {_recipients_text(domain)} of {name}; it goes to {', then '.join(domain.next_hop)}."
        )
    hop = config.relay.next_hop
    way = "to the MX hosts of each domain" if hop == ["mx"] else f"to {', then '.join(hop)}"
    if config.relay.networks:
        networks = ", ".join(config.relay.networks)
        lines.append(f"Clients in {networks} may send to every domain; it goes {way}.")
    elif not config.relay.certificates and not has_users(config.auth):
        others = "other " if config.relay.rules or takes_local_users(config) else ""
        lines.append(f"No {others}client may send to other domains.")
    lines += rule_statements(config)
    for row in config.relay.certificates:
        who = f"for {' or '.join(row.names)}" if row.names else "with a listed fingerprint"
        lines.append(
            f"Clients with a certificate {who}, verified by {row.ca_file}, may send to every domain; it goes {way}."
        )
    if has_users(config.auth):
        lines.append(
            f"Users {_users_text(config)} who have authenticated may send to every domain, each from the addresses that "
            f"are his; it goes {way}."
        )
    if takes_local_users(config):
        local = config.local
        who = "every user" if "*" in local.users else f"the users {', '.join(local.users)}"
        who += f" and the members of {', '.join(local.groups)}" if local.groups else ""
        lines.append(
            f"On this host {who} may send to every domain by a Unix socket, each from addresses of its own; it goes {way}."
        )
    lines.append("Everything else is refused with 550 5.7.1, whatever the sender address, HELO or DNS name.")
    return lines


def _users_text(config: Config) -> str:
    auth = config.auth
    return f"in {auth.users_file}" if auth.users_file is not None else f"that Dovecot ({auth.dovecot}) knows"


def rule_statements(config: Config) -> list[str]:
    """Each rule in words, in order."""
    return [f"Rule {rule.name}: {rule_text(rule)}." for rule in config.relay.rules]


def _recipients_text(domain: Domain) -> str:
    if domain.recipients is None:
        return "any recipient"
    tables = [entry for entry in domain.recipients if ":" in entry]
    count = len(domain.recipients) - len(tables)
    listed = f"{count} listed recipient{'' if count == 1 else 's'}"
    if not tables:
        return f"{listed} and postmaster"
    return f"{listed + ', ' if count else ''}the recipients in {', '.join(tables)} and postmaster"


def _of_auth(config: Config) -> list[Warning]:
    path = config.auth.users_file
    if not has_users(config.auth):
        return []
    warnings = []
    if path is not None and not os.path.exists(path):
        problem = "nobody can authenticate: there are no users yet"
        warnings.append(Warning("auth.users_file", problem, "add the first: gatepost user add NAME"))
    offers = config.auth.on_edge or any(
        row.kind in ("submission", "submissions") and not is_unix(row.address) for row in config.listeners
    )
    if not offers:
        problem = "no listener offers AUTH"
        warnings.append(Warning("auth.users_file", problem, 'add [[listeners]] with kind = "submission"'))
    if not config.tls.certificates and config.auth.require_tls:
        problem = "AUTH needs TLS, and there is no certificate"
        warnings.append(Warning("auth.require_tls", problem, "add [[tls.certificates]]"))
    return warnings


def _of_users(config: Config, starter: int) -> list[Warning]:
    if starter != 0:
        problem = f"all roles will run as {name_of_uid(starter)}, without a root directory of their own"
        return [Warning("processes.users", problem, "start as root, so that each role gets its own user and chroot")]
    missing = missing_users(config)
    if not missing:
        return []
    ids = role_ids(config)
    problem = "these users do not exist: " + ", ".join(
        f"{name} (the {role} role will run as {ids[role][2]})" for role, name in missing.items()
    )
    return [Warning("processes.users", problem, "it is safe so; for names in listings: adduser --system --group NAME")]


def _text(report: Report) -> list[str]:
    if report.errors:
        count = len(report.errors)
        return [f"{report.file}: {count} error{'s' if count > 1 else ''}; nothing was started."]
    lines = [
        f"{report.file}: {'the configuration is good.' if report.ok else 'the gateway would refuse to start.'}",
        "",
    ]
    lines += ["Who may relay:", *(f"  {line}" for line in report.relay)]
    lines += ["", report.dane] if report.dane else []
    lines += ["", *report.lists.notes] if report.lists.notes else []
    return lines if report.proof is None else [*lines, "", *report.proof.lines()]
