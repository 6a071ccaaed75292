"""docs/rfc.md: every row names an RFC and a test that exists, or says why there is none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "rfc.md").read_text(encoding="utf-8")
SOURCES = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("test_*.py"))]
NAMES = {path.stem for path in (ROOT / "tests").rglob("test_*.py")} | {
    name for text in SOURCES for name in re.findall(r"^\s*(?:async )?def (test_\w+)", text, re.MULTILINE)
}
DIALOGS = {path.stem for path in (ROOT / "tests" / "dialogs").glob("*.smtp")}
NEEDED = (
    5321, 5322, 3207, 4954, 6409, 8314, 2920, 3030, 1870, 6152, 6531,
    3461, 3463, 3464, 2034, 2033, 5802, 7677, 7672, 8461,
    8460, 8689, 2852, 4865, 6710, 9422, 1985, 3848, 5248, 6522, 6533, 3834,  # extensions and notices
    4422, 4616, 4013, 5929, 7628, 7662, 7519, 9106,  # AUTH
    6698, 7671, 4035, 6066, 6125, 7435, 8996, 9325,  # TLS
)  # fmt: skip
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in PAGE.splitlines()
    if line.startswith("|") and not set(line) <= set("|- ") and not line.startswith(("| RFC ", "| document "))
]


@pytest.mark.parametrize("row", ROWS, ids=[f"{number}: {row[1][:60]}" for number, row in enumerate(ROWS)])
def test_every_row_names_tests_that_exist(row: list[str]) -> None:
    assert len(row) == 4
    number, clause, how, tests = row
    assert clause or how
    for name in re.findall(r"test_\w+", tests):
        assert name in NAMES, f"docs/rfc.md: there is no test {name}"
    for names in re.findall(r"dialogs? ((?:[a-z0-9-]+(?:, (?!test_))?)+)", tests):
        for name in names.split(", "):
            assert name in DIALOGS or not name, f"docs/rfc.md: there is no dialog {name}"
    assert tests or how, f"{number} {clause}: neither a test nor a word of why there is none"


def test_the_rfcs_that_a_gateway_needs_are_there() -> None:
    named = {number for row in ROWS for number in re.findall(r"\b[0-9]{4}\b", row[0])}
    for number in NEEDED:
        assert str(number) in named, number
