"""When the installer of test programs is silent, explains itself, or fails."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(name="installer")
def load_installer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = Path(__file__).with_name("install_peers.py")
    spec = importlib.util.spec_from_file_location("install_peers", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delenv("CI", raising=False)
    return module


def test_nothing_missing_installs_nothing(installer: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(installer, "list_missing", dict)
    monkeypatch.setattr(installer, "install", lambda packages: pytest.fail("installed"))
    assert installer.main() == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("true", 1)])
def test_missing_is_named_with_its_reason(
    installer: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys, ci: str, status: int
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(installer, "list_missing", lambda: {"swaks": "swaks"})
    monkeypatch.setattr(installer, "explain_no_apt", lambda: "not run as root")
    assert installer.main() == status
    line = capsys.readouterr().err
    assert "missing: swaks (Debian package swaks)" in line
    assert "not run as root" in line


def test_each_package_is_installed_once(installer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [{"smtp-sink": "postfix", "postfix": "postfix", "curl": "curl"}, {}]
    monkeypatch.setattr(installer, "list_missing", lambda: answers.pop(0))
    monkeypatch.setattr(installer, "explain_no_apt", lambda: None)
    asked: list[list[str]] = []
    monkeypatch.setattr(installer, "install", lambda packages: asked.append(packages) or True)
    assert installer.main() == 0
    assert asked == [["curl", "postfix"]]


def test_list_names_a_package_for_each_program(installer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer, "SEARCH_PATH", "/nonexistent")
    monkeypatch.setattr(installer, "DOVECOT_LIBRARIES", "/nonexistent")
    missing = installer.list_missing()
    assert missing["smtp-sink"] == "postfix"
    assert missing["dovecot-lmtp"] == "dovecot-lmtpd"
