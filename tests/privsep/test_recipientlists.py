"""Lists of recipients in files: what may go, what is held, and what an operator confirms."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gatepost.config.schema import Config, Domain, Snapshot
from gatepost.config.tables import LoadedConfig, TableData
from gatepost.privsep.recipientlists import RecipientLists, has_shrunk, lists_of

TABLE = "file:/etc/people"


def config(recipients: list[str], table: list[str] | None = None, most: float = 0.2) -> Config:
    domains = {
        "x.test": Domain(next_hop=["mx"], recipients=[*recipients, "ldap:more"], recipients_file="/etc/list"),
        "inline.test": Domain(next_hop=["mx"], recipients=recipients),
    }
    tables = (
        {"recipients " + TABLE: TableData("file", "/etc/people", dict.fromkeys(table, "v"))}
        if table is not None
        else {}
    )
    return LoadedConfig(
        hostname="g", listen=[], spool="/x", domains=domains, tables=tables, snapshot=Snapshot(max_shrink=most)
    )


class Bed:
    def __init__(self, spool: Path) -> None:
        self.lists = RecipientLists(str(spool))
        self.events: list[tuple[str, dict[str, Any]]] = []

    def take(self, new: Config) -> Config:
        self.lists.begin()
        guarded = self.lists.guard(new)
        self.lists.commit(lambda name, **fields: self.events.append((name, fields)))
        return guarded

    def start(self, new: Config) -> Config:
        guarded = self.lists.at_start(new)
        self.lists.commit(lambda name, **fields: self.events.append((name, fields)))
        return guarded


PEOPLE = [f"p{number:02}" for number in range(20)]


@pytest.mark.parametrize(
    ("old", "new", "most", "gone"),
    [
        (20, 16, 0.2, 0), (20, 15, 0.2, 5), (20, 0, 0.2, 20), (1, 0, 0.2, 1), (3, 2, 0.2, 0), (3, 1, 0.2, 2), (20, 0, 1.0, 0), (0, 0, 0.2, 0),
        (20, 19, 0.0, 0), (20, 18, 0.0, 2), (10, 20, 0.2, 0),
    ],
)  # fmt: skip
def test_how_much_may_go(old: int, new: int, most: float, gone: int) -> None:
    assert len(has_shrunk(PEOPLE[:old], PEOPLE[:new], most)) == gone


def test_others_in_their_place_do_not_count() -> None:
    assert len(has_shrunk(PEOPLE, [f"q{number}" for number in range(40)], 0.2)) == 20


def test_what_comes_from_files() -> None:
    assert lists_of(config(["a"], ["b"])) == {"x.test": ["a"], TABLE: ["b"]}


def test_a_list_that_lost_many_is_held_until_it_is_confirmed(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    assert bed.start(config(PEOPLE, PEOPLE)) == config(PEOPLE, PEOPLE)
    held = bed.take(config(PEOPLE[:2], PEOPLE[:3]))
    assert (
        held.domains["x.test"].recipients == [*PEOPLE, "ldap:more"]
        and held.domains["inline.test"].recipients == PEOPLE[:2]
    )
    assert isinstance(held, LoadedConfig) and list(held.tables["recipients " + TABLE].entries) == PEOPLE
    assert [(name, fields["list"], fields["gone"]) for name, fields in bed.events] == [
        ("recipients_held", "x.test", 18), ("recipients_held", TABLE, 17),
    ]  # fmt: skip
    answer = bed.lists.answer({})
    assert [row["name"] for row in answer["held"]] == ["x.test", TABLE] and answer["confirmed"] == []
    assert bed.lists.answer({"confirm": True, "names": ["nobody.test"]})["confirmed"] == []
    assert bed.lists.answer({"confirm": True, "names": [TABLE]})["confirmed"] == [TABLE]
    again = bed.take(config(PEOPLE[:2], PEOPLE[:3]))
    assert isinstance(again, LoadedConfig) and list(again.tables["recipients " + TABLE].entries) == PEOPLE[:3]
    assert again.domains["x.test"].recipients == [*PEOPLE, "ldap:more"]
    assert bed.lists.answer({"confirm": True})["confirmed"] == ["x.test"]
    assert bed.take(config(PEOPLE[:2], PEOPLE[:3])) == config(PEOPLE[:2], PEOPLE[:3]) and not bed.lists.held


def test_it_holds_over_a_restart(tmp_path: Path) -> None:
    Bed(tmp_path).start(config(PEOPLE))
    path = tmp_path / "run" / "recipients.kept"
    assert path.stat().st_mode & 0o777 == 0o600
    bed = Bed(tmp_path)
    assert bed.start(config([])).domains["x.test"].recipients == [*PEOPLE, "ldap:more"] and bed.lists.held
    assert Bed(tmp_path).start(config([], most=1.0)).domains["x.test"].recipients == ["ldap:more"]


def test_a_reload_that_was_refused_changes_nothing(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.start(config(PEOPLE))
    bed.lists.guard(config(PEOPLE[:18]))
    bed.lists.begin()
    bed.lists.commit(lambda name, **fields: None)  # of another one, with the configuration as it is
    assert bed.take(config(PEOPLE[:16])).domains["x.test"].recipients == [*PEOPLE[:16], "ldap:more"]


@pytest.mark.parametrize("damage", [b"", b"\xc1", b"\x81\xa1a\x01", "link"])
def test_a_damaged_file_counts_as_none_and_is_told(tmp_path: Path, damage: bytes | str) -> None:
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "recipients.kept"
    if isinstance(damage, str):
        (tmp_path / "other").write_bytes(b"\x80")
        os.symlink(tmp_path / "other", path)
    else:
        path.write_bytes(damage)
    bed = Bed(tmp_path)
    assert bed.start(config(PEOPLE[:1])) == config(PEOPLE[:1])
    assert [name for name, _ in bed.events] == ["error"]
    assert not path.is_symlink() and Bed(tmp_path).start(config([])).domains["x.test"].recipients == [
        PEOPLE[0],
        "ldap:more",
    ]


def test_what_was_confirmed_is_said_if_the_disk_refuses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bed = Bed(tmp_path)
    bed.start(config(PEOPLE))
    bed.take(config(PEOPLE[:2]))
    assert bed.lists.answer({"confirm": True})["confirmed"] == ["x.test"]
    synced: list[str] = []
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    def note(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    bed.take(config(PEOPLE[:2]))
    assert "Input/output error" in bed.lists.answer({})["unwritten"]
    monkeypatch.setattr(os, "fsync", note)
    bed.take(config(PEOPLE[:2]))  # a reload writes it again
    assert bed.lists.answer({})["unwritten"] == ""
    assert synced == [str(tmp_path / "run" / "recipients.kept.new"), str(tmp_path / "run")]
