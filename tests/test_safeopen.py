"""Files are opened through no symbolic link, with openat2 and where there is none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from gatepost import safeopen
from gatepost.safeopen import LinkInPath, open_regular, read_regular


@pytest.fixture(params=["openat2", "walk", "refused"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The system call, and its absence (ENOSYS), and a container that refuses what it does not know (EPERM)."""
    if request.param != "openat2":
        code = errno.ENOSYS if request.param == "walk" else errno.EPERM

        def absent(*_: object) -> int:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(safeopen, "openat2", absent)
    return str(request.param)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"what is in it")
    return tmp_path


@pytest.mark.usefixtures("way")
def test_a_plain_path_is_read(place: Path) -> None:
    assert read_regular(str(place / "a" / "b" / "file"), 100) == b"what is in it"
    assert read_regular(str(place / "a" / "b" / ".." / "b" / "file"), 4) == b"what"


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", ["a", "a/b", "a/b/file"])
def test_no_link_is_followed(place: Path, name: str) -> None:
    os.rename(place / name, place / "moved")
    os.symlink(place / "moved", place / name)
    with pytest.raises(LinkInPath):
        open_regular(str(place / "a" / "b" / "file"))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("target", ["nowhere", "a/b/file"])
def test_nothing_is_created_through_a_link(place: Path, target: str) -> None:
    os.symlink(place / target, place / "log")
    with pytest.raises(LinkInPath):
        open_regular(str(place / "log"), os.O_WRONLY | os.O_CREAT, 0o640)
    assert not (place / "nowhere").exists()


@pytest.mark.usefixtures("way")
def test_a_new_file_is_made_with_its_mode(place: Path) -> None:
    os.close(open_regular(str(place / "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    assert (place / "log").stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("name", "code"),
    [("a/b", errno.EINVAL), ("fifo", errno.EINVAL), ("no", errno.ENOENT), ("a/b/file/x", errno.ENOTDIR)],
)
def test_what_is_no_plain_file_is_refused_at_once(place: Path, name: str, code: int) -> None:
    os.mkfifo(place / "fifo")  # opening it would wait for a writer
    with pytest.raises(OSError) as caught:
        open_regular(str(place / name))
    assert caught.value.errno == code


def test_a_relative_path_is_a_bug() -> None:
    with pytest.raises(ValueError, match="absolute"):
        open_regular("etc/passwd")
