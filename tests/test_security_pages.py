"""docs/security.md and docs/limits.md say what is there: every test they name exists, every row names one, the tables are those of the program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gatepost.privsep.rights import NEVER
from gatepost.privsep.roles import ROLES
from gatepost.privsep.rolestable import table_lines

ROOT = Path(__file__).resolve().parents[1]
SECURITY = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
LIMITS = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TESTS = {path.stem for path in (ROOT / "tests").rglob("*.py")}

# What the issue of hardening names; each must have a row.
CLASSES = (
    "argument and shell injection", "smuggling", "memory errors in parsers", "TLS name confusion", "string expansion", "untrusted DNS",
    "log and terminal injection", "header injection", "symbolic links", "local privilege through helpers", "exhaustion", "open relay by NAT",
    "backscatter", "STARTTLS injection", "mail loops", "open relay by address forms",
)  # fmt: skip


def tables(text: str, last: str) -> list[list[str]]:
    """The rows of all tables whose last column is called `last`."""
    rows, inside = [], False
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not line.startswith("|"):
            inside = False
        elif cells and cells[-1] == last:
            inside = True
        elif inside and not set(line) <= set("|-"):
            rows.append(cells)
    return rows


ROWS = [("security", row) for row in tables(SECURITY, "test")] + [("limits", row) for row in tables(LIMITS, "test")]


def test_the_tables_are_found():
    assert len(ROWS) > 60


@pytest.mark.parametrize(("page", "row"), ROWS, ids=[f"{page}: {row[0][:50]}" for page, row in ROWS])
def test_every_row_names_tests_that_exist(page, row):
    named = [name for name in re.split(r",\s*", row[-1]) if name]
    assert named, f"docs/{page}.md: {row[0]!r} names no test"
    for name in named:
        exists = (ROOT / name).is_dir() if name.startswith("tests/") else name in TESTS
        assert exists, f"docs/{page}.md: there is no test {name}"


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_of_attack_has_its_row(name):
    assert any(name in row[0] for page, row in ROWS if page == "security")


def test_the_table_of_roles_is_the_one_of_the_program():
    wanted = "\n".join(table_lines())
    assert wanted in SECURITY, "python -m gatepost.privsep.rolestable"


def test_every_role_says_what_its_takeover_gains():
    gains = {row[0]: row for row in tables(SECURITY, "they do not gain")}
    assert gains.keys() == {"supervisor", *ROLES}
    assert all(all(cells) for cells in gains.values())


def test_the_page_of_the_architecture_has_the_same_roles():
    rows = {row[0].split()[0]: row for row in tables(ARCHITECTURE, "may not")}
    assert rows.keys() == {"supervisor", *ROLES}
    roots = {"empty": "empty", "spool": "the spool", "maildir": "its Maildir root"}
    for name, role in ROLES.items():
        assert rows[name][1] == role.user
        assert rows[name][2] == roots[role.root]


@pytest.mark.parametrize(
    "call", ["ptrace", "bpf", "keyctl", "userfaultfd", "perf_event_open", "memfd", "io_uring", "process_vm"]
)
def test_what_no_role_may_is_in_the_program_too(call):
    assert any(name.startswith(call) for name in NEVER) and call in SECURITY


def test_keys_that_the_page_names_exist_in_the_configuration():
    config = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    for key in re.findall(r"`((?:smtp|queue|delivery|dns|processes|tls)\.[a-z_]+)`", SECURITY + LIMITS):
        assert f"`{key}`" in config, key
