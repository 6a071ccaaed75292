"""The queue role takes over what a kill left: also messages that only wait to be forgotten."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gatepost.model import Outcome, Result
from gatepost.queue.backoff import Deadlines
from gatepost.roles.queue import Queue

sys.path.insert(0, str(Path(__file__).parents[1] / "spool"))
from spool_bed import Writer, assert_balanced, make_spool, open_spool

FAILED = Outcome(0, Result.FAILED, "rcpt", 550, "5.1.1", "no such user")


class Begun(Queue):
    """A queue role without links: a spool, and what begins with it."""

    def __init__(self, spool: Any) -> None:
        self.spool = spool
        self.start = SimpleNamespace(extra={})  # type: ignore[assignment]
        self.loop = SimpleNamespace(call_later=lambda delay_s, call: None)
        self.worker = SimpleNamespace(start=lambda: None, call=lambda work, done, failed: done(work()))  # type: ignore[assignment]
        self.keeping = self.remembering = self.reports = SimpleNamespace(begin=lambda: None)  # type: ignore[assignment]
        self.hands = SimpleNamespace(forget=lambda sources: None)  # type: ignore[assignment]
        self.scheduler = SimpleNamespace(add=lambda *item: self.added.append(item[0]))  # type: ignore[assignment]
        self.deadlines = Deadlines()
        self.notices = SimpleNamespace(next_deadline_s=lambda entry, envelope: 1e12)  # type: ignore[assignment]
        self.added: list[str] = []
        self.events: list[str] = []

    def event(self, name: str, **fields: object) -> None:
        self.events.append(name)

    def commit_soon(self, then: Any = None) -> None:
        pass

    def dispatch_soon(self) -> None:
        pass


def test_what_is_settled_and_told_is_forgotten_at_the_start(tmp_path):
    """A kill between the notice of a failure and the end of its message: the role must start, however many there are."""
    spool = open_spool(tmp_path / "spool")
    entries = Writer(spool).take("a1", "a2", "a3", "a4")
    for entry in entries[:2]:
        spool.record(entry, [FAILED], 0.0)
        spool.mark_reported(entry, [0])
    spool.commit()
    spool.abandon()
    role = Begun(make_spool(tmp_path / "spool"))
    role.begin()
    assert sorted(role.spool.entries) == ["a3", "a4"] and role.added == ["a3", "a4"]
    assert role.spool.ledger()["bounced"] == 2
    assert_balanced(role.spool)
    role.spool.close()
