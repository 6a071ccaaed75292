"""Maildir delivery: what lies on disk, what leads nowhere, and what a full or broken disk gives."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from pathlib import Path

import pytest
from scripted_host import run

from gatepost.config.schema import Config
from gatepost.delivery import maildir
from gatepost.delivery.maildir import BadMailbox, MaildirEngine, deliver_maildir, expand_path
from gatepost.ipc.messages import Attempt, AttemptDone
from gatepost.model import Envelope, NextHopTrouble, Recipient, Result

CONTENT = b"Subject: x\r\n\r\nhello\r\n"


def make_envelope(*addresses: str, reverse_path: str = "s@example.org") -> Envelope:
    return Envelope(
        id="m1",
        session_id="s1",
        reverse_path=reverse_path,
        recipients=[Recipient(address, address.rpartition("@")[2], "maildir:/box") for address in addresses],
        received_s=0.0,
        peer_address="192.0.2.1",
        helo="x",
        permit="recipient-domain",
    )


def deliver(root: Path | int, path: str, *addresses: str, content: bytes = CONTENT, **fields: str):
    envelope = make_envelope(*addresses, **fields)
    root = str(root) if isinstance(root, Path) else root

    def read(offset: int, count: int) -> bytes:
        return content[offset : offset + count]

    return deliver_maildir(root, path, envelope, range(len(addresses)), read, len(content))


def test_file_in_new_with_its_fields_and_rights(tmp_path: Path):
    (outcome,) = deliver(tmp_path, "/box", "u@x.test")
    assert (outcome.result, outcome.stage, outcome.status) == (Result.DELIVERED, "maildir", "2.0.0")
    (file,) = (tmp_path / "box/new").iterdir()
    assert file.read_bytes() == b"Return-Path: <s@example.org>\nDelivered-To: u@x.test\nSubject: x\n\nhello\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and file.stat().st_nlink == 1
    assert outcome.text.endswith(file.name)
    for name in ("", "new", "tmp", "cur"):
        assert stat.S_IMODE((tmp_path / "box" / name).stat().st_mode) == 0o700
    assert list((tmp_path / "box/tmp").iterdir()) == []


def test_descriptor_as_root_and_null_reverse_path(tmp_path: Path):
    fd = os.open(tmp_path, os.O_RDONLY)
    assert deliver(fd, "box", "u@x.test", reverse_path="")[0].result is Result.DELIVERED
    os.close(fd)
    (file,) = (tmp_path / "box/new").iterdir()
    assert file.read_bytes().startswith(b"Return-Path: <>\n")


def test_placeholders(tmp_path: Path):
    outcomes = deliver(tmp_path, "/{domain}/{local}", "Anna@x.test", "bob@y.test", "../evil@x.test", '"a b"@x.test')
    assert [outcome.result for outcome in outcomes] == [Result.DELIVERED] * 2 + [Result.FAILED] * 2
    assert {outcome.status for outcome in outcomes[2:]} == {"5.1.1"}
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")) == ["x.test/anna", "y.test/bob"]


@pytest.mark.parametrize("local", [".hidden", "..", "a/b", "a\0b", "x" * 65, "ü" * 33, "a\nb"])
def test_local_parts_without_a_mailbox(local: str):
    with pytest.raises(BadMailbox):
        expand_path("/{domain}/{local}", f"{local}@x.test", "x.test")


def test_paths_never_go_up():
    with pytest.raises(BadMailbox):
        expand_path("/a/../b", "u@x.test", "x.test")


@pytest.mark.parametrize("linked", ["box", "box/new", "box/tmp"])
def test_links_are_not_followed(tmp_path: Path, linked: str):
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    (root / linked).parent.mkdir(parents=True)
    (root / linked).symlink_to(outside)
    (outcome,) = deliver(root, "/box", "u@x.test")
    assert outcome.result is Result.DEFERRED and list(outside.iterdir()) == []


@pytest.mark.parametrize("block_bytes", [1, 2, 3, 7, 1000])
def test_lines_whatever_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int):
    monkeypatch.setattr(maildir, "BLOCK_BYTES", block_bytes)
    content = b"A: b\r\n\r\n\r\r\n\nlone\rcr\x00\xff\r\n.\r\nend\r"
    deliver(tmp_path, "/box", "u@x.test", content=content)
    (file,) = (tmp_path / "box/new").iterdir()
    assert file.read_bytes().partition(b"u@x.test\n")[2] == content.replace(b"\r\n", b"\n")


@pytest.mark.parametrize(
    ("call", "number", "status"),
    [
        ("write", errno.ENOSPC, "4.3.1"),
        ("write", errno.EDQUOT, "4.2.2"),
        ("fsync", errno.EIO, "4.3.0"),
        ("link", errno.ENOSPC, "4.3.1"),
        ("link", errno.EEXIST, "4.3.0"),
        ("mkdir", errno.EROFS, "4.3.0"),
        ("open", errno.EMFILE, "4.3.0"),
    ],
)
def test_disk_troubles_defer_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, status: str
):
    def fail(*args: object, **fields: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        (outcome,) = deliver(tmp_path, "/box", "u@x.test")
    assert (outcome.result, outcome.status) == (Result.DEFERRED, status)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_name_is_synced_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    deliver(tmp_path, "/box", "u@x.test")  # directories exist now
    steps: list[str] = []
    real_fsync, real_link = os.fsync, os.link

    def fsync(fd: int) -> None:
        steps.append("dir" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        real_fsync(fd)

    def link(*args: str, **fields: int) -> None:
        steps.append("link")
        real_link(*args, **fields)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    deliver(tmp_path, "/box", "u@x.test")
    assert steps == ["file", "link", "dir"]


def test_failed_sync_of_the_directory_defers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    deliver(tmp_path, "/box", "u@x.test")
    real_fsync = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, "broken")
        real_fsync(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    assert deliver(tmp_path, "/box", "u@x.test")[0].result is Result.DEFERRED


def test_content_that_became_shorter_defers(tmp_path: Path):
    envelope = make_envelope("u@x.test")
    (outcome,) = deliver_maildir(str(tmp_path), "/box", envelope, [0], lambda offset, count: b"x", 100)
    assert outcome.result is Result.DEFERRED
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_many_recipients_need_few_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(maildir, "MAX_OPEN", 4)
    before = len(os.listdir("/proc/self/fd"))
    outcomes = deliver(tmp_path, "/{domain}/{local}", *[f"u{n}@x.test" for n in range(30)])
    assert {outcome.result for outcome in outcomes} == {Result.DELIVERED}
    assert [outcome.recipient for outcome in outcomes] == list(range(30))
    assert len(list(tmp_path.glob("x.test/*/new/*"))) == 30
    assert len(os.listdir("/proc/self/fd")) == before


class MaildirBed:
    def __init__(self, root: Path, **fields: object) -> None:
        self.events: list[str] = []
        self.dones: dict[int, AttemptDone] = {}
        config = Config(hostname="gate.test", listen=[], spool="/nowhere", domains={})
        self.engine = MaildirEngine(
            config,
            root=str(root),
            read=fields.pop("read", self.read),  # type: ignore[arg-type]
            done=lambda done: self.dones.__setitem__(done.job, done),
            event=lambda name, **rest: self.events.append(name),
            **fields,  # type: ignore[arg-type]
        )

    @staticmethod
    def read(source: int, offset: int, count: int) -> bytes:
        return (b"#######" + CONTENT)[offset : offset + count]

    def submit(self, job: int, next_hop: str = "maildir:/box") -> None:
        self.engine.submit(Attempt(job, 1, 7, len(CONTENT), next_hop, 1, make_envelope("u@x.test"), [0]))


def test_engine_delivers_and_drains(tmp_path: Path):
    async def body() -> MaildirBed:
        bed = MaildirBed(tmp_path)
        for job in range(100):
            bed.submit(job)
        await bed.engine.drain()
        return bed

    bed = run(body())
    assert len(bed.dones) == len(list((tmp_path / "box/new").iterdir())) == 100
    assert {done.outcomes[0].result for done in bed.dones.values()} == {Result.DELIVERED}
    assert {done.trouble for done in bed.dones.values()} == {NextHopTrouble.NONE}
    assert bed.engine.stats() == {"attempts": 0, "done": 100}


def test_engine_takes_off_the_prefix(tmp_path: Path):
    async def body() -> None:
        bed = MaildirBed(tmp_path, prefix="/var/mail/")
        bed.submit(1, "maildir:/var/mail/box")
        bed.submit(2, "maildir:/var/mailbox")
        await bed.engine.drain()

    run(body())
    assert len(list((tmp_path / "box/new").iterdir())) == 1
    assert len(list((tmp_path / "var/mailbox/new").iterdir())) == 1


def test_engine_survives_a_bug_and_a_missing_root(tmp_path: Path):
    def broken(source: int, offset: int, count: int) -> bytes:
        raise RuntimeError("a bug")

    async def body() -> tuple[MaildirBed, MaildirBed]:
        first, second = MaildirBed(tmp_path, read=broken), MaildirBed(tmp_path / "missing")
        first.submit(1)
        second.submit(1)
        await asyncio.gather(first.engine.drain(), second.engine.drain())
        return first, second

    for bed in run(body()):
        assert bed.dones[1].outcomes[0].result is Result.DEFERRED
        assert bed.dones[1].trouble is NextHopTrouble.DOWN
