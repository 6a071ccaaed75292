"""Running the gateway as another user than root, where the tests are root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from integration.gateway import is_root

import gatepost

NOBODY = 65534


def as_nobody(*command: str) -> list[str]:
    """The command that runs `command` with the rights of no user in particular."""
    drop = ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
    return ["setpriv", *drop, *command]


def find_python(directory: Path) -> str:
    """An interpreter that nobody may execute, with the packages of this one, made below `directory`; skips if there is none."""
    if not is_root():
        pytest.skip("needs root; all other tests run without it then")
    found = [os.path.realpath(sys.executable), f"/usr/bin/python3.{sys.version_info.minor}"]
    executable = next((path for path in found if _may_execute(path)), None)
    if executable is None:
        pytest.skip(f"another user can execute none of {found}")
    home = directory / "python"
    packages = home / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    packages.mkdir(parents=True)
    paths = [Path(module.__file__ or "").parents[1] for module in (gatepost, click)]
    (packages / "other.pth").write_text("".join(f"{path}\n" for path in paths))
    (home / "pyvenv.cfg").write_text(f"home = {os.path.dirname(executable)}\n")
    (home / "bin").mkdir()
    (home / "bin" / "python").symlink_to(executable)
    python = str(home / "bin" / "python")
    if subprocess.run(
        as_nobody(python, "-I", "-c", "import gatepost, click"), capture_output=True, check=False
    ).returncode:
        pytest.skip("another user cannot read this copy of the program")
    return python


def _may_execute(path: str) -> bool:
    """`env` executes it with the rights of nobody; setpriv itself still has those of root."""
    return not subprocess.run(as_nobody("env", path, "-c", ""), capture_output=True, check=False).returncode
