"""A missing program skips its tests, and with CI=true fails them."""

from __future__ import annotations

import pytest
from integration.peers import packages


def test_missing_program_skips_and_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(packages, "find_program", lambda program: None)
    with pytest.raises(pytest.skip.Exception, match="smtp-sink is missing: install the Debian package postfix"):
        packages.require("smtp-sink")


def test_missing_program_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr(packages, "find_program", lambda program: None)
    with pytest.raises(pytest.fail.Exception, match="swaks is missing"):
        packages.require("swaks")


def test_root_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(packages.os, "geteuid", lambda: 1000)
    with pytest.raises(pytest.skip.Exception, match="postfix must start as root"):
        packages.require_root("postfix")


def test_unlisted_program_is_a_mistake_of_the_test() -> None:
    with pytest.raises(KeyError):
        packages.require("telnet")
