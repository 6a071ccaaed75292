"""Preparing the spool directory: what is made, and what is refused with which advice."""

from __future__ import annotations

import os

import pytest

from gatepost.spool import layout
from gatepost.spool.errors import SpoolRefused
from gatepost.spool.layout import find_filesystem, is_id, lock_spool, prepare_spool, put_aside

MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:25 / /tmp rw,nosuid master:1 - tmpfs tmpfs rw
31 27 0:26 / /var/lib/with\\040space rw - overlay overlay rw
32 27 0:27 / /srv rw - tmpfs tmpfs rw
33 27 254:1 / /srv rw - xfs /dev/vdb rw
garbage
"""


def prepare(path, allow_volatile: bool = True) -> None:
    prepare_spool(str(path), queue_uid=-1, queue_gid=-1, allow_volatile=allow_volatile)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/spool/gatepost", "ext4"),
        ("/tmp", "tmpfs"),
        ("/tmp/x", "tmpfs"),
        ("/tmpx", "ext4"),
        ("/var/lib/with space/spool", "overlay"),
        ("/srv/spool", "xfs"),
    ],
)
def test_file_system_of_a_path(path, kind):
    assert find_filesystem(path, MOUNTS) == kind


def test_it_makes_everything_and_twice_is_harmless(tmp_path):
    for _ in range(2):
        prepare(tmp_path / "a/spool")
    for name in layout.DIRECTORIES:
        assert os.stat(tmp_path / "a/spool" / name).st_mode & 0o777 == 0o700
    assert os.stat(tmp_path / "a/spool").st_mode & 0o777 == 0o711


def test_others_may_not_write(tmp_path):
    prepare(tmp_path / "spool")
    os.chmod(tmp_path / "spool/journal", 0o770)
    with pytest.raises(SpoolRefused) as caught:
        prepare(tmp_path / "spool")
    assert caught.value.advice == f"chmod go-w {tmp_path}/spool/journal"


def test_it_must_be_the_queues_own(tmp_path, monkeypatch):
    prepare(tmp_path / "spool")
    uid = os.geteuid() + 1
    with pytest.raises(SpoolRefused) as caught:
        prepare_spool(str(tmp_path / "spool"), queue_uid=uid, queue_gid=-1, allow_volatile=True)
    assert f"not to uid {uid}" in caught.value.problem
    assert caught.value.advice.startswith(f"chown -R {uid} ")


def test_a_link_in_place_of_a_directory_is_refused(tmp_path):
    prepare(tmp_path / "spool")
    os.rmdir(tmp_path / "spool/segments")
    os.symlink("/etc", tmp_path / "spool/segments")
    with pytest.raises(SpoolRefused, match="not a directory"):
        prepare(tmp_path / "spool")


def test_volatile_file_systems_are_refused_unless_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "find_filesystem", lambda path, mountinfo: "overlay")
    with pytest.raises(SpoolRefused, match="lies on overlay") as caught:
        prepare(tmp_path / "spool", allow_volatile=False)
    assert "allow_volatile" in caught.value.advice
    prepare(tmp_path / "spool")


def test_a_path_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SpoolRefused, match="cannot prepare"):
        prepare(tmp_path / "file/spool")


def test_the_lock_is_for_one(tmp_path):
    prepare(tmp_path / "spool")
    fd = lock_spool(f"{tmp_path}/spool")
    with pytest.raises(SpoolRefused):
        lock_spool(f"{tmp_path}/spool")
    os.close(fd)
    os.close(lock_spool(f"{tmp_path}/spool"))


@pytest.mark.parametrize("text", ["", "..", "a/b", "a.b", "\u0661", "x" * 65, "a\n"])
def test_what_cannot_be_an_id(text):
    assert not is_id(text)


def test_damage_is_kept_once(tmp_path):
    prepare(tmp_path / "spool")
    fd = os.memfd_create("damaged")
    os.write(fd, b"0123456789")
    for _ in range(2):
        assert put_aside(f"{tmp_path}/spool", "part.bin", fd, 2, 5) == "damaged/part.bin"
    os.close(fd)
    assert (tmp_path / "spool/damaged/part.bin").read_bytes() == b"234"
