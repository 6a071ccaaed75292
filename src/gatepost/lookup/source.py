"""One source: its servers in order, kept connections, limits, and the rest that a server gets which has failed.

A server that cannot be reached, does not answer in time, or breaks a connection is left alone for `retry_s`, doubling up to a minute;
then one question tries it, and the others go on without it. While all rest, a question fails at once: no client of ours waits for
a server that is known to be down. Identical questions under way are asked once. How one server is talked to is in `ldap.py`,
`postgresql.py`, `mysql.py`, `http.py`; they raise OSError or Lost for the connection, QueryFailed for the question.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from gatepost.config.pieces import values_of
from gatepost.config.schema import Source as Settings
from gatepost.config.sources import Server

MAX_WAITING = 2000  # questions of one source
MAX_REST_S = 60.0
KEPT_S = 60.0  # a connection that was idle for longer is not used again
MAX_TOTAL_S = 30.0  # of one question, over all servers
MAX_VALUE_CHARACTERS = 65_536  # a list of some thousand addresses
MAX_VALUES = 10_000  # that are joined to one answer
LIST_LIMIT_S = 120.0  # of a whole list


class Lost(Exception):
    """The server broke the connection, or what it says makes no sense."""


class QueryFailed(Exception):
    """The server answered that it will not do this; the text is for the log."""


class SourceDown(Exception):
    """There is no answer now; the text is for the log."""


def too_many(most: int) -> QueryFailed:
    """Why a list is not taken."""
    return QueryFailed(f"the list has more than {most} recipients (snapshot.max_entries)")


def join_values(values: Sequence[str]) -> str:
    """Several values as one text, with commas; raises QueryFailed where there are too many: a list is never cut short."""
    if len(values) > MAX_VALUES or sum(map(len, values)) > MAX_VALUE_CHARACTERS:
        raise QueryFailed(f"more than {MAX_VALUES} values, or {MAX_VALUE_CHARACTERS} characters")
    return ",".join(values)


class Connection(Protocol):
    """A connection to a server; used for one question at a time."""

    async def find(self, values: Mapping[str, str]) -> str | None:
        """The value for a key, or None. Raises OSError, Lost, QueryFailed."""
        ...

    async def list_all(self, most: int) -> list[str]:
        """What the list query gives; one more than `most` raises QueryFailed: a list is never cut short. Raises as `find`."""
        ...

    def abort(self) -> None:
        """Close it at once, whatever it does."""
        ...


Opener = Callable[[Server], Awaitable[Connection]]


class _Place:
    """A server as it is now."""

    def __init__(self, server: Server, most: int) -> None:
        self.server = server
        self.slots = asyncio.Semaphore(most)
        self.idle: list[tuple[float, Connection]] = []
        self.failures = 0
        self.rests_until_s = 0.0
        self.is_tried = False  # the one question that looks whether it is back


class Source:
    """See the module. `event` is told when a server goes and when it comes back."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        servers: list[Server],
        open_: Opener,
        *,
        loop: asyncio.AbstractEventLoop,
        event: Callable[..., None],
    ) -> None:
        self.name = name
        self._settings = settings
        self._open = open_
        self._loop = loop
        self._event = event
        self._places = [_Place(server, settings.max_connections) for server in servers]
        self._under_way: dict[str, asyncio.Task[str | None]] = {}
        self._why = "no server was asked"
        self.counts = {"asked": 0, "failed": 0, "opened": 0}

    async def find(self, key: str) -> str | None:
        """The value of a key, or None; raises SourceDown."""
        task = self._under_way.get(key)
        if task is None:
            if len(self._under_way) >= MAX_WAITING:
                raise SourceDown("too many questions wait for it")
            task = self._under_way[key] = self._loop.create_task(self._find(key))
            task.add_done_callback(functools.partial(self._done, key))
        return await asyncio.shield(task)

    def _done(self, key: str, task: asyncio.Task[str | None]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # whoever asked has been told

    async def _find(self, key: str) -> str | None:
        values = values_of(key)
        self.counts["asked"] += 1
        until_s = self._loop.time() + MAX_TOTAL_S
        for place in self._places:
            now_s = self._loop.time()
            if place.rests_until_s > now_s or place.is_tried or now_s >= until_s:
                continue
            place.is_tried = place.failures > 0
            try:
                found = await self._ask(place, values)
            except (OSError, Lost, TimeoutError) as error:
                self._failed(place, _words(error, self._settings.timeout_s))
            except QueryFailed as error:
                self.counts["failed"] += 1
                self._event("source_failed", source=self.name, server=str(place.server), reason=str(error))
                raise SourceDown(str(error)) from None
            else:
                self._worked(place)
                if found is not None and len(found) > MAX_VALUE_CHARACTERS:
                    raise SourceDown(f"a value has more than {MAX_VALUE_CHARACTERS} characters")
                return found
            finally:
                place.is_tried = False
        self.counts["failed"] += 1
        raise SourceDown(self._why)

    async def list_all(self, most: int) -> list[str]:
        """Everything that the list query gives, by a connection of its own, so that questions go on; raises SourceDown."""
        why = "all its servers are known to be down"
        for place in self._places:
            if place.rests_until_s > self._loop.time():
                continue
            try:
                async with asyncio.timeout(LIST_LIMIT_S):
                    connection = await self._open(place.server)
                    try:
                        return await connection.list_all(most)
                    finally:
                        connection.abort()
            except (OSError, Lost, QueryFailed, TimeoutError) as error:
                why = f"{place.server}: {_words(error, LIST_LIMIT_S)}"
        raise SourceDown(why)

    async def _ask(self, place: _Place, values: Mapping[str, str]) -> str | None:
        timeout_s = self._settings.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await place.slots.acquire()
        except TimeoutError:
            raise QueryFailed(
                f"all {self._settings.max_connections} connections were in use for {timeout_s:g} s"
            ) from None
        try:
            async with asyncio.timeout(timeout_s):
                return await self._use(place, values)
        finally:
            place.slots.release()

    async def _use(self, place: _Place, values: Mapping[str, str]) -> str | None:
        while place.idle:
            since_s, connection = place.idle.pop()
            if since_s + KEPT_S < self._loop.time():
                connection.abort()
                continue
            with contextlib.suppress(OSError, Lost):  # the server may have ended it meanwhile, which says nothing
                return await self._find_by(place, connection, values)
        try:
            connection = await self._open(place.server)
        except QueryFailed as error:  # it does not let us in: no use in trying for every key
            raise Lost(str(error)) from None
        self.counts["opened"] += 1
        return await self._find_by(place, connection, values)

    async def _find_by(self, place: _Place, connection: Connection, values: Mapping[str, str]) -> str | None:
        try:
            found = await connection.find(values)
        except QueryFailed:
            self._keep(place, connection)
            raise
        except BaseException:
            connection.abort()
            raise
        self._keep(place, connection)
        return found

    def _keep(self, place: _Place, connection: Connection) -> None:
        place.idle.append((self._loop.time(), connection))

    def _failed(self, place: _Place, why: str) -> None:
        place.failures += 1
        rest_s = min(MAX_REST_S, self._settings.retry_s * 2 ** min(place.failures - 1, 10))
        place.rests_until_s = self._loop.time() + rest_s
        self._why = f"{place.server}: {why}"
        for _, connection in place.idle:
            connection.abort()
        place.idle.clear()
        if place.failures == 1:
            self._event("source_down", source=self.name, server=str(place.server), reason=why)

    def _worked(self, place: _Place) -> None:
        if place.failures:
            place.failures = 0
            self._event("source_up", source=self.name, server=str(place.server))

    def close(self) -> None:
        """Close what is kept."""
        for place in self._places:
            for _, connection in place.idle:
                connection.abort()
            place.idle.clear()


def _words(error: BaseException, timeout_s: float) -> str:
    if isinstance(error, TimeoutError) and not error.args:
        return f"no answer within {timeout_s:g} s"
    text = str(getattr(error, "strerror", "") or error) or type(error).__name__
    return "".join(character if character.isprintable() else "?" for character in text)[:200]
