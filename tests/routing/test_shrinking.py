"""How many keys may vanish from a table before it is not believed."""

from __future__ import annotations

import pytest

from gatepost.routing.shrinking import LEAST, WINDOW, Shrinkage


def test_people_leave_one_by_one() -> None:
    shrinkage = Shrinkage(0.2)
    assert all(shrinkage.believes(number % 10 != 9) for number in range(500))


def test_half_of_a_directory_is_not_believed_until_it_is_back() -> None:
    shrinkage = Shrinkage(0.2)
    believed = [shrinkage.believes(number % 2 == 0) for number in range(40)]
    assert all(believed[:LEAST:2]) and not any(believed[LEAST::2]) and all(believed[::2])
    assert shrinkage.is_doubted and shrinkage.vanished == 20
    for _ in range(WINDOW):
        assert shrinkage.believes(True)
    assert not shrinkage.is_doubted and shrinkage.believes(False)


@pytest.mark.parametrize(("most", "believed"), [(0.0, [True] * 4 + [False] * 6), (1.0, [True] * 10)])
def test_borders(most: float, believed: list[bool]) -> None:
    shrinkage = Shrinkage(most)
    assert [shrinkage.believes(False) for _ in range(10)] == believed
