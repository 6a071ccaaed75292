"""Postfix's tables of keys and values, by the names that Postfix gives them: hash, btree, texthash, cdb, lmdb, static.

What the file of each says is read whole when the configuration is loaded; lookups are one dictionary access. `hash:PATH` and
`btree:PATH` mean `PATH.db`, `cdb:PATH` means `PATH.cdb`, `lmdb:PATH` means `PATH.lmdb`, as in Postfix; where only the source
is there it is read instead, with a note. A path that already has the ending is taken as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import ClassVar

from gatepost.config.tables import TableData, TableNote
from gatepost.routing.tables.berkeley import BadFile, parse_berkeley
from gatepost.routing.tables.cdb import parse_cdb
from gatepost.routing.tables.inline import InlineTable
from gatepost.routing.tables.lmdb import parse_lmdb
from gatepost.routing.tables.postfix_text import read_keyed
from gatepost.routing.tables.source import fail, fold_records, is_newer, read_source

Records = list[tuple[bytes, bytes]]


class TexthashTable(InlineTable):
    """A text file, key and value on each logical line."""

    kind: ClassVar[str] = "texthash"
    is_path = True

    @classmethod
    def load(cls, argument: str) -> TableData:
        """Read the file; raises ConfigErrors."""
        collector = read_keyed(argument)
        return TableData(
            cls.kind, argument, collector.entries, files=[argument], notes=collector.notes, lines=collector.lines
        )


class CompiledTable(InlineTable):
    """A table that a tool compiled from a text; subclasses say how its file is called and read."""

    kind: ClassVar[str] = ""
    ending: ClassVar[str] = ""
    parse: ClassVar[staticmethod[[bytes], Records]]
    is_path = True

    @classmethod
    def load(cls, argument: str) -> TableData:
        """Read the compiled file, or its source where there is no compiled one; raises ConfigErrors."""
        source = argument.removesuffix(cls.ending)
        compiled = source + cls.ending
        if not os.path.exists(compiled) and os.path.exists(source):
            collector = read_keyed(source)
            problem = f"there is no {compiled}; this source was read instead"
            notes = [*collector.notes, TableNote(source, 0, problem, f'write "texthash:{source}"')]
            return TableData(cls.kind, argument, collector.entries, files=[source], notes=notes, lines=collector.lines)
        entries = read_compiled(compiled, cls.parse)
        notes = []
        if is_newer(source, compiled):
            problem = f"it is older than its source {source}, and the compiled file counts"
            notes.append(TableNote(compiled, 0, problem, f'make it anew, or write "texthash:{source}"'))
        return TableData(cls.kind, argument, entries, files=[compiled], notes=notes)


def read_compiled(path: str, parse: Callable[[bytes], Records]) -> dict[str, str]:
    """The entries of a compiled file; raises ConfigErrors."""
    try:
        return fold_records(path, parse(read_source(path)))
    except BadFile as error:
        raise fail(path, error.args[0], "make it anew from its source, or correct the kind of the table") from None


class HashTable(CompiledTable):
    """Berkeley DB hash."""

    kind = "hash"
    ending = ".db"
    parse = staticmethod(parse_berkeley)


class BtreeTable(CompiledTable):
    """Berkeley DB btree."""

    kind = "btree"
    ending = ".db"
    parse = staticmethod(parse_berkeley)


class CdbTable(CompiledTable):
    """A constant database."""

    kind = "cdb"
    ending = ".cdb"
    parse = staticmethod(parse_cdb)


class LmdbTable(CompiledTable):
    """An LMDB file."""

    kind = "lmdb"
    ending = ".lmdb"
    parse = staticmethod(parse_lmdb)


class StaticTable:
    """One value for every key."""

    kind: ClassVar[str] = "static"
    is_path = False
    __slots__ = ("_value", "name")

    def __init__(self, name: str, value: str) -> None:
        self.name = name
        self._value = value

    @classmethod
    def load(cls, argument: str) -> TableData:
        """The value is the argument; `{ text }` as in Postfix may hold spaces."""
        text = argument.strip()
        if text.startswith("{") and text.endswith("}"):
            text = text[1:-1].strip()
        return TableData(cls.kind, argument, rules=[("value", text)])

    @classmethod
    def of_data(cls, data: TableData) -> StaticTable:
        """The table out of what was read."""
        return cls(data.name, data.rules[0][1])

    def lookup(self, key: str) -> str | None:
        """The value, whatever the key; an empty key has none, as in every table."""
        return self._value if key else None

    def find_address(self, local: str, domain: str) -> str | None:
        """The value."""
        return self._value
