"""The source as packages are built from it: which files, which version, which moment; and how a tree is made the same every time.

Everything a build writes into a package comes from a staged copy with normal modes and one time for all files, so that neither the
umask nor the clock of who builds can be seen in the result. Standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "packaging" / ".cache"
sys.path.insert(0, str(ROOT / "src"))  # what is built describes this tree, not whichever is installed
_NOT_SOURCE = {
    ".git",
    ".venv",
    "var",
    "dist",
    "build",
    ".cache",
    "__pycache__",
    ".hypothesis",
    ".pytest_cache",
    ".ruff_cache",
    ".mypy_cache",
}


def read_version() -> str:
    """The version of pyproject.toml."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def read_maintainer() -> str:
    """"NAME <ADDRESS>" of pyproject.toml; its first one answers for the packages."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        first = tomllib.load(file)["project"]["maintainers"][0]
    return f"{first['name']} <{first['email']}>"


def source_epoch() -> int:
    """The moment that all files of a package carry, in seconds since 1970.

    SOURCE_DATE_EPOCH if it is set; else that of the last commit; in a source archive the newest file, which the archive gave it.
    """
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    if _has_git():
        answer = subprocess.run(
            ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"], capture_output=True, text=True, check=True
        )
        return int(answer.stdout)
    return max(int((ROOT / name).stat().st_mtime) for name in source_files())


def source_files() -> list[str]:
    """Paths of the source files, relative and sorted: those that git does not ignore, or all in a source archive."""
    if _has_git():
        listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        answer = subprocess.run(listing, capture_output=True, text=True, check=True)
        return sorted(name for name in answer.stdout.split("\0") if name and (ROOT / name).is_file())
    found = []
    for directory, directories, files in os.walk(ROOT):
        directories[:] = [name for name in directories if name not in _NOT_SOURCE and not name.endswith(".egg-info")]
        found += [str((Path(directory) / name).relative_to(ROOT)) for name in files]
    return sorted(name for name in found if name != "PKG-INFO" and name != "setup.cfg")


def _has_git() -> bool:
    return (ROOT / ".git").exists() and shutil.which("git") is not None


def stage_source(target: Path) -> None:
    """Copy the source files below `target`, with normal modes and the one time."""
    for name in source_files():
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, place)
        if os.access(ROOT / name, os.X_OK):
            place.chmod(0o755)
    normalise(target, source_epoch())


def normalise(tree: Path, epoch: int) -> None:
    """Modes 0755 and 0644, and `epoch` as the time of everything below `tree`, it included."""
    for directory, directories, files in os.walk(tree, topdown=False):
        for name in files:
            path = Path(directory, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o111 else 0o644)
            os.utime(path, (epoch, epoch), follow_symlinks=False)
        for name in directories:
            if Path(directory, name).is_symlink():
                os.utime(Path(directory, name), (epoch, epoch), follow_symlinks=False)
        os.chmod(directory, 0o755)
        os.utime(directory, (epoch, epoch))
