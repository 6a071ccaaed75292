"""A power cut may keep later lines of the journal and not the first one of a message: its age is taken from what is left of it.

A message whose time is not known would be given up at its first temporary failure.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from spool_bed import Writer, assert_balanced, make_envelope, open_spool

from gatepost.spool import journal
from gatepost.spool.entry import State
from gatepost.spool.journal import Kind

PENDING = bytes([State.PENDING])


def lose_its_lines(root: Path, *left: list) -> None:
    """A journal that knows of nothing but segment 1, and has `left` behind that."""
    [path] = sorted((root / "journal").iterdir())
    lines = [line for line in journal.read_lines(path.read_bytes()) if not isinstance(line, journal.Gap)]
    kept = [line for line in lines if line[0] in (Kind.BEGIN, Kind.END, Kind.OPENED)]
    path.unlink()
    writer = journal.JournalFile(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), 1)
    for line in [*kept, *left]:
        writer.add(tuple(line))
    writer.flush()
    writer.close()


@pytest.mark.parametrize("place", ["segment", "deferred line", "deferred file"])
def test_its_time_is_known_all_the_same(tmp_path: Path, place: str) -> None:
    root = tmp_path / "spool"
    spool = open_spool(root, defer_after_s=-1.0)
    [entry] = Writer(spool).take("a1")
    left: list = [Kind.SETTLED, "a1", PENDING]
    if place != "segment":
        spool.defer_to_file([entry])
        if place == "deferred line":
            left = [
                Kind.DEFERRED,
                entry.deferred_dir,
                [("a1", entry.crc, entry.content_bytes, PENDING, entry.packed_envelope)],
            ]
    spool.commit()
    spool.abandon()
    lose_its_lines(root, left)
    if place != "segment":
        for path in (root / "segments").iterdir():
            path.write_bytes(b"")
    spool = open_spool(root)
    assert (spool.entries["a1"].begun_s, spool.entries["a1"].pending) == (make_envelope("a1").received_s, 1)
    assert_balanced(spool)
    spool.close()
