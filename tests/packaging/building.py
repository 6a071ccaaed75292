"""Runs the scripts of packaging/, on this tree or on a copy that stands still while others change it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from boxes import CACHE, ROOT
from sourcetree import stage_source


def run_script(name: str, *arguments: str, root: Path = ROOT, **environment: str) -> str:
    """Run a script of packaging/; its output."""
    result = subprocess.run(
        [sys.executable, str(root / "packaging" / name), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def snapshot(target: Path) -> Path:
    """A copy of the source, as a source archive has it; the wheels fetched before are at hand."""
    stage_source(target)
    CACHE.mkdir(exist_ok=True)
    (target / "packaging" / ".cache").symlink_to(CACHE)
    return target


def build(source: Path, output: Path) -> Path:
    """The Debian package of a source tree."""
    text = run_script("build_deb.py", "--output", str(output), root=source, SOURCE_DATE_EPOCH="1767225600")
    return Path(text.splitlines()[-1])
