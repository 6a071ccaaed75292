"""Facts from elsewhere: there, asked for, or not to be had; bounded in number and time."""

from __future__ import annotations

import pytest

from gatepost.model import NeedsAnswer, Question
from gatepost.routing.answers import COUNTED_CHARACTERS, Answer, Answers, NotAsked
from gatepost.routing.table import TableUnavailable

TABLE = "ldap:people"


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_what_is_not_there_is_asked_for_all_at_once() -> None:
    answers = Answers()
    answers.keep(Question(TABLE, "b"), Answer("2"), 60.0)
    with pytest.raises(NeedsAnswer) as raised:
        answers.need(TABLE, ["a", "b", "c"])
    assert raised.value.questions == [Question(TABLE, "a"), Question(TABLE, "c")]
    answers.keep(Question(TABLE, "a"), Answer("1"), 60.0)
    answers.keep(Question(TABLE, "c"), Answer(None), 60.0)
    assert answers.need(TABLE, ["a", "b", "c"]) == ["1", "2", None]


def test_an_answer_ends() -> None:
    clock = Clock()
    answers = Answers(now_s=clock)
    answers.keep(Question(TABLE, "a"), Answer("1"), 60.0)
    clock.now_s = 59.9
    assert answers.need(TABLE, ["a"]) == ["1"]
    clock.now_s = 60.0
    with pytest.raises(NeedsAnswer):
        answers.need(TABLE, ["a"])
    assert len(answers) == 0


def test_what_was_found_is_of_use_longer_than_what_was_not() -> None:
    clock = Clock()
    answers = Answers(now_s=clock)
    there, gone = Question(TABLE, "a"), Question(TABLE, "b")
    answers.keep(there, Answer("1"), 60.0, 600.0)
    answers.keep(gone, Answer(None), 60.0, 600.0)
    clock.now_s = 100.0
    with pytest.raises(NeedsAnswer):
        answers.need(TABLE, ["a"])
    assert answers.stale(there) == Answer("1") and answers.stale(gone) is None
    answers.give(None, is_last=True)
    assert answers.need(TABLE, ["a"]) == ["1"]
    with pytest.raises(TableUnavailable):
        answers.need(TABLE, ["b"])
    clock.now_s = 600.0
    assert answers.stale(there) is None
    answers.keep(there, Answer("1"), 0.0, 600.0)
    answers.keep(there, Answer(None), 0.0, 600.0)
    assert answers.stale(there) is None


def test_the_oldest_goes_when_there_are_too_many() -> None:
    answers = Answers(most=2)
    for key in "abc":
        answers.keep(Question(TABLE, key), Answer(key), 60.0)
    assert len(answers) == 2
    assert answers.need(TABLE, ["b", "c"]) == ["b", "c"]
    with pytest.raises(NeedsAnswer):
        answers.need(TABLE, ["a"])


def test_long_values_count_as_several() -> None:
    answers = Answers(most=10)
    for key in "abc":
        answers.keep(Question(TABLE, key), Answer(key), 60.0)
    answers.keep(Question(TABLE, "list"), Answer("x" * 7 * COUNTED_CHARACTERS), 60.0)
    assert answers.need(TABLE, ["c", "list"])[0] == "c"
    with pytest.raises(NeedsAnswer):
        answers.need(TABLE, ["a"])
    for key in "abcdef":
        answers.keep(Question(TABLE, "list"), Answer("x" * 100 * COUNTED_CHARACTERS), 60.0)
        answers.keep(Question(TABLE, key), Answer(key), 60.0)
    assert len(answers) == 1
    assert answers.forget([TABLE]) == 1
    for key in "abcdefghijk":
        answers.keep(Question(TABLE, key), Answer(key), 60.0)
    assert len(answers) == 10


def test_a_decision_sees_what_came_for_it_though_nothing_is_kept() -> None:
    answers = Answers()
    question = Question(TABLE, "a")
    answers.keep(question, Answer("1"), 0.0)
    answers.keep(question, Answer(None, "down"), 60.0)
    assert len(answers) == 0
    answers.give({question: Answer("1")})
    assert answers.need(TABLE, ["a"]) == ["1"]
    answers.give(None)
    with pytest.raises(NeedsAnswer):
        answers.need(TABLE, ["a"])


def test_what_cannot_be_had_is_neither_yes_nor_no() -> None:
    answers = Answers()
    answers.give({Question(TABLE, "a"): Answer(None, "connection refused")})
    with pytest.raises(TableUnavailable, match="ldap:people: connection refused"):
        answers.need(TABLE, ["a"])
    answers.give(None, is_last=True)
    with pytest.raises(TableUnavailable, match="no answer in time"):
        answers.need(TABLE, ["a"])
    with pytest.raises(TableUnavailable, match="not asked here"):
        NotAsked().need(TABLE, ["a"])
