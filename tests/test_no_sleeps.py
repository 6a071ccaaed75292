"""Tests wait for what happens, not for time to go by: a pause that is long enough today is too short on a busy machine."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
SLEEP = re.compile(r"\b(?:time|asyncio)\.sleep\((?!0\))")
POLLS = {  # between two looks at a condition that has a limit
    "delivery/test_call_ahead.py",
    "integration/peers/process.py",
    "packaging/boxes.py",
    "packaging/inbox.py",
    "packaging/test_systemd.py",
}
STALLS = {"roles/test_admission.py"}  # a process that gets no turn is what is tested


def test_no_test_sleeps() -> None:
    sleeping = {str(path.relative_to(TESTS)) for path in TESTS.rglob("*.py") if SLEEP.search(path.read_text())}
    assert sleeping - {"test_no_sleeps.py"} == POLLS | STALLS
