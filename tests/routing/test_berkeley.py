"""Berkeley DB files as Debian's own tools write them, read back; and any damage to them ends in records or BadFile."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from migrate.debian import run_tool, unpacked
from peers import require

from gatepost.config.errors import ConfigErrors
from gatepost.routing.tables.berkeley import BadFile, parse_berkeley
from gatepost.routing.tables.postfix_maps import BtreeTable, HashTable

MANY = {f"user{number}@example.test".encode(): f"value {number}".encode() for number in range(3000)}
LONG = {b"long": b"x" * 20_000, b"k" * 9_000: b"short", b"plain": b"y"}


def build(directory: Path, records: list[tuple[bytes, bytes]], *options: str) -> bytes:
    """A file made by db5.3_load."""
    root = unpacked("db5.3-util")
    path = directory / "made.db"
    path.unlink(missing_ok=True)
    text = "".join(f"{key.decode()}\n{value.decode()}\n" for key, value in records)
    run_tool(root, "db5.3_load", "-T", *options, str(path), text=text)
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["hash", "btree"])
@pytest.mark.parametrize("order", ["1234", "4321"])
@pytest.mark.parametrize("page_size", ["512", "4096", "65536"])
def test_both_kinds_orders_and_page_sizes(tmp_path: Path, kind: str, order: str, page_size: str) -> None:
    options = ["-t", kind, "-c", f"db_lorder={order}", "-c", f"db_pagesize={page_size}"]
    assert dict(parse_berkeley(build(tmp_path, list(MANY.items()), *options))) == MANY
    assert dict(parse_berkeley(build(tmp_path, list(LONG.items()), *options))) == LONG


@pytest.mark.parametrize("kind", ["hash", "btree"])
@pytest.mark.parametrize("order", ["1234", "4321"])
def test_duplicates_on_the_page_and_in_a_tree(tmp_path: Path, kind: str, order: str) -> None:
    few = [(b"anna", b"one"), (b"anna", b"two"), (b"bob", b"three")]
    many = [(b"list", f"member{number}@example.test".encode()) for number in range(2000)] + few
    options = ["-t", kind, "-c", f"db_lorder={order}", "-c", "duplicates=1"]
    assert sorted(parse_berkeley(build(tmp_path, few, *options))) == sorted(few)
    assert sorted(parse_berkeley(build(tmp_path, many, *options))) == sorted(many)


@pytest.mark.parametrize("kind", ["hash", "btree"])
def test_empty(tmp_path: Path, kind: str) -> None:
    assert parse_berkeley(build(tmp_path, [], "-t", kind)) == []


@pytest.mark.peer("postmap")
@pytest.mark.parametrize(("kind", "table"), [("hash", HashTable), ("btree", BtreeTable)])
def test_files_of_postmap(tmp_path: Path, kind: str, table: type[HashTable]) -> None:
    require("postfix")
    (tmp_path / "main.cf").touch()
    source = tmp_path / "map"
    source.write_text("Anna@Example.test  x\nbob  long value\n")
    subprocess.run([str(shutil.which("postmap")), "-c", str(tmp_path), f"{kind}:{source}"], check=True, timeout=30)
    data = table.load(str(source))
    assert data.files == [f"{source}.db"]
    assert data.entries == {"anna@example.test": "x", "bob": "long value"}


def test_a_source_that_was_never_compiled_is_read(tmp_path: Path) -> None:
    (tmp_path / "map").write_text("anna x\n")
    data = HashTable.load(str(tmp_path / "map"))
    assert data.entries == {"anna": "x"}
    assert "there is no" in data.notes[0].problem


def header(magic: int, version: int, page_size: int = 512, flags: int = 0, database_flags: int = 0) -> bytes:
    page = bytearray(page_size * 2)
    struct.pack_into("<QIIIIBBBB", page, 0, 0, 0, magic, version, page_size, 0, 8, flags, 0)
    struct.pack_into("<I", page, 48, database_flags)
    return bytes(page)


REFUSED = {
    "too short": b"x" * 100,
    "is not a Berkeley DB": b"x" * 4096,
    "old format 1.85": struct.pack("<I", 0x061561) + bytes(4096),
    "has version 7": header(0x061561, 7),
    "has version 11": header(0x053162, 11),
    "has checksums": header(0x061561, 9, flags=1),
    "several databases": header(0x053162, 9, database_flags=0x20),
    "page size": header(0x061561, 9)[:20] + struct.pack("<I", 1000) + header(0x061561, 9)[24:],
}


@pytest.mark.parametrize("problem", REFUSED)
def test_what_cannot_be_read_says_so(problem: str) -> None:
    with pytest.raises(BadFile, match=problem):
        parse_berkeley(REFUSED[problem])


def test_the_error_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"x" * 4096)
    with pytest.raises(ConfigErrors, match=r"x\.db: it is not a Berkeley DB hash or btree file; make it anew"):
        HashTable.load(str(tmp_path / "x"))


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    directory = tmp_path_factory.mktemp("samples")
    records = [*LONG.items(), *list(MANY.items())[:60]]
    twice = [(b"anna", b"one" * 20), *[(b"list", b"member%d" % number) for number in range(300)]]
    found = []
    for kind in ("hash", "btree"):
        found.append(build(directory, records, "-t", kind, "-c", "db_pagesize=512"))
        found.append(build(directory, twice, "-t", kind, "-c", "db_pagesize=512", "-c", "duplicates=1"))
    return found


@settings(max_examples=150, deadline=None)
@given(
    which=st.integers(0, 3),
    changes=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=8),
    cut=st.integers(0, 1 << 20),
)
def test_damage_ends_in_records_or_bad_file(
    samples: list[bytes], which: int, changes: list[tuple[int, int]], cut: int
) -> None:
    damaged = bytearray(samples[which])
    for at, value in changes:
        damaged[at % len(damaged)] = value
    for text in (bytes(damaged), bytes(damaged[: cut % len(damaged)])):
        try:
            records = parse_berkeley(text)
        except BadFile:
            continue
        assert sum(len(value) for _, value in records) <= 64 * len(text) + 1024


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2048))
def test_any_bytes_behind_a_good_header(tail: bytes) -> None:
    for magic in (0x061561, 0x053162):
        try:
            parse_berkeley(header(magic, 9)[:512] + tail + bytes(-len(tail) % 512))
        except BadFile:
            continue
