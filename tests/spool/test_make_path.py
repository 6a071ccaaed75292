"""Directories that mail will lie below: a power cut must not take their names."""

from __future__ import annotations

import os
from pathlib import Path

from gatepost.spool.layout import make_path, prepare_spool


def watch_syncs(monkeypatch) -> set[str]:
    synced: set[str] = set()
    fsync = os.fsync

    def note(fd: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)
    return synced


def test_each_new_name_is_made_durable(tmp_path: Path, monkeypatch):
    synced = watch_syncs(monkeypatch)
    make_path(str(tmp_path / "a" / "b" / "c"), 0o700)
    assert synced == {str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")}
    assert (tmp_path / "a" / "b" / "c").stat().st_mode & 0o777 == 0o700


def test_what_exists_is_left_alone(tmp_path: Path, monkeypatch):
    synced = watch_syncs(monkeypatch)
    make_path(str(tmp_path), 0o700)
    assert not synced


def test_spool_below_directories_that_are_missing(tmp_path: Path, monkeypatch):
    synced = watch_syncs(monkeypatch)
    prepare_spool(str(tmp_path / "var" / "spool" / "mail"), queue_uid=-1, queue_gid=-1, allow_volatile=True)
    assert {str(tmp_path), str(tmp_path / "var"), str(tmp_path / "var" / "spool")} <= synced
