"""A receiver on a new link to the queue: what it asked for before its Holding was not taken, so it asks again."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace

from gatepost.ipc import messages as m
from gatepost.roles.bodyfiles import BODY_FILES_KEPT
from gatepost.roles.receiver import Receiver


class Link:
    """The queue's end."""

    peer = ("queue", 0, 0)

    def __init__(self) -> None:
        self.posted: list[m.Message] = []

    def post(self, message: m.Message) -> None:
        self.posted.append(message)


def test_body_files_are_asked_for_behind_holding():
    """A session that began to wait in between had asked too early: nobody asked again, and it waited for ever."""
    link = Link()
    receiver = Receiver.__new__(Receiver)
    receiver.start = SimpleNamespace(instance=0, generation=1)
    receiver.loop = SimpleNamespace(call_soon=lambda *_: None, call_later=lambda *_: None)
    receiver._commit = SimpleNamespace(renew=lambda: None, has_segments=True)
    receiver._connections = set()
    receiver._body_files = deque()
    receiver._body_waiters = deque()
    receiver._health = None
    receiver.on_link(link)
    receiver._introduce(link)  # a commit is under way: not yet
    assert receiver.take_body_file(SimpleNamespace(transaction=None)) is None
    receiver._commit.has_segments = False
    receiver._introduce(link)
    kinds = [type(message) for message in link.posted]
    behind = link.posted[kinds.index(m.Holding) :]
    assert [type(message) for message in behind] == [m.Holding, m.NeedSegment, m.NeedBodyFiles]
    assert behind[-1].count == BODY_FILES_KEPT + 1
