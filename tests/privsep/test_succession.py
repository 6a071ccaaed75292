"""When a reload has ended: when no receiver of an older generation accepts connections, or it was waited for too long."""

from __future__ import annotations

import pytest

from gatepost.config.schema import Config
from gatepost.ipc import messages as m
from gatepost.privsep.child import Child
from gatepost.privsep.reloading import PendingReload, Succession


class Bed:
    """Two receivers, control and a resolver before, the same behind; `ended` counts the ends, `answers` what the control role got."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        keys = [
            (role, at, number)
            for number in (1, 2)
            for role, at in (("receiver", 0), ("receiver", 1), ("control", 0), ("resolver", 0))
        ]
        self.children = {key: Child(*key) for key in keys}
        self.ended = 0
        self.answers: list[m.Message] = []
        monkeypatch.setattr(Child, "send", lambda child, message: self.answers.append(message))
        config = Config(hostname="gate.example.test", listen=[], spool="spool", domains={})
        self.pending = PendingReload(2, config, Child("control", 0, 1), 7, [])
        self.succession = Succession(self.children, self.end)
        self.succession.begin(self.pending)

    def end(self) -> None:
        self.ended += 1

    def close(self, number: int, role: str = "receiver") -> None:
        self.children[role, number, 1].has_closed = True
        self.succession.check()


@pytest.fixture
def bed(monkeypatch: pytest.MonkeyPatch) -> Bed:
    return Bed(monkeypatch)


def test_it_ends_with_the_last_door(bed: Bed) -> None:
    bed.close(0)
    bed.close(1)
    assert (bed.ended, bed.answers, bed.succession.is_open) == (0, [], True)
    bed.close(0, "control")
    assert (bed.ended, bed.answers, bed.succession.is_open) == (1, [m.ReloadDone(7, [])], False)
    bed.succession.check()
    bed.succession.end(bed.pending)  # the timer
    assert bed.ended == 1


def test_who_has_ended_accepts_nothing(bed: Bed) -> None:
    bed.close(0)
    bed.close(0, "control")
    assert bed.ended == 0
    del bed.children["receiver", 1, 1]
    bed.succession.check()
    assert bed.ended == 1


def test_one_that_hangs_does_not_hold_it_up_for_ever(bed: Bed) -> None:
    bed.succession.end(bed.pending)
    assert (bed.ended, bed.succession.is_open) == (1, False)
    bed.close(0)
    bed.close(1)
    assert bed.ended == 1
