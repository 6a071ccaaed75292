"""close(2) may report an input/output error; nothing hangs on it once the data was synced, or given up."""

from __future__ import annotations

import errno
import os

from spool_bed import DELIVERED, Writer, open_spool


def test_close_that_fails_stops_nothing(tmp_path, monkeypatch):
    spool = open_spool(tmp_path / "spool")
    close = os.close

    def fail(fd: int) -> None:
        close(fd)
        raise OSError(errno.EIO, "Input/output error")

    writer = Writer(spool)
    [entry] = writer.take("m1")
    spool.source(entry)
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", fail)
        writer.close()
        spool.seal(writer.number, writer.segment.synced)
        spool.record(entry, [DELIVERED], 0.0)
        spool.finish(entry)
        spool.commit()
        assert len(spool.closed_sources()) == 1
    assert not spool.entries
    spool.close()
