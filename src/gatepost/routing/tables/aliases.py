"""Aliases in the form of aliases(5), as sendmail and Postfix have them: `name: target, target`, text or the .db made of it.

A line that begins with a blank goes on the one before; `#` begins a comment line. Targets are addresses, local names (in the domain of
the alias), `\\name` (the mailbox, no further alias) and `/dev/null`. Programs, files and `:include:` are errors of their line, which
name LMTP and Maildir instead: no role may run a program or open a path.
"""

from __future__ import annotations

import re
from typing import ClassVar

from gatepost.config.recipients import fold_local
from gatepost.config.tables import TableData
from gatepost.config.values import InvalidValue, parse_domain
from gatepost.routing.tables.berkeley import parse_berkeley
from gatepost.routing.tables.postfix_maps import read_compiled
from gatepost.routing.tables.sendmail_source import ValuesTable, text_or_compiled
from gatepost.routing.tables.source import Collector, read_lines

MAX_TARGETS = 100_000
NOWHERE = "discard:"

_NAME = re.compile(r'("(?:[^"\\]|\\.)+"|[^:\s"#]+)\s*:\s*(.*)', re.DOTALL)
_LOCAL = re.compile(r"[^\x00-\x20\x7f@<>()\[\]\\,;:\"%!|/]{1,64}")
_LMTP = "no role may run a program: let it take mail by LMTP over TCP, and route an address to lmtp://127.0.0.1:24"
_MAILDIR = "no file is ever written by an alias: deliver to maildir:/PATH, or by LMTP to lmtp://127.0.0.1:24"
_INCLUDE = "lists in files are not opened: write the members here, or let a list manager take the address by LMTP"


class AliasesTable(ValuesTable):
    """Targets by name, several joined by ", "."""

    kind: ClassVar[str] = "aliases"
    __slots__ = ()

    @classmethod
    def load(cls, argument: str) -> TableData:
        """Read the text, or the .db where there is no text; raises ConfigErrors with every bad line."""
        path = text_or_compiled(argument)
        collector = Collector(path)
        if path.endswith(".db"):
            for name, value in read_compiled(path, parse_berkeley).items():
                collector.add(name, value, 0)
        else:
            _read_text(path, collector)
        entries = {name: _targets(name, value, collector) for name, value in collector.entries.items()}
        collector.finish()
        return TableData(cls.kind, argument, entries, files=[path], notes=collector.notes, lines=collector.lines)

    def lookup(self, key: str) -> str | None:
        """The targets of a name."""
        return self._values.get(key)


def _read_text(path: str, collector: Collector) -> None:
    entries: list[tuple[int, str]] = []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0] in " \t" and entries:
            entries[-1] = (entries[-1][0], f"{entries[-1][1]} {line.strip()}")
        else:
            entries.append((number, line.strip()))
    for number, text in entries:
        match = _NAME.fullmatch(text)
        if match is None:
            collector.error(number, "the line is no alias", "write name: address, address")
        else:
            collector.add(fold_local(match[1].strip('"')), match[2], number)


def split_targets(text: str) -> list[str]:
    """The targets between commas; a comma in double quotes does not count."""
    parts = re.findall(r'(?:"(?:[^"\\]|\\.)*"|[^,"])+', text)
    return [part.strip() for part in parts if part.strip()]


def _targets(name: str, value: str, collector: Collector) -> str:
    """The canonical targets, joined; what is wrong is noted."""
    line = collector.lines.get(name, 0)
    found: list[str] = []
    targets = split_targets(value)
    if not targets:
        collector.error(line, f'the alias "{name}" leads nowhere', "write an address, or remove the line")
    if len(targets) > MAX_TARGETS:
        collector.error(line, f"more than {MAX_TARGETS} targets", "let a list manager keep the list")
        return ""
    for target in targets:
        try:
            found.append(parse_target(target))
        except InvalidValue as error:
            collector.error(line, f'"{name}": {error.problem}', error.advice)
    return ", ".join(dict.fromkeys(found))


def parse_target(text: str) -> str:
    """One target in canonical form; raises InvalidValue."""
    plain = text.strip().strip('"').strip()
    if plain == "/dev/null":
        return NOWHERE
    if plain.startswith("|"):
        raise InvalidValue(f'"{plain[:60]}" is a program', _LMTP)
    if plain.startswith("/"):
        raise InvalidValue(f'"{plain[:60]}" is a file', _MAILDIR)
    if plain.lower().startswith(":include:"):
        raise InvalidValue(f'"{plain[:60]}" is a list in a file', _INCLUDE)
    mark = "\\" if plain.startswith("\\") else ""
    local, at, domain = plain.removeprefix("\\").rpartition("@")
    if not at:
        local, domain = domain, ""
    if not _LOCAL.fullmatch(local):
        raise InvalidValue(
            f'"{plain[:60]}" is not an address', "write a full address, or the name of a mailbox or alias"
        )
    return f"{mark}{local}@{parse_domain(domain)}" if at else mark + local
