"""Builds the wheel and the source archive into dist/, byte for byte the same from the same source.

setuptools does the work on a staged copy (`sourcetree.py`); the archive is packed anew, because setuptools writes owner, group and
the time of building into it. Needs the interpreter of the virtual environment, for setuptools; no network.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from sourcetree import ROOT, source_epoch, stage_source

_BUILD = "import sys, setuptools.build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"


def build_wheel(target: Path) -> Path:
    """Build the wheel into `target`."""
    return _build("build_wheel", target)


def build_sdist(target: Path) -> Path:
    """Build the source archive into `target`."""
    path = _build("build_sdist", target)
    _pack_anew(path, source_epoch())
    return path


def _build(hook: str, target: Path) -> Path:
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gatepost-build-") as directory:
        source, made = Path(directory, "source"), Path(directory, "made")
        made.mkdir()
        stage_source(source)
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(source_epoch()), "PYTHONHASHSEED": "0"}
        result = subprocess.run(
            [sys.executable, "-c", _BUILD, hook, str(made)],
            check=False,
            cwd=source,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: os.umask(0o022),
        )
        if result.returncode != 0:
            sys.exit(f"{hook} failed:\n{result.stdout}")
        name = result.stdout.splitlines()[-1]
        return Path(shutil.copyfile(made / name, target / name))


def _pack_anew(path: Path, epoch: int) -> None:
    """The same members, sorted, of root's, with one time; setuptools leaves the traces of who built."""
    packed = io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new:
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            clean = tarfile.TarInfo(member.name)
            clean.type, clean.size, clean.mtime, clean.linkname = member.type, member.size, epoch, member.linkname
            clean.mode = 0o755 if member.isdir() or member.mode & 0o111 else 0o644
            clean.uname = clean.gname = "root"
            new.addfile(clean, old.extractfile(member) if member.isfile() else None)
    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, epoch) as compressed:
        compressed.write(packed.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description="Build wheel and source archive.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    output = parser.parse_args().output
    for path in (build_sdist(output), build_wheel(output)):
        print(path)


if __name__ == "__main__":
    main()
