"""The embedded spool on its files: who may name what, what recovery finds, and what a failing disk leads to."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec
import pytest
from spool_bed import (
    DEFERRED,
    DELIVERED,
    FAILED,
    TRACE,
    Writer,
    assert_balanced,
    content_of,
    copy_spool,
    make_body,
    make_envelope,
    make_spool,
    open_spool,
)

from gatepost.spool.errors import MessageDamaged, SpoolError, SpoolFull, SpoolRefused, SpoolUnhealthy


@pytest.fixture
def spool(tmp_path):
    spool = open_spool(tmp_path / "spool", defer_after_s=-1.0)
    yield spool
    spool.abandon()


def reopen(spool, **settings):
    spool.abandon()
    return make_spool(spool.root, **settings)


def files_of(spool, directory: str) -> list[str]:
    return sorted(name for _, _, names in os.walk(f"{spool.root}/{directory}") for name in names)


def finish(spool, *entries) -> None:
    for entry in entries:
        spool.record(entry, [DELIVERED], 0.0)
        spool.finish(entry)


def refuse(number: int):
    def call(*_, **__):
        raise OSError(number, os.strerror(number))

    return call


# --- what receivers say ---------------------------------------------------------------------------------------------


def test_said_twice_is_taken_once(spool):
    writer = Writer(spool)
    [told] = writer.append("a1")
    assert [entry.id for entry in spool.take(told)] == ["a1"]
    assert spool.take(told) == []
    assert spool.ledger()["accepted"] == 1


def test_a_record_with_the_id_of_another_message_is_kept_aside_and_told(spool):
    first, second = Writer(spool, "receiver.1"), Writer(spool, "receiver.2")
    spool.take(first.append("a1")[0])
    second.append("a1", "a2", size=300)
    assert [entry.id for entry in spool.seal(second.number, second.segment.length)] == ["a2"]
    [report] = spool.damage
    assert report.reason == "another message has its id, a1"
    assert make_body("a1", 300) in Path(spool.root, report.kept_as).read_bytes()
    assert content_of(spool, spool.entries["a1"]) == TRACE + make_body("a1")


def test_a_gap_is_looked_at(spool):
    told = Writer(spool).append("a1", "a2", "a3")
    assert [entry.id for entry in spool.take(told[2])] == ["a1", "a2", "a3"]
    assert spool.take(told[0]) == []


def test_sealing_finds_what_was_not_told(spool):
    writer = Writer(spool)
    writer.append("a1", "a2")
    assert [entry.id for entry in spool.seal(writer.number, writer.segment.length)] == ["a1", "a2"]


def test_a_dead_owner_leaves_nothing_behind(spool):
    writer = Writer(spool, "receiver.1")
    told = writer.append("a1", "a2")
    spool.take(told[0])
    spool.new_body_files(2, "receiver.1")
    other = Writer(spool, "receiver.2")
    other.append("b1")
    os.write(writer.segment.fd, b"\x00\rGpr\x00")
    assert [entry.id for entry in spool.owner_gone("receiver.1")] == ["a2"]
    finish(spool, spool.entries["a1"], spool.entries["a2"])
    spool.commit()
    assert files_of(spool, "segments") == [f"{other.number:08d}.seg"]
    assert files_of(spool, "bodies") == []
    assert not spool.damage


def test_a_receiver_cannot_claim_what_is_not_its_own(spool):
    first, second = Writer(spool, "one"), Writer(spool, "two")
    [told] = first.append("a1")
    [(body, fd)] = spool.new_body_files(1, "one")
    os.close(fd)
    for change, owner in (
        ({}, "two"),
        ({"segment": 99}, "one"),
        ({"segment": second.number, "body_file": body}, "two"),
        ({"body_file": 4711}, "one"),
        ({"envelope": make_envelope("../../etc/passwd")}, "one"),
        ({"envelope": make_envelope("a1", recipients=0)}, "one"),
        ({"content_offset": 0}, "one"),
        ({"content_bytes": 1 << 30}, "one"),
        ({"content_bytes": -1, "body_file": body}, "one"),
    ):
        with pytest.raises(SpoolError):
            spool.take(msgspec.structs.replace(told, **change), owner)
    assert not spool.entries
    spool.take(told, "one")
    [again] = second.append("a1")
    with pytest.raises(SpoolError, match="cannot be the id"):
        spool.take(again, "two")


def test_after_removal_of_its_segment_a_late_word_is_ignored(spool):
    writer = Writer(spool)
    [told] = writer.append("a1")
    finish(spool, *spool.take(told))
    spool.seal(writer.number, writer.segment.length)
    spool.commit()
    assert spool.take(told) == []


# --- files come and go ----------------------------------------------------------------------------------------------


def test_a_segment_goes_when_sealed_and_empty_and_not_before_the_commit(spool):
    writer = Writer(spool)
    entries = writer.take("a1", "a2")
    finish(spool, entries[0])
    spool.seal(writer.number, writer.segment.length)
    spool.commit()
    assert len(files_of(spool, "segments")) == 1
    finish(spool, entries[1])
    assert len(files_of(spool, "segments")) == 1
    spool.commit()
    assert files_of(spool, "segments") == []


def test_body_file_lives_as_long_as_its_message(spool):
    writer = Writer(spool)
    [entry] = spool.take(writer.append_body("big1"), writer.owner)
    assert content_of(spool, entry) == TRACE + make_body("big1", 5000)
    spool.defer_to_file([entry])
    spool.commit()
    assert files_of(spool, "bodies") == []
    assert files_of(spool, "deferred") == ["big1.eml", "big1.json"]
    assert content_of(spool, entry) == TRACE + make_body("big1", 5000)
    finish(spool, entry)
    spool.commit()
    assert files_of(spool, "deferred") == []


def test_unused_body_files_go(spool):
    [(number, fd)] = spool.new_body_files(1, "one")
    os.close(fd)
    spool.body_unused(number)
    spool.commit()
    assert files_of(spool, "bodies") == []


def test_an_operator_can_read_a_deferred_message(spool):
    [entry] = Writer(spool).take("a1")
    spool.record(entry, [DEFERRED], 11_000.0)
    spool.defer_to_file([entry])
    directory = f"{spool.root}/deferred/{entry.deferred_dir:02x}"
    with open(f"{directory}/a1.eml", "rb") as file:
        assert file.read() == TRACE + make_body("a1")
    with open(f"{directory}/a1.json", "rb") as file:
        described = msgspec.json.decode(file.read())
    assert described["envelope"]["recipients"][0]["state"] == "pending"
    assert described["last"][0]["text"] == "connection refused"


def test_sources_are_numbered_once_and_reported_when_closed(spool):
    spool.sources.limit = 2
    writer = Writer(spool)
    entries = [spool.take(writer.append_body(f"b{n}"))[0] for n in range(3)]
    first = [spool.source(entry).number for entry in entries]
    assert spool.closed_sources() == [first[0]]
    assert spool.source(entries[0]).number not in first
    assert spool.closed_sources() == [first[1]]
    finish(spool, entries[0])
    assert len(spool.closed_sources()) == 1


# --- recovery -------------------------------------------------------------------------------------------------------


def test_a_second_queue_is_refused(spool, tmp_path):
    with pytest.raises(SpoolRefused, match="in use by another queue"):
        make_spool(tmp_path / "spool").recover()


def test_a_living_receiver_goes_on_after_the_queue_came_back(spool):
    writer = Writer(spool, "receiver.1")
    [(body, fd)] = spool.new_body_files(1, "receiver.1")
    os.close(fd)
    told = writer.append("a1", "a2")
    spool.take(told[0])
    spool.commit()
    again = reopen(spool)
    found = again.recover()
    assert (found.owners, found.never_told, found.live) == (["receiver.1"], 1, 2)
    assert files_of(again, "bodies") == [f"{body:08d}.body"]
    assert again.take(told[1], "receiver.1") == []
    assert [entry.id for entry in again.take(writer.append("a3")[0], "receiver.1")] == ["a3"]
    again.owner_gone("receiver.1")
    again.commit()
    assert files_of(again, "bodies") == []
    again.abandon()


def test_a_torn_tail_is_no_damage(spool):
    writer = Writer(spool)
    writer.take("a1")
    os.write(writer.segment.fd, b"\x00\rGpr\x00")
    again = reopen(spool)
    found = again.recover()
    assert (found.live, found.torn_tails, found.damage) == (1, 1, [])
    again.abandon()


def test_damage_is_put_aside_and_the_rest_recovered(spool):
    writer = Writer(spool)
    told = writer.append("a1", "a2", "a3")
    writer.segment.close()
    path = f"{spool.root}/segments/{writer.number:08d}.seg"
    with open(path, "r+b") as file:
        file.seek(told[1].content_offset + 20)
        file.write(b"XXXX")
    again = reopen(spool)
    found = again.recover()
    assert again.entries.keys() == {"a1", "a3"}
    [report] = found.damage
    assert (report.message_id, os.path.getsize(f"{again.root}/{report.kept_as}")) == (
        "a2",
        told[1].end - told[1].offset,
    )
    again.abandon()


def test_a_damaged_message_is_never_handed_out(spool):
    writer = Writer(spool)
    entries = writer.take("a1", "a2")
    with open(spool.content_path(entries[0]), "r+b") as file:
        file.seek(entries[0].content_offset + 3)
        file.write(b"X")
    assert spool.defer_to_file(entries) == [entries[0]]
    again = reopen(spool)
    again.recover()
    with pytest.raises(MessageDamaged):
        again.source(again.entries["a1"])
    assert [(report.message_id, report.kept_as) for report in again.damage] == [("a1", "damaged/message-a1.eml")]
    with pytest.raises(MessageDamaged):
        again.source(again.entries["a1"])
    assert len(again.damage) == 1
    assert content_of(again, again.entries["a2"]) == TRACE + make_body("a2")
    again.abandon()


def test_a_lost_record_of_a_known_message_is_counted(spool):
    writer = Writer(spool)
    entries = writer.take("a1", "a2")
    spool.commit()
    with open(spool.content_path(entries[0]), "r+b") as file:
        file.write(bytes(80))
    again = reopen(spool)
    found = again.recover()
    assert again.entries.keys() == {"a2"}
    assert again.ledger()["lost_to_damage"] == 1
    assert {report.message_id for report in found.damage} == {"a1"}
    assert_balanced(again)
    again.abandon()


def test_a_missing_deferred_file_is_reported_and_not_delivered(spool):
    [entry] = Writer(spool).take("a1")
    spool.defer_to_file([entry])
    spool.commit()
    os.unlink(spool.content_path(entry))
    again = reopen(spool)
    assert [report.message_id for report in again.recover().damage] == ["a1"]
    with pytest.raises(MessageDamaged):
        again.source(again.entries["a1"])
    again.abandon()


def test_a_missing_segment_is_made_up_for_by_a_deferred_copy(spool):
    entries = Writer(spool).take("a1", "a2")
    spool.commit()
    [name] = files_of(spool, "journal")
    with open(f"{spool.root}/journal/{name}", "rb") as file:
        earlier = file.read()
    spool.defer_to_file(entries[:1])
    spool.abandon()
    with open(f"{spool.root}/journal/{name}", "wb") as file:
        file.write(earlier)
    os.unlink(f"{spool.root}/segments/00000001.seg")
    again = make_spool(spool.root)
    found = again.recover()
    assert content_of(again, again.entries["a1"]) == TRACE + make_body("a1")
    assert again.entries.keys() == {"a1"}
    assert again.ledger()["lost_to_damage"] == 1
    assert {report.message_id for report in found.damage} == {"a1", "a2"}
    assert_balanced(again)
    again.abandon()


def test_without_a_journal_everything_is_found_again(spool):
    Writer(spool).take("a1")
    writer = Writer(spool)
    [entry] = writer.take("a2")
    spool.record(entry, [DEFERRED], 11_000.0)
    spool.defer_to_file([entry])
    spool.seal(writer.number, writer.segment.length)
    spool.commit()
    for name in files_of(spool, "journal"):
        os.unlink(f"{spool.root}/journal/{name}")
    again = reopen(spool)
    again.recover()
    assert again.entries.keys() == {"a1", "a2"}
    assert again.entries["a2"].last == (DEFERRED,)
    for entry in again.entries.values():
        assert content_of(again, entry) == TRACE + make_body(entry.id)
    assert_balanced(again)
    again.abandon()


def test_any_damage_to_the_journal_loses_no_message(spool):
    writer = Writer(spool)
    writer.take("a1", "a2")
    [entry] = writer.take("a3")
    spool.record(entry, [FAILED], 0.0)
    spool.defer_to_file([spool.entries["a2"]])
    spool.commit()
    [name] = files_of(spool, "journal")
    path = f"{spool.root}/journal/{name}"
    with open(path, "rb") as file:
        good = file.read().rstrip(b"\0")
    spool.abandon()
    for position in range(0, len(good), 3):
        bad = bytearray(good)
        bad[position] ^= 0x55
        for old in files_of(spool, "journal"):
            os.unlink(f"{spool.root}/journal/{old}")
        with open(path, "wb") as file:
            file.write(bad)
        again = make_spool(spool.root)
        again.recover()
        again.abandon()
        assert again.entries.keys() == {"a1", "a2", "a3"}, position
        assert_balanced(again)


def test_recovery_of_many_deferred_opens_none_of_them(spool, monkeypatch):
    writer = Writer(spool)
    writer.take(*(f"m{n}" for n in range(1000)))
    spool.defer_to_file(list(spool.entries.values()))
    spool.commit()
    spool.abandon()
    opened: list[str] = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest: opened.append(str(path)) or real(path, *rest))
    again = make_spool(spool.root)
    assert again.recover().deferred == 1000
    assert not [path for path in opened if ".eml" in path or ".json" in path]
    assert len(opened) < 20
    again.abandon()


def test_segment_numbers_are_never_used_again(spool):
    first = Writer(spool)
    first.take("a1")
    spool.remove(spool.entries["a1"])
    spool.seal(first.number, first.segment.length)
    spool.commit()
    again = reopen(spool)
    again.recover()
    assert Writer(again).number > first.number
    again.abandon()


# --- a disk that fails ----------------------------------------------------------------------------------------------


def test_a_refused_fsync_of_the_journal_is_mended_by_a_new_journal(spool, monkeypatch):
    [entry] = Writer(spool).take("a1")
    real = os.fdatasync
    failures = [errno.EIO]

    def fail_once(fd):
        if failures:
            raise OSError(failures.pop(), "input/output error")
        real(fd)

    before = files_of(spool, "journal")
    monkeypatch.setattr(os, "fdatasync", fail_once)
    finish(spool, entry)
    spool.commit()
    assert files_of(spool, "journal") != before
    again = reopen(spool)
    again.recover()
    assert not again.entries
    again.abandon()


def test_while_nothing_can_be_synced_it_is_unhealthy_and_then_recovers(spool, monkeypatch):
    [entry] = Writer(spool).take("a1")
    finish(spool, entry)
    monkeypatch.setattr(os, "fdatasync", refuse(errno.EIO))
    for _ in range(2):
        with pytest.raises(SpoolUnhealthy):
            spool.commit()
    assert not spool.health().accepting
    monkeypatch.undo()
    spool.commit()
    assert spool.health().accepting
    assert len(files_of(spool, "journal")) == 1


def test_outcomes_wait_in_memory_while_the_disk_is_full(spool, monkeypatch):
    entries = Writer(spool).take("a1", "a2")
    monkeypatch.setattr(os, "pwrite", refuse(errno.ENOSPC))
    finish(spool, entries[0])
    assert not spool.health().accepting
    with pytest.raises(SpoolFull):
        spool.commit()
    monkeypatch.undo()
    finish(spool, entries[1])
    spool.commit()
    again = reopen(spool)
    again.recover()
    assert not again.entries
    assert again.ledger()["delivered"] == 2
    again.abandon()


def test_a_notice_outlives_a_refused_fsync_of_its_segment(spool, monkeypatch):
    [entry] = Writer(spool).take("a1")
    spool.record(entry, [FAILED], 0.0)
    spool.store(make_envelope("dsn1"), [b"sorry\r\n"], about=entry, recipients=[0])
    own = spool._own._writer
    real = os.fdatasync

    def fail_own(fd):
        if fd == own.fd:
            raise OSError(errno.EIO, "input/output error")
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fail_own)
    spool.finish(entry)
    spool.commit()
    assert own.poisoned
    spool.store(make_envelope("dsn2"), [b"sorry again\r\n"])
    spool.commit()
    assert f"{own.number:08d}.seg" not in files_of(spool, "segments")
    again = reopen(spool)
    again.recover()
    assert again.entries.keys() == {"dsn1", "dsn2"}
    assert content_of(again, again.entries["dsn1"]) == b"sorry\r\n"
    again.abandon()


def test_a_full_disk_while_moving_leaves_everything_where_it_was(spool, monkeypatch):
    entries = Writer(spool).take("a1", "a2")
    real = os.write
    left = [3]

    def fill_up(fd, data):
        left[0] -= 1
        if not left[0]:
            raise OSError(errno.ENOSPC, "no space")
        return real(fd, data)

    monkeypatch.setattr(os, "write", fill_up)
    with pytest.raises(SpoolFull):
        spool.defer_to_file(entries)
    monkeypatch.undo()
    assert files_of(spool, "deferred") == []
    assert content_of(spool, entries[1]) == TRACE + make_body("a2")


def test_no_segment_without_a_durable_name(spool, monkeypatch):
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    with pytest.raises(SpoolError):
        spool.new_segment("one")
    with pytest.raises(SpoolError):
        spool.new_body_files(2, "one")
    assert not spool.health().accepting
    monkeypatch.undo()
    Writer(spool).take("a1")
    assert spool.health().accepting


def test_little_space_is_unhealthy(tmp_path):
    spool = open_spool(tmp_path / "spool", min_free_bytes=1 << 60)
    assert "min_free_bytes" in spool.health().reason
    spool.abandon()


def test_a_snapshot_is_of_one_moment_although_entries_change_while_it_is_written(spool, monkeypatch):
    writer = Writer(spool)
    entries = writer.take(*(f"m{n}" for n in range(20)))
    monkeypatch.setattr("gatepost.spool.log.STEP", 2)
    real_touch = spool.log.touch
    started = []

    def interfere(entry):
        real_touch(entry)
        if not started:
            started.append(1)
            finish(spool, entries[10])
            spool.record(entries[15], [DEFERRED], 12_345.0)
            writer.take("late")

    monkeypatch.setattr(spool.log, "touch", interfere)
    spool.log.rotate()
    assert started
    again = reopen(spool)
    again.recover()
    assert again.entries.keys() == {*(f"m{n}" for n in range(20) if n != 10), "late"}
    assert again.entries["m15"].next_due_s == 12_345.0
    assert again.ledger() == spool.ledger()
    again.abandon()


def test_an_outcome_waits_for_the_notice_of_its_success(tmp_path):
    """A power cut may keep either of two files: the line that says delivered must not be there before the notice is durable."""
    spool = open_spool(tmp_path / "spool")
    entry, other = Writer(spool).take("a1", "a2")
    spool.commit()
    spool.store(make_envelope("d1"), [make_body("d1")], entry, ())
    spool.record(entry, [DELIVERED], 0.0)
    spool.finish(entry)
    spool.record(other, [DELIVERED], 0.0)
    spool.finish(other)
    crashed = open_spool(copy_spool(tmp_path / "spool", tmp_path / "crashed"))
    assert "a1" in crashed.entries and "a2" not in crashed.entries
    spool.commit()
    later = open_spool(copy_spool(tmp_path / "spool", tmp_path / "later"))
    assert "a1" not in later.entries and "d1" in later.entries
    for each in (spool, crashed, later):
        assert_balanced(each)
        each.close()


def test_only_what_its_notice_tells_of_waits_for_it(tmp_path):
    """A bounce to one recipient must not let a kill undo the delivery to another."""
    spool = open_spool(tmp_path / "spool")
    [entry] = Writer(spool).take("a1", recipients=2)
    spool.commit()
    spool.record(entry, [FAILED], 0.0)
    spool.store(make_envelope("d1"), [make_body("d1")], entry, (0,))
    spool.record(entry, [msgspec.structs.replace(DELIVERED, recipient=1)], 0.0)
    killed = open_spool(copy_spool(tmp_path / "spool", tmp_path / "killed"))
    assert bytes(killed.entries["a1"].states) == bytes([2, 1])
    assert_balanced(killed)
    killed.close()
    spool.close()
