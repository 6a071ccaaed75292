"""The limits of tables that no ordinary file reaches: lines that are wrong, patterns that are huge."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatepost.config.errors import ConfigErrors
from gatepost.routing.tables import FileTable, regexp, source


def test_a_file_of_another_kind_is_told_once_and_not_a_million_times(tmp_path: Path) -> None:
    path = tmp_path / "people"
    path.write_text("anna x\n" * (source.MAX_ERRORS + 50))
    with pytest.raises(ConfigErrors) as caught:
        FileTable.load(str(path))
    assert len(caught.value) == source.MAX_ERRORS + 1
    assert f"more than {source.MAX_ERRORS} lines are wrong; is this a file of another kind?" in str(caught.value)


def test_a_pattern_as_long_as_the_limit_is_taken_and_a_longer_one_is_not() -> None:
    compile_pattern = regexp.compile_bounded
    compile_pattern("a" * regexp.MAX_PATTERN_CHARACTERS)
    with pytest.raises(regexp.PatternError, match=f"more than {regexp.MAX_PATTERN_CHARACTERS} characters"):
        compile_pattern("a" * (regexp.MAX_PATTERN_CHARACTERS + 1))


def test_a_short_pattern_with_a_huge_automaton_is_not_taken() -> None:
    with pytest.raises(regexp.PatternError):
        regexp.compile_bounded("((a{1,100}){1,100}){1,100}")
