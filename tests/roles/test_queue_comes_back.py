"""A deliverer whose queue died and came back: the new one counts jobs and sources from the beginning."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from gatepost.ipc import messages as m
from gatepost.model import Envelope, NextHopTrouble, Outcome, Recipient, Result
from gatepost.roles.delivering import Delivering

QUEUE = ("queue", 0, 0)


class Engine:
    """Takes attempts and does nothing."""

    def __init__(self) -> None:
        self.attempts: list[m.Attempt] = []
        self.forgotten = 0

    def submit(self, attempt: m.Attempt) -> None:
        self.attempts.append(attempt)

    def forget_waiting(self) -> None:
        self.forgotten += 1


class Link:
    """The queue's end, as far as a deliverer sees it."""

    peer = QUEUE

    def __init__(self) -> None:
        self.posted: list[m.Message] = []

    def post(self, message: m.Message) -> None:
        self.posted.append(message)


def build_attempt(job: int, source: int) -> m.Attempt:
    recipient = Recipient("u@example.test", "example.test", "smtp://192.0.2.9:25")
    envelope = Envelope(f"m{job}", "s1", "s@example.org", [recipient], 0.0, "192.0.2.1", "helo", "recipient-domain")
    return m.Attempt(job, source, 0, 4, recipient.next_hop, 1, envelope, [0])


def build_done(attempt: m.Attempt) -> m.AttemptDone:
    return m.AttemptDone(attempt.job, NextHopTrouble.NONE, [Outcome(0, Result.DELIVERED, "body", 250, "2.0.0", "Ok")])


@pytest.fixture
def role():
    start = SimpleNamespace(role="deliverer", instance=0, generation=1)
    found = Delivering(start, None, [], None, None)
    found.engine = Engine()
    return found


@pytest.fixture
def give(tmp_path: Path):
    def give(role: Delivering, link: Link, job: int, source: int, content: bytes) -> m.Attempt:
        path = tmp_path / f"{id(link)}-{source}"
        path.write_bytes(content)
        role.handle(link, m.SourceShared(source), [os.open(path, os.O_RDONLY)])
        role.handle(link, build_attempt(job, source), [])
        return role.engine.attempts[-1]

    return give


def test_outcome_keeps_its_number(role, give):
    link = Link()
    role.on_link(link)
    attempt = give(role, link, 7, 3, b"text")
    assert role.read(attempt.source, 0, 4) == b"text"
    role.attempt_done(build_done(attempt))
    assert [message.job for message in link.posted] == [7]


def test_outcome_for_the_queue_before_is_told_to_nobody(role, give):
    """Told to the new one, it would settle another message that has the same job number: that message would be lost."""
    old, new = Link(), Link()
    role.on_link(old)
    attempt = give(role, old, 1, 1, b"old")
    role.on_link_lost(QUEUE)
    role.on_link(new)
    give(role, new, 1, 1, b"new")
    role.attempt_done(build_done(attempt))
    assert old.posted == new.posted == []
    role.attempt_done(build_done(role.engine.attempts[-1]))
    assert [message.job for message in new.posted] == [1]


def test_content_stays_that_of_the_queue_before(role, give):
    """Read through the new queue's descriptor of the same number, it would be another message's."""
    old, new = Link(), Link()
    role.on_link(old)
    before = give(role, old, 1, 1, b"old!")
    role.on_link_lost(QUEUE)
    role.on_link(new)
    after = give(role, new, 1, 1, b"new!")
    assert role.read(before.source, 0, 4) == b"old!"
    assert role.read(after.source, 0, 4) == b"new!"


def test_descriptors_of_the_queue_before_are_closed_after_their_last_use(role, give, tmp_path):
    def count() -> int:
        links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
        return sum(os.path.exists(link) and os.readlink(link).startswith(str(tmp_path)) for link in links)

    old = Link()
    role.on_link(old)
    attempt = give(role, old, 1, 1, b"used")
    role.attempt_done(build_done(give(role, old, 2, 2, b"idle")))
    assert count() == 2
    role.on_link_lost(QUEUE)
    assert count() == 1
    role.attempt_done(build_done(attempt))
    assert count() == 0


def test_what_waits_is_forgotten_with_its_queue(role):
    role.on_link(Link())
    role.on_link_lost(("resolver", 0, 1))
    assert role.engine.forgotten == 0
    role.on_link_lost(QUEUE)
    assert role.engine.forgotten == 1
