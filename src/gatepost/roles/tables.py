"""The sources of a resolver role: from the configuration and what the supervisor read for it to answers for other roles.

The clients are loaded, used once, and given their authorities and passwords before the lock-in; a library is loaded only where a
source wants it. Names of servers are looked up by our own stub resolver.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from gatepost.config.schema import Config
from gatepost.config.schema import Source as Settings
from gatepost.config.sources import KINDS, Server, listed_sources, servers_of, uses_tls
from gatepost.ipc import messages as m
from gatepost.lookup.named import new_named_context
from gatepost.lookup.source import Lost, Source, SourceDown

MAX_LOOKUPS = 4096  # of other roles, under way at once
MAX_ANSWER_CHARACTERS = 1_000_000  # of one question; a message between roles has 16 MiB

_MODULES = {
    "ldap": ("gatepost.lookup.ldap", "LdapSearch", "open_ldap"),
    "postgresql": ("gatepost.lookup.postgresql", "PostgresqlQuery", "open_postgresql"),
    "mysql": ("gatepost.lookup.mysql", "MysqlQuery", "open_mysql"),
    "http": ("gatepost.lookup.http", "HttpQuery", "open_http"),
}

Query = Callable[[str, str], Awaitable[m.LookupDone]]


class _Prepared(NamedTuple):
    settings: Settings
    servers: list[Server]
    query: Any
    open: Any
    contexts: dict[str, ssl.SSLContext]  # by the name of the server


class Tables:
    """See the module. Made before the lock-in; `begin` comes behind it."""

    def __init__(self, config: Config, material: Sequence[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._prepared: dict[str, _Prepared] = {}
        self._sources: dict[str, Source] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        listed = listed_sources(config)
        left = iter(material)
        for name, settings in sorted(config.sources.items()):
            authorities = next(left).decode() if uses_tls(settings) else ""
            password = next(left).rstrip(b"\r\n") if settings.password_file is not None else b""
            self._prepared[name] = self._prepare(settings, authorities, password, name in listed)

    def _prepare(self, settings: Settings, authorities: str, password: bytes, is_list: bool) -> _Prepared:
        path, query_name, open_name = _MODULES[settings.type]
        module = importlib.import_module(path)
        query = getattr(module, query_name)(settings, password, is_list)
        servers = servers_of(settings)
        contexts: dict[str, ssl.SSLContext] = {}
        for server in servers:
            if server.security != "none":
                contexts[server.host] = new_named_context(server.host, authorities)
        if hasattr(module, "warm_up"):
            self._loop.run_until_complete(module.warm_up(query))
        return _Prepared(settings, servers, query, getattr(module, open_name), contexts)

    def begin(self, query: Query, event: Callable[..., None]) -> None:
        """The role is locked in; `query` asks the DNS."""
        addresses = functools.partial(_addresses_of, query)
        for name, prepared in self._prepared.items():
            self._sources[f"{KINDS[prepared.settings.type]}:{name}"] = Source(
                name,
                prepared.settings,
                prepared.servers,
                functools.partial(_open, prepared, addresses),
                loop=self._loop,
                event=event,
            )

    def submit(self, table: str, keys: list[str], answered: Callable[[list[str | None], str], None]) -> None:
        """Ask a table; `answered(values, failed)` is called once."""
        source = self._sources.get(table)
        if source is None:
            answered([], f"there is no source for {table}")
        elif len(self._tasks) >= MAX_LOOKUPS:
            answered([], "too many questions are under way")
        else:
            task = self._loop.create_task(_answer(source, keys, answered))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def list_all(self, name: str, most: int) -> list[str]:
        """What the list query of a source gives; raises SourceDown."""
        return await self._sources[name].list_all(most)

    @property
    def counts(self) -> dict[str, int]:
        """Of all sources."""
        return {
            f"{name}_{what}": number for name, source in self._sources.items() for what, number in source.counts.items()
        }


async def _answer(source: Source, keys: list[str], answered: Callable[[list[str | None], str], None]) -> None:
    try:
        values = await asyncio.gather(*(source.find(key) for key in keys))
    except SourceDown as error:
        answered([], str(error) or "down")
    except Exception:
        answered([], "internal error")  # and the loop tells of it
        raise
    else:
        if sum(len(value) for value in values if value) > MAX_ANSWER_CHARACTERS:
            answered([], "the values of one question are too long together")
        else:
            answered(list(values), "")


async def _open(prepared: _Prepared, addresses: Callable[[str], Awaitable[list[str]]], server: Server) -> Any:
    context = prepared.contexts.get(server.host)
    if prepared.settings.type == "http":
        return await prepared.open(prepared.query, server, addresses, context)
    return await prepared.open(prepared.query, server, await addresses(server.host), context)


async def _addresses_of(query: Query, host: str) -> list[str]:
    """IPv4 first: within one network it is what is sure to be there. Raises Lost."""
    answers = await asyncio.gather(query("A", host), query("AAAA", host))
    found = [address for done in answers if done.status == "ok" for address in done.records]
    if not found:
        why = next((done.reason for done in answers if done.status == "tempfail"), "") or "it has no address"
        raise Lost(f"{host}: {why}")
    return found
