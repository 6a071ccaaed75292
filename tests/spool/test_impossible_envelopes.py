"""Envelopes that nobody in order writes, told or found in a segment: they get nowhere near the order of everybody's mail."""

from __future__ import annotations

import math

import msgspec
import pytest
from spool_bed import TRACE, Writer, make_body, make_envelope, open_spool

from gatepost.ipc.messages import Accepted
from gatepost.spool.errors import SpoolError
from gatepost.spool.segment import build_record

WRONG = [
    ("received_s", math.nan), ("received_s", math.inf), ("received_s", -1.0), ("release_s", math.nan), ("release_s", math.inf),
    ("release_s", 1e300), ("deliver_by_s", -math.inf), ("priority", 10), ("priority", -(2**60)), ("body_type", "PROBE"), ("body_type", ""),
]  # fmt: skip


def write_wrong(writer: Writer, field: str, value: object) -> Accepted:
    """A record with it, and a good one behind it."""
    envelope = msgspec.structs.replace(make_envelope("wrong1"), **{field: value})
    content = TRACE + make_body("wrong1")
    record = build_record(envelope, b"", [content], len(content))
    (offset,) = writer.segment.append([record])
    writer.append("good1")
    return Accepted(
        writer.number, offset, offset + record.length, envelope, offset + record.content_start, len(content)
    )


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_what_is_told_is_refused(tmp_path, field, value):
    spool = open_spool(tmp_path / "spool")
    writer = Writer(spool)
    told = write_wrong(writer, field, value)
    with pytest.raises(SpoolError, match="nobody in order"):
        spool.take(told, writer.owner)
    assert not spool.entries
    spool.close()


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_what_is_found_is_put_aside_and_the_rest_is_taken(tmp_path, field, value):
    spool = open_spool(tmp_path / "spool")
    writer = Writer(spool)
    write_wrong(writer, field, value)
    spool.owner_gone(writer.owner)
    assert list(spool.entries) == ["good1"]
    (report,) = spool.damage
    assert "nobody in order" in report.reason and report.kept_as
    spool.commit()
    spool.abandon()
    spool = open_spool(tmp_path / "spool")
    assert list(spool.entries) == ["good1"]
    spool.close()
