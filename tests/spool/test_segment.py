"""Segments: what was written is found; torn, flipped and forged bytes are told apart, and poison stays."""

from __future__ import annotations

import errno
import os
import resource
import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spool_bed import TRACE, make_body, make_envelope

from gatepost.spool.errors import SpoolError, SpoolFull
from gatepost.spool.segment import (
    HEADER_BYTES,
    AppendOnlyWriter,
    Damage,
    Found,
    SegmentWriter,
    build_body_record,
    build_record,
    read_content,
    scan_segment,
)

IDS = ("a1", "b2", "c3")


def open_memory() -> int:
    return os.memfd_create("segment")


def write_records(fd: int, ids: tuple[str, ...] = IDS, size: int = 60) -> list[int]:
    records = [build_record(make_envelope(i), TRACE, [make_body(i, size)], len(TRACE) + size + 2) for i in ids]
    return [*SegmentWriter(fd, 1).append(records), sum(record.length for record in records)]


def scan_bytes(data: bytes) -> list[Found | Damage]:
    fd = open_memory()
    try:
        os.write(fd, data)
        return list(scan_segment(fd))
    finally:
        os.close(fd)


@pytest.fixture(scope="module")
def recorded() -> tuple[bytes, list[int]]:
    fd = open_memory()
    offsets = write_records(fd)
    data = os.pread(fd, 1 << 20, 0)
    os.close(fd)
    return data, offsets


def assert_joined(pieces: list[Found | Damage], length: int) -> None:
    assert [piece.offset for piece in pieces] == [0, *(piece.end for piece in pieces)][: len(pieces)]
    assert (pieces[-1].end if pieces else 0) == length


def test_what_was_appended_is_found_with_its_content(recorded):
    data, offsets = recorded
    found = scan_bytes(data)
    assert [piece.envelope.id for piece in found] == list(IDS)
    assert [piece.offset for piece in found] == offsets[:3]
    content = data[found[1].content_offset : found[1].content_offset + found[1].content_bytes]
    assert content == TRACE + make_body("b2", 60)


def test_body_record_names_its_file():
    fd = open_memory()
    SegmentWriter(fd, 1).append([build_body_record(make_envelope("big1"), 77, 5_000_000, 12345)])
    [found] = scan_segment(fd)
    os.close(fd)
    assert (found.body_file, found.content_bytes, found.crc, found.content_offset) == (77, 5_000_000, 12345, 0)


def test_wrong_content_length_is_a_bug_of_the_caller():
    with pytest.raises(ValueError, match="not 5"):
        build_record(make_envelope("a1"), TRACE, [b"x"], 5)


def test_torn_at_every_byte(recorded):
    data, offsets = recorded
    for cut in range(offsets[2] + 1, len(data)):
        pieces = scan_bytes(data[:cut])
        assert_joined(pieces, cut)
        assert [piece.envelope.id for piece in pieces[:2]] == ["a1", "b2"]
        assert isinstance(pieces[2], Damage)
        assert pieces[2].torn, cut


def test_zeros_at_the_end_are_torn(recorded):
    data, _ = recorded
    assert [piece.torn for piece in scan_bytes(data + bytes(3000))[3:]] == [True]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_flipped_byte_costs_one_record_and_is_no_torn_tail(recorded, data):
    good, offsets = recorded
    position = data.draw(st.integers(0, len(good) - 1))
    flip = data.draw(st.integers(1, 255))
    bad = bytearray(good)
    bad[position] ^= flip
    pieces = scan_bytes(bytes(bad))
    assert_joined(pieces, len(good))
    hit = next(index for index in range(3) if position < offsets[index + 1])
    assert [piece.envelope.id for piece in pieces if isinstance(piece, Found)] == [
        i for n, i in enumerate(IDS) if n != hit
    ]
    [damage] = [piece for piece in pieces if isinstance(piece, Damage)]
    assert (damage.offset, damage.end, damage.torn) == (offsets[hit], offsets[hit + 1], False)


@given(st.binary(max_size=400), st.binary(max_size=400))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_scanned_without_a_gap(recorded, before, after):
    good, _ = recorded
    data = before + good + after
    pieces = scan_bytes(data)
    assert_joined(pieces, len(data))
    ids = [piece.envelope.id for piece in pieces if isinstance(piece, Found)]
    assert ids == list(IDS)


def test_a_lost_page_in_the_middle_costs_what_it_held():
    fd = open_memory()
    ids = tuple(f"m{n}" for n in range(40))
    offsets = write_records(fd, ids, size=400)
    os.pwrite(fd, bytes(4096), 4096)
    pieces = list(scan_segment(fd))
    os.close(fd)
    found = [piece.envelope.id for piece in pieces if isinstance(piece, Found)]
    assert found == [i for n, i in enumerate(ids) if offsets[n + 1] <= 4096 or offsets[n] >= 8192]


def test_a_record_inside_a_message_is_not_taken_for_one(monkeypatch):
    fd = open_memory()
    monkeypatch.setattr("gatepost.spool.segment._TOKEN", b"attacker")
    inner = b"".join(build_record(make_envelope("forged"), TRACE, [b"x"], len(TRACE) + 1).iov)
    monkeypatch.undo()
    writer = SegmentWriter(fd, 1)
    first = build_record(make_envelope("good1"), TRACE, [b"x"], len(TRACE) + 1)
    bad = build_record(make_envelope("bad2"), TRACE, [inner], len(TRACE) + len(inner))
    offsets = writer.append([first, bad, build_record(make_envelope("good3"), TRACE, [b"y"], len(TRACE) + 1)])
    os.pwrite(fd, b"\xff", offsets[1] + 10)  # its header is damaged: the reader has to look for the next one
    ids = [piece.envelope.id for piece in scan_segment(fd) if isinstance(piece, Found)]
    os.close(fd)
    assert ids == ["good1", "good3"]


def test_lengths_are_not_trusted(recorded):
    data, _ = recorded
    for position in range(12, 36):
        bad = bytearray(data)
        bad[position] ^= 0xFF
        assert len([piece for piece in scan_bytes(bytes(bad)) if isinstance(piece, Found)]) == 2


def test_scan_of_a_part(recorded):
    data, offsets = recorded
    fd = open_memory()
    os.write(fd, data)
    assert [piece.envelope.id for piece in scan_segment(fd, offsets[1], offsets[2])] == ["b2"]
    os.close(fd)


def test_short_writes_and_many_pieces(monkeypatch):
    fd = open_memory()
    real = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, iov: real(fd, [bytes(b"".join(iov[:3]))[:97]]))
    pieces = [b"line %d\r\n" % n for n in range(3000)]
    size = sum(map(len, pieces)) + len(TRACE)
    record = build_record(make_envelope("many"), TRACE, pieces, size)
    assert SegmentWriter(fd, 1).append([record, record]) == [0, record.length]
    assert [piece.content_bytes for piece in scan_segment(fd)] == [size, size]
    assert read_content(fd, record.content_start, size) == TRACE + b"".join(pieces)
    os.close(fd)


def test_more_pieces_than_iov_max():
    fd = open_memory()
    pieces = [b"%d\r\n" % n for n in range(5000)]
    size = sum(map(len, pieces)) + len(TRACE)
    SegmentWriter(fd, 1).append([build_record(make_envelope("many"), TRACE, pieces, size)])
    assert isinstance(next(scan_segment(fd)), Found)
    os.close(fd)


def test_full_disk_leaves_the_segment_as_it_was(tmp_path):
    fd = os.open(tmp_path / "seg", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    writer = SegmentWriter(fd, 1)
    record = build_record(make_envelope("a1"), TRACE, [b"x" * 1000], len(TRACE) + 1000)
    writer.append([record])
    writer.sync()
    length = writer.length
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (length + 500, old[1]))
    try:
        with pytest.raises(SpoolFull):
            writer.append([record])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.fstat(fd).st_size == writer.length == length
    assert not writer.poisoned
    assert writer.append([record]) == [length]
    assert [type(piece) for piece in scan_segment(fd)] == [Found, Found]
    writer.close()


def fail_with(number: int):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    return fail


def test_an_error_that_cannot_be_undone_poisons(monkeypatch):
    fd = open_memory()
    writer = SegmentWriter(fd, 1)
    record = build_record(make_envelope("a1"), TRACE, [b"x"], len(TRACE) + 1)
    monkeypatch.setattr(os, "writev", fail_with(errno.ENOSPC))
    monkeypatch.setattr(os, "ftruncate", fail_with(errno.EIO))
    with pytest.raises(SpoolFull):
        writer.append([record])
    monkeypatch.undo()
    assert writer.poisoned
    with pytest.raises(SpoolError, match="poisoned"):
        writer.append([record])
    writer.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_who_cannot_shorten_a_file_gives_it_up_when_it_is_full(monkeypatch, number):
    writer = AppendOnlyWriter(open_memory(), 1)
    record = build_record(make_envelope("a1"), TRACE, [b"x"], len(TRACE) + 1)
    writer.append([record])
    writer.sync()
    end = writer.synced
    monkeypatch.setattr(os, "writev", fail_with(number))
    monkeypatch.setattr(os, "ftruncate", lambda *_: pytest.fail("the filter would kill for it"))
    with pytest.raises(SpoolFull):
        writer.append([record])
    assert writer.poisoned and (writer.length, writer.synced) == (end, end)
    writer.close()


def test_a_write_error_poisons(monkeypatch):
    writer = SegmentWriter(open_memory(), 1)
    monkeypatch.setattr(os, "writev", fail_with(errno.EIO))
    with pytest.raises(SpoolError) as caught:
        writer.append([build_record(make_envelope("a1"), TRACE, [b"x"], len(TRACE) + 1)])
    assert not isinstance(caught.value, SpoolFull)
    assert writer.poisoned
    writer.close()


def test_a_refused_fsync_is_never_forgotten(monkeypatch):
    writer = SegmentWriter(open_memory(), 1)
    record = build_record(make_envelope("a1"), TRACE, [b"x"], len(TRACE) + 1)
    writer.append([record])
    monkeypatch.setattr(os, "fdatasync", fail_with(errno.EIO))
    with pytest.raises(SpoolError):
        writer.sync()
    monkeypatch.undo()
    with pytest.raises(SpoolError, match="poisoned"):
        writer.sync()
    assert (writer.synced, writer.length) == (0, record.length)
    writer.close()


def test_read_content_of_a_short_file():
    fd = open_memory()
    os.write(fd, b"abc")
    with pytest.raises(SpoolError, match="2 bytes early"):
        read_content(fd, 1, 4)
    os.close(fd)


def test_header_size_is_part_of_the_format():
    assert HEADER_BYTES == 52
