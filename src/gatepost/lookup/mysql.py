"""A connection to MySQL or MariaDB by PyMySQL, in a thread of its own while it is asked.

PyMySQL writes values into the text of a statement. So the query is prepared on the server once, and a key goes as hexadecimal digits
into variables that it is executed with: nothing of a key is ever text of a statement, whatever the server's SQL mode and charset.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Mapping
from typing import Any

import pymysql

from gatepost.config.pieces import parse_pieces
from gatepost.config.schema import Source
from gatepost.config.sources import Server
from gatepost.lookup.named import NamedContext
from gatepost.lookup.source import MAX_VALUES, Lost, QueryFailed, join_values, too_many

# the server or the way to it
_LOST = frozenset({1040, 1053, 1077, 1079, 1152, 1184, 1203, 2002, 2003, 2006, 2013, 4031})


class MysqlQuery:
    """What one source is asked for: `{key}` and the like become ?, each a variable of the session."""

    def __init__(self, source: Source, password: bytes, is_list: bool = False) -> None:
        """`is_list`: the first column of all rows is the answer, not that of the first row."""
        self.is_list = is_list
        pieces = parse_pieces(source.query)
        self.places = pieces.places
        self.text = pieces.fill(dict.fromkeys(self.places, "?"))
        self.list_text = source.list_query
        self.user, self.database = source.user, source.database
        self.password = password.decode()
        self.timeout_s = source.timeout_s

    def statements(self, values: Mapping[str, str]) -> tuple[str, str]:
        """The values as variables, and the execution with them."""
        names = sorted(set(self.places))
        given = ", ".join(f"@{name} = CONVERT(X'{values[name].encode().hex()}' USING utf8mb4)" for name in names)
        return f"SET {given}", f"EXECUTE gatepost USING {', '.join(f'@{name}' for name in self.places)}"


class MysqlConnection:
    """An open one; made by `open_mysql`."""

    def __init__(self, query: MysqlQuery, connection: Any) -> None:
        self._query = query
        self._connection = connection

    async def find(self, values: Mapping[str, str]) -> str | None:
        """See `source.Connection`."""
        return await asyncio.get_running_loop().run_in_executor(None, self._find, values)

    def _find(self, values: Mapping[str, str]) -> str | None:
        try:
            with self._connection.cursor() as cursor:
                for statement in self._query.statements(values):
                    cursor.execute(statement)
                rows = cursor.fetchmany(MAX_VALUES + 1 if self._query.is_list else 1)
        except pymysql.Error as error:
            raise _translated(error) from None
        return join_values([_text(row[0]) for row in rows]) if rows else None

    async def list_all(self, most: int) -> list[str]:
        """See `source.Connection`."""
        return await asyncio.get_running_loop().run_in_executor(None, self._list_all, most)

    def _list_all(self, most: int) -> list[str]:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(f"SET SESSION sql_select_limit = {most + 1:d}")  # the server sends no more than that
                cursor.execute(self._query.list_text)
                rows = cursor.fetchall()
        except pymysql.Error as error:
            raise _translated(error) from None
        if len(rows) > most:
            raise too_many(most)
        return [_text(row[0]) for row in rows if row[0] is not None]

    def abort(self) -> None:
        """See `source.Connection`. The thread that may read from it finds it closed."""
        with contextlib.suppress(Exception):
            self._connection._force_close()


async def open_mysql(
    query: MysqlQuery, server: Server, addresses: list[str], context: NamedContext | None
) -> MysqlConnection:
    """Connect to the first address that takes us and prepare the query. Raises Lost."""
    loop = asyncio.get_running_loop()
    tls = context if server.security != "none" else None
    connection = await loop.run_in_executor(None, functools.partial(_open, query, addresses, server.port, tls))
    return MysqlConnection(query, connection)


def _open(query: MysqlQuery, addresses: list[str], port: int, context: NamedContext | None) -> Any:
    failed: list[str] = []
    for address in addresses:
        try:
            return _prepare(query, _connect(query, address, port, context))
        except (pymysql.Error, OSError) as error:
            failed.append(f"{address}: {_translated(error) if isinstance(error, pymysql.Error) else error}")
    raise Lost("; ".join(failed) or "no address")


def _connect(query: MysqlQuery, address: str, port: int, context: NamedContext | None) -> Any:
    timeout_s = max(1, int(query.timeout_s))
    return pymysql.connect(
        host=address,
        port=port,
        user=query.user,
        password=query.password,
        database=query.database,
        charset="utf8mb4",
        connect_timeout=timeout_s,
        read_timeout=timeout_s,
        write_timeout=timeout_s,
        ssl=context,
        ssl_disabled=context is None,
        autocommit=True,
    )


def _prepare(query: MysqlQuery, connection: Any) -> Any:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION READ ONLY")
            cursor.execute(f"PREPARE gatepost FROM {connection.escape(query.text)}")
    except pymysql.Error:
        connection._force_close()
        raise
    return connection


def _text(value: Any) -> str:
    return "" if value is None else value.decode() if isinstance(value, bytes) else str(value)


def _translated(error: pymysql.Error) -> Exception:
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    text = str(error.args[1]) if len(error.args) > 1 else str(error)
    if code in _LOST or isinstance(error, pymysql.InterfaceError) or not code:
        return Lost(text)
    return QueryFailed(f"{code} {text}")


async def warm_up(query: MysqlQuery) -> None:
    """Fail once, so that whatever is loaded late is loaded."""
    with contextlib.suppress(Lost):
        _open(query, ["127.0.0.1"], 1, None)  # not in a thread: there may be none before the lock-in
