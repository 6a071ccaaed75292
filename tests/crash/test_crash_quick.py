"""A short run of each crash scenario: nothing acknowledged is lost, and the program says so by its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("scenario", ["kills", "disk-full", "faults", "power"])
def test_nothing_acknowledged_is_lost(scenario: str, tmp_path: Path):
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "bench.crash", "--quick", "--only", scenario, "--json", str(report)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=540, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [result] = json.loads(report.read_text())["results"]
    if result["skipped"]:
        pytest.skip(result["skipped"])
    assert result["problems"] == []
    assert result["figures"]["acknowledged_messages"] > 0 and result["figures"]["lost"] == 0
