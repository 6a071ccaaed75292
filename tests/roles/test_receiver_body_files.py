"""Body files at the receiver: whoever waits for one is asked for, also if the question of another is under way."""

from __future__ import annotations

import os
from types import SimpleNamespace

from gatepost.config.load import load_config
from gatepost.events import EventLog
from gatepost.ipc import messages as m
from gatepost.roles.receiver import Receiver

CONFIG = """
hostname = "gate.example.test"
listen = ["127.0.0.1:2525"]
spool = "/nonexistent/spool"
domains = ["example.test"]
next_hop = "smtp://127.0.0.1:2600"
"""


class Link:
    """The link to a queue that notes what it is told."""

    peer = ("queue", 0, 0)

    def __init__(self) -> None:
        self.posted: list[m.Message] = []

    def post(self, message: m.Message) -> None:
        self.posted.append(message)


class Waiter:
    """A connection in the middle of a large message."""

    def __init__(self) -> None:
        self.transaction = SimpleNamespace(body_file=-1)
        self.given: list[int] = []

    def give_body_file(self, number: int, descriptor: int) -> None:
        self.given.append(number)
        self.transaction.body_file = number


def test_those_who_began_to_wait_meanwhile_are_served_too(tmp_path):
    path = tmp_path / "gatepost.toml"
    path.write_text(CONFIG)
    loop = SimpleNamespace(time=lambda: 0.0, call_soon=lambda *_: None, call_later=lambda *_: None)
    log = EventLog(os.open(os.devnull, os.O_WRONLY), "receiver", strict=True)
    receiver = Receiver(m.Start("receiver", 0, 1, b"", "", -1, -1), load_config(str(path)), [], log, loop)
    link = Link()
    receiver._queue = link
    waiters = [Waiter() for _ in range(30)]
    for waiter in waiters:
        assert receiver.take_body_file(waiter) is None
    served = 0
    while served < len(waiters):
        question = link.posted.pop()
        assert isinstance(question, m.NeedBodyFiles) and not link.posted
        numbers = list(range(served + 1, served + 1 + question.count))
        descriptors = [os.open(os.devnull, os.O_WRONLY) for _ in numbers]
        receiver.handle(link, m.BodyFilesOpened(numbers), descriptors)
        assert sum(len(waiter.given) for waiter in waiters) > served
        served = sum(len(waiter.given) for waiter in waiters)
        for descriptor in descriptors:
            os.close(descriptor)
    assert [len(waiter.given) for waiter in waiters] == [1] * len(waiters)
