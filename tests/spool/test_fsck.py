"""fsck: says nothing of a good spool, names what is wrong with a bad one, and mends what can be mended."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from spool_bed import DELIVERED, Writer, open_spool

from gatepost.spool.errors import SpoolRefused
from gatepost.spool.fsck import Report, fsck


@pytest.fixture
def filled(tmp_path):
    """A spool that crashed, with one message in each place; returns its directory."""
    spool = open_spool(tmp_path / "spool", defer_after_s=-1.0)
    writer = Writer(spool)
    entries = writer.take("a1", "a2", "a3")
    spool.take(writer.append_body("b1"))
    spool.record(entries[2], [DELIVERED], 0.0)
    spool.finish(entries[2])
    spool.defer_to_file([entries[0]])
    spool.commit()
    writer.append("n1")
    spool.abandon()
    return spool.root


def problems(report: Report) -> list[tuple[str, str]]:
    return [(finding.path, finding.message_id) for finding in report.findings if finding.serious]


def deferred(root: str, name: str) -> str:
    return next(f"{directory}/{name}" for directory, _, names in os.walk(root) if name in names)


def test_a_good_spool_is_clean(filled):
    report = fsck(filled)
    assert report.findings == []
    assert (report.live, report.unknown_to_journal, report.is_clean) == (3, 1, True)
    assert report.files["deferred/XX/ID.eml"] == 1
    assert msgspec.json.decode(msgspec.json.encode(report))["live"] == 3
    assert report.lines()[-2:] == ["3 live messages, 1 more that recovery will take in", "clean"]


def test_it_changes_nothing(filled):
    before = sorted((path, os.stat(path).st_mtime_ns) for path, _, _ in os.walk(filled))
    fsck(filled)
    assert before == sorted((path, os.stat(path).st_mtime_ns) for path, _, _ in os.walk(filled))


def test_it_refuses_a_spool_in_use(tmp_path):
    spool = open_spool(tmp_path / "spool")
    with pytest.raises(SpoolRefused):
        fsck(spool.root)
    spool.abandon()


@pytest.mark.parametrize(("name", "message_id"), [("a1.eml", "a1"), ("00000001.body", "b1"), ("00000001.seg", "a2")])
def test_missing_and_damaged_files_are_found(filled, name, message_id):
    path = deferred(filled, name)
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 3)
        file.write(b"\xff\xfe\xff")
    assert not fsck(filled).is_clean
    os.unlink(path)
    assert message_id in [message for _, message in problems(fsck(filled))]


def test_a_damaged_journal_is_found(filled):
    [name] = os.listdir(f"{filled}/journal")
    with open(f"{filled}/journal/{name}", "r+b") as file:
        file.seek(30)
        file.write(b"\xff\xff")
    assert not fsck(filled).is_clean
    os.unlink(f"{filled}/journal/{name}")
    assert problems(fsck(filled))[0] == ("journal", "")


def test_orphans_and_strangers_are_listed_and_repaired(filled):
    open(f"{filled}/bodies/00000099.body", "wb").close()
    open(f"{filled}/segments/core", "wb").close()
    report = fsck(filled)
    assert [finding.path for finding in report.findings] == ["segments/core", "bodies/00000099.body"]
    assert report.is_clean
    repaired = fsck(filled, repair=True).repaired
    assert repaired[:2] == [
        "segments/core moved to damaged/segments-core",
        "recovered 4 messages, 1 of them unknown to the journal",
    ]
    assert fsck(filled).findings == []
    assert fsck(filled).live == 4


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_repair_by_root_leaves_files_to_the_queue(filled):
    for directory, subdirectories, names in os.walk(filled):
        for name in subdirectories + names:
            os.chown(f"{directory}/{name}", 4711, 4711)
    os.chmod(filled, 0o711)
    # pytest's directories are for their owner only, some of them opened by other tests
    for parent in Path(filled).parents:
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(0o711)
    fsck(filled, repair=True)
    assert {os.stat(f"{filled}/journal/{name}").st_uid for name in os.listdir(f"{filled}/journal")} == {4711}
    assert os.geteuid() == 0
