"""Tables of the old server: named as they are where every line can be used, else copied without the lines that cannot.

A compiled table without its text is written out as text. Each line has its item in the report: used as it is, used with a
difference, or refused and commented out in the copy, with the reason beside it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

from gatepost.config.errors import ConfigError, ConfigErrors
from gatepost.config.tables import TableData, TableNote, read_table
from gatepost.migrate.draft import FILE_HEAD, Draft
from gatepost.migrate.report import Report, Result
from gatepost.routing.tables.berkeley import parse_berkeley
from gatepost.routing.tables.cdb import parse_cdb
from gatepost.routing.tables.lmdb import parse_lmdb
from gatepost.routing.tables.postfix_maps import read_compiled
from gatepost.routing.tables.postfix_text import split_key

MAX_ROUNDS = 60  # of a hundred bad lines each
COMPILED = {".db": parse_berkeley, ".cdb": parse_cdb, ".lmdb": parse_lmdb}


_NO_SECRET = "# AuthInfo: passwords are not copied"


def is_bare(target: str) -> bool:
    """Whether a value is a local part without a domain."""
    return bool(target) and not any(character in target for character in '@ |/:"')


class TableImport:
    """One table: where it came from, its lines, and what can be used of it."""

    def __init__(self, draft: Draft, report: Report, key: str, kind: str, path: str, joins_lines: bool = False) -> None:
        self.draft = draft
        self.report = report
        self.key = key
        self.kind = kind
        self.path = path
        self.joins_lines = joins_lines  # Postfix: a line that begins with white space continues the one before
        self.shown = path
        self.name = f"{kind}:{path}"
        self.lines: list[str] = []
        self.is_copy = draft.copies_tables
        self.is_marker: Callable[[str], str | None] | None = None  # keys that are no addresses, but domains of ours
        self.markers: list[str] = []
        self.origin = ""  # the domain of values that have none
        self.separator = "\t"  # between key and value, where a compiled file is written out
        self.good_lines = 0

    def run(self, note: str, result: Result = Result.EXACT) -> TableData | None:
        """Take the table over; None if it cannot be read at all. `note` says how its good lines are used."""
        if not self.load():
            return None
        refused: set[int] = set()
        if self.origin and self.kind not in ("regexp", "pcre"):
            self._complete()
        self._take_markers(refused)
        refused |= self.prepare()
        data: TableData | None = None
        for _ in range(MAX_ROUNDS):
            data, errors = self._try()
            fresh = {error.line: error for error in errors if error.line and error.line not in refused}
            if data is not None or not fresh:
                break
            for number, error in sorted(fresh.items()):
                refused.update(self._refuse(number, error))
        if data is None:
            for error in errors:
                self.report.refused(self.shown, error.line, os.path.basename(self.path), error.problem, error.advice)
            return None
        notes: dict[int, TableNote] = {}
        for found in data.notes:
            notes.setdefault(found.line, found)
        for number, last, text in self.constructs():
            if number in refused:
                continue
            self.good_lines += 1
            differs = self.note_of(text)
            if differs:
                self.report.approximated(self.shown, number, text, differs, "", last)
            elif number in notes:
                self.report.approximated(self.shown, number, text, notes[number].problem, "", last)
            else:
                self.report.add(self.shown, number, text, result, note, "", last)
        if not self.constructs():
            self.report.unused(self.shown, 0, os.path.basename(self.shown), "it has no entry")
        self._name()
        return data

    def prepare(self) -> set[int]:
        """The lines that are refused before the table is tried, told and commented out."""
        return set()

    def note_of(self, text: str) -> str:
        """How a line that can be used differs from what it was; "" if it does not."""
        return ""

    def comment_out(self, first: int, last: int) -> set[int]:
        """Comment lines out, in a copy; their numbers."""
        self.is_copy = True
        for index in range(first - 1, last):
            self.lines[index] = f"# refused: {self.lines[index].strip()}"
        return set(range(first, last + 1))

    def constructs(self) -> list[tuple[int, int, str]]:
        """First line, last line and text of each entry."""
        found: list[tuple[int, int, str]] = []
        for number, line in enumerate(self.lines, 1):
            if not line.strip() or line.lstrip()[0] == "#":
                continue
            if self.joins_lines and line[0] in " \t" and found:
                first, _, text = found[-1]
                found[-1] = (first, number, f"{text} {line.strip()}")
            else:
                found.append((number, number, line.strip()))
        return found

    def _complete(self) -> None:
        """Values without a domain get that of the old server, in a copy."""
        for number, last, text in self.constructs():
            key, value = split_key(text)
            targets = [target.strip() for target in value.split(",")]
            if number == last and any(is_bare(target) for target in targets):
                self.is_copy = True
                full = ", ".join(f"{target}@{self.origin}" if is_bare(target) else target for target in targets)
                self.lines[number - 1] = f"{key}\t{full}"

    def _take_markers(self, refused: set[int]) -> None:
        for number, last, text in self.constructs() if self.is_marker else ():
            assert self.is_marker is not None
            domain = self.is_marker(split_key(text)[0])
            if domain is not None:
                self.markers.append(domain)
                self.is_copy = True
                self.report.exact(self.shown, number, text, "a domain of ours", last)
                refused.update(range(number, last + 1))
                for index in range(number - 1, last):
                    self.lines[index] = f"# a domain of ours: {self.lines[index].strip()}"

    def load(self) -> bool:
        """The lines of the text, or of the compiled file written out."""
        for ending, parse in COMPILED.items():
            compiled = self.path if self.path.endswith(ending) else self.path + ending
            if os.path.isfile(self.path) and compiled != self.path:
                continue
            if os.path.isfile(compiled):
                try:
                    entries = read_compiled(compiled, parse)
                except ConfigErrors as bad:
                    for error in bad:
                        self.report.refused(compiled, 0, os.path.basename(compiled), error.problem, error.advice)
                    return False
                self.shown, self.is_copy = compiled, True
                self.lines = [f"{key}{self.separator}{value}" for key, value in entries.items()]
                return True
        try:
            with open(self.path, "rb") as file:
                data = file.read()
        except OSError as error:
            self.report.refused(
                self.path, 0, os.path.basename(self.path), f"it cannot be read ({error.strerror})", "see who may"
            )
            return False
        self.lines = data.decode(errors="replace").replace("\r\n", "\n").split("\n")
        return True

    def _try(self) -> tuple[TableData | None, list[ConfigError]]:
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(os.path.realpath(directory), "table")
            with open(path, "w", encoding="utf-8") as file:
                file.write("\n".join(self.lines))
            try:
                return read_table(f"{self.kind}:{path}", self.key), []
            except ConfigErrors as bad:
                return None, list(bad)

    def _refuse(self, number: int, error: ConfigError) -> list[int]:
        """Comment a line out, with those that continue it."""
        self.is_copy = True
        last = number
        while self.joins_lines and last < len(self.lines) and self.lines[last][:1] in (" ", "\t"):
            last += 1
        text = " ".join(line.strip() for line in self.lines[number - 1 : last])
        self.report.refused(self.shown, number, text, error.problem, error.advice, last)
        return sorted(self.comment_out(number, last))

    def _name(self) -> None:
        """Name the table in the configuration: the file of the old server, or the copy beside the configuration."""
        if not self.is_copy:
            self.draft.table(self.key, self.name)
            return
        name = os.path.basename(self.path)
        for ending in COMPILED:
            name = name.removesuffix(ending)
        while name in self.draft.files:
            name += "-2"
        lines = [_NO_SECRET if line.lower().startswith("authinfo:") else line for line in self.lines]
        self.draft.files[name] = FILE_HEAD.format(source=self.shown) + "\n".join(lines).rstrip("\n") + "\n"
        kind = "texthash" if self.kind in ("hash", "btree", "cdb", "lmdb") else self.kind
        self.name = f"{kind}:{name}"
        self.draft.table(self.key, self.name)
