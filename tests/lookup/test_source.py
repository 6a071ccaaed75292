"""A source: which server is asked, how often, what is kept, and what happens when servers go and come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest

from gatepost.config.schema import Source as Settings
from gatepost.config.sources import Server
from gatepost.lookup.source import (
    MAX_VALUE_CHARACTERS,
    MAX_VALUES,
    MAX_WAITING,
    Lost,
    QueryFailed,
    Source,
    SourceDown,
    join_values,
)

ONE, TWO = Server("one", 1, "none"), Server("two", 2, "none")


class Bed:
    """Servers that do as they are told: `does[host]` is an answer, an exception, or a coroutine function."""

    def __init__(self, *servers: Server, **settings: Any) -> None:
        self.does: dict[str, Any] = {}
        self.opened: list[str] = []
        self.aborted = 0
        self.busy = self.most = 0
        self.events: list[tuple[str, str]] = []
        self.source = Source(
            "people",
            Settings(type="ldap", **{"timeout_s": 60.0, **settings}),
            list(servers or (ONE, TWO)),
            self.open,
            loop=asyncio.get_running_loop(),
            event=lambda name, **fields: self.events.append((name, fields.get("server", ""))),
        )

    async def open(self, server: Server) -> Any:
        self.opened.append(server.host)
        if self.does.get(server.host) == "refuse":
            raise ConnectionRefusedError(111, "Connection refused")
        if self.does.get(server.host) == "bad password":
            raise QueryFailed("bind: invalidCredentials")
        return _Connection(self, server.host)

    async def find(self, key: str = "anna@example.test") -> str | None:
        return await self.source.find(key)


class _Connection:
    def __init__(self, bed: Bed, host: str) -> None:
        self.bed, self.host = bed, host

    async def find(self, values: Mapping[str, str]) -> str | None:
        bed = self.bed
        bed.busy += 1
        bed.most = max(bed.most, bed.busy)
        try:
            what = bed.does.get(self.host, "found")
            if callable(what):
                what = await what(values)
            else:
                await asyncio.sleep(0)
            if isinstance(what, Exception):
                raise what
            return what
        finally:
            bed.busy -= 1

    def abort(self) -> None:
        self.bed.aborted += 1


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_one_connection_is_used_again_and_the_same_key_asked_once() -> None:
    async def test() -> None:
        bed = Bed()
        assert await asyncio.gather(*(bed.find() for _ in range(20))) == ["found"] * 20
        assert await bed.find("bob@example.test") == "found"
        assert bed.opened == ["one"] and bed.source.counts["asked"] == 2
        bed.source.close()
        assert bed.aborted == 1

    run(test)


def test_no_more_connections_than_allowed() -> None:
    async def test() -> None:
        bed = Bed(max_connections=3)
        assert set(await asyncio.gather(*(bed.find(f"{n}@x") for n in range(50)))) == {"found"}
        assert bed.most == 3 and len(bed.opened) == 3

    run(test)


def test_the_next_server_is_asked_and_the_dead_one_left_alone() -> None:
    async def test() -> None:
        bed = Bed(retry_s=30)
        bed.does["one"] = "refuse"
        assert [await bed.find(f"{n}@x") for n in range(3)] == ["found"] * 3
        assert bed.opened == ["one", "two"] and bed.events == [("source_down", "one:1")]

    run(test)


def test_all_down_fails_at_once_and_one_question_looks_whether_a_server_is_back() -> None:
    async def test() -> None:
        bed = Bed(ONE, retry_s=30)
        bed.does["one"] = "bad password"
        with pytest.raises(SourceDown, match="one:1: bind: invalidCredentials"):
            await bed.find()
        with pytest.raises(SourceDown, match="invalidCredentials"):
            await bed.find()
        assert bed.opened == ["one"]
        bed.does["one"] = "found"
        back = asyncio.Event()

        async def slow(values: Mapping[str, str]) -> str:
            await back.wait()
            return "found"

        bed.does["one"] = slow
        bed.source._places[0].rests_until_s = 0.0
        probe = asyncio.ensure_future(bed.find("first@x"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(SourceDown):
            await bed.find("second@x")
        back.set()
        assert await probe == "found" and bed.opened == ["one", "one"]
        assert bed.events == [("source_down", "one:1"), ("source_up", "one:1")]

    run(test)


def test_a_rest_grows_to_a_minute() -> None:
    async def test() -> None:
        bed = Bed(ONE, retry_s=5)
        bed.does["one"] = "refuse"
        time = asyncio.get_running_loop().time
        for rest_s in (5, 10, 20, 40, 60, 60, 60, 60):
            bed.source._places[0].rests_until_s = 0.0
            before_s = time()
            with pytest.raises(SourceDown):
                await bed.find()
            assert before_s + rest_s <= bed.source._places[0].rests_until_s <= time() + rest_s
        assert bed.events == [("source_down", "one:1")]

    run(test)


def test_a_kept_connection_that_was_closed_meanwhile_says_nothing() -> None:
    async def test() -> None:
        bed = Bed(ONE)
        await bed.find()
        answers = iter([Lost("closed"), "found"])

        async def once(values: Mapping[str, str]) -> Any:
            return next(answers)

        bed.does["one"] = once
        assert await bed.find("b@x") == "found" and bed.opened == ["one", "one"] and not bed.events

    run(test)


def test_a_server_that_says_nothing() -> None:
    async def test() -> None:
        bed = Bed(ONE, timeout_s=0.1)

        async def never(values: Mapping[str, str]) -> str:
            await asyncio.Event().wait()
            return ""

        bed.does["one"] = never
        with pytest.raises(SourceDown, match=r"no answer within 0\.1 s"):
            await bed.find()
        assert bed.aborted == 1 and bed.events == [("source_down", "one:1")]

    run(test)


def test_a_refused_question_is_no_dead_server() -> None:
    async def test() -> None:
        bed = Bed()
        bed.does["one"] = QueryFailed("insufficientAccessRights")
        with pytest.raises(SourceDown, match="insufficientAccessRights"):
            await bed.find()
        bed.does["one"] = None
        assert await bed.find() is None
        assert bed.opened == ["one"] and bed.events == [("source_failed", "one:1")]

    run(test)


def test_a_list_is_never_cut_short() -> None:
    assert join_values(["anna@a.example", "bob"]) == "anna@a.example,bob"
    for values in (["x"] * (MAX_VALUES + 1), ["x" * MAX_VALUE_CHARACTERS, "y"]):
        with pytest.raises(QueryFailed, match="more than"):
            join_values(values)


def test_limits() -> None:
    async def test() -> None:
        bed = Bed(ONE)
        bed.does["one"] = "x" * (MAX_VALUE_CHARACTERS + 1)
        with pytest.raises(SourceDown, match=f"{MAX_VALUE_CHARACTERS} characters"):
            await bed.find()
        bed.source._under_way.update((str(n), asyncio.ensure_future(asyncio.sleep(0))) for n in range(MAX_WAITING))
        with pytest.raises(SourceDown, match="too many"):
            await bed.find("another@x")

    run(test)
