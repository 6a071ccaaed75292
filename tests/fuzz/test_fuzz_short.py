"""The fuzz targets, shortly: every seed, mutations by hypothesis, and a few thousand coverage-guided inputs by atheris."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.all_targets import TARGETS
from fuzz.target import BREAKS, Target
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


def run_program(*arguments: str) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec("atheris") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("atheris is not installed", pytrace=False)
        pytest.skip("atheris is not installed; there is none for this machine")
    command = [sys.executable, str(PROGRAM), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=540, check=False)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the program says of each target. All in one run, which instruments the gateway once; one seed, so that it is the same each time."""
    findings = tmp_path_factory.mktemp("findings")
    done = run_program("--runs", str(RUNS), "--seed", "1", "--findings", str(findings))
    parts = re.split(r"^(\S+) \.\.\.\n", done.stdout, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@names
def test_coverage_guided(name: str, told: dict[str, str]) -> None:
    assert f"Done {RUNS} runs" in told[name], told[name]


def test_an_input_that_breaks_a_target_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    done = run_program("--runs", "10", "--findings", str(tmp_path), BREAKS.name, "proxy")
    assert done.returncode == 1
    broken, _, rest = done.stdout.partition("proxy ...")
    assert "always breaks" in broken and "Done 10 runs" in rest and f"broken: {BREAKS.name}\n" in rest
    assert list(tmp_path.glob(f"{BREAKS.name}-crash-*"))


def test_an_unknown_target_is_told(tmp_path: Path) -> None:
    done = run_program("--findings", str(tmp_path), "nothing-of-that-name")
    assert done.returncode == 2
    assert "no such target" in done.stderr
