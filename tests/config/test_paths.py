"""Path inspection: who could change what, and the command that mends it. The owner of a file is faked where it must be foreign."""

from __future__ import annotations

import errno
import os
import shlex
import struct
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from gatepost.config import paths
from gatepost.config.errors import ConfigErrors
from gatepost.config.load import load_config
from gatepost.config.paths import PathProblem, inspect_paths
from gatepost.config.users import role_ids

CONFIG = """\
hostname = "mx.example.net"
listen = "127.0.0.1:2525"
spool = "var/spool"
domains = ["example.net"]
next_hop = "maildir:var/mail/{domain}/{local}"
recipients_file = "people"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a configuration, as it should be."""
    root = tmp_path / "gate post"
    root.mkdir(mode=0o755)
    (root / "gatepost.toml").write_text(CONFIG)
    (root / "people").write_text("anna\n")
    for name in ("gatepost.toml", "people"):
        os.chmod(root / name, 0o640)
    (root / "var").mkdir(mode=0o755)
    (root / "var" / "spool").mkdir(mode=0o711)
    return root


def problems(place: Path) -> list[PathProblem]:
    path = str(place / "gatepost.toml")
    return [problem for problem in inspect_paths(load_config(path), path) if problem.path.startswith(str(place))]


def mend(problem: PathProblem) -> None:
    subprocess.run(shlex.split(problem.command), check=True)


def test_good(place: Path) -> None:
    assert problems(place) == []


@pytest.mark.parametrize("name", ["gatepost.toml", "people", "var/spool", "var", "."])
@pytest.mark.parametrize("mode", [0o002, 0o022])
def test_writable_by_others(place: Path, name: str, mode: int) -> None:
    path = os.path.normpath(place / name)
    os.chmod(path, os.stat(path).st_mode | mode)
    (problem,) = problems(place)
    assert problem.path == path
    assert "every user may change it" in problem.problem
    mend(problem)
    assert problems(place) == []


def test_writable_by_a_group(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chmod(place / "people", 0o660)
    assert problems(place) == []  # the group of who starts has no other members, or root would be one of them
    monkeypatch.setattr(paths, "_is_private_group", lambda gid, owner: False)
    (problem,) = problems(place)
    assert "the group" in problem.problem
    assert problem.command == f"chmod g-w '{place}/people'"


@pytest.mark.parametrize(("members", "is_private"), [([], False), (["owner"], True), (["owner", "anna"], False)])
def test_a_group_that_nobody_is_in_is_somebody_elses(
    monkeypatch: pytest.MonkeyPatch, members: list[str], is_private: bool
) -> None:
    uids = {"owner": 1000, "anna": 1001}
    group = SimpleNamespace(gr_mem=members, gr_name="some")
    monkeypatch.setattr(paths, "grp", SimpleNamespace(getgrgid=lambda gid: group))
    users = SimpleNamespace(getpwnam=lambda name: SimpleNamespace(pw_uid=uids[name]), getpwall=list)
    monkeypatch.setattr(paths, "pwd", users)
    assert paths._is_private_group(54321, 1000) is is_private


def give_by_list(path: Path, tag: int, rights: int, number: int = 54321) -> None:
    """An access list with one entry of its own; skips where the file system has none."""
    owner, group, mask, other, unused = 0x01, 0x04, 0x10, 0x20, 0xFFFFFFFF
    rows = [(owner, 6, unused), (tag, rights, number), (group, 0, unused), (mask, 7, unused), (other, 0, unused)]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *row) for row in sorted(rows))
    try:
        os.setxattr(path, "system.posix_acl_access", packed)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        pytest.skip("this file system has no access lists")


@pytest.mark.parametrize("tag", [0x02, 0x08], ids=["user", "group"])
@pytest.mark.parametrize(
    ("name", "rights", "what"), [("people", 6, "change it"), ("var", 7, "change it"), ("keys", 4, "read this secret")]
)
def test_access_lists(place: Path, name: str, rights: int, what: str, tag: int) -> None:
    def look() -> list[PathProblem]:
        inspector = paths._Inspector(role_ids(load_config(str(place / "gatepost.toml"))), os.geteuid())
        inspector.file(str(place / name / "x" if name == "var" else place / name), is_secret=name == "keys")
        return [problem for problem in inspector.problems if problem.path == str(place / name)]

    (place / "keys").touch(mode=0o600)
    give_by_list(place / name, tag, rights)
    (problem,) = look()
    assert problem.problem == f"its access list lets others {what}"
    assert problem.command == f"setfacl -b '{place}/{name}'"
    os.removexattr(place / name, "system.posix_acl_access")
    assert look() == []


@pytest.mark.parametrize("rights", [1, 4])
def test_access_lists_that_give_nothing_of_worth(place: Path, rights: int) -> None:
    give_by_list(place / "people", 0x02, rights)
    assert problems(place) == []
    give_by_list(place / "people", 0x02, 6, os.geteuid())
    assert problems(place) == []


def test_the_directory_of_the_event_log_must_be_there(place: Path) -> None:
    with (place / "gatepost.toml").open("a") as file:
        file.write('[events]\noutput = "log/events"\n')
    (problem,) = problems(place)
    assert str(problem).startswith(
        f"{place}/log (absent): there is no such directory for the event log; mend it with: mkdir"
    )
    mend(problem)
    assert problems(place) == []


def test_a_sticky_directory_is_good_only_as_a_parent(place: Path) -> None:
    os.chmod(place, 0o1777)
    assert problems(place) == []
    os.chmod(place, 0o755)
    os.chmod(place / "var" / "spool", 0o1777)
    (problem,) = problems(place)
    assert problem.path == str(place / "var" / "spool")


@pytest.mark.parametrize("name", ["gatepost.toml", "people"])
def test_files_are_not_read_through_symbolic_links(place: Path, name: str) -> None:
    os.rename(place / name, place / "real")
    os.symlink(place / "real", place / name)
    with pytest.raises(ConfigErrors, match="symbolic link") as caught:
        problems(place)
    assert str(place / "real") in str(caught.value)


@pytest.mark.parametrize("name", ["var", "var/spool"])
def test_symbolic_links(place: Path, name: str) -> None:
    os.rename(place / name, place / "real")
    os.symlink(place / "real", place / name)
    (problem,) = problems(place)
    assert problem.path == str(place / name)
    assert str(place / "real") in problem.problem


@pytest.mark.parametrize("name", ["gatepost.toml", "people", "var", "var/spool", "."])
def test_foreign_owners(place: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = os.path.normpath(place / name)
    real = os.lstat

    def fake(path: str) -> os.stat_result:
        found = list(real(path))
        if path == foreign:
            found[4] = 54321
        return os.stat_result(found)

    monkeypatch.setattr(paths.os, "lstat", fake)
    (problem,) = problems(place)
    assert (problem.path, problem.owner) == (foreign, "uid 54321")
    assert problem.command.startswith("chown ") and problem.command.endswith(shlex.quote(foreign))


def test_spool_directories_are_the_queues_alone(place: Path) -> None:
    path = place / "var" / "spool" / "segments"
    path.mkdir(mode=0o755)
    uid = role_ids(load_config(str(place / "gatepost.toml")))["queue"][0]
    found = problems(place)
    assert f"chmod 0700 '{path}'" in [problem.command for problem in found]
    assert len(found) == (1 if uid == os.geteuid() else 2)
    for problem in found:
        mend(problem)
    assert problems(place) == []
    assert (os.stat(path).st_uid, os.stat(path).st_mode & 0o777) == (uid, 0o700)


def test_a_file_where_a_directory_should_be(place: Path) -> None:
    os.rmdir(place / "var" / "spool")
    (place / "var" / "spool").write_text("")
    (problem,) = problems(place)
    assert problem.problem == "a directory is wanted here"
