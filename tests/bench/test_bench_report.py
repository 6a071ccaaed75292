"""The bench's table and its accounting, without a server."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


def load(name: str) -> ModuleType:
    """A module of the bench, which is no package."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(name="document")
def make_document() -> dict:
    load_figures = {"rate": 400.0, "cpu_s_per_1000": 2.0, "pss_bytes": 100e6}
    fast = {"rate": 2000.0, "cpu_s_per_1000": 0.2, "pss_bytes": 50e6}
    return {
        "machine": {"cpus": 2, "cpu": "x", "memory_mb": 1, "kernel": "Linux"},
        "versions": {"gatepost": "1", "postfix": "3"},
        "quick": False,
        "missing": {"exim": "no apt-get"},
        "results": {
            "4k": {"postfix": load_figures, "gatepost": fast, "exim": {"failed": "it died\nwith a log"}},
            "idle-1000": {
                "postfix": {"skipped": "one process each"},
                "gatepost": {"pss_bytes": 9e6, "more_bytes": 5e6},
            },
        },
    }


def test_table_has_ratios_to_postfix(document: dict) -> None:
    lines = load("report").build_tables(document).splitlines()
    assert "| 4k | gatepost | 2,000 | 5.00 | 0.20 | 0.10 | 50 | 0.50 |" in lines
    assert "| 4k | postfix | 400 | 1.00 | 2.00 | 1.00 | 100 | 1.00 |" in lines


def test_table_names_what_failed_and_why(document: dict) -> None:
    lines = load("report").build_tables(document).splitlines()
    assert "| 4k | exim | failed: it died | | | | | |" in lines
    assert "| idle-1000 | postfix | skipped: one process each | | |" in lines
    assert "| idle-1000 | gatepost | 5.0 | 9 |  |" in lines
    assert "Not measured: exim: no apt-get." in lines


def test_table_rows_have_the_columns_of_their_head(document: dict) -> None:
    tables = load("report").build_tables(document).split("\n\n")[1:3]
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


@pytest.mark.parametrize("kind", ["process tree", "control group"])
def test_accounting_finds_grandchildren_and_their_time(kind: str) -> None:
    module = load("accounting")
    accounting = (
        module.Accounting() if kind == "process tree" else module.open_accounting(f"gatepost-test-{os.getpid()}")
    )
    if accounting.kind != kind:
        pytest.skip("no control group may be made here")
    burn = "import time\nwhile time.process_time() < 0.2: pass\nprint('done', flush=True)\ninput()"
    shell = f'{sys.executable} -c "$BURN"; true'
    process = subprocess.Popen(
        ["sh", "-c", shell],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "BURN": burn},
        preexec_fn=accounting.enter,  # noqa: PLW1509 - only writes a file
    )
    accounting.watch(process.pid)
    with process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == b"done\n"
        assert len(accounting.pids()) == 2
        assert 0.15 < accounting.cpu_s() < 5
        assert accounting.pss_bytes() > 1_000_000
        process.stdin.write(b"\n")
    accounting.close()
