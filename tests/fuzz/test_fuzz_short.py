"""The fuzz targets, shortly: every seed, mutations by hypothesis, and a few thousand coverage-guided inputs by atheris."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.all_targets import TARGETS
from fuzz.target import Target
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PROGRAM = Path(__file__).resolve().parent
RUNS = 2000
names = pytest.mark.parametrize("name", TARGETS)


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """Seeds with something cut out and something of the language put in."""
    pieces = st.lists(st.sampled_from(target.tokens or (b"",)) | st.binary(max_size=9), max_size=12).map(b"".join)
    place = st.integers(0, target.max_bytes)

    def mutate(seed: bytes, begin: int, count: int, piece: bytes) -> bytes:
        begin %= len(seed) + 1
        return (seed[:begin] + piece + seed[begin + count % 40 :])[: target.max_bytes]

    return pieces | st.builds(mutate, st.sampled_from(target.seeds), place, place, pieces)


@names
def test_seeds(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


@names
def test_mutations(name: str) -> None:
    target = TARGETS[name]

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(inputs(target))
    def hold(data: bytes) -> None:
        target.run(data)

    hold()


@names
def test_coverage_guided(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("atheris is not installed", pytrace=False)
        pytest.skip("atheris is not installed; there is none for this machine")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--runs", str(RUNS), "--findings", str(tmp_path), name],
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Done {RUNS} runs" in done.stdout


def test_a_target_that_breaks_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--findings", str(tmp_path), "nothing-of-that-name"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    assert "no such target" in done.stderr
