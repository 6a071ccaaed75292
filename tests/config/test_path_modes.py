"""Every path that matters, with every mode bit set in turn: the start is refused for those that are wrong, and the advice mends it."""

from __future__ import annotations

import datetime
import os
import shlex
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from gatepost.cli import run as run_command
from gatepost.cli.main import cli
from gatepost.config import paths, programfiles
from gatepost.config.load import load_config
from gatepost.config.paths import inspect_paths, unused_exceptions
from gatepost.config.schema import Config, Domain, PathException, Section
from gatepost.config.users import role_ids

CONFIG = """\
hostname = "mx.example.net"
listen = "127.0.0.1:2525"
spool = "ROOT/var/spool"
domains = ["example.net"]
next_hop = "maildir:ROOT/var/mail/{domain}/{local}"
recipients_file = "ROOT/etc/people"
[events]
output = "ROOT/log/events.jsonl"
"""

# path -> (mode as it should be, bits that must not be)
WRITE, SECRET, QUEUE = 0o022, 0o066, 0o077
PLACES: dict[str, tuple[int, int]] = {
    "etc/gatepost.toml": (0o640, WRITE),
    "etc/people": (0o640, WRITE),
    "etc": (0o755, WRITE),
    "var": (0o755, WRITE),
    "var/spool": (0o711, WRITE),
    "var/spool/segments": (0o700, QUEUE),
    "var/spool/journal": (0o700, QUEUE),
    "var/spool/deferred": (0o700, QUEUE),
    "var/spool/bodies": (0o700, QUEUE),
    "var/spool/damaged": (0o700, QUEUE),
    "var/spool/run": (0o755, WRITE),
    "var/spool/run/empty": (0o555, WRITE),
    "var/spool/run/control.sock": (0o600, QUEUE),
    "var/mail": (0o700, WRITE),
    "log": (0o755, WRITE),
    "log/events.jsonl": (0o640, WRITE | 0o004),
    "program": (0o755, WRITE),
    "program/module.py": (0o644, WRITE),
    "program/part": (0o755, WRITE),
    "program/part/code.pyc": (0o644, WRITE),
    "interpreter": (0o755, WRITE),
    "secret_key": (0o600, SECRET),
}
REAL_NAMED_FILES = paths.named_files
BITS = [1 << number for number in range(12)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A whole gateway's files as they should be; every group has other members."""
    root = tmp_path / "it's here"
    root.mkdir(mode=0o755)
    for name in PLACES:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".sock"):
            here = os.getcwd()
            os.chdir(path.parent)  # the name of a socket is at most 107 octets
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(path.name)
            os.chdir(here)
        elif "." in path.name or path.name in ("people", "interpreter", "secret_key"):
            path.write_text(CONFIG.replace("ROOT", str(root)) if path.suffix == ".toml" else "anna\n")
        else:
            path.mkdir(exist_ok=True)
    for name, (mode, _) in PLACES.items():
        os.chmod(root / name, mode)
    ids = role_ids(load_config(str(root / "etc/gatepost.toml")))
    if os.geteuid() == 0:
        for name in PLACES:
            if name.startswith("var/spool/") and "run" not in name:
                os.chown(root / name, ids["queue"][0], ids["queue"][1])
    monkeypatch.setattr(paths, "_is_private_group", lambda gid, owner: False)
    monkeypatch.setattr(paths, "program_trees", lambda: [str(root / "program")])
    monkeypatch.setattr(paths, "interpreter_files", lambda: [str(root / "interpreter")])
    monkeypatch.setattr(
        paths, "named_files", lambda config: {(str(root / "secret_key"), True), (str(root / "etc/people"), False)}
    )
    yield root


def found(root: Path) -> list[paths.PathProblem]:
    path = str(root / "etc/gatepost.toml")
    return [problem for problem in inspect_paths(load_config(path), path) if problem.path.startswith(str(root))]


def test_as_it_should_be(place: Path) -> None:
    assert found(place) == []


@pytest.mark.parametrize("name", PLACES)
def test_every_bit_in_turn(place: Path, name: str) -> None:
    good, wrong = PLACES[name]
    path = place / name
    told = str(place / "program") if name.startswith("program/") else str(path)
    for bit in BITS:
        os.chmod(path, good | bit)
        problems = found(place)
        if not wrong & bit & ~good:
            assert problems == [], oct(bit)
            continue
        assert [problem.path for problem in problems] == [told], oct(bit)
        assert problems[0].command.startswith("chmod "), problems
        if told == str(path):
            assert problems[0].mode == f"{good | bit:04o}"
        subprocess.run(shlex.split(problems[0].command), check=True)
        assert found(place) == []
        assert not stat.S_IMODE(os.stat(path).st_mode) & bit


@pytest.mark.parametrize("name", [name for name, (_, wrong) in PLACES.items() if wrong])
def test_the_start_is_refused(place: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("the gateway started")

    monkeypatch.setattr(run_command, "Supervisor", started)
    os.chmod(place / name, PLACES[name][0] | 0o002)
    for command in ("run", "check"):
        done = CliRunner().invoke(cli, [command, "--config", str(place / "etc/gatepost.toml")])
        assert done.exit_code == 2, done.output + repr(done.exception)
        assert "mend it with: chmod " in done.stderr
        assert shlex.quote(str(place / name.split("/")[0]))[:-1] in done.stderr


def test_a_foreign_owner_in_the_program(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = programfiles.os.scandir
    seen = []

    class Foreign:
        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.path, self.name, self._entry = entry.path, entry.name, entry

        def stat(self, follow_symlinks: bool = True) -> os.stat_result:
            status = list(self._entry.stat(follow_symlinks=follow_symlinks))
            if self.name == "code.pyc":
                status[4] = 54321
                seen.append(self.path)
            return os.stat_result(status)

    monkeypatch.setattr(programfiles.os, "scandir", lambda path: [Foreign(entry) for entry in real(path)])
    (problem,) = found(place)
    assert seen
    assert "code.pyc" in problem.problem and "uid 54321" in problem.problem
    assert problem.command.startswith("chown -R ")


def test_a_tree_too_large_to_be_looked_through_refuses_the_start(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = place / "program"
    count = sum(len(directories) + len(files) for _, directories, files in os.walk(tree))
    monkeypatch.setattr(programfiles, "MAX_ENTRIES", count)
    assert found(place) == []
    (tree / "one-more.py").touch(mode=0o644)
    (problem,) = found(place)
    assert problem.path == str(tree) and "too many files" in problem.problem
    assert CliRunner().invoke(cli, ["check", "--config", str(place / "etc/gatepost.toml")]).exit_code == 2


def test_the_programs_own_files_are_there() -> None:
    trees = programfiles.program_trees()
    assert any(os.path.exists(os.path.join(tree, "privsep")) or tree.endswith("site-packages") for tree in trees)
    assert any(os.path.realpath(os.__file__).startswith(tree) for tree in trees)
    assert os.path.realpath(programfiles.interpreter_files()[-2]) == programfiles.interpreter_files()[-2]


# --- exceptions -----------------------------------------------------------------------------------------------------------

TODAY = datetime.date(2026, 11, 22)


def with_exception(root: Path, name: str, until: str) -> list[paths.PathProblem]:
    path = str(root / "etc/gatepost.toml")
    exception = PathException(path=str(root / name), owner="Anna", until=until, reason="x")
    config = msgspec.structs.replace(load_config(path), exceptions=[exception])
    return [p for p in inspect_paths(config, path, today=TODAY) if p.path.startswith(str(root))]


def test_an_exception_holds_for_its_path_alone_and_until_its_day(place: Path) -> None:
    for name in ("log", "var"):
        os.chmod(place / name, 0o777)
    assert [p.path for p in with_exception(place, "log", "2026-11-22")] == [str(place / "var")]
    late = with_exception(place, "log", "2026-11-21")
    assert [p.path for p in late] == [str(place / name) for name in ("etc/gatepost.toml", "log", "var")]
    assert "Anna" in late[0].problem and "ended on 2026-11-21" in late[0].problem


def test_an_exception_for_a_directory_is_none_for_what_is_below(place: Path) -> None:
    os.chmod(place / "etc" / "people", 0o666)
    assert [p.path for p in with_exception(place, "etc", "2026-12-31")] == [str(place / "etc" / "people")]


def test_exceptions_that_nothing_needs_are_told(place: Path) -> None:
    path = str(place / "etc/gatepost.toml")
    until = str(datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=2))
    (place / "etc/gatepost.toml").write_text(
        CONFIG.replace("ROOT", str(place))
        + f'[[exceptions]]\npath = "../log"\nowner = "Anna"\nuntil = {until}\nreason = "x"\n'
    )
    config = load_config(path)
    assert config.exceptions == [PathException(path=str(place / "log"), owner="Anna", until=until, reason="x")]
    assert unused_exceptions(config, path) == [str(place / "log")]
    told = CliRunner().invoke(cli, ["check", "--config", path]).stderr
    assert f"nothing is wrong with {place / 'log'}" in told and "Anna answers for it" in told
    os.chmod(place / "log", 0o777)
    assert unused_exceptions(config, path) == []
    assert found(place) == []


def test_a_group_of_who_starts_the_gateway_may_read_its_secrets(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "secret_key").chmod(0o640)
    assert [problem.path for problem in found(place)] == [str(place / "secret_key")]
    monkeypatch.setattr(paths, "_is_private_group", lambda gid, owner: owner == os.geteuid())
    assert found(place) == []


def test_the_keys_of_tls_and_the_users_are_secrets(tmp_path: Path) -> None:
    class Inner(Section, frozen=True, kw_only=True):
        certificate_file: str = "/c.pem"
        key_file: str = "/k.pem"

    class Whole(Config, frozen=True, kw_only=True):
        pairs: tuple[Inner, ...] = (Inner(),)
        users_file: str = "/users"

    config = Whole(hostname="a", listen=[], spool="/s", domains={"d": Domain(next_hop=[], recipients_file="/r")})
    assert REAL_NAMED_FILES(config) >= {("/c.pem", False), ("/k.pem", True), ("/users", True), ("/r", False)}
