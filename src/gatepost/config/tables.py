"""Tables that a configuration names as "KIND:ARGUMENT": their names, what was read of them, and the limits.

A table in a file is read when the configuration is loaded, by whoever may still open files, and becomes plain data in
`LoadedConfig.tables`; the roles get that data and open nothing. The readers themselves are in `routing/tables/`, which lies
above: they are imported by name, once a configuration names a table. A table with a bad line gives no data and an error for
the line, so that a reload with it changes nothing.
"""

from __future__ import annotations

import importlib
import os
import re
from typing import Any

import msgspec

from gatepost.config.callahead import parse_call_ahead
from gatepost.config.errors import ConfigError
from gatepost.config.schema import Config
from gatepost.config.values import InvalidValue

MAX_TABLES_BYTES = 12 * 1024 * 1024  # encoded, all together: a role takes its start message in 16 MiB
REGISTRY = "gatepost.routing.tables"

# In aliases a file is one in the form of aliases(5), and a .db one that was made of it.
READ_AS = {("aliases", kind): "aliases" for kind in ("file", "texthash", "hash", "btree")}
_NAME = re.compile(r"([a-z][a-z0-9-]*):(.+)", re.DOTALL)


class TableNote(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A line of a table that is taken otherwise than its author may think; no error."""

    file: str
    line: int
    problem: str
    advice: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.problem}; {self.advice}"


def rule_key(index: int) -> str:
    """By what `TableData.lines` has the line of a rule."""
    return f"# {index}"


class TableData(msgspec.Struct, frozen=True, array_like=True):
    """What a table said when it was read: keys in the form in which they are compared, or rules in their order."""

    kind: str
    argument: str
    entries: dict[str, str] = {}
    rules: list[tuple[str, ...]] = []
    files: list[str] = []
    notes: list[TableNote] = []
    lines: dict[str, int] = {}  # of the keys, where the file has lines; of rules by `rule_key`

    @property
    def name(self) -> str:
        """As the configuration names it."""
        return f"{self.kind}:{self.argument}"


class LoadedConfig(Config, frozen=True, kw_only=True):
    """A configuration with the tables in files that it names, by `table_key`."""

    tables: dict[str, TableData] = msgspec.field(default_factory=dict)


def table_types() -> dict[str, Any]:
    """Every kind of table and its class, from the registry."""
    types: dict[str, Any] = importlib.import_module(REGISTRY).TABLE_TYPES
    return types


def file_types() -> dict[str, Any]:
    """The kinds that are read when the configuration is loaded."""
    types: dict[str, Any] = importlib.import_module(REGISTRY).FILE_TYPES
    return types


def is_table_name(text: str) -> bool:
    """Whether a text names a table rather than an address or a host."""
    match = _NAME.fullmatch(text)
    return match is not None and match.group(1) in table_types()


def parse_table_name(text: str) -> str:
    """The canonical "KIND:ARGUMENT"; raises InvalidValue."""
    match = _NAME.fullmatch(text.strip())
    if match is None:
        advice = 'write one such as "file:/etc/gatepost/routes" or "sendmail-mailertable:/etc/mail/mailertable"'
        raise InvalidValue(f'"{text}" does not name a table', advice)
    kinds = table_types()
    if match.group(1) not in kinds:
        raise InvalidValue(f'there is no kind of table "{match.group(1)}"', f"write one of {', '.join(sorted(kinds))}")
    if match.group(1) == "call-ahead":
        return parse_call_ahead(text.strip())
    return f"{match.group(1)}:{match.group(2)}"


def absolute_name(name: str, directory: str) -> str:
    """The name with its path made absolute: paths are relative to the directory of the configuration file."""
    kind, _, argument = name.partition(":")
    if kind not in file_types() or not file_types()[kind].is_path:
        return name
    return f"{kind}:{os.path.normpath(os.path.join(directory, argument))}"


def table_key(use: str, name: str) -> str:
    """Where the contents of a table lie: a table that has two uses is there twice, fit for each."""
    return f"{use} {name}"


def read_table(name: str, use: str = "") -> TableData | None:
    """The contents of a table in a file, fit for what it is used for; raises ConfigErrors with every bad line.

    None: a table that is asked over the network.
    """
    kind, _, argument = name.partition(":")
    kind = READ_AS.get((use, kind), kind)
    if kind not in file_types():
        return None
    data: TableData = file_types()[kind].load(argument)
    fit = importlib.import_module(f"{REGISTRY}.uses").USES.get(use)
    return data if fit is None else fit(data)


def rights_of(data: TableData) -> Any:
    """What RELAY in an access table means (`routing/tables/sendmail_rights.py`)."""
    return importlib.import_module(f"{REGISTRY}.sendmail_rights").rights_of(data)


def too_large(tables: dict[str, TableData]) -> list[ConfigError]:
    """The error, if the tables together are more than a role can be given."""
    sizes = {name: len(msgspec.msgpack.encode(data)) for name, data in without_notes(tables).items()}
    if sum(sizes.values()) <= MAX_TABLES_BYTES:
        return []
    largest = max(sizes, key=lambda name: sizes[name])
    data = tables[largest]
    problem = (
        f"the tables hold {sum(sizes.values()) >> 20} MiB in all, this one {sizes[largest] >> 20}; "
        f"at most {MAX_TABLES_BYTES >> 20} MiB are handed to the processes"
    )
    advice = "keep large tables in LDAP or SQL, or take out what is not needed"
    return [ConfigError(data.files[0] if data.files else largest, 0, "", problem, advice)]


def without_notes(tables: dict[str, TableData]) -> dict[str, TableData]:
    """As the roles get them."""
    return {name: TableData(data.kind, data.argument, data.entries, data.rules) for name, data in tables.items()}
