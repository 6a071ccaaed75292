"""Lists of recipients fetched ahead: what becomes a key, what is believed, what is forgotten, and when it is asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from gatepost.config.schema import Config, Domain, Source
from gatepost.config.schema import Snapshot as Settings
from gatepost.lookup.source import SourceDown
from gatepost.roles import listing
from gatepost.roles.listing import Keys, Listings
from gatepost.roles.snapshot import Snapshot

PEOPLE = "ldap:people"
TEN = [f"u{number}@x.test" for number in range(10)]


def config_of(most: int = 1000, max_shrink: float = 0.2, **source: Any) -> Config:
    settings: dict[str, Any] = {"type": "ldap", "list_query": "(a=b)", "list_field": "mail", "stale_s": 1000.0} | source
    return Config(
        hostname="g", listen=[], spool="/x", domains={"x.test": Domain(next_hop=["mx"], recipients=[PEOPLE])},
        sources={"people": Source(**settings)}, snapshot=Settings(max_entries=most, max_shrink=max_shrink),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("anna@x.test", "anna@x.test"), (" Anna@X.Test. ", "anna@x.test"), ("SMTP:anna@x.test", "anna@x.test"),
        ("smtp:b@x.test", "b@x.test"), ("x500:/o=x/cn=anna", ""), ("sip:anna@x.test", ""), ("anna@else.test", ""), ("anna", ""),
        ("@x.test", ""), ("", ""), ("anna@", ""), ('"a b"@x.test', "a b@x.test"), ("b\u00fc@x.test", "b\u00fc@x.test"),
    ],
)  # fmt: skip
def test_what_a_line_of_a_list_stands_for(text: str, key: str) -> None:
    config = config_of()
    assert Keys(config, config.sources["people"]).key(text) == key


def test_other_forms_where_the_table_is_asked_in_them() -> None:
    config = config_of(keys=["local", "catch-all"])
    keys = Keys(config, config.sources["people"])
    assert [keys.key(text) for text in ("Anna", "@x.test", "anna@x.test")] == ["anna", "@x.test", ""]


class Bed:
    """A snapshot and its lists, with a source that gives what it is told."""

    def __init__(self, config: Config, kept: dict[str, bytes] | None = None) -> None:
        self.config = config
        self.given: list[str] | Exception = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.kept = dict(kept or {})
        self.now_s = 1000.0
        self.asked = 0
        self.snapshot = Snapshot(
            config, keep=self._keep, call_later=lambda s, call: None, event=lambda name, **fields: self.events.append((name, fields)),
            now_s=lambda: self.now_s,
        )  # fmt: skip
        self.snapshot.restore(self.kept)

    def _keep(self, records: dict[str, bytes]) -> None:
        assert len(records) <= 5000
        for name, record in records.items():
            self.kept.pop(name, None)
            if record:
                self.kept[name] = record

    async def list_all(self, table: str, most: int) -> list[str]:
        self.asked += 1
        if isinstance(self.given, Exception):
            raise self.given
        return list(self.given)

    def take(self, given: list[str] | Exception) -> bool:
        """One list."""
        self.given = given

        async def run() -> bool:
            lists = Listings(self.config, self, self.snapshot, loop=asyncio.get_running_loop(), event=self._event)  # type: ignore[arg-type]
            return await lists._list(PEOPLE, Keys(self.config, self.config.sources["people"]))

        done = asyncio.run(run())
        self.snapshot.flush()
        return done

    def _event(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))

    def while_down(self, *keys: str) -> list[str | None]:
        answers: list[list[str | None]] = []
        self.snapshot.behind(PEOPLE, list(keys), lambda values, why: answers.append(values))([], "down")
        return answers[0]

    def told(self) -> list[str]:
        names = [name for name, _ in self.events]
        self.events.clear()
        return names


def test_who_is_listed_is_known_before_anybody_asks_and_over_a_restart() -> None:
    bed = Bed(config_of())
    assert bed.take([*TEN, "z@else.test"]) and bed.told() == ["recipients_listed"]
    assert bed.while_down("u7@x.test") == [""] and bed.while_down("nobody@x.test") == []
    again = Bed(config_of(), bed.kept)
    assert again.while_down("u7@x.test") == [""]
    assert again.take(TEN[:5]) and again.told()[-1] == "recipients_held"  # held against the list of before the restart
    assert again.while_down("u7@x.test") == [""]


def test_who_is_gone_from_the_list_is_forgotten_and_who_was_asked_for_stays() -> None:
    bed = Bed(config_of())
    bed.take(TEN)
    bed.snapshot.behind(PEOPLE, ["found@x.test"], lambda values, why: None)(["v"], "")
    assert bed.take(TEN[1:]) and bed.events[-1][1]["gone"] == 1
    assert bed.while_down("u0@x.test") == [] and bed.while_down("found@x.test", "u1@x.test") == ["v", ""]
    assert "ldap:people u0@x.test" not in bed.kept


def test_what_was_found_keeps_its_value_in_the_list() -> None:
    bed = Bed(config_of())
    bed.snapshot.behind(PEOPLE, ["u1@x.test"], lambda values, why: None)(["v"], "")
    bed.take(TEN)
    assert bed.while_down("u1@x.test", "u2@x.test") == ["v", ""]


@pytest.mark.parametrize("found", [[], TEN[:5]])
def test_a_list_that_has_lost_many_is_held_until_it_is_confirmed(found: list[str]) -> None:
    bed = Bed(config_of())
    bed.take(TEN)
    bed.told()
    assert bed.take(found) and bed.take(found) and bed.told() == ["recipients_held"]  # told once
    (row,) = bed.snapshot.status()
    assert row["held"]["gone"] == 10 - len(found) and row["listed"] == 10
    assert bed.while_down("u9@x.test") == [""]
    bed.told()
    assert bed.snapshot.confirm([]) == [PEOPLE]
    assert bed.take(found) and bed.told() == ["recipients_listed"] and bed.while_down("u9@x.test") == []
    assert bed.snapshot.status()[0]["held"] is None


def test_one_may_go_and_one_hundredth_less_is_believed_where_it_is_said() -> None:
    bed = Bed(config_of(max_shrink=0.0))
    bed.take(TEN)
    assert (
        bed.take(TEN[:9])
        and bed.take(TEN[:7])
        and [name for name, _ in bed.events][1:] == ["recipients_listed", "recipients_held"]
    )


@pytest.mark.parametrize("bad", [SourceDown("more than 5"), ["a@else.test", "garbage"], ValueError("a bug")])
def test_a_list_that_cannot_be_had_or_used_changes_nothing(bad: Any) -> None:
    bed = Bed(config_of())
    bed.take(TEN)
    bed.told()
    assert not bed.take(bad) and bed.told()[-1] == "recipients_list_failed"
    assert bed.while_down("u9@x.test") == [""]


def test_records_of_before_lists_were_kept_are_read() -> None:
    bed = Bed(config_of(), {f"{PEOPLE} old@x.test": msgspec.msgpack.encode((900.0, "v"))})
    assert bed.while_down("old@x.test") == ["v"]
    bed.take(TEN)
    assert bed.while_down("old@x.test") == ["v"]  # never listed, so not gone from the list


def test_a_large_list_is_told_in_parts() -> None:
    bed = Bed(config_of(most=20_000))
    many = [f"u{number}@x.test" for number in range(12_000)]
    assert bed.take(many) and len(bed.kept) == 12_000


def test_it_is_asked_at_an_interval_that_varies_and_soon_where_it_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    class Waited:
        def __init__(self, wait_s: float) -> None:
            waits.append(wait_s)

        async def __aenter__(self) -> None:
            raise TimeoutError

        async def __aexit__(self, *_: object) -> bool:
            return False

    bed = Bed(config_of(list_interval_s=300.0))
    real_list: Callable[..., Awaitable[bool]] = Listings._list

    async def run() -> None:
        lists = Listings(bed.config, bed, bed.snapshot, loop=asyncio.get_running_loop(), event=bed._event)  # type: ignore[arg-type]
        done = asyncio.Event()

        async def count(self: Listings, table: str, keys: Keys) -> bool:
            bed.given = TEN if bed.asked < 20 else SourceDown("down")
            if bed.asked == 40:
                done.set()
                await asyncio.Event().wait()
            return await real_list(self, table, keys)

        monkeypatch.setattr(listing.asyncio, "timeout", Waited)
        monkeypatch.setattr(Listings, "_list", count)
        lists.begin()
        lists.begin()
        await done.wait()
        assert len(lists._tasks) == 1
        lists._tasks[0].cancel()

    asyncio.run(run())
    first, good, bad = waits[0], waits[1:21], waits[21:]
    assert first <= listing.FIRST_WITHIN_S
    assert all(270 <= wait_s <= 330 for wait_s in good) and len(set(good)) == len(good)
    assert all(54 <= wait_s <= 66 for wait_s in bad)
