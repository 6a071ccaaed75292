"""A table in a file: a key and its value on each line, `#` begins a comment.

The file is read once, by `load` when the configuration is loaded, or by `read` where a table is wanted at once, in a process
that may still open files. A file that cannot be read, or that holds a key twice, gives no table: half a table would say
"unknown" of recipients that exist. `unavailable` is for a holder that has to go on without it.
"""

from __future__ import annotations

import os
import re
from typing import ClassVar

from gatepost.config.tables import TableData
from gatepost.routing.table import TableUnavailable
from gatepost.routing.tables.inline import InlineTable
from gatepost.routing.tables.source import MAX_TABLE_BYTES, Collector, read_lines
from gatepost.safeopen import read_regular

_COMMENT = re.compile(r"(?:^|\s)#.*")


class FileTable(InlineTable):
    """What a file said when it was read."""

    kind: ClassVar[str] = "file"
    is_path = True
    __slots__ = ("_cause",)

    def __init__(self, name: str, values: dict[str, str], cause: str = "") -> None:
        super().__init__(name, values)
        self._cause = cause

    @classmethod
    def of_data(cls, data: TableData) -> FileTable:
        """The table out of what was read."""
        return cls(data.name, data.entries)

    @classmethod
    def load(cls, argument: str) -> TableData:
        """Read the file at `argument`; raises ConfigErrors with every bad line."""
        collector = Collector(argument)
        for number, line in enumerate(read_lines(argument), 1):
            entry = _COMMENT.sub("", line).split(None, 1)
            if entry:
                collector.add(entry[0], entry[1].strip() if len(entry) > 1 else "", number)
        collector.finish()
        return TableData("file", argument, collector.entries, files=[argument], lines=collector.lines)

    @classmethod
    def read(cls, path: str) -> FileTable:
        """Read the file at `path`; raises TableUnavailable with the cause and line."""
        try:
            data = read_regular(os.path.abspath(path), MAX_TABLE_BYTES + 1)
            if len(data) > MAX_TABLE_BYTES:
                raise TableUnavailable(f"{path}: it is larger than {MAX_TABLE_BYTES >> 20} MiB")
            return cls.parse(path, data.decode("utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            raise TableUnavailable(f"{path}: {error}") from None

    @classmethod
    def parse(cls, name: str, text: str) -> FileTable:
        """The table in `text`; raises TableUnavailable on a key given twice."""
        values: dict[str, str] = {}
        for number, line in enumerate(text.split("\n"), 1):
            entry = _COMMENT.sub("", line).split(None, 1)
            if not entry:
                continue
            if entry[0] in values:
                raise TableUnavailable(f"{name}:{number}: the key {entry[0]!r} is given twice")
            values[entry[0]] = entry[1].strip() if len(entry) > 1 else ""
        return cls(name, values)

    @classmethod
    def unavailable(cls, name: str, cause: str) -> FileTable:
        """A table that only says that it cannot answer."""
        return cls(name, {}, cause)

    def lookup(self, key: str) -> str | None:
        """The value of a key, or None; raises TableUnavailable."""
        if self._cause:
            raise TableUnavailable(f"{self.name}: {self._cause}")
        return self._values.get(key)

    def find_address(self, local: str, domain: str) -> str | None:
        """As InlineTable; raises TableUnavailable."""
        if self._cause:
            raise TableUnavailable(f"{self.name}: {self._cause}")
        return super().find_address(local, domain)
