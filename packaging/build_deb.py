"""Builds gatepost_VERSION_amd64.deb for Debian 12 into dist/, byte for byte the same from the same source.

A private environment below /usr/lib/gatepost holds the program and exactly the pinned packages of requirements/runtime.txt that it
needs, each checked against its hash; Debian gives the interpreter and libseccomp. No debhelper: dpkg-deb packs a staged tree. The
network is asked for wheels only, by pip as it is set up, and only the first time.
"""

from __future__ import annotations

import argparse
import email
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from email.utils import formatdate
from pathlib import Path

from build_dist import build_wheel
from build_man import build_all
from build_sbom import build_sbom
from build_unit import FILES, find_differences
from lockfile import LOCK, runtime_pins, write_requirements
from sourcetree import CACHE, ROOT, normalise, read_maintainer, read_version, source_epoch, source_files

PYTHON = "3.11"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_5_x86_64")
HOME = "usr/lib/gatepost"
PACKAGES = f"{HOME}/lib/python{PYTHON}/site-packages"
DOCUMENTS = "usr/share/doc/gatepost"
SCRIPTS = ("postinst", "prerm", "postrm")
UNIT_PLACES = {
    "gatepost.service": "usr/lib/systemd/system/gatepost.service",
    "gatepost.socket": "usr/lib/systemd/system/gatepost.socket",
    "gatepost-separated.service": "usr/lib/systemd/system/gatepost-separated.service",
    "gatepost-selftest.service": "usr/lib/systemd/system/gatepost-selftest.service",
    "gatepost-selftest.timer": "usr/lib/systemd/system/gatepost-selftest.timer",
    "gatepost.sysusers": "usr/lib/sysusers.d/gatepost.conf",
    "gatepost.tmpfiles": "usr/lib/tmpfiles.d/gatepost.conf",
}
_LAUNCHER = f"""#!/{HOME}/bin/python3 -I
from gatepost.{{}} import main

main()
"""
_PROGRAMS = {"gatepost": "cli.main", "gatepost-sendmail": "sendmail.main", "gatepost-mailq": "cli.mailq"}


def fetch_wheels() -> Path:
    """The pinned wheels, in a directory of the cache that the lock names; pip checks every hash, each time."""
    text = write_requirements(runtime_pins())
    directory = CACHE / "wheels" / hashlib.sha256(text.encode()).hexdigest()[:16]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "requirements.txt").write_text(text)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "-q",
        "--disable-pip-version-check",
        "download",
        "--no-deps",
        "--require-hashes",
    ]
    target = ["--only-binary", ":all:", "--python-version", PYTHON, "--implementation", "cp"]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    wanted = ["-r", str(directory / "requirements.txt"), "-d", str(directory)]
    here = ["--no-index", "--find-links", str(directory)] if any(directory.glob("*.whl")) else []
    result = subprocess.run([*pip, *target, *platforms, *here, *wanted], check=False)
    if result.returncode != 0:
        sys.exit(f"the wheels of {LOCK.relative_to(ROOT)} could not be had with their hashes; see above")
    return directory


def install_packages(root: Path, wheels: Path, own: Path) -> None:
    """Unpack the wheels and our own into the private environment, and leave no trace of where that was done."""
    target = root / PACKAGES
    for requirements in (["--require-hashes", "-r", str(wheels / "requirements.txt")], [f"gatepost=={read_version()}"]):
        subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "pip",
                    "-q",
                    "--disable-pip-version-check",
                    "install",
                    "--no-index",
                    "--no-deps",
                ),
                *("--no-compile", "--ignore-installed", "--no-warn-script-location", "--target", str(target)),
                *("--python-version", PYTHON, "--implementation", "cp", "--only-binary", ":all:"),
                *(word for platform in PLATFORMS for word in ("--platform", platform)),
                *("--find-links", str(wheels), "--find-links", str(own), *requirements),
            ],
            check=True,
        )
        shutil.rmtree(target / "bin", ignore_errors=True)
    for trace in [*target.rglob("direct_url.json"), *target.rglob("REQUESTED")]:
        trace.unlink()
    for unused in [*target.rglob("*.pyx"), *target.rglob("*.pxd"), *target.rglob("*.pyi"), *target.rglob("tests")]:
        if unused.is_dir():
            shutil.rmtree(unused)
        else:
            unused.unlink()


def compile_packages(root: Path) -> None:
    """Byte code that is never checked against its source: nobody may write there, and the result has no time in it."""
    compileall = ["-m", "compileall", "-q", "-j", "1", "--invalidation-mode", "unchecked-hash"]
    subprocess.run(
        [_interpreter(), "-I", *compileall, "-s", str(root), "-p", "/", str(root / PACKAGES)],
        check=True,
        env={"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0"},
    )


def _interpreter() -> str:
    """Debian's own where it is there: the byte code is for that."""
    return shutil.which(f"python{PYTHON}", path="/usr/bin") or sys.executable


def lay_out(root: Path, version: str, wheels: Path, own: Path) -> None:
    """Everything of the package, below `root`."""
    install_packages(root, wheels, own)
    compile_packages(root)
    binaries = root / HOME / "bin"
    binaries.mkdir()
    (binaries / "python3").symlink_to(f"/usr/bin/python{PYTHON}")
    for name, module in _PROGRAMS.items():
        (binaries / name).write_text(_LAUNCHER.format(module))
        (binaries / name).chmod(0o755)
    (root / HOME / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {PYTHON}\n"
    )
    shutil.copyfile(ROOT / "packaging" / "deb" / "queue_is_empty.py", root / HOME / "queue_is_empty.py")
    (root / "usr/bin").mkdir(parents=True)
    for name in _PROGRAMS:
        (root / "usr/bin" / name).symlink_to(f"../lib/gatepost/bin/{name}")
    for name, build in FILES.items():
        _write(root / UNIT_PLACES[name], "\n".join(build()) + "\n")
    for path, text in build_all().items():
        if "/man/" in path:
            _write_compressed(root / f"{path}.gz", text)
        else:
            _write(root / path, text)
    _write_documents(root, version)


def _write_documents(root: Path, version: str) -> None:
    documents = root / DOCUMENTS
    _write(documents / "copyright", build_copyright(root / PACKAGES))
    _write(documents / "gatepost.cdx.json", build_sbom())
    overrides = (ROOT / "packaging" / "deb" / "lintian-overrides").read_text()
    _write(root / "usr/share/lintian/overrides/gatepost", overrides)
    day = formatdate(source_epoch())
    entry = f"gatepost ({version}) bookworm; urgency=medium\n\n  * Release {version}; what is new is in CHANGELOG.md.\n"
    _write_compressed(documents / "changelog.gz", f"{entry}\n -- {read_maintainer()}  {day}\n")
    for name in source_files():
        if name.endswith(".md") and name.count("/") == name.startswith("docs/"):
            _write(documents / Path(name).name, (ROOT / name).read_text())


def build_copyright(packages: Path) -> str:
    """The copyright file: ours, and of each package that is part of it the licence that it names and brings."""
    paragraphs = [
        "Gatepost is Copyright the Gatepost maintainers and may be used under the Apache License, Version 2.0; on Debian systems its\n"
        "text, the same as that of LICENSE in the source, is in /usr/share/common-licenses/Apache-2.0. These packages are part of it,\n"
        "below /" + PACKAGES + ":",
    ]
    for pin in runtime_pins():
        (directory,) = packages.glob(f"{pin.name.replace('-', '_')}-*.dist-info")
        metadata = email.message_from_bytes((directory / "METADATA").read_bytes())
        licence = metadata["License-Expression"] or metadata["License"] or "see-below"
        texts = [
            path.read_text() for path in sorted(directory.rglob("*")) if path.is_file() and "LICEN" in path.name.upper()
        ]
        paragraphs.append(
            f"{'-' * 76}\n{pin.name} {pin.version}: {licence.splitlines()[0]}\n\n" + "\n".join(texts).rstrip()
        )
    return "\n\n".join(paragraphs) + "\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _write_compressed(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def write_control(root: Path, version: str) -> None:
    """DEBIAN/: the control file, sums of all files, and the scripts."""
    control = root / "DEBIAN"
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    sums = [f"{hashlib.md5(p.read_bytes(), usedforsecurity=False).hexdigest()}  {p.relative_to(root)}" for p in files]
    size = sum((path.stat().st_size + 1023) // 1024 for path in files)
    template = (ROOT / "packaging" / "deb" / "control").read_text()
    values = {"VERSION": version, "SIZE": str(size), "MAINTAINER": read_maintainer()}
    for name, value in values.items():
        template = template.replace(f"@{name}@", value)
    _write(control / "control", template)
    _write(control / "md5sums", "\n".join(sums) + "\n")
    for name in SCRIPTS:
        shutil.copyfile(ROOT / "packaging" / "deb" / name, control / name)
        (control / name).chmod(0o755)


def build_deb(output: Path, version: str) -> Path:
    """Build the package; returns its path."""
    if stale := find_differences():
        sys.exit(f"{', '.join(stale)}: not as the table of roles says; run: {sys.executable} packaging/build_unit.py")
    epoch = source_epoch()
    wheels = fetch_wheels()
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"gatepost_{version}_amd64.deb"
    with tempfile.TemporaryDirectory(prefix="gatepost-deb-") as directory:
        root, own = Path(directory, "root"), Path(directory, "own")
        build_wheel(own)
        lay_out(root, version, wheels, own)
        normalise(root, epoch)
        write_control(root, version)
        normalise(root, epoch)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zxz", "--threads-max=1", "--build", str(root), str(path)],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
        )
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the Debian package.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    parser.add_argument("--version", default=read_version(), help="of the package; default: of the program")
    arguments = parser.parse_args()
    print(build_deb(arguments.output, arguments.version))


if __name__ == "__main__":
    main()
