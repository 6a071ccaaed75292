"""Lists of recipients fetched ahead: the list queries of `[sources]`, asked at start and at an interval, for the snapshot.

So the snapshot knows recipients that nobody has asked for, when the source goes away. A list is taken whole or not at all: one that is longer
than the snapshot, breaks off, or has lost too many of the one before changes nothing (`snapshot.py`). The first comes when the queue has given back
what was kept, since a list is held against the one of before; the interval varies by a tenth, so that gateways do not ask together. What is listed is
worked through in pieces, and questions are answered between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from gatepost.config.schema import Config, Source
from gatepost.config.sourcelists import listing_sources
from gatepost.config.sources import KINDS, keys_of
from gatepost.config.values import InvalidValue, parse_domain
from gatepost.lookup.source import SourceDown
from gatepost.roles.snapshot import Snapshot, snapshot_tables
from gatepost.routing.router import compared_local

if TYPE_CHECKING:
    from gatepost.roles.tables import Tables

FIRST_WITHIN_S = 2.0
AGAIN_WITHIN_S = 60.0  # after a list that could not be had, if the interval is longer
VARIES = 0.1
PIECE = 2000  # recipients worked through at once


class Keys:
    """Turns what a list says into the keys that a table is asked for."""

    def __init__(self, config: Config, source: Source) -> None:
        self._forms = keys_of(source, "recipients")
        self._ours = frozenset(config.domains)
        self._domains: dict[str, str] = {}  # as written -> of ours, or ""

    def key(self, text: str) -> str:
        """The key for a line of the list; empty: it is about nobody here. `smtp:` in front is how Active Directory writes addresses."""
        text = text.strip()
        scheme, colon, rest = text.partition(":")
        if colon and scheme.isalnum():
            text = rest if scheme.lower() == "smtp" else ""
        local, at, domain = text.rpartition("@")
        if not at:
            return compared_local(text) if text and "local" in self._forms else ""
        name = self._domain(domain)
        if not name:
            return ""
        if not local:
            return f"@{name}" if "catch-all" in self._forms else ""
        return f"{compared_local(local)}@{name}" if "address" in self._forms else ""

    def _domain(self, written: str) -> str:
        found = self._domains.get(written)
        if found is None:
            try:
                name = parse_domain(written)
            except InvalidValue:
                name = ""
            found = self._domains[written] = name if name in self._ours else ""
        return found


class Listings:
    """Of one resolver."""

    def __init__(
        self, config: Config, tables: Tables, snapshot: Snapshot, *, loop: asyncio.AbstractEventLoop, event: Callable[..., None]
    ) -> None:  # fmt: skip
        self._config = config
        self._list_all = tables.list_all
        self._snapshot = snapshot
        self._loop = loop
        self._event = event
        self._most = config.snapshot.max_entries
        names = {f"{KINDS[config.sources[name].type]}:{name}": name for name in listing_sources(config)}
        kept = snapshot_tables(config)
        self._sources = {table: config.sources[name] for table, name in names.items() if table in kept}
        self._wanted = {table: asyncio.Event() for table in self._sources}
        self._failing: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self.counts = {"lists": 0, "lists_failed": 0}

    def begin(self) -> None:
        """What was kept is there; further calls change nothing."""
        if not self._tasks:
            self._tasks = [self._loop.create_task(self._run(*item)) for item in self._sources.items()]

    def soon(self, tables: Iterable[str]) -> None:
        """An operator has confirmed these: list them now."""
        for table in tables:
            if table in self._wanted:
                self._wanted[table].set()

    async def _run(self, table: str, source: Source) -> None:
        keys = Keys(self._config, source)
        wait_s = random.uniform(0.0, min(FIRST_WITHIN_S, source.list_interval_s))
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wanted[table].wait()
            self._wanted[table].clear()
            interval_s = source.list_interval_s
            if not await self._list(table, keys):
                interval_s = min(interval_s, AGAIN_WITHIN_S)
            wait_s = interval_s * random.uniform(1.0 - VARIES, 1.0 + VARIES)

    async def _list(self, table: str, keys: Keys) -> bool:
        """Fetch and take one list; whether it could be had."""
        self.counts["lists"] += 1
        try:
            texts = await self._list_all(table, self._most)
        except SourceDown as error:
            return self._failed(table, str(error))
        except Exception as error:  # noqa: BLE001 - the one broad catch of a list
            self._event("internal_error", what=f"list of {table}", error=repr(error))
            return self._failed(table, "internal error")
        found: set[str] = set()
        for start in range(0, len(texts), PIECE):
            found.update(map(keys.key, texts[start : start + PIECE]))
            await asyncio.sleep(0)
        found.discard("")
        if texts and not found:
            return self._failed(table, f"none of the {len(texts)} values is an address of ours")
        self._failing.discard(table)
        if not self._snapshot.judge_list(table, found):
            return True
        listed = list(found)
        for start in range(0, len(listed), PIECE):
            self._snapshot.take_listed(table, listed[start : start + PIECE])
            await asyncio.sleep(0)
        gone = self._snapshot.end_list(table, found)
        self._event("recipients_listed", table=table, listed=len(found), gone=gone, others=len(texts) - len(found))
        return True

    def _failed(self, table: str, why: str) -> bool:
        self.counts["lists_failed"] += 1
        if table not in self._failing:
            self._failing.add(table)
            self._event("recipients_list_failed", table=table, reason=why)
        return False


def listings_of(
    config: Config, tables: Any, snapshot: Snapshot, loop: Any, event: Callable[..., None]
) -> Listings | None:
    """None where nothing is listed."""
    if tables is None or not listing_sources(config):
        return None
    return Listings(config, tables, snapshot, loop=loop, event=event)
