"""Which programs the tests need, where they are, and what to do when one is missing.

The list is `packaging/peers.txt`. Nothing is installed here: `tests/install_peers.py` does that, when it may.
"""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
PACKAGE_LIST = REPOSITORY / "packaging" / "peers.txt"
SEARCH_PATH = os.pathsep.join(
    (os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/lib/dovecot", "/usr/libexec/dovecot")
)
FILE_NAMES = {"dovecot-lmtp": "lmtp"}  # programs whose file has another name
LIBRARY_DIRECTORIES = {"dovecot-lmtp": "/usr/lib/dovecot:/usr/libexec/dovecot"}


@functools.cache
def read_packages() -> dict[str, str]:
    """Program -> Debian package."""
    rows = [line.split() for line in PACKAGE_LIST.read_text().splitlines() if line and not line.startswith("#")]
    return {program: package for program, package in rows}


def find_program(program: str) -> str | None:
    """Its full path, or None."""
    return shutil.which(FILE_NAMES.get(program, program), path=LIBRARY_DIRECTORIES.get(program, SEARCH_PATH))


def miss(reason: str) -> None:
    """Skip the test; with CI=true fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def require(program: str) -> str:
    """The path of a program from `packaging/peers.txt`; the test is skipped (CI=true: fails) without it."""
    package = read_packages()[program]
    path = find_program(program)
    if path is None:
        miss(f"{program} is missing: install the Debian package {package} (make test does, as root on Debian)")
    return str(path)


def require_root(program: str) -> None:
    """For programs that must start as root; the test is skipped (CI=true: fails) otherwise."""
    if os.geteuid() != 0:
        miss(f"{program} must start as root, and the tests run as uid {os.geteuid()}")
