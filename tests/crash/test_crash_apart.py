"""A scenario runs in a process of its own: its result comes back, its mounts and its death stay there, and a skip is named."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from bench.crash import processes
from bench.crash.apart import run_apart
from bench.crash.bed import Options, Result
from bench.crash.gateway import find_kind, is_volatile
from bench.crash.processes import CrashError, Skip
from bench.crash.report import build_report


def fail(error: Exception):
    def scenario(options: Options) -> Result:
        raise error

    return scenario


def test_a_result_comes_back():
    found = run_apart("x", lambda options: Result("x", {"lost": 0, "ledger": {"accepted": 3}}), Options())
    assert found == Result("x", {"lost": 0, "ledger": {"accepted": 3}})


@pytest.mark.parametrize(
    ("scenario", "problem"),
    [
        (fail(CrashError("not in 3 s: ready")), "not in 3 s: ready"),
        (fail(KeyError("kills")), "KeyError: 'kills'"),
        (lambda options: os._exit(7), "its process ended without a result (status 7)"),
        (lambda options: os.kill(os.getpid(), signal.SIGKILL), "its process ended without a result (status -9)"),
    ],
)
def test_every_end_but_a_result_is_a_failure(scenario, problem):
    found = run_apart("x", scenario, Options())
    assert found.problems == [problem] and not found.is_good and not found.skipped


def test_a_skip_is_named_and_shows_nothing(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    found = run_apart("power", fail(Skip("/dev/fuse is missing")), Options())
    assert found.is_good and found.skipped == "/dev/fuse is missing"
    assert "power: NOT RUN, shows nothing: /dev/fuse is missing" in build_report([found], "a machine").splitlines()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is held to run all of them")
def test_in_ci_a_skip_is_a_failure(monkeypatch):
    monkeypatch.setenv("CI", "true")
    assert run_apart("power", fail(Skip("/dev/fuse is missing")), Options()).problems == [
        "must run here: /dev/fuse is missing"
    ]


def test_mounts_stay_in_the_scenario(tmp_path: Path):
    def scenario(options: Options) -> Result:
        processes.enter_private_mounts()
        processes.mount("none", tmp_path, "tmpfs", "size=64k")
        return Result("x", {"file_system": find_kind(tmp_path), "volatile": is_volatile(tmp_path)})

    before = find_kind(tmp_path)
    found = run_apart("x", scenario, Options())
    if found.skipped or os.geteuid() != 0:
        pytest.skip(found.skipped or "mounting needs root")
    assert (found.figures, find_kind(tmp_path)) == ({"file_system": "tmpfs", "volatile": True}, before)
    assert "x: on tmpfs, with queue.allow_volatile; --directory names a disk" in build_report([found], "a machine")
