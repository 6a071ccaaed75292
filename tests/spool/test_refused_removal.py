"""Files that cannot be removed at once: they are remembered, or a later recovery would take them for live messages."""

from __future__ import annotations

import errno
import os

import pytest
from spool_bed import DEFERRED, DELIVERED, Writer, open_spool

from gatepost.spool.errors import SpoolUnhealthy


def test_a_refused_unlink_is_repeated_by_the_next_commit(tmp_path, monkeypatch):
    spool = open_spool(tmp_path / "spool", defer_after_s=-1.0)
    [entry] = Writer(spool).take("m1")
    spool.record(entry, [DEFERRED], 0.0)
    spool.defer_to_file([entry])
    spool.commit()
    path = spool.content_path(entry)
    spool.record(entry, [DELIVERED], 0.0)
    spool.finish(entry)

    def refuse(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        with pytest.raises(SpoolUnhealthy):
            spool.commit()
    assert os.path.exists(path)
    spool.commit()
    assert not os.path.exists(path) and not os.path.exists(path[:-3] + "json")
    spool.close()
