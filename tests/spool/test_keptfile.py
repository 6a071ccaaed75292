"""The small file of records: written as a whole, bounded, empty where it is damaged."""

from __future__ import annotations

import os

import pytest

from gatepost.spool.errors import SpoolError
from gatepost.spool.keptfile import KeptFile


@pytest.fixture
def root(tmp_path):
    (tmp_path / "tls").mkdir()
    return str(tmp_path)


def new(root, records=10, octets=1000):
    return KeptFile(root, "things", records, octets)


def test_what_was_written_comes_back(root):
    file = new(root)
    file.load()
    assert file.put("a.test", b"1")
    assert file.put("b.test", b"22")
    assert file.put("a.test", b"3")
    assert file.is_changed
    file.write(file.encoded())
    assert not file.is_changed
    again = new(root)
    again.load()
    assert again.records == {"b.test": b"22", "a.test": b"3"}
    assert not again.is_changed
    assert os.stat(f"{root}/tls/things").st_mode & 0o777 == 0o600
    assert os.listdir(f"{root}/tls") == ["things"]


def test_what_is_left_of_a_crash_is_in_nobodys_way(root):
    file = new(root)
    file.put("a", b"1")
    with open(f"{root}/tls/things.new", "wb") as left:
        left.write(b"half")
    file.write(file.encoded())
    again = new(root)
    again.load()
    assert again.records == {"a": b"1"}


def test_an_empty_record_is_forgotten(root):
    file = new(root, records=1)
    assert file.put("a", b"1")
    assert not file.put("b", b"1")
    assert file.put("a", b"")
    assert file.put("b", b"1")


def test_room_is_counted_in_octets_too(root):
    file = new(root, octets=20)
    assert file.put("a", b"x" * 10)
    assert not file.put("b", b"x" * 10)
    assert file.put("a", b"x" * 15)
    assert file.put("a", b"")
    assert file.put("b", b"x" * 19)
    assert not file.put("c" * 1000, b"")


@pytest.mark.parametrize("damage", [b"", b"GPKEPT01", b"\0", None])
def test_a_damaged_file_is_told(root, damage):
    file = new(root)
    file.put("a", b"1")
    file.write(file.encoded())
    path = f"{root}/tls/things"
    with open(path, "r+b") as stored:
        if damage is None:
            stored.seek(-1, os.SEEK_END)
            stored.write(b"?")
        else:
            stored.truncate()
            stored.write(damage)
    again = new(root)
    with pytest.raises(ValueError, match="damaged"):
        again.load()
    assert again.records == {}


def test_a_disk_that_refuses(root):
    file = new(root)
    os.rmdir(f"{root}/tls")
    with pytest.raises(SpoolError):
        file.write(file.encoded())
