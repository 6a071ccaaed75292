"""The contract of lookup tables. A new type adds a maker to MAKERS and gets every test."""

from __future__ import annotations

import functools
import operator
import os
import sqlite3
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from migrate.debian import run_tool, unpacked

from gatepost.config.errors import ConfigErrors
from gatepost.config.schema import Source
from gatepost.config.sources import DEFAULT_KEYS
from gatepost.config.tables import TableData, without_notes
from gatepost.model import NeedsAnswer, Question
from gatepost.routing.answers import Answer, Answers
from gatepost.routing.table import Table, TableUnavailable
from gatepost.routing.tables import FILE_TYPES, REMOTE_TYPES, TABLE_TYPES, FileTable, InlineTable, build_table
from gatepost.routing.tables.callahead import CallAheadTable
from gatepost.routing.tables.remote import RemoteTable
from gatepost.routing.tables.remote_access import RemoteAccessTable
from gatepost.routing.tables.uses import FITS

Maker = Callable[[dict[str, str], Path], Table]
VALUES = {"anna": "", "bob": "smtp://10.0.0.5:25", "zoë": "two words", "c#d": "x"}
FULL = {key: value or "x" for key, value in VALUES.items()}  # where a key without value cannot be


def handed_over(kind: str, argument: str) -> Table:
    """Read as when a configuration is loaded, encoded, decoded, built as in a role."""
    data = FILE_TYPES[kind].load(argument)
    encoded = msgspec.msgpack.encode(without_notes({"t": data})["t"])
    table: Table = build_table(msgspec.msgpack.decode(encoded, type=TableData))
    return table


def make_inline(values: dict[str, str], directory: Path) -> Table:
    items = ", ".join(f"{{ {key} = {value} }}" for key, value in values.items())
    return handed_over("inline", f"{{{items}, {{ people = x }}}}")


def make_static(values: dict[str, str], directory: Path) -> Table:
    return handed_over("static", "people are { here }")


def make_text(kind: str, values: dict[str, str], directory: Path) -> Table:
    path = directory / "people"
    path.write_text("# a comment\n\n" + "".join(f"{key}\t{value}\n" for key, value in values.items()))
    return handed_over(kind, str(path))


def make_berkeley(kind: str, values: dict[str, str], directory: Path) -> Table:
    text = "".join(f"{key}\n{value}\n" for key, value in values.items())
    run_tool(unpacked("db5.3-util"), "db5.3_load", "-T", "-t", kind, str(directory / "people.db"), text=text)
    return handed_over(kind, str(directory / "people"))


def make_cdb(values: dict[str, str], directory: Path) -> Table:
    root = unpacked("tinycdb", "libcdb1")
    text = "".join(f"+{len(key.encode())},{len(value.encode())}:{key}->{value}\n" for key, value in values.items())
    run_tool(root, "cdb", "-c", str(directory / "people.cdb"), text=text + "\n")
    return handed_over("cdb", str(directory / "people"))


def make_lmdb(values: dict[str, str], directory: Path) -> Table:
    text = "VERSION=3\nformat=print\ntype=btree\nmapsize=1048576\nmaxreaders=126\ndb_pagesize=4096\nHEADER=END\n"
    for pair in sorted(values.items()):
        text += "".join(" " + "".join(f"\\{byte:02x}" for byte in item.encode()) + "\n" for item in pair)
    root = unpacked("lmdb-utils", "liblmdb0")
    run_tool(root, "mdb_load", "-n", str(directory / "people.lmdb"), text=text + "DATA=END\n")
    return handed_over("lmdb", str(directory / "people"))


def make_sqlite(values: dict[str, str], directory: Path) -> Table:
    with sqlite3.connect(directory / "people.db") as connection:
        connection.execute("CREATE TABLE people (key TEXT, value TEXT)")
        connection.executemany("INSERT INTO people VALUES (?, ?)", list(values.items()))
    connection.close()
    return handed_over("sqlite", f"{directory}/people.db#people")


def make_patterns(kind: str, values: dict[str, str], directory: Path) -> Table:
    path = directory / "people"
    path.write_text("".join(f"/^{key}$/i {value}\n" for key, value in values.items()))
    return handed_over(kind, str(path))


class Server(Answers):
    """What a server knows, as a receiver that has asked sees it."""

    def __init__(self, values: dict[str, str]) -> None:
        super().__init__()
        self.values = values

    def need_answers(self, source: str, keys: Sequence[str]) -> list[Answer]:
        return [Answer(self.values.get(key)) for key in keys]


def make_call_ahead(values: dict[str, str], directory: Path) -> Table:
    return CallAheadTable("call-ahead:smtp://people.example:25", Server(values))


def make_remote(kind: str, values: dict[str, str], directory: Path) -> Table:
    type_ = {"ldap": "ldap", "sql": "mysql", "http": "http"}[kind]
    return RemoteTable(f"{kind}:people", Source(type=type_), "recipients", Server(values))


def make_remote_access(kind: str, values: dict[str, str], directory: Path) -> Table:
    return RemoteAccessTable(f"{kind}:people", Server(values))


def make_aliases(values: dict[str, str], directory: Path) -> Table:
    (directory / "people").write_text("".join(f"{name}: {targets}\n" for name, targets in values.items()))
    return handed_over("aliases", str(directory / "people"))


ACCESS = {"connect:10.1": "REJECT", "from:anna@": "OK", "to:zo\u00eb@a.example": "ERROR:5.1.1:550 gone"}
ALIASES = {"anna": "bob, carl@else.example", "postmaster": "anna"}
NETWORKS = {"10.1.2.3": "one", "2001:db8::1": "two", "192.0.2.255": "three words here"}
ROUTES = {"bob.example": "smtp:[10.0.0.5]", ".example": "error:5.1.2:550 no", ".": "relay:hub.example"}
ROUTES_READ = {
    "bob.example": "smtp://10.0.0.5:25",
    ".example": "error:550 5.1.2 no",
    ".": "mx:hub.example",
}
ADDRESSES = {"anna@a.example": "bob@b.example", "@a.example": "%1@c.example"}
DOMAINS = {"a.example": "b.example", "c.example": "d.example"}

# kind -> (maker, what is written, what is read)
MAKERS: dict[str, tuple[Maker, dict[str, str], dict[str, str]]] = {
    "inline": (make_inline, VALUES, VALUES),
    "file": (functools.partial(make_text, "file"), VALUES, VALUES),
    "static": (make_static, {}, {"anna": "people are { here }"}),
    "texthash": (functools.partial(make_text, "texthash"), FULL, FULL),
    "hash": (functools.partial(make_berkeley, "hash"), VALUES, VALUES),
    "btree": (functools.partial(make_berkeley, "btree"), VALUES, VALUES),
    "cdb": (make_cdb, VALUES, VALUES),
    "lmdb": (make_lmdb, VALUES, VALUES),
    "sqlite": (make_sqlite, VALUES, VALUES),
    **{kind: (functools.partial(make_remote, kind), VALUES, VALUES) for kind in REMOTE_TYPES},
    "call-ahead": (make_call_ahead, VALUES, VALUES),
    "cidr": (functools.partial(make_text, "cidr"), NETWORKS, NETWORKS),
    "regexp": (functools.partial(make_patterns, "regexp"), FULL, FULL),
    "pcre": (functools.partial(make_patterns, "pcre"), FULL, FULL),
    "aliases": (make_aliases, ALIASES, ALIASES),
    "sendmail-access": (
        functools.partial(make_text, "sendmail-access"),
        {"connect:10.1": "REJECT", "anna@": "OK"},
        {"connect:10.1": "REJECT", "anna@": "OK"},
    ),
    "sendmail-mailertable": (functools.partial(make_text, "sendmail-mailertable"), ROUTES, ROUTES_READ),
    "sendmail-virtusertable": (functools.partial(make_text, "sendmail-virtusertable"), ADDRESSES, ADDRESSES),
    "sendmail-genericstable": (functools.partial(make_text, "sendmail-genericstable"), FULL | ADDRESSES, {}),
    "sendmail-domaintable": (functools.partial(make_text, "sendmail-domaintable"), DOMAINS, DOMAINS),
}
MAKERS["sendmail-genericstable"] = (
    functools.partial(make_text, "sendmail-genericstable"),
    {"anna": "a.b@out.example", **ADDRESSES},
    {"anna": "a.b@out.example", **ADDRESSES},
)


USES = {  # the same kinds, of another class for one use
    f"{kind} for access": (functools.partial(make_remote_access, kind), ACCESS, ACCESS) for kind in REMOTE_TYPES
}


def test_every_type_is_held_to_the_contract() -> None:
    assert set(MAKERS) == set(TABLE_TYPES)
    assert set(FILE_TYPES) | set(REMOTE_TYPES) | {"call-ahead"} == set(TABLE_TYPES)


@pytest.fixture(params=sorted(MAKERS | USES))
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Table, dict[str, str]]:
    maker, written, read = (MAKERS | USES)[request.param]
    return maker(dict(written), tmp_path), read


def test_values(made: tuple[Table, dict[str, str]]) -> None:
    table, read = made
    assert {key: table.lookup(key) for key in read} == read


@pytest.mark.parametrize("key", ["", "nobody", "Anna", "anna ", "ann", "anna@example.net", "\0", "a" * 10000, "\ud800"])
def test_what_is_not_there_is_none(made: tuple[Table, dict[str, str]], key: str) -> None:
    table, _ = made
    assert table.lookup(key) is None or table.name.startswith("static:")


def test_it_has_a_name_for_the_log(made: tuple[Table, dict[str, str]]) -> None:
    assert "people" in made[0].name


def test_addresses_are_asked_as_a_whole(made: tuple[Table, dict[str, str]]) -> None:
    table: Any = made[0]
    if hasattr(table, "find_address"):
        assert table.find_address("nobody", "nowhere.example") in (None, table.lookup("nobody@nowhere.example"))


@pytest.mark.parametrize("kind", sorted(kind for kind in FILE_TYPES if FILE_TYPES[kind].is_path))
def test_a_file_that_is_not_there(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match="nothing"):
        FILE_TYPES[kind].load(str(tmp_path / "nothing"))


@pytest.mark.parametrize("kind", sorted(kind for kind in FILE_TYPES if FILE_TYPES[kind].is_path))
def test_a_directory_is_no_table(kind: str, tmp_path: Path) -> None:
    for name in ("d", "d.db", "d.cdb", "d.lmdb"):
        (tmp_path / name).mkdir()
    with pytest.raises(ConfigErrors, match="cannot be read"):
        FILE_TYPES[kind].load(str(tmp_path / "d"))


@pytest.mark.parametrize("kind", sorted(kind for kind in FILE_TYPES if FILE_TYPES[kind].is_path))
def test_what_is_no_text_names_the_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"# fine\nnot \xff utf-8\n")
    with pytest.raises(ConfigErrors) as caught:
        FILE_TYPES[kind].load(str(path))
    assert ":2: the line is not UTF-8" in str(caught.value) or "SQLite cannot read it" in str(caught.value)


def test_contents_are_those_of_the_moment() -> None:
    values = dict(VALUES)
    inline = InlineTable("people", values)
    values.clear()
    assert inline.lookup("anna") == ""


def test_a_file_that_cannot_be_used_gives_no_table(tmp_path: Path) -> None:
    with pytest.raises(TableUnavailable, match="none"):
        FileTable.read(str(tmp_path / "none"))
    with pytest.raises(TableUnavailable, match="people:2: the key 'anna' is given twice"):
        FileTable.parse("people", "anna x\nanna y\n")
    (tmp_path / "people").write_text("anna x\n\nAnna y\n")
    with pytest.raises(ConfigErrors, match=r'people:3: the key "Anna" is given twice, first in line 1; remove one'):
        FileTable.load(str(tmp_path / "people"))


def test_a_table_is_read_through_no_link_and_not_endlessly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "people").write_text("anna\n")
    (tmp_path / "link").symlink_to("people")
    os.mkfifo(tmp_path / "pipe")
    assert FileTable.read(str(tmp_path / "people")).lookup("anna") == ""
    for name, why in (("link", "symbolic link"), ("pipe", "no regular file")):
        with pytest.raises(TableUnavailable, match=why):
            FileTable.read(str(tmp_path / name))
    monkeypatch.setattr("gatepost.routing.tables.file.MAX_TABLE_BYTES", 4)
    with pytest.raises(TableUnavailable, match="larger than"):
        FileTable.read(str(tmp_path / "people"))


def test_unavailable_is_neither_yes_nor_no() -> None:
    table = FileTable.unavailable("people", "gone")
    for ask in (operator.methodcaller("lookup", "anna"), operator.methodcaller("find_address", "anna", "a.example")):
        with pytest.raises(TableUnavailable, match="people: gone"):
            ask(table)


@pytest.mark.parametrize("use", DEFAULT_KEYS)
@pytest.mark.parametrize("kind", sorted(REMOTE_TYPES))
def test_a_server_that_cannot_be_reached_defers(kind: str, use: str) -> None:
    question = Question(f"{kind}:people", "anna@a.example")
    answers = Answers()
    table = RemoteTable(question.source, Source(type="ldap", keys=["address"]), use, answers)
    with pytest.raises(NeedsAnswer):
        table.find_address("anna", "a.example")
    answers.give({question: Answer(None, "connection refused")})
    with pytest.raises(TableUnavailable, match="people: connection refused"):
        table.find_address("anna", "a.example")
    answers.give({question: Answer(None)})
    assert table.find_address("anna", "a.example") is None


def test_what_a_server_is_asked_for() -> None:
    forms = ["address", "local", "catch-all", "domain", "parents", "any"]
    table = RemoteTable("ldap:people", Source(type="ldap", keys=forms), "routes", Answers())
    with pytest.raises(NeedsAnswer) as raised:
        table.find_route("anna", "a.b.example")
    asked = [question.key for question in raised.value.questions]
    assert asked == ["anna@a.b.example", "anna", "@a.b.example", "a.b.example", ".b.example", ".example", "*"]


@pytest.mark.parametrize(
    ("use", "value"),
    [
        ("routes", "to nowhere at all"), ("virtual", "no address"), ("virtual", "a@b c@d"), ("aliases", "|/bin/vacation"),
        ("aliases", "bob, /var/mail/x"), ("aliases", " , "), ("sender_routes", "to nowhere at all"), ("rewrite", "a@b.example, c@d.example"),
        ("rewrite", "bob"), ("rewrite", "bob@$1"),
    ],
)  # fmt: skip
def test_a_value_without_sense_defers_and_is_told(use: str, value: str) -> None:
    told: list[str] = []
    answers = Answers(trouble=lambda source, why: told.append(source))
    answers.give({Question("sql:people", "anna@a.example"): Answer(value)})
    table = RemoteTable("sql:people", Source(type="mysql", keys=["address"]), use, answers, FITS[use])
    with pytest.raises(TableUnavailable):
        table.find_address("anna", "a.example")
    assert told == ["sql:people"]


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatepost.routing.tables.source.MAX_TABLE_BYTES", 1 << 20)
    monkeypatch.setattr("gatepost.routing.tables.source.MAX_ENTRIES", 100)
    (tmp_path / "large").write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(ConfigErrors, match="larger than 1 MiB"):
        FileTable.load(str(tmp_path / "large"))
    (tmp_path / "many").write_text("".join(f"key{number} x\n" for number in range(101)))
    with pytest.raises(ConfigErrors, match="more than 100 entries"):
        FileTable.load(str(tmp_path / "many"))
    (tmp_path / "many.cdb").write_bytes(cdb_of([(b"k%d" % number, b"v") for number in range(101)]))
    with pytest.raises(ConfigErrors, match="more than 100 entries"):
        FILE_TYPES["cdb"].load(str(tmp_path / "many"))


def cdb_of(records: list[tuple[bytes, bytes]]) -> bytes:
    """A constant database without hash tables, which a reader of records does not need."""
    body = b"".join(struct.pack("<II", len(key), len(value)) + key + value for key, value in records)
    return struct.pack("<II", 2048 + len(body), 0) * 256 + body
