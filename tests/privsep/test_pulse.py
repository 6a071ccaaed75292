"""The pulse: who is pinged, who is killed, and that a pause of the whole machine kills nobody."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from gatepost.events import EventLog
from gatepost.ipc.messages import Ping
from gatepost.privsep.child import Child, State
from gatepost.privsep.notify import Notifier
from gatepost.privsep.pulse import IDLE_S, KILL_AFTER_S, Pulse, View


class Bed:
    """A pulse without processes: what it sends, signals and asks for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.children = {("queue", 0, 0): Child("queue", 0, 0), ("receiver", 0, 1): Child("receiver", 0, 1)}
        self.limit_s = 30.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.pinged: list[str] = []
        self.signalled: list[tuple[str, int]] = []
        monkeypatch.setattr(
            Child, "send", lambda child, message: self.pinged.append(child.role) or type(message) is Ping
        )
        monkeypatch.setattr(Child, "signal", lambda child, number: self.signalled.append((child.role, number)))
        for child in self.children.values():
            child.state = State.READY
        self.pulse = Pulse(
            self.children,
            Notifier(None, None),
            lambda delay_s, call: self.timers.append((delay_s, call)),
            lambda: View(self.limit_s, set(self.children), EventLog(2, "supervisor", 0)),
        )

    def tick(self, *answering: str) -> None:
        self.pulse.tick()
        for child in self.children.values():
            if child.role in answering:
                self.pulse.answered(child)


@pytest.fixture
def bed(monkeypatch: pytest.MonkeyPatch) -> Bed:
    return Bed(monkeypatch)


def test_who_answers_is_pinged_again_and_lives(bed: Bed) -> None:
    for _ in range(10):
        bed.tick("queue", "receiver")
    assert bed.pinged == ["queue", "receiver"] * 10 and bed.signalled == []
    assert [delay_s for delay_s, _ in bed.timers] == [10.0] * 10  # three ticks in the limit


def test_who_does_not_answer_is_pinged_once_and_killed_once_behind_the_limit(bed: Bed) -> None:
    for _ in range(3):
        bed.tick("queue")
    assert bed.signalled == []
    bed.tick("queue")
    assert bed.signalled == [("receiver", signal.SIGABRT)] and bed.pulse.killed == 1
    kill = next(call for delay_s, call in bed.timers if delay_s == KILL_AFTER_S)
    kill()
    for _ in range(5):
        bed.tick("queue")
    # SIGABRT waits in one that is stopped
    assert bed.signalled == [("receiver", signal.SIGABRT), ("receiver", signal.SIGKILL)]
    assert bed.pinged.count("receiver") == 1  # its socket is not filled up


def test_an_answer_at_the_last_moment_counts(bed: Bed) -> None:
    for _ in range(3):
        bed.tick("queue")
    bed.pulse.answered(bed.children["receiver", 0, 1])
    bed.tick("queue")
    assert bed.signalled == [] and bed.pinged.count("receiver") == 2


def test_who_starts_or_drains_is_left_alone(bed: Bed) -> None:
    for state in (State.STARTING, State.DRAINING, State.GONE):
        bed.children["receiver", 0, 1].state = state
        for _ in range(6):
            bed.tick("queue")
    assert "receiver" not in bed.pinged and bed.signalled == []


def test_without_a_limit_nobody_is_pinged_until_a_reload_gives_one(bed: Bed) -> None:
    bed.limit_s = 0.0
    bed.tick()
    assert bed.pinged == [] and bed.timers[-1][0] == IDLE_S
    bed.limit_s = 3.0
    bed.tick()
    assert bed.pinged == ["queue", "receiver"] and bed.timers[-1][0] == 1.0
