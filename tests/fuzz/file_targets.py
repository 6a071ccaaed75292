"""Fuzz targets of files and of text that others wrote: headers, compiled tables, a segment of the spool, configuration."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from fuzz.target import Target

from gatepost.config.errors import ConfigErrors
from gatepost.config.load import load_config
from gatepost.mail.header import count_received, iter_fields, split_header
from gatepost.model import Envelope, Recipient
from gatepost.routing.tables.berkeley import BadFile, parse_berkeley
from gatepost.routing.tables.cdb import parse_cdb
from gatepost.spool.segment import Damage, build_record, scan_segment


def run_header(data: bytes) -> None:
    """Nothing of a message is lost or moved when its header is taken apart."""
    header, body_at = split_header(data)
    assert data.startswith(header) and len(header) <= body_at <= len(data)
    assert b"".join(field for _, field in iter_fields(header)) == header
    assert count_received(header) >= 0


def run_berkeley(data: bytes) -> None:
    """A damaged file is an error of its own kind, soon."""
    try:
        records = parse_berkeley(data)
    except BadFile as error:
        assert str(error)
    else:
        assert sum(len(key) + len(value) for key, value in records) <= 2 * len(data)


def run_cdb(data: bytes) -> None:
    try:
        records = parse_cdb(data)
    except BadFile as error:
        assert str(error)
    else:
        assert sum(len(key) + len(value) for key, value in records) <= 2 * len(data)


def run_segment(data: bytes) -> None:
    """Whatever lies on the disk: the scan ends, goes forward, and what it finds lies within the file."""
    descriptor = os.memfd_create("segment")
    try:
        os.write(descriptor, data)
        at = 0
        for part in scan_segment(descriptor, 0, len(data)):
            assert part.offset >= at
            at = part.end if not isinstance(part, Damage) else part.offset
            assert at <= len(data)
    finally:
        os.close(descriptor)


def run_config(data: bytes) -> None:
    """Any text is a configuration or a list of errors that name the file."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "gatepost.toml"
        path.write_bytes(data)
        try:
            load_config(str(path))
        except ConfigErrors as errors:
            assert errors.errors


def _segment() -> bytes:
    envelope = Envelope(
        "id1", "s1", "a@b.test", [Recipient("c@d.test", "d.test", "mx:d.test")], 1.0, "192.0.2.1", "c", "network"
    )
    record = build_record(envelope, b"Received: x\r\n", [b"Subject: y\r\n\r\ntext\r\n"], 33)
    return b"".join(bytes(part) for part in record.iov)


_CONFIG = b'hostname = "mx.test"\nlisten = ["127.0.0.1:2525"]\nspool = "/var/spool/x"\ndomains = ["a.test"]\nnext_hop = "smtp://10.0.0.1"\n'
TARGETS = (
    Target(
        "header",
        run_header,
        (b"Received: a\r\n b\r\nSubject: c\r\n\r\nbody\r\n", b"no header\r\n", b"\r\nbody", b"A: b\r\n.\r\nC: d\r\n\r\n"),
        (b"\r\n\r\n", b"\r\n ", b": ", b"Received:", b"\0", b"\xff", b"\n", b"\r"),
    ),
    Target(
        "berkeley",
        run_berkeley,
        (b"\0" * 12 + b"\x61\x15\x06\0" + b"\x09\0\0\0" + b"\0\x10\0\0" + b"\0" * 4068, b"\0" * 12 + b"\x62\x31\x05\0" + b"\0" * 496),
        (b"\x61\x15\x06\0", b"\x62\x31\x05\0", b"\0\x02\0\0", b"\0\x10\0\0", b"\x01\0\0\0", b"\xff\xff"),
        8192,
    ),
    Target("cdb", run_cdb, (b"\0\x08\0\0\0\0\0\0" * 256, b"\x10\x08\0\0\1\0\0\0" + b"\0\x08\0\0\0\0\0\0" * 255 + b"\1\0\0\0\1\0\0\0ab"), (), 4096),
    Target("segment", run_segment, (_segment(), _segment() * 2, _segment()[:-3], b"\0" * 64), (_segment()[:24], b"\0" * 16), 4096),
    Target(
        "config",
        run_config,
        (_CONFIG, _CONFIG + b'[relay]\nnetworks = ["10.0.0.0/8"]\n[[relay.rules]]\nname = "x"\n', b"[[tls.policies]]\nlevel = 1\n"),
        (b"[relay]\n", b"[[listeners]]\n", b'"', b"=", b"[", b"]", b"true", b"1e999", b"\xff", b"recipients = ", b"[domains.\"x\"]\n"),
    ),
)  # fmt: skip
