"""The queue is away: a receiver acknowledges into the segment that it has, and no longer than the limit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gatepost.net.turns import READ_S
from gatepost.roles.receiver import QUEUE_AWAY_LIMIT_S, SWEEP_S, UNHEALTHY, Receiver


class Bed:
    """A receiver whose queue was lost at 1000 s; `refused` is what the messages that wait were answered."""

    def __init__(self, now_s: float, *, is_away: bool = True) -> None:
        self.refused: list[Any] = []
        self.timers: list[float] = []
        receiver = self.receiver = Receiver.__new__(Receiver)
        receiver.loop = SimpleNamespace(
            time=lambda: now_s, call_later=lambda delay_s, call: self.timers.append(delay_s)
        )
        receiver._judgement = SimpleNamespace(flush=lambda: None)
        receiver._connections = set()
        receiver._queue = None if is_away else SimpleNamespace()
        receiver._queue_lost_s = 1000.0
        receiver._commit = SimpleNamespace(waiting=1, fail_waiting=self.refused.append)


@pytest.mark.parametrize(
    ("behind_s", "is_away", "refused"),
    [
        (QUEUE_AWAY_LIMIT_S, True, []),
        (QUEUE_AWAY_LIMIT_S + 0.1, True, [UNHEALTHY]),
        (10 * QUEUE_AWAY_LIMIT_S, False, []),
    ],
)
def test_what_waits_is_refused_for_the_moment_behind_the_limit(behind_s, is_away, refused) -> None:
    bed = Bed(1000.0 + behind_s, is_away=is_away)
    bed.receiver._sweep()
    assert bed.timers == [SWEEP_S, READ_S]
    bed.receiver._end_what_is_late()
    assert bed.refused == refused


def test_it_is_a_temporary_refusal_and_the_limit_is_that_of_the_page() -> None:
    assert UNHEALTHY.code == 451 and QUEUE_AWAY_LIMIT_S == 30.0
