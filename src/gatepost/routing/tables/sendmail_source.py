"""Reading sendmail's tables: the text that makemap compiles, or the compiled hash or btree file.

`PATH` is the text if it is there, else `PATH.db`; a path that ends in `.db` is the compiled file. The rules are makemap's: a
`#` begins a comment only as the first character of a line, a line may not begin with white space, a key has a value, keys do
not count case. Stricter in one thing: a key given twice is an error, where makemap warns and keeps the first.
"""

from __future__ import annotations

import os
from typing import ClassVar, Self

from gatepost.config.tables import TableData
from gatepost.config.values import InvalidValue, parse_domain
from gatepost.routing.tables.berkeley import parse_berkeley
from gatepost.routing.tables.postfix_maps import read_compiled
from gatepost.routing.tables.source import MAX_LINE_CHARACTERS, Collector, read_lines


class ValuesTable:
    """What such tables have in common: a name, and values by key, read and checked line by line."""

    kind: ClassVar[str] = ""
    is_path = True
    __slots__ = ("_values", "name")

    def __init__(self, name: str, values: dict[str, str]) -> None:
        self.name = name
        self._values = values

    @classmethod
    def load(cls, argument: str) -> TableData:
        """Read the file; raises ConfigErrors with every bad line."""
        collector = read_makemap(argument)
        entries: dict[str, str] = {}
        for key, value in collector.entries.items():
            line = lines_of(collector, key)
            try:
                entries[cls._key(key)] = cls._value(value, line, collector)
            except InvalidValue as error:
                collector.error(line, error.problem, error.advice)
        collector.finish()
        return TableData(cls.kind, argument, entries, files=[collector.path], notes=collector.notes)

    @classmethod
    def _key(cls, key: str) -> str:
        """A key as it is looked up, or InvalidValue: of an address its domain in A-labels."""
        local, at, domain = key.rpartition("@")
        return f"{local}@{parse_domain(domain)}" if at else key

    @classmethod
    def _value(cls, value: str, line: int, collector: Collector) -> str:
        """What is found under a key, or InvalidValue; notes are for `line` of the collector."""
        return value

    @classmethod
    def of_data(cls, data: TableData) -> Self:
        """The table out of what was read."""
        return cls(data.name, data.entries)

    def lookup(self, key: str) -> str | None:
        """The value of exactly this key."""
        return self._values.get(key)


def text_or_compiled(path: str) -> str:
    """The text if it is there, else the .db made of it."""
    is_compiled_only = not path.endswith(".db") and not os.path.exists(path) and os.path.exists(path + ".db")
    return path + ".db" if is_compiled_only else path


def read_makemap(path: str) -> Collector:
    """The entries of a table; the collector may hold errors already, its user adds its own and calls `finish`."""
    path = text_or_compiled(path)
    collector = Collector(path)
    if path.endswith(".db"):
        collector.entries = read_compiled(path, parse_berkeley)
        collector.lines = dict.fromkeys(collector.entries, 0)
        return collector
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip() or line[0] == "#":
            continue
        if line[0] in " \t":
            collector.error(number, "the line begins with white space", "begin it with the key; # begins a comment")
            continue
        if len(line) > MAX_LINE_CHARACTERS:
            collector.error(number, f"the line has more than {MAX_LINE_CHARACTERS} characters", "shorten it")
            continue
        parts = line.split(None, 1)
        if len(parts) == 1:
            collector.error(number, f'"{parts[0]}" has no value', "write: key, white space, value")
            continue
        collector.add(parts[0], parts[1].strip(), number)
    return collector


def lines_of(collector: Collector, key: str) -> int:
    """The line of a key; 0 in a compiled file."""
    return collector.lines.get(key, 0)
