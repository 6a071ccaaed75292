"""What a role must not load: packages that cost memory in each process for good, and that nothing in it needs (decision 0015)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gatepost.privsep.child import role_environment
from gatepost.roles.skeleton import MODULES

EVERYWHERE = {
    "argparse", "bz2", "click", "cryptography", "ctypes.util", "http", "importlib.metadata", "lzma", "multiprocessing", "optparse",
    "pickle", "pydoc", "shutil", "sqlite3", "sysconfig", "tempfile", "tomllib", "typing_extensions", "unittest", "xml",
    "gatepost.cli", "gatepost.config.load", "gatepost.config.paths", "gatepost.migrate", "gatepost.policy.proof", "gatepost.selftest",
}  # fmt: skip
WEB = {"aiohttp", "attr", "email", "pathlib", "urllib.request", "yarl"}
NEVER: dict[str, set[str]] = {
    "receiver": EVERYWHERE | WEB | {"json", "random", "gatepost.delivery", "gatepost.lookup", "gatepost.queue"},
    "resolver": EVERYWHERE | WEB | {"gatepost.policy", "gatepost.queue", "gatepost.routing.tables", "gatepost.spool"},
    "queue": EVERYWHERE | WEB | {"hashlib", "hmac", "gatepost.lookup", "gatepost.policy"},
    "deliverer": EVERYWHERE | WEB | {"json", "gatepost.lookup", "gatepost.policy", "gatepost.queue"},
    "maildir": EVERYWHERE | WEB | {"json", "gatepost.lookup", "gatepost.policy", "gatepost.queue"},
    "control": EVERYWHERE
    | WEB
    | {
        "_hashlib",
        "_ssl",
        "hashlib",
        "json",
        "random",
        "urllib",
        "uvloop",
        "gatepost.delivery",
        "gatepost.net",
        "gatepost.policy",
        "gatepost.smtp",
    },
}
LIST = """
import sys
sys.argv = ["gatepost.roles", {role!r}]
import gatepost.roles.__main__
import importlib
importlib.import_module({module!r})
print(*sys.modules)
"""


def loaded(role: str, module: str) -> set[str]:
    """The modules of a fresh interpreter that has imported what the process of a role imports."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", LIST.format(role=role, module=module)], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_every_role_has_its_row() -> None:
    assert NEVER.keys() == MODULES.keys()


@pytest.mark.parametrize("role", NEVER)
def test_a_role_loads_nothing_that_it_does_not_need(role: str) -> None:
    assert loaded(role, MODULES[role].partition(":")[0]) & NEVER[role] == set()


def test_whoever_needs_what_was_kept_from_loading_finds_it() -> None:
    assert "typing_extensions" in loaded("resolver", "gatepost.net.https")


def test_a_library_finds_no_authorities_that_nobody_gave_it() -> None:
    """aiohttp loads those of the system when it is imported: 1.7 MB, and trust that the configuration does not know of."""
    count = "import ssl; print(ssl.create_default_context().cert_store_stats()['x509'])"
    command = [sys.executable, "-I", "-c", count]
    done = subprocess.run(command, env=role_environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
