"""The reader of sendmail.mc: calls, quotes, comments and lines; whatever the text, an answer and nothing executed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.migrate.m4 import Call, Text, parse_m4

CALLS = {
    "define(`a', `b')dnl rest": [("define", ["a", "b"], 1, 1)],
    "define(`a',dnl comment\n`b,c')": [("define", ["a", "b,c"], 1, 2)],
    "FEATURE(`x', , `skip')": [("FEATURE", ["x", "", "skip"], 1, 1)],
    "FEATURE(x)": [("FEATURE", ["x"], 1, 1)],
    "dnl FEATURE(`x')\nMAILER(`smtp')dnl\n": [("MAILER", ["smtp"], 2, 2)],
    "# FEATURE(`x')\nMAILER(smtp)": [("MAILER", ["smtp"], 2, 2)],
    "define(`a', ``nested' quotes')": [("define", ["a", "`nested' quotes"], 1, 1)],
    "define(`a', f(x, y) z)": [("define", ["a", "f(x, y) z"], 1, 1)],
    "ifdef(`a', `define(`b', `c')')": [("ifdef", ["a", "define(`b', `c')"], 1, 1)],
    "LOCAL_CONFIG\n": [("LOCAL_CONFIG", [], 1, 1)],
    "\n\ninclude(`/x')dnl": [("include", ["/x"], 3, 3)],
    "word define (`a')": [],  # m4 wants the parenthesis at once
    "define(`a', `b'": [("unfinished", ["define(`a', `b'"], 1, 1)],
    "`define(`a')'": [],
    "divert(-1)text\ndivert(0)": [("divert", ["-1"], 1, 1), ("divert", ["0"], 2, 2)],
}


@pytest.mark.parametrize("text", CALLS)
def test_calls(text: str) -> None:
    found = [part for part in parse_m4(text) if isinstance(part, Call)]
    told = [(call.name, [argument.text for argument in call.arguments], call.line, call.last_line) for call in found]
    assert told == CALLS[text]


def test_text_keeps_its_lines() -> None:
    found = parse_m4("one\n\nFEATURE(`x') two\n# three\n")
    assert [(part.text.strip(), part.line) for part in found if isinstance(part, Text)] == [
        ("one", 1),
        ("two", 3),
        ("# three", 4),
    ]


def test_a_macro_within_an_argument_is_not_expanded() -> None:
    (call,) = parse_m4("define(`a', defn(`b')`c')")
    assert isinstance(call, Call)
    assert [argument.is_plain for argument in call.arguments] == [True, False]


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="dnlefi(`')#, \n-1x\\$", max_size=200))
def test_any_text_has_an_answer_within_its_lines(text: str) -> None:
    for part in parse_m4(text):
        assert 1 <= part.line <= text.count("\n") + 1
        if isinstance(part, Call):
            assert part.line <= part.last_line <= text.count("\n") + 1


def test_deep_nesting_ends() -> None:
    assert parse_m4("a(" * 5000)
    assert parse_m4("f" + "(" * 5000 + ")" * 5000)
    assert parse_m4("`" * 5000)
