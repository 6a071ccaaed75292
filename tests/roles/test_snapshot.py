"""The snapshot of recipients: what answers while a table does not, what is not believed, and what an operator can do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gatepost.config.callahead import OWN
from gatepost.config.schema import CallAhead, Config, Domain, Source
from gatepost.config.schema import Snapshot as Settings
from gatepost.roles.snapshot import CONFIRMED_S, Snapshot, snapshot_tables

PEOPLE = "ldap:people"


class Bed:
    """A snapshot with a clock, what it handed to the queue, and a table that answers as it is told."""

    def __init__(
        self,
        kept: dict[str, bytes] | None = None,
        most: int = 1000,
        now_s: float = 1000.0,
        is_restored: bool = True,
        **more: Any,
    ) -> None:
        domains = {"x.test": Domain(next_hop=["mx"], recipients=[PEOPLE, OWN])}
        self.config = Config(
            hostname="g", listen=[], spool="/x", domains=domains, sources={"people": Source(type="ldap", stale_s=1000.0)},
            call_ahead=CallAhead(stale_s=1000.0), snapshot=Settings(max_entries=most), **more,
        )  # fmt: skip
        self.now_s = now_s
        self.kept = dict(kept or {})
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.timers: list[Callable[[], None]] = []
        self.takes_all = False
        self.snapshot = Snapshot(
            self.config, keep=self._keep, call_later=lambda s, call: self.timers.append(call),
            event=lambda name, **fields: self.events.append((name, fields)), takes_all=lambda table, key: self.takes_all,
            now_s=lambda: self.now_s,
        )  # fmt: skip
        if is_restored:
            self.snapshot.restore(self.kept)

    def _keep(self, records: dict[str, bytes]) -> None:
        for name, record in records.items():
            if record:
                self.kept[name] = record
            else:
                self.kept.pop(name, None)

    def ask(
        self, *keys: str, found: str | None = "", failed: str = "", table: str = PEOPLE
    ) -> tuple[list[str | None], str]:
        answers: list[tuple[list[str | None], str]] = []
        answered = self.snapshot.behind(table, list(keys), lambda values, why: answers.append((values, why)))
        answered([] if failed else [found] * len(keys), failed)
        while self.timers:
            self.timers.pop()()
        return answers[0]


def test_who_was_found_is_known_while_nobody_answers_and_over_a_restart() -> None:
    bed = Bed()
    assert bed.ask("anna@x.test", found="v") == (["v"], "")
    assert bed.ask("nobody@x.test", found=None) == ([None], "")
    assert bed.ask("anna@x.test", failed="down") == (["v"], "")
    assert bed.ask("nobody@x.test", failed="down") == ([], "down")
    assert bed.ask("anna", "anna@x.test", failed="down") == ([None, "v"], "")
    assert [name for name, _ in bed.events] == ["snapshot_answers"] and bed.snapshot.counts["snapshot_answers"] == 2
    assert "down" in bed.snapshot.note_of(PEOPLE, "anna@x.test") and not bed.snapshot.note_of(PEOPLE, "bob@x.test")
    bed.ask("anna@x.test")
    assert bed.snapshot.note_of(PEOPLE, "anna@x.test") == ""
    again = Bed(bed.kept, now_s=1500.0)
    assert again.ask("anna@x.test", failed="down") == ([""], "")
    again.now_s = 2001.0
    assert again.ask("anna@x.test", failed="down") == ([], "down") and not again.kept


def test_at_a_start_who_was_known_hears_nothing_wrong_before_the_queue_has_given_it_back() -> None:
    before = Bed()
    before.ask("anna@x.test")
    bed = Bed(is_restored=False)
    answers: dict[str, tuple[list[str | None], str]] = {}

    def ask(what: str, key: str, value: str | None, failed: str = "") -> None:
        answered = bed.snapshot.behind(PEOPLE, [key], lambda values, why: answers.__setitem__(what, (values, why)))
        answered([] if failed else [value], failed)

    ask("failed", "anna@x.test", None, "down")
    ask("denied", "bob@x.test", None)
    ask("found", "carl@x.test", "v")
    assert answers == {"found": (["v"], "")}
    bed.snapshot.restore({}, is_all=False)
    assert len(answers) == 1
    bed.snapshot.restore(before.kept)
    assert answers == {"found": (["v"], ""), "failed": ([""], ""), "denied": ([None], "")}
    assert bed.ask("dora@x.test", failed="down") == ([], "down")


def test_without_a_queue_it_is_not_waited_for_ever() -> None:
    bed = Bed(is_restored=False)
    assert bed.ask("anna@x.test", failed="down") == ([], "down")  # its timers have run


def test_who_is_gone_is_forgotten() -> None:
    bed = Bed()
    bed.ask("anna@x.test")
    assert bed.ask("anna@x.test", found=None) == ([None], "")
    assert bed.ask("anna@x.test", failed="down") == ([], "down") and not bed.kept


def test_what_has_its_time_left_is_not_written_again() -> None:
    bed = Bed()
    bed.ask("anna@x.test")
    before = dict(bed.kept)
    bed.now_s += 100
    bed.ask("anna@x.test")
    assert bed.kept == before
    bed.now_s += 100
    bed.ask("anna@x.test")
    assert bed.kept != before


def test_a_table_that_lost_its_people_is_not_believed_until_it_is_confirmed() -> None:
    bed = Bed()
    people = [f"p{number}@x.test" for number in range(40)]
    for person in people:
        bed.ask(person)
    found = [bed.ask(person, found=None)[0][0] for person in people[:20]]
    assert found == [None] * 4 + [""] * 16
    assert [name for name, _ in bed.events] == ["source_shrinks"]
    assert "denies" in bed.snapshot.note_of(PEOPLE, people[10])
    row = next(row for row in bed.snapshot.status() if row["table"] == PEOPLE)
    assert row["known"] == 36 and row["doubted"] and not row["confirmed"]
    assert Bed(bed.kept).snapshot.status()[1]["known"] == 36
    assert bed.snapshot.confirm(["ldap:others"]) == [] and bed.snapshot.confirm([]) == [PEOPLE]
    assert [bed.ask(person, found=None)[0][0] for person in people] == [None] * 40
    assert bed.snapshot.status()[1]["known"] == 0
    bed.now_s += CONFIRMED_S
    assert not bed.snapshot.status()[1]["confirmed"]


def test_what_says_nothing_is_not_written_down() -> None:
    bed = Bed()
    bed.takes_all = True
    bed.ask("made-up@x.test", table=OWN)
    bed.takes_all = False
    bed.ask("long@x.test", found="x" * 300)
    assert bed.ask("made-up@x.test", failed="down", table=OWN) == bed.ask("long@x.test", failed="down") == ([], "down")


def test_it_is_bounded_and_the_oldest_go() -> None:
    bed = Bed(most=10)
    for number in range(30):
        bed.ask(f"p{number}@x.test")
    assert (
        len(bed.kept) == 10
        and bed.ask("p29@x.test", failed="down") == ([""], "")
        and bed.ask("p0@x.test", failed="d")[1]
    )
    assert len(Bed(bed.kept, most=5).snapshot._tables[PEOPLE].known) == 5
    none = Bed(most=0)
    none.ask("anna@x.test")
    assert none.ask("anna@x.test", failed="down") == ([], "down")


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\xc1",
        b"\x92\x01",
        b"\x92\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00\xa0",
        b"\x92\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xa0",
    ],
)
def test_records_that_nobody_wrote(record: bytes) -> None:
    bed = Bed({f"{PEOPLE} anna@x.test": record, "ldap:gone anna@x.test": b"\x92\x00\xa0", "nonsense": b"\x92\x00\xa0"})
    assert bed.ask("anna@x.test", failed="down") == ([], "down")


def test_forgetting() -> None:
    bed = Bed()
    for person in ("anna@x.test", "bob@x.test", "carl@x.test"):
        bed.ask(person)
        bed.ask(person, table=OWN)
    assert bed.snapshot.forget(["anna@x.test"]) == 2 and bed.snapshot.forget([OWN]) == 2
    bed.snapshot.flush()
    assert sorted(bed.kept) == [f"{PEOPLE} bob@x.test", f"{PEOPLE} carl@x.test"]


def test_tables_of_other_uses_have_none() -> None:
    assert set(snapshot_tables(Bed().config)) == {PEOPLE, OWN}
    assert set(snapshot_tables(Bed(virtual=[PEOPLE]).config)) == {OWN}
