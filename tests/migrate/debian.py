"""Debian packages unpacked beside the system for a test: their tools and default files, nothing installed.

`unpacked("tinycdb", "libcdb1")` downloads what is not in the cache yet (`tests/.cache/`, not committed) and returns the
directory that holds their files; the test is skipped (CI=true: fails) where that is not possible.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

from integration.peers.packages import miss

CACHE = Path(__file__).resolve().parents[1] / ".cache"


@functools.cache
def unpacked(*packages: str) -> Path:
    """The root directory of the packages' files."""
    root = CACHE / "+".join(packages)
    if (root / ".complete").exists():
        return root
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        miss(f"{', '.join(packages)}: there is no apt-get to download it with")
    shutil.rmtree(root, ignore_errors=True)
    downloads = root / "debs"
    downloads.mkdir(parents=True)
    command = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *packages]
    try:
        done = subprocess.run(command, cwd=downloads, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        miss(f"{', '.join(packages)}: not downloaded in 2 minutes")
    if done.returncode != 0:
        miss(f"{', '.join(packages)} cannot be downloaded: {done.stderr.strip()[-200:]}")
    for package in sorted(downloads.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
    # links into usr since Debian 12: a directory laid over them would hide them
    for name in ("bin", "sbin", "lib", "lib64"):
        if (root / name).is_dir() and not (root / name).is_symlink():
            shutil.copytree(root / name, root / "usr" / name, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(root / name)
    shutil.rmtree(downloads)
    (root / ".complete").touch()
    return root


def run_tool(root: Path, tool: str, *arguments: str, text: str = "") -> str:
    """Run an unpacked program with its own libraries; its output."""
    libraries = ":".join(str(path) for path in root.glob("usr/lib/*-linux-gnu*"))
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries}
    command = [str(root / "usr/bin" / tool), *arguments]
    return subprocess.run(
        command, input=text, env=environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout
