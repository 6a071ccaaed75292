"""Files that cannot be removed at once: they are remembered, or a later recovery would take them for live messages."""

from __future__ import annotations

import errno
import os
import stat

import pytest
from spool_bed import DEFERRED, DELIVERED, Writer, content_of, make_spool, open_spool

from gatepost.spool.errors import SpoolError, SpoolUnhealthy


def refuse(*_, **__):
    raise OSError(errno.EIO, "Input/output error")


def refuse_files(fsync):
    """Refuses to sync files; directories go on."""

    def call(fd):
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            refuse()
        fsync(fd)

    return call


def files_below(spool, directory: str) -> list[str]:
    return sorted(f"{where}/{name}" for where, _, names in os.walk(f"{spool.root}/{directory}") for name in names)


def test_a_refused_unlink_is_repeated_by_the_next_commit(tmp_path, monkeypatch):
    spool = open_spool(tmp_path / "spool", defer_after_s=-1.0)
    [entry] = Writer(spool).take("m1")
    spool.record(entry, [DEFERRED], 0.0)
    spool.defer_to_file([entry])
    spool.commit()
    path = spool.content_path(entry)
    spool.record(entry, [DELIVERED], 0.0)
    spool.finish(entry)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        with pytest.raises(SpoolUnhealthy):
            spool.commit()
    assert os.path.exists(path)
    spool.commit()
    assert not os.path.exists(path) and not os.path.exists(path[:-3] + "json")
    spool.close()


def test_what_a_refused_batch_leaves_behind_goes_with_the_next_commit(tmp_path, monkeypatch):
    """Else recovery would deliver it again, when the journal has forgotten that it was delivered."""
    spool = open_spool(tmp_path / "spool", defer_after_s=-1.0)
    [entry] = Writer(spool).take("m1")
    spool.record(entry, [DEFERRED], 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse_files(os.fsync))
        patch.setattr(os, "unlink", refuse)
        with pytest.raises(SpoolError):
            spool.defer_to_file([entry])
    assert len(files_below(spool, "deferred")) == 2
    spool.commit()
    assert files_below(spool, "deferred") == []
    assert content_of(spool, entry)
    spool.close()


def test_files_of_a_live_message_are_spared_whatever_an_earlier_try_left(tmp_path, monkeypatch):
    spool = open_spool(tmp_path / "spool", defer_after_s=-1.0)
    [entry] = Writer(spool).take("m1")
    spool.record(entry, [DEFERRED], 0.0)
    monkeypatch.setattr("gatepost.spool.deferral.DEFERRED_DIRECTORIES", 1)  # the same directory each time
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse_files(os.fsync))
        patch.setattr(os, "unlink", refuse)
        with pytest.raises(SpoolError):
            spool.defer_to_file([entry])
    spool.defer_to_file([entry])
    spool.commit()
    content = content_of(spool, entry)
    spool.abandon()
    again = make_spool(spool.root)
    again.recover()
    assert content_of(again, again.entries["m1"]) == content
    again.close()


def test_a_directory_that_could_not_be_made_durable_is_synced_again(tmp_path, monkeypatch):
    """It exists after the refusal; a power cut would take it, and all messages that were moved there."""
    spool = open_spool(tmp_path / "spool", defer_after_s=-1.0)
    monkeypatch.setattr("gatepost.spool.deferral.DEFERRED_DIRECTORIES", 1)
    [entry] = Writer(spool).take("m1")
    spool.record(entry, [DEFERRED], 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(SpoolError):
            spool.defer_to_file([entry])
    synced: list[str] = []
    fsync = os.fsync

    def note(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)
    spool.defer_to_file([entry])
    assert synced[0] == f"{spool.root}/deferred"
    spool.close()
