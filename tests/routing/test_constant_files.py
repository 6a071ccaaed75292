"""cdb, LMDB and SQLite files: long values, other byte orders, and that no damage does more than an error."""

from __future__ import annotations

import functools
import shutil
import sqlite3
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from migrate.debian import run_tool, unpacked

from gatepost.config.errors import ConfigErrors
from gatepost.routing.tables.berkeley import BadFile
from gatepost.routing.tables.cdb import parse_cdb
from gatepost.routing.tables.lmdb import parse_lmdb
from gatepost.routing.tables.sqlite import SqliteTable

RECORDS = [
    *((b"user%05d@example.test" % number, b"value %d" % number) for number in range(2000)),
    (b"z", b"x" * 30_000),
]


@functools.cache
def lmdb_file() -> bytes:
    path = Path(tempfile.mkdtemp()) / "made.lmdb"
    text = "VERSION=3\nformat=print\ntype=btree\nmapsize=4194304\nmaxreaders=126\ndb_pagesize=4096\nHEADER=END\n"
    text += "".join(f" {key.decode()}\n {value.decode()}\n" for key, value in RECORDS)
    run_tool(unpacked("lmdb-utils", "liblmdb0"), "mdb_load", "-n", str(path), text=text + "DATA=END\n")
    data = path.read_bytes()
    shutil.rmtree(path.parent)
    return data


@functools.cache
def cdb_file() -> bytes:
    path = Path(tempfile.mkdtemp()) / "made.cdb"
    text = "".join(f"+{len(key)},{len(value)}:{key.decode()}->{value.decode()}\n" for key, value in RECORDS)
    run_tool(unpacked("tinycdb", "libcdb1"), "cdb", "-c", str(path), text=text + "\n")
    data = path.read_bytes()
    shutil.rmtree(path.parent)
    return data


def test_a_tree_of_pages_and_a_long_value() -> None:
    assert parse_lmdb(lmdb_file()) == RECORDS


def test_records_in_their_order() -> None:
    assert parse_cdb(cdb_file()) == RECORDS


@settings(max_examples=100, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 1 << 22), st.integers(0, 255)), max_size=8), cut=st.integers(0, 1 << 22)
)
def test_damage_ends_in_records_or_bad_file(changes: list[tuple[int, int]], cut: int) -> None:
    for good, parse in ((lmdb_file(), parse_lmdb), (cdb_file(), parse_cdb)):
        damaged = bytearray(good)
        for at, value in changes:
            damaged[at % len(damaged)] = value
            damaged[at % 4096] = value  # where it hurts most
        for text in (bytes(damaged), bytes(damaged[: cut % len(damaged)])):
            try:
                records = parse(text)
            except BadFile:
                continue
            assert len(records) <= len(text)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.binary(min_size=1, max_size=60), st.binary(max_size=9000), max_size=40))
def test_what_the_lmdb_library_writes(values: dict[bytes, bytes]) -> None:
    lmdb = pytest.importorskip("lmdb")
    with tempfile.TemporaryDirectory() as directory:
        with (
            lmdb.open(f"{directory}/x", subdir=False, map_size=1 << 22) as environment,
            environment.begin(write=True) as work,
        ):
            for key, value in values.items():
                work.put(key, value)
        assert parse_lmdb(Path(directory, "x").read_bytes()) == sorted(values.items())


@pytest.mark.parametrize("data", [b"", b"x" * 100, b"x" * 8192, struct.pack("<512I", *[9999999, 9] * 256)])
def test_other_files(data: bytes) -> None:
    for parse in (parse_lmdb, parse_cdb):
        with pytest.raises(BadFile):
            parse(data)


def database(path: Path, *statements: str) -> str:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return str(path)


def test_sqlite_reads_a_plain_table_and_runs_no_sql_of_the_file(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE map (key TEXT, value BLOB)",
        "INSERT INTO map VALUES ('Anna', 'x'), ('bob', NULL), (NULL, 'y'), (7, 8)",
        "CREATE VIEW seen AS SELECT key, value FROM map",
        "CREATE TABLE made (key TEXT, value TEXT GENERATED ALWAYS AS (key || 'x') VIRTUAL)",
    )
    assert SqliteTable.load(path).entries == {"anna": "x", "bob": "", "7": "8"}
    for table, problem in (
        ("seen", 'no plain table "seen"'),
        ("none", 'no plain table "none"'),
        ("made", "lacks the plain columns"),
        ("a b", "not a plain name"),
    ):
        with pytest.raises(ConfigErrors, match=problem):
            SqliteTable.load(f"{path}#{table}")


def test_sqlite_that_is_none_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"not a database, and long enough to be looked at" * 100)
    with pytest.raises(ConfigErrors, match="not a database"):
        SqliteTable.load(f"{tmp_path}/x")
    with pytest.raises(ConfigErrors, match="there is no such file"):
        SqliteTable.load(f"{tmp_path}/y")
    assert not (tmp_path / "y").exists()
