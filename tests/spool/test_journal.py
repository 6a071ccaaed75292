"""Journal files: lines survive torn tails, flipped bytes, holes and refused writes."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.spool.errors import SpoolError, SpoolFull
from gatepost.spool.journal import Gap, JournalFile, read_lines

LINES = [[2, "a1", 1, 0, 441], [3, "a1", b"\0", 1, 5.5, []], [5, "a1", b"\1"]]


def write_lines(lines=LINES) -> tuple[bytes, list[int]]:
    journal = JournalFile(os.memfd_create("journal"), 1)
    ends = []
    for line in lines:
        journal.add(tuple(line))
        journal.flush()
        ends.append(journal.length)
    data = os.pread(journal.fd, 1 << 24, 0)
    journal.close()
    return data, ends


GOOD, ENDS = write_lines()


def test_lines_are_read_back_and_reserved_zeros_are_nothing():
    assert len(GOOD) > ENDS[-1] + 1000
    assert list(read_lines(GOOD)) == LINES
    assert list(read_lines(GOOD[: ENDS[-1]])) == LINES
    assert list(read_lines(b"")) == []


def test_torn_at_every_byte():
    for cut in range(ENDS[1] + 1, ENDS[2]):
        for tail in (b"", bytes(50)):
            found = list(read_lines(GOOD[:cut] + tail))
            assert found[:2] == LINES[:2]
            assert all(gap.torn for gap in found[2:]), cut


@given(st.integers(0, ENDS[-1] - 1), st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_a_flipped_byte_costs_one_line(position, flip):
    bad = bytearray(GOOD)
    bad[position] ^= flip
    hit = next(index for index, end in enumerate(ENDS) if position < end)
    found = list(read_lines(bytes(bad)))
    assert [line for line in found if not isinstance(line, Gap)] == [line for n, line in enumerate(LINES) if n != hit]
    assert [gap.torn for gap in found if isinstance(gap, Gap)] == [hit == 2]


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_any_bytes_can_be_read(data):
    assert [line for line in read_lines(data + GOOD) if not isinstance(line, Gap)] == LINES
    list(read_lines(data))


def test_a_refused_write_is_made_up_for_by_the_next(monkeypatch):
    journal = JournalFile(os.memfd_create("journal"), 1)
    real = os.pwrite

    def half(fd, data, offset):
        real(fd, bytes(data)[:5], offset)
        raise OSError(errno.ENOSPC, "no space")

    journal.add(tuple(LINES[0]))
    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(SpoolFull):
        journal.flush()
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, bytes(data)[:7], offset))
    journal.add(tuple(LINES[1]))
    journal.flush()
    assert list(read_lines(os.pread(journal.fd, 1 << 24, 0))) == LINES[:2]
    journal.close()


def test_reserved_space_is_used_when_there_is_no_more(monkeypatch):
    journal = JournalFile(os.memfd_create("journal"), 1)
    journal.add(tuple(LINES[0]))
    journal.flush()

    def refuse(*_):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    filler = (3, "x" * 100_000)
    with pytest.raises(SpoolFull):
        for _ in range(100):
            journal.add(filler)
            journal.flush()
    assert journal.length > 4_000_000
    journal.close()


def test_a_refused_sync_is_never_forgotten(monkeypatch):
    journal = JournalFile(os.memfd_create("journal"), 1)
    journal.add(tuple(LINES[0]))
    journal.flush()

    def refuse(fd):
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fdatasync", refuse)
    with pytest.raises(SpoolError):
        journal.sync()
    monkeypatch.undo()
    with pytest.raises(SpoolError, match="poisoned"):
        journal.sync()
    journal.close()
