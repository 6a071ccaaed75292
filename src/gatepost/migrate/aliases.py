"""Imports a file of aliases: what leads to one address becomes a table of virtual addresses, the rest is told.

Programs, files and lists in files are refused, with what takes their place: no role may run a program or open a path. An alias of
another alias of the same file is followed, so that the table leads to its end; a circle is refused with its chain.
"""

from __future__ import annotations

import os
import re

from gatepost.config.errors import ConfigErrors
from gatepost.config.recipients import fold_local
from gatepost.config.values import InvalidValue, parse_domain
from gatepost.migrate.draft import FILE_HEAD, Draft
from gatepost.migrate.report import Report
from gatepost.routing.tables.berkeley import parse_berkeley
from gatepost.routing.tables.postfix_maps import read_compiled

MAX_ENTRIES = 100_000
MAX_CHAIN = 10
_NAME = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[^:\s"]+)\s*:\s*(.*)', re.DOTALL)
_LMTP = "let the program take mail by LMTP over TCP, and give the address a domain with that next hop"


class Alias:
    """One entry and where it stands."""

    def __init__(self, name: str, targets: list[str], line: int, last_line: int, text: str) -> None:
        self.name = name
        self.targets = targets
        self.line = line
        self.last_line = last_line
        self.text = text


def import_aliases(path: str, domains: list[str], draft: Draft, report: Report) -> None:
    """Read the aliases at `path` for the local domains."""
    shown = path if os.path.isfile(path) else path + ".db"
    try:
        aliases = read_aliases(shown, report)
    except ConfigErrors as errors:
        for error in errors:
            report.refused(shown, error.line, os.path.basename(path), error.problem, error.advice)
        return
    except OSError as error:
        report.refused(shown, 0, os.path.basename(path), f"it cannot be read ({error.strerror})", "see who may read it")
        return
    rows: list[str] = []
    for alias in aliases.values():
        target = _take(alias, aliases, shown, report)
        if target is None:
            continue
        for domain in domains:
            if len(rows) < MAX_ENTRIES:
                full = target if "@" in target else f"{target}@{domain}"
                if full != f"{alias.name}@{domain}":
                    rows.append(f"{alias.name}@{domain}\t{full}")
    if len(rows) >= MAX_ENTRIES:
        report.refused(
            shown, 0, os.path.basename(path), f"more than {MAX_ENTRIES} addresses", "keep them in LDAP or SQL"
        )
    elif rows:
        draft.files["aliases.virtual"] = FILE_HEAD.format(source=shown) + "\n".join(rows) + "\n"
        draft.table("virtual", "texthash:aliases.virtual", f"from {shown}")


def read_aliases(path: str, report: Report) -> dict[str, Alias]:
    """The entries of a text or compiled file; raises ConfigErrors or OSError."""
    aliases: dict[str, Alias] = {}
    if path.endswith(".db"):
        for name, value in read_compiled(path, parse_berkeley).items():
            aliases[name] = Alias(name, split_targets(value), 0, 0, f"{name}: {value}")
        return aliases
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = file.read().replace("\r\n", "\n").split("\n")
    parts: list[tuple[int, int, str]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0] in " \t" and parts:
            first, _, text = parts[-1]
            parts[-1] = (first, number, f"{text} {line.strip()}")
        else:
            parts.append((number, number, line.strip()))
    for first, last, text in parts:
        match = _NAME.fullmatch(text)
        if match is None:
            report.refused(path, first, text, "it is not an alias", "write: name: address", last)
            continue
        name = fold_local(match.group(1).strip('"'))
        if name in aliases:
            report.refused(
                path, first, text, f"the alias is given twice, first in line {aliases[name].line}", "remove one", last
            )
            continue
        aliases[name] = Alias(name, split_targets(match.group(2)), first, last, text)
    return aliases


def split_targets(text: str) -> list[str]:
    """The targets between commas; a comma in double quotes does not count."""
    found, current, is_quoted = [], "", False
    for character in text:
        if character == '"':
            is_quoted = not is_quoted
        if character == "," and not is_quoted:
            found.append(current.strip())
            current = ""
        else:
            current += character
    return [target for target in (*found, current.strip()) if target]


def _take(alias: Alias, aliases: dict[str, Alias], path: str, report: Report) -> str | None:
    """The one address at the end of an alias; None, and told, if there is none."""
    chain = [alias.name]
    at = alias
    while True:
        problem = _problem(at)
        if problem is not None:
            why = problem[0] if at is alias else f"it leads to {at.name}: {problem[0]}"
            report.refused(path, alias.line, alias.text, why, problem[1], alias.last_line)
            return None
        target = _address(at.targets[0])
        if target is None:
            report.refused(
                path, alias.line, alias.text, f'"{at.targets[0]}" is not an address', "correct it", alias.last_line
            )
            return None
        following = aliases.get(target)
        if following is None or "@" in target:
            break
        chain.append(target)
        if target in chain[:-1] or len(chain) > MAX_CHAIN:
            why = "the aliases lead in a circle: " + " -> ".join(chain)
            report.refused(path, alias.line, alias.text, why, "break the circle", alias.last_line)
            return None
        at = following
    if "@" in target:
        report.exact(path, alias.line, alias.text, f"a virtual address: {target}", alias.last_line)
    else:
        how = f"a virtual address: {target} in the same domain; sendmail and Postfix deliver it into a mailbox"
        report.approximated(path, alias.line, alias.text, how, "see that the next hop has it", alias.last_line)
    return target


def _problem(alias: Alias) -> tuple[str, str] | None:
    """Why an alias is not a virtual address, and what takes its place."""
    if not alias.targets:
        return "it leads nowhere", "remove it"
    for target in alias.targets:
        plain = target.strip('"')
        if plain.startswith("|"):
            return "no program is ever run", _LMTP
        if plain.startswith("/"):
            return "no file is ever written", "deliver to maildir:/PATH, or by LMTP"
        if plain.lower().startswith(":include:"):
            return "lists in files are not opened", "let a list manager behind the gateway keep the list"
    if len(alias.targets) > 1:
        return "it has several targets", "let the mail server behind the gateway expand it, or a list manager"
    if alias.name.startswith("owner-"):
        return "owners of lists belong to the list manager", "let the server that expands the list set the reverse-path"
    return None


def _address(text: str) -> str | None:
    plain = text.strip('"\\ ')
    local, at, domain = plain.rpartition("@")
    if not at:
        return fold_local(plain) if re.fullmatch(r"[^\s<>()\[\],;:@\"%!]+", plain) else None
    try:
        return f"{local}@{parse_domain(domain)}" if re.fullmatch(r"[^\s<>()\[\],;:@\"%!]+", local) else None
    except InvalidValue:
        return None
