"""Segments: append-only files of whole messages, written by one process and read by another.

A record is a fixed header, the envelope as msgpack, and the content (trace field and message), each with a CRC-32 of its own.
A message whose content lies in a body file has a record without content. What is not here: who owns a segment, and when it is
removed (`embedded.py`). Standard library and msgspec only, because receivers import it.

Invariants: a record is acknowledged only after `SegmentWriter.sync` returned; after one failed sync the writer is poisoned for
good, because the kernel may have dropped the pages and marked them clean. Nothing read back is trusted before its CRC fits. The
magic holds NUL and a bare CR, which no content in a segment holds (binary content has a body file), and every record carries a random token of its writer, so that
a message cannot pose as a record when the reader has to look for the next one behind damage.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator, Sequence
from zlib import crc32

import msgspec

from gatepost.model import Envelope
from gatepost.spool.errors import SpoolError, SpoolFull
from gatepost.spool.syncedfile import SyncedFile

MAGIC = b"\x00\rGpr\x00\x01\n"
VERSION = 1
FLAG_BODY_FILE = 1
# magic, version, flags, reserved, envelope bytes, token, content bytes, body file, CRC of content, CRC of envelope
_FIELDS = struct.Struct("<8sBBHI8sQQII")
_CRC = struct.Struct("<I")  # of all the fields before it
HEADER_BYTES = _FIELDS.size + _CRC.size
MAX_ENVELOPE_BYTES = 16 * 1024 * 1024
MAX_CONTENT_BYTES = 1 << 40
BLOCK_BYTES = 1 << 20

_IOV_MAX = min(os.sysconf("SC_IOV_MAX"), 1024) if os.sysconf("SC_IOV_MAX") > 0 else 1024
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_TOKEN = os.urandom(8)

MAX_TIME_S = 1e11  # beyond any calendar of ours
_BODY_TYPES = ("7BIT", "8BITMIME", "BINARYMIME")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Envelope).decode


class Record:
    """A record ready to be written: `iov` is its bytes in pieces, `content_start` where its content begins in it."""

    __slots__ = ("content_start", "iov", "length")

    def __init__(self, iov: list[bytes], length: int, content_start: int) -> None:
        self.iov = iov
        self.length = length
        self.content_start = content_start


class Found(msgspec.Struct, gc=False):
    """A good record. With a body file, `content_offset` is 0 and `crc` that of the body file's content."""

    offset: int
    end: int
    envelope: Envelope
    content_offset: int
    content_bytes: int
    body_file: int
    crc: int


class Damage(msgspec.Struct, gc=False):
    """Bytes that are no good record, from `offset` to `end`.

    `torn` says that the file ends inside the record, or in zeros: what a crash leaves of a write that was never
    acknowledged. `envelope` is there if only the content is damaged.
    """

    offset: int
    end: int
    reason: str
    torn: bool = False
    envelope: Envelope | None = None


def build_record(envelope: Envelope, trace: bytes, chunks: list[bytes], content_bytes: int) -> Record:
    """Build the record of a message whose content is `trace` followed by `chunks`, `content_bytes` in all."""
    crc = crc32(trace)
    length = len(trace)
    for chunk in chunks:
        crc = crc32(chunk, crc)
        length += len(chunk)
    if length != content_bytes:
        raise ValueError(f"content has {length} bytes, not {content_bytes}")
    packed = _encode(envelope)
    head = _build_header(0, packed, content_bytes, 0, crc)
    start = HEADER_BYTES + len(packed)
    return Record([head + packed, trace, *chunks], start + content_bytes, start)


def build_body_record(envelope: Envelope, body_file: int, content_bytes: int, crc: int) -> Record:
    """Build the record of a message whose content, with its trace field, lies in a body file; `crc` is zlib.crc32 of it."""
    packed = _encode(envelope)
    head = _build_header(FLAG_BODY_FILE, packed, content_bytes, body_file, crc)
    return Record([head + packed], HEADER_BYTES + len(packed), 0)


def _build_header(flags: int, packed: bytes, content_bytes: int, body_file: int, crc: int) -> bytes:
    if len(packed) > MAX_ENVELOPE_BYTES:
        raise ValueError(f"envelope of {len(packed)} bytes is over {MAX_ENVELOPE_BYTES}")
    fields = _FIELDS.pack(MAGIC, VERSION, flags, 0, len(packed), _TOKEN, content_bytes, body_file, crc, crc32(packed))
    return fields + _CRC.pack(crc32(fields))


class SegmentWriter(SyncedFile):
    """Appends records to one segment through a descriptor that nobody else writes to.

    `append` belongs to one thread; `sync` may run in another at the same time. `length` is the end of the last whole record,
    `synced` how far the segment is durable. A poisoned writer refuses everything: seal its segment at `synced`.
    """

    __slots__ = ()
    KIND = "segment"

    def append(self, records: Sequence[Record]) -> list[int]:
        """Write whole records and return their offsets. Not durable before `sync`.

        All or none: after an error the segment ends where it did before, or the writer is poisoned. SpoolFull: no space. SpoolError: any
        other cause, which always poisons.
        """
        self.refuse_poisoned()
        offsets = []
        position = self.length
        iov: list[bytes] = []
        for record in records:
            offsets.append(position)
            position += record.length
            iov += record.iov
        try:
            _write_all(self.fd, iov, position - self.length)
        except OSError as error:
            self._cut_back(error)
        self.length = position
        return offsets

    def _cut_back(self, cause: OSError) -> None:
        """Remove what a failed append left; raise what the caller is to see."""
        if cause.errno not in _FULL:
            self.poisoned = True
        try:
            self._shorten()
        except OSError:
            self.poisoned = True
        kind = SpoolFull if cause.errno in _FULL else SpoolError
        raise kind(f"segment {self.number}: {cause.strerror}") from cause

    def _shorten(self) -> None:
        os.ftruncate(self.fd, self.length)


class AppendOnlyWriter(SegmentWriter):
    """The same for a role that cannot make a file shorter, since it could take back what was acknowledged: every failed append poisons."""

    __slots__ = ()

    def _shorten(self) -> None:
        self.poisoned = True


def _write_all(fd: int, iov: list[bytes], total: int) -> None:
    """Write all pieces, in groups of IOV_MAX, going on after short writes."""
    if len(iov) <= _IOV_MAX:
        written = os.writev(fd, iov)
        if written == total:
            return
    else:
        written = os.writev(fd, iov[:_IOV_MAX])
    first = 0
    while True:
        while first < len(iov) and written >= len(iov[first]):
            written -= len(iov[first])
            first += 1
        if first == len(iov):
            return
        group: list[bytes | memoryview] = [memoryview(iov[first])[written:], *iov[first + 1 : first + _IOV_MAX]]
        count = os.writev(fd, group)
        if count == 0:
            raise OSError(errno.EIO, "write of no bytes")
        written += count


def read_content(fd: int, offset: int, count: int) -> bytes:
    """Read exactly `count` bytes; SpoolError if the file ends before."""
    data = os.pread(fd, count, offset)
    if len(data) == count:
        return data
    parts = [data]
    missing = count - len(data)
    while missing and parts[-1]:
        parts.append(os.pread(fd, missing, offset + count - missing))
        missing -= len(parts[-1])
    if missing:
        raise SpoolError(f"file ends {missing} bytes early")
    return b"".join(parts)


def content_crc(fd: int, offset: int, count: int) -> int | None:
    """CRC-32 of `count` bytes, read in blocks; None if the file ends before."""
    crc = 0
    while count:
        block = os.pread(fd, min(count, BLOCK_BYTES), offset)
        if not block:
            return None
        crc = crc32(block, crc)
        offset += len(block)
        count -= len(block)
    return crc


def read_record(fd: int, offset: int, limit: int, verify: bool = True) -> Found | Damage:
    """Read the record at `offset` of a file of which `limit` bytes count; its content is checked if `verify`.

    Damage ends where the record would, if its header can be trusted, else at `limit`.
    """
    head = os.pread(fd, min(4096, limit - offset), offset)
    fields = _parse_header(head)
    if fields is None:
        return _judge_no_header(fd, offset, limit, head)
    envelope_bytes, content_bytes, body_file, crc, envelope_crc, has_body_file = fields
    start = HEADER_BYTES + envelope_bytes
    end = offset + start + (0 if has_body_file else content_bytes)
    if end > limit:
        return Damage(offset, limit, "the file ends inside the record", torn=True)
    try:
        packed = (
            head[HEADER_BYTES:start] if start <= len(head) else read_content(fd, offset + HEADER_BYTES, envelope_bytes)
        )
    except SpoolError:
        return Damage(offset, end, "the envelope cannot be read")
    if crc32(packed) != envelope_crc:
        return Damage(offset, end, "the envelope does not have its checksum")
    try:
        envelope = _decode(packed)
    except msgspec.MsgspecError:
        return Damage(offset, end, "the envelope is of a form that this version does not know")
    if not is_possible(envelope):
        return Damage(offset, end, "the envelope holds what nobody in order writes")
    if has_body_file:
        return Found(offset, end, envelope, 0, content_bytes, body_file, crc)
    if verify and content_crc(fd, offset + start, content_bytes) != crc:
        return Damage(offset, end, "the content does not have its checksum", envelope=envelope)
    return Found(offset, end, envelope, offset + start, content_bytes, 0, crc)


def is_possible(envelope: Envelope) -> bool:
    """Whether somebody in order can have made it.

    A time that is none (NaN, or endless) would put the order of everybody's mail wrong, a body type of our own would end a delivery early.
    """
    return (
        0.0 <= envelope.received_s < MAX_TIME_S
        and 0.0 <= envelope.release_s < MAX_TIME_S
        and 0.0 <= envelope.deliver_by_s < MAX_TIME_S
        and -9 <= envelope.priority <= 9
        and envelope.body_type in _BODY_TYPES
    )


def _parse_header(head: bytes) -> tuple[int, int, int, int, int, bool] | None:
    """Return envelope bytes, content bytes, body file, both CRCs and whether there is a body file; None if it is no header."""
    if len(head) < HEADER_BYTES or not head.startswith(MAGIC):
        return None
    if crc32(head[: _FIELDS.size]) != _CRC.unpack_from(head, _FIELDS.size)[0]:
        return None
    _, version, flags, _, envelope_bytes, _, content_bytes, body_file, crc, envelope_crc = _FIELDS.unpack_from(head)
    if version != VERSION or envelope_bytes > MAX_ENVELOPE_BYTES or content_bytes > MAX_CONTENT_BYTES:
        return None
    return envelope_bytes, content_bytes, body_file, crc, envelope_crc, bool(flags & FLAG_BODY_FILE)


def _judge_no_header(fd: int, offset: int, limit: int, head: bytes) -> Damage:
    """Tell the beginning of a header at the end of the file, or zeros up to it, from damage."""
    if len(head) < HEADER_BYTES and head.startswith(MAGIC[: len(head)]):
        return Damage(offset, limit, "the file ends inside a header", torn=True)
    if not head.strip(b"\0") and _is_zero(fd, offset, limit):
        return Damage(offset, limit, "zeros up to the end of the file", torn=True)
    return Damage(offset, limit, "no record header")


def _is_zero(fd: int, offset: int, limit: int) -> bool:
    while offset < limit:
        block = os.pread(fd, min(limit - offset, BLOCK_BYTES), offset)
        if block.strip(b"\0"):
            return False
        if not block:
            return True
        offset += len(block)
    return True


def _token_at(fd: int, offset: int) -> bytes:
    token: bytes = _FIELDS.unpack(os.pread(fd, _FIELDS.size, offset))[5]
    return token


def _find_header(fd: int, offset: int, limit: int, token: bytes | None) -> int:
    """Offset of the next header with the writer's token (any writer's, if no record was seen yet), or `limit`."""
    overlap = HEADER_BYTES - 1
    while offset < limit:
        block = os.pread(fd, min(limit - offset, BLOCK_BYTES + overlap), offset)
        at = block.find(MAGIC)
        while at >= 0:
            head = block[at : at + HEADER_BYTES]
            if _parse_header(head) and (token is None or _FIELDS.unpack_from(head)[5] == token):
                return offset + at
            at = block.find(MAGIC, at + 1)
        if len(block) <= overlap:
            return limit
        offset += len(block) - overlap
    return limit


def scan_segment(fd: int, start: int = 0, end: int | None = None, verify: bool = True) -> Iterator[Found | Damage]:
    """Yield what a segment holds from the record at `start` up to `end` (the file's end, if it is shorter or None).

    Behind damage it goes on with the next record: at the end that a good header names, else at the next good header of the
    same writer. The pieces join without a gap.
    """
    size = os.fstat(fd).st_size
    limit = size if end is None else min(end, size)
    token = (
        _token_at(fd, 0) if start and limit >= HEADER_BYTES and _parse_header(os.pread(fd, HEADER_BYTES, 0)) else None
    )
    while start < limit:
        piece = read_record(fd, start, limit, verify)
        if isinstance(piece, Found):
            token = token or _token_at(fd, start)
        elif not piece.torn and piece.reason == "no record header":
            piece.end = _find_header(fd, start + 1, limit, token)
        yield piece
        start = piece.end
