"""The ring of recorded facts: bounded, in order, and what is torn is left out."""

from __future__ import annotations

import os
from pathlib import Path

from gatepost.spool.factring import FactRing, read_batches


def make(tmp_path: Path, keep_bytes: int = 1024 * 1024, keep_days: int = 1) -> FactRing:
    (tmp_path / "facts").mkdir(exist_ok=True)
    return FactRing(str(tmp_path), keep_bytes, keep_days)


def size(tmp_path: Path) -> int:
    return sum(path.stat().st_size for path in (tmp_path / "facts").iterdir())


def test_what_was_written_is_read_in_order(tmp_path: Path) -> None:
    ring = make(tmp_path)
    for number in range(100):
        ring.append(b"%d" % number * 10, 0.0)
    assert list(read_batches(str(tmp_path))) == [b"%d" % number * 10 for number in range(100)]
    ring.close()
    again = make(tmp_path)
    again.append(b"last", 0.0)
    assert list(read_batches(str(tmp_path)))[-1] == b"last"
    assert ring.dropped == again.dropped == 0


def test_the_ring_is_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    ring = make(tmp_path)
    for number in range(400):
        ring.append(b"%04d" % number + bytes(9000), 0.0)
    assert size(tmp_path) <= 1024 * 1024
    kept = [int(batch[:4]) for batch in read_batches(str(tmp_path))]
    assert kept == list(range(kept[0], 400)) and len(kept) > 80


def test_old_files_go(tmp_path: Path) -> None:
    ring = make(tmp_path)
    ring.append(b"old", 0.0)
    ring.close()
    (old,) = (tmp_path / "facts").iterdir()
    os.utime(old, (1000.0, 1000.0))
    ring.append(b"new", 1000.0 + 2 * 86400.0)
    assert list(read_batches(str(tmp_path))) == [b"new"]


def test_damage_costs_the_rest_of_its_file_only(tmp_path: Path) -> None:
    ring = make(tmp_path)
    ring.append(b"one", 0.0)
    ring.append(b"two", 0.0)
    ring.close()
    (first,) = (tmp_path / "facts").iterdir()
    first.write_bytes(first.read_bytes()[:-1])
    ring.append(b"three", 0.0)
    assert list(read_batches(str(tmp_path))) == [b"one", b"three"]
    first.write_bytes(b"junk")
    assert list(read_batches(str(tmp_path))) == [b"three"]


def test_a_disk_that_refuses_costs_facts_only(tmp_path: Path) -> None:
    ring = FactRing(str(tmp_path / "none"), 1024 * 1024, 1)
    ring.append(b"x", 0.0)
    assert ring.dropped == 1
    nothing = make(tmp_path, keep_bytes=0)
    nothing.append(b"x", 0.0)
    assert size(tmp_path) == 0
