"""The contract of lookup tables. A new type adds a maker to MAKERS and gets every test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gatepost.routing.table import Table, TableUnavailable
from gatepost.routing.tables import TABLE_TYPES, FileTable, InlineTable

Maker = Callable[[dict[str, str], Path], Table]


def make_inline(values: dict[str, str], directory: Path) -> Table:
    return InlineTable("people", values)


def make_file(values: dict[str, str], directory: Path) -> Table:
    path = directory / "people"
    path.write_text("# a comment\n\n" + "".join(f"{key}\t{value}\n" for key, value in values.items()))
    return FileTable.read(str(path))


MAKERS: dict[str, Maker] = {"inline": make_inline, "file": make_file}
VALUES = {"anna": "", "bob": "smtp://10.0.0.5:25", "zoë": "two words", "c#d": "x"}


def test_every_type_is_held_to_the_contract() -> None:
    assert set(MAKERS) == set(TABLE_TYPES)


@pytest.fixture(params=sorted(MAKERS))
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Table:
    return MAKERS[request.param](dict(VALUES), tmp_path)


def test_values(table: Table) -> None:
    assert {key: table.lookup(key) for key in VALUES} == VALUES


@pytest.mark.parametrize("key", ["", "nobody", "Anna", "anna ", "ann", "anna@example.net", "\0", "a" * 10000, "\ud800"])
def test_what_is_not_there_is_none(table: Table, key: str) -> None:
    assert table.lookup(key) is None


def test_it_has_a_name_for_the_log(table: Table) -> None:
    assert "people" in table.name


def test_contents_are_those_of_the_moment(tmp_path: Path) -> None:
    values = dict(VALUES)
    inline = InlineTable("people", values)
    values.clear()
    assert inline.lookup("anna") == ""


def test_a_file_that_cannot_be_used_gives_no_table(tmp_path: Path) -> None:
    with pytest.raises(TableUnavailable, match="none"):
        FileTable.read(str(tmp_path / "none"))
    with pytest.raises(TableUnavailable, match="people:2: the key 'anna' is given twice"):
        FileTable.parse("people", "anna x\nanna y\n")


def test_unavailable_is_neither_yes_nor_no() -> None:
    with pytest.raises(TableUnavailable, match="people: gone"):
        FileTable.unavailable("people", "gone").lookup("anna")
