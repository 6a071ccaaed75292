"""A connection to PostgreSQL by asyncpg: one prepared query, its places bound by the server, read-only sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import asyncpg

from gatepost.config.pieces import parse_pieces
from gatepost.config.schema import Source
from gatepost.config.sources import Server
from gatepost.lookup.named import NamedContext
from gatepost.lookup.source import MAX_VALUES, Lost, QueryFailed, join_values, too_many

LIST_ROWS = 1000  # of a list, fetched at once


class PostgresqlQuery:
    """What one source is asked for: `{key}` and the like become $1, $2 ..."""

    def __init__(self, source: Source, password: bytes, is_list: bool = False) -> None:
        """`is_list`: the first column of all rows is the answer, not that of the first row."""
        self.is_list = is_list
        pieces = parse_pieces(source.query)
        self.places = list(dict.fromkeys(pieces.places))
        self.list_text = source.list_query
        self.text = pieces.fill({name: f"${self.places.index(name) + 1}" for name in self.places})
        self.user, self.database = source.user, source.database
        self.password = password.decode()
        self.timeout_s = source.timeout_s


class PostgresqlConnection:
    """An open one; made by `open_postgresql`."""

    def __init__(self, query: PostgresqlQuery, connection: Any, statement: Any) -> None:
        self._query = query
        self._connection = connection
        self._statement = statement

    async def find(self, values: Mapping[str, str]) -> str | None:
        """See `source.Connection`."""
        try:
            rows = await self._fetch([values[name] for name in self._query.places])
        except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.OperatorInterventionError) as error:
            raise Lost(str(error)) from None
        except asyncpg.PostgresError as error:
            raise QueryFailed(f"{type(error).__name__}: {error}") from None
        return join_values(["" if row[0] is None else str(row[0]) for row in rows]) if rows else None

    async def _fetch(self, values: list[str]) -> list[Any]:
        """One row, or as many as an answer may have and one more: however many there are, no more are sent."""
        if not self._query.is_list:
            row = await self._statement.fetchrow(*values)
            return [] if row is None else [row]
        async with self._connection.transaction():
            cursor = await self._statement.cursor(*values)
            rows: list[Any] = await cursor.fetch(MAX_VALUES + 1)
            return rows

    async def list_all(self, most: int) -> list[str]:
        """See `source.Connection`."""
        found: list[str] = []
        try:
            async with self._connection.transaction():
                cursor = await self._connection.cursor(self._query.list_text)
                while rows := await cursor.fetch(LIST_ROWS):
                    found += [str(row[0]) for row in rows if row[0] is not None]
                    if len(found) > most:
                        raise too_many(most)
        except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.OperatorInterventionError) as error:
            raise Lost(str(error)) from None
        except asyncpg.PostgresError as error:
            raise QueryFailed(f"{type(error).__name__}: {error}") from None
        return found

    def abort(self) -> None:
        """See `source.Connection`."""
        self._connection.terminate()


async def open_postgresql(
    query: PostgresqlQuery, server: Server, addresses: list[str], context: NamedContext | None
) -> PostgresqlConnection:
    """Connect to the first address that takes us and prepare the query. Raises Lost."""
    failed: list[str] = []
    for address in addresses:
        try:
            return await _connect(query, address, server.port, context if server.security != "none" else None)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            failed.append(f"{address}: {str(error) or type(error).__name__}")
    raise Lost("; ".join(failed) or "no address")


async def _connect(
    query: PostgresqlQuery, address: str, port: int, context: NamedContext | None
) -> PostgresqlConnection:
    connection = await asyncpg.connect(
        host=address,
        port=port,
        user=query.user,
        password=query.password,
        database=query.database,
        passfile="/dev/null",
        ssl=context or False,
        timeout=query.timeout_s,
        server_settings={"default_transaction_read_only": "on", "application_name": "gatepost"},
    )
    try:
        return PostgresqlConnection(query, connection, await connection.prepare(query.text))
    except BaseException:
        connection.terminate()
        raise


async def warm_up(query: PostgresqlQuery) -> None:
    """Fail once, so that whatever is loaded late is loaded."""
    try:
        async with asyncio.timeout(2.0):
            await open_postgresql(query, Server("127.0.0.1", 1, "none"), ["127.0.0.1"], None)
    except (Lost, TimeoutError):
        return
