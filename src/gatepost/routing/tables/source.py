"""Reading the file of a table, within limits, with errors that name file and line.

Used when a configuration is loaded, never by a role. A file is read whole and once, so that what is judged is what is used.
`Collector` gathers the entries and every bad line of one file; a table with a bad line gives no data at all, since half a
table would say "unknown" of recipients that exist.
"""

from __future__ import annotations

import os

from gatepost.config.errors import ConfigError, ConfigErrors
from gatepost.config.recipients import fold_local
from gatepost.config.tables import TableNote
from gatepost.safeopen import LinkInPath, read_regular

MAX_TABLE_BYTES = 64 * 1024 * 1024
MAX_ENTRIES = 1_000_000
MAX_LINE_CHARACTERS = 64 * 1024
MAX_ERRORS = 100  # of one file: a file of another kind has one on every line


def fail(path: str, problem: str, advice: str, line: int = 0) -> ConfigErrors:
    """The exception for a file that cannot be used."""
    return ConfigErrors([ConfigError(path, line, "", problem, advice)])


def read_source(path: str) -> bytes:
    """The bytes of the file of a table; raises ConfigErrors."""
    try:
        data = read_regular(os.path.abspath(path), MAX_TABLE_BYTES + 1)
    except LinkInPath:
        problem = "it, or a directory above it, is a symbolic link"
        raise fail(path, problem, f"write its real path, {os.path.realpath(path)}") from None
    except FileNotFoundError:
        raise fail(path, "there is no such file", "create it, or correct the path") from None
    except OSError as error:
        advice = "see who may read it: ls -l, chown, chmod"
        raise fail(path, f"it cannot be read ({error.strerror})", advice) from None
    if len(data) > MAX_TABLE_BYTES:
        raise fail(path, f"it is larger than {MAX_TABLE_BYTES >> 20} MiB", "keep large tables in LDAP or SQL")
    return data


def read_lines(path: str) -> list[str]:
    """The lines of a text file, without line ends; raises ConfigErrors."""
    data = read_source(path)
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        advice = "write a text file, or name the kind of this file: hash, btree, cdb, lmdb or sqlite"
        raise fail(path, "it holds a NUL byte: this is no text", advice, line)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise fail(path, "the line is not UTF-8", "save the file as UTF-8", line) from None
    return [line.removesuffix("\r") for line in text.split("\n")]


def text_of(path: str, data: bytes) -> str:
    """A key or value out of a compiled table."""
    try:
        return data.removesuffix(b"\0").decode()
    except UnicodeDecodeError:
        problem = f"it holds {data[:40]!r}, which is not UTF-8"
        raise fail(path, problem, "make it anew from a source that is UTF-8") from None


def is_newer(path: str, other: str) -> bool:
    """Whether `path` was changed after `other`; False if either is not there."""
    try:
        return os.stat(path).st_mtime_ns > os.stat(other).st_mtime_ns
    except OSError:
        return False


class Collector:
    """The entries of one file, with the line of each, and what is wrong with it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.entries: dict[str, str] = {}
        self.lines: dict[str, int] = {}
        self.errors: list[ConfigError] = []
        self.notes: list[TableNote] = []

    def add(self, key: str, value: str, line: int) -> None:
        """One entry; a key given twice is an error in a text."""
        folded = fold_local(key)
        if folded in self.entries:
            first = self.lines[folded]
            self.error(line, f'the key "{key}" is given twice, first in line {first}', "remove one of the two")
            return
        if len(self.entries) >= MAX_ENTRIES:
            raise fail(self.path, f"it has more than {MAX_ENTRIES} entries", "keep large tables in LDAP or SQL")
        self.entries[folded] = value
        self.lines[folded] = line

    def error(self, line: int, problem: str, advice: str) -> None:
        """Note a bad line."""
        self.errors.append(ConfigError(self.path, line, "", problem, advice))
        if len(self.errors) >= MAX_ERRORS:
            problem = f"more than {MAX_ERRORS} lines are wrong"
            self.errors.append(ConfigError(self.path, 0, "", problem, "is this a file of another kind?"))
            raise ConfigErrors(self.errors)

    def note(self, line: int, problem: str, advice: str) -> None:
        """Note a line that is taken otherwise than its author may think."""
        self.notes.append(TableNote(self.path, line, problem, advice))

    def finish(self) -> None:
        """Raise what was found."""
        if self.errors:
            raise ConfigErrors(self.errors)


def fold_records(path: str, records: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Keys and values of a compiled table as text; of a key that is there twice the first counts."""
    if len(records) > MAX_ENTRIES:
        raise fail(path, f"it has more than {MAX_ENTRIES} entries", "keep large tables in LDAP or SQL")
    entries: dict[str, str] = {}
    for key, value in records:
        if key.startswith(b"YP_") or (key.rstrip(b"\0") == b"@" and value.rstrip(b"\0") == b"@"):
            continue  # marks that NIS and sendmail put into their tables
        entries.setdefault(fold_local(text_of(path, key)), text_of(path, value))
    return entries
