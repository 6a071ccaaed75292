"""Whom a resolver has asked for recipients, and what it says while no deliverer is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gatepost.config.callahead import OWN
from gatepost.config.schema import Config, Domain
from gatepost.delivery.callahead import DEFERRED, KNOWN
from gatepost.ipc import messages as m
from gatepost.roles.existence import LINK_WAIT_S, NOBODY, WAIT_S, CallAheadAsker

CONFIG = Config(hostname="g", listen=[], spool="/x", domains={"x.test": Domain(next_hop=["mx"], recipients=[OWN])})


class Timer:
    def __init__(self, delay_s: float, call: Callable[[], None]) -> None:
        self.delay_s = delay_s
        self.call = call
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Link:
    def __init__(self, instance: int = 0) -> None:
        self.peer = ("deliverer", instance, 1)
        self.posted: list[m.CallAhead] = []

    def post(self, message: m.CallAhead) -> None:
        self.posted.append(message)


class Bed:
    """An asker with its timers; `links` are the deliverers, `told` what was answered."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.timers: list[Timer] = []
        self.told: list[tuple[str | None, str]] = []
        self.asker = CallAheadAsker(CONFIG, self, lambda: self.links)  # type: ignore[arg-type, return-value]

    def call_later(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> Timer:
        self.timers.append(Timer(delay_s, lambda: call(*arguments)))
        return self.timers[-1]

    def ask(self, address: str = "anna@x.test", table: str = OWN) -> None:
        self.asker.ask(table, address, lambda value, failed: self.told.append((value, failed)))

    def link(self) -> Link:
        self.links.append(Link(len(self.links)))
        self.asker.linked()
        return self.links[-1]

    def expire(self) -> float:
        """The only timer that runs."""
        (timer,) = [timer for timer in self.timers if not timer.is_cancelled]
        timer.call()
        return timer.delay_s


@pytest.fixture
def bed() -> Bed:
    return Bed()


def test_a_question_waits_for_the_deliverer_that_is_being_started(bed: Bed) -> None:
    bed.ask()
    bed.ask()
    assert bed.told == []
    (asked,) = bed.link().posted
    bed.link()
    assert (asked.table, asked.address) == (OWN, "anna@x.test") and bed.links[1].posted == []
    bed.asker.answered(m.CallAheadDone(asked.query, KNOWN, "250 yes", False))
    assert bed.told == [("250 yes", "")] * 2
    assert all(timer.is_cancelled for timer in bed.timers)


def test_not_for_ever(bed: Bed) -> None:
    bed.ask()
    assert bed.expire() == LINK_WAIT_S
    assert bed.told == [(None, NOBODY)]


def test_one_that_does_not_answer_or_ends_or_does_not_know(bed: Bed) -> None:
    link = bed.link()
    bed.ask()
    assert bed.expire() == WAIT_S
    bed.timers.clear()
    bed.ask()
    bed.links.clear()
    bed.asker.lost(link.peer)
    bed.links.append(link)
    bed.ask()
    bed.asker.answered(m.CallAheadDone(link.posted[-1].query, DEFERRED, "450 later", False))
    assert [why for _, why in bed.told] == [
        "the deliverer does not answer",
        "the deliverer ended before it answered",
        "450 later",
    ]


def test_a_table_that_is_not_in_the_configuration_is_said_at_once(bed: Bed) -> None:
    bed.ask(table="call-ahead:other")
    assert bed.told == [(None, "call-ahead:other is not in the configuration")]
