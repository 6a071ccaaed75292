"""Ids: unique among all that make them at the same time, and against those of a life before the clock was set back."""

from __future__ import annotations

import time

import pytest

from gatepost.config.rules import RANGES
from gatepost.roles.ids import NOTICES, REPORTS, IdMaker
from gatepost.spool.layout import is_id

NOW_NS = 1_800_000_000_000_000_000


@pytest.fixture(autouse=True)
def standing_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: NOW_NS)


def test_ids_rise_while_the_clock_stands_or_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    new_id = IdMaker(1, 0)
    ids = [new_id(), new_id()]
    monkeypatch.setattr(time, "time_ns", lambda: NOW_NS - 10**12)
    ids.append(new_id())
    assert ids == sorted(set(ids)) and all(is_id(each) and len(each) == 20 for each in ids)


def test_no_two_that_live_at_the_same_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.urandom", bytes)  # without chance
    most = RANGES["processes.receivers"][1]
    makers = [(0, NOTICES), (0, REPORTS), *((generation, n) for generation in (35, 36) for n in range(most))]
    assert len({IdMaker(*maker)() for maker in makers}) == len(makers)


def test_a_second_life_behind_a_clock_that_was_set_back_gives_others() -> None:
    assert len({IdMaker(1, 0)() for _ in range(5)}) >= 3  # a chance of one in 46,656 for each pair
