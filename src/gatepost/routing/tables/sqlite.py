"""One table of an SQLite file, read whole when the configuration is loaded: `sqlite:/PATH#TABLE`, columns `key` and `value`.

The file is opened read only, without creating anything; views, virtual tables and generated columns are not read, so that no
SQL of the file is ever run. For a database that is asked for each address there are the SQL tables, which are another kind.
"""

from __future__ import annotations

import importlib
import re
from urllib.parse import quote

from gatepost.config.tables import TableData
from gatepost.routing.tables.inline import InlineTable
from gatepost.routing.tables.source import MAX_ENTRIES, fail, fold_records, read_source

DEFAULT_TABLE = "map"
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class SqliteTable(InlineTable):
    """Keys and values of a table in an SQLite file."""

    is_path = True

    @classmethod
    def load(cls, argument: str) -> TableData:
        """Read `PATH` or `PATH#TABLE`; raises ConfigErrors."""
        path, _, table = argument.partition("#")
        table = table or DEFAULT_TABLE
        if not _PLAIN.fullmatch(table):
            raise fail(path, f'"{table}" is not a plain name of a table', "write sqlite:/PATH#TABLE")
        read_source(path)  # that it is a file, no link on the way to it, and not too large
        return TableData("sqlite", argument, fold_records(path, _rows(path, table)), files=[path])


def _rows(path: str, table: str) -> list[tuple[bytes, bytes]]:
    sqlite3 = importlib.import_module("sqlite3")  # only where a file is read: no role needs it in its memory
    try:
        connection = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)
    except sqlite3.Error as error:
        raise fail(path, f"SQLite cannot open it ({error})", "see who may read it: ls -l") from None
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA query_only = ON")
        kind = connection.execute("SELECT type, sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        if kind is None or kind[0] != "table" or "virtual" in kind[1].lower().split()[:2]:
            raise fail(path, f'it has no plain table "{table}"', "write sqlite:/PATH#TABLE, and no view")
        columns = {row[1]: row[6] for row in connection.execute(f'PRAGMA table_xinfo("{table}")')}
        if columns.get("key") != 0 or columns.get("value") != 0:
            raise fail(
                path, f'the table "{table}" lacks the plain columns key and value', "CREATE TABLE ... (key, value)"
            )
        rows = connection.execute(f'SELECT key, value FROM "{table}" LIMIT {MAX_ENTRIES + 1}').fetchall()
    except sqlite3.Error as error:
        raise fail(path, f"SQLite cannot read it ({error})", "repair it, or correct the path") from None
    finally:
        connection.close()
    return [(_bytes(key), _bytes(value)) for key, value in rows if key is not None]


def _bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    return b"" if value is None else str(value).encode()
