"""Root looks at a gateway that another user starts: what belongs to that user is as it should be."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from gatepost.cli.check import build_report
from gatepost.config import users
from gatepost.config.load import load_config

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    spool = tmp_path / "spool"
    spool.mkdir(mode=0o711)
    path = tmp_path / "gatepost.toml"
    path.write_text(
        f'hostname = "gate.example.test"\nlisten = "127.0.0.1:25"\nspool = "{spool}"\n'
        'domains = ["example.test"]\nnext_hop = "smtp://192.0.2.1:25"\n'
    )
    path.chmod(0o640)
    return path


def own_spool(path: Path) -> int:
    nobody = pwd.getpwnam("nobody")
    os.chown(path.parent / "spool", nobody.pw_uid, nobody.pw_gid)
    return nobody.pw_uid


def test_a_spool_of_the_service_user_is_right(config_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = own_spool(config_path)
    monkeypatch.setattr(users, "SERVICE_USER", "nobody")
    assert users.starter_of(load_config(str(config_path))) == uid
    report = build_report(str(config_path))
    assert report.paths == []
    assert set(report.users.values()) == {"nobody"}
    assert [warning.problem for warning in report.warnings if "all roles will run as nobody" in warning.problem]


def test_a_spool_of_anybody_else_is_not(config_path: Path) -> None:
    own_spool(config_path)
    assert users.starter_of(load_config(str(config_path))) == 0
    assert [problem.path for problem in build_report(str(config_path)).paths] == [str(config_path.parent / "spool")]


def test_a_spool_that_is_not_there_yet_says_nothing(config_path: Path) -> None:
    (config_path.parent / "spool").rmdir()
    assert users.starter_of(load_config(str(config_path))) == 0
