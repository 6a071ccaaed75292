"""What an operator says of recipients is answered when every process that remembers them has heard of it."""

from __future__ import annotations

import socket
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from gatepost.ipc import messages as m
from gatepost.roles.control import Control


class Loop:
    """Time stands still, and nothing listens."""

    def create_task(self, coroutine: Coroutine[Any, Any, None]) -> None:
        coroutine.cr_frame.f_locals["sock"].close()
        coroutine.close()

    def call_later(self, *_: object) -> None:
        pass

    def time(self) -> float:
        return 0.0


class Link:
    """To one role; `asked` is what it was asked."""

    def __init__(self, role: str, instance: int = 0, generation: int = 1) -> None:
        self.peer = (role, instance, generation)
        self.asked: list[m.Ask] = []

    def post(self, message: m.Ask) -> None:
        self.asked.append(message)


class Bed:
    """A control role with its links; `told` is what the operator was answered."""

    def __init__(self) -> None:
        descriptor = socket.socket(socket.AF_UNIX).detach()
        self.control = Control(SimpleNamespace(role="control"), None, [descriptor], None, Loop())  # type: ignore[arg-type]
        self.control.begin()
        self.resolver, self.queue = Link("resolver"), Link("queue")
        self.receivers = [Link("receiver", 0), Link("receiver", 1)]
        for link in (self.resolver, self.queue, *self.receivers):
            self.control.links[link.peer] = link  # type: ignore[assignment]
        self.told: list[bytes] = []

    def ask(self, what: str) -> None:
        self.control.ask(what, {"names": ["a@example.test"]}, self.told.append)

    def answer(self, link: Link, data: bytes) -> None:
        self.control.handle(link, m.Answer(link.asked[-1].request, data), [])  # type: ignore[arg-type]

    def lose(self, link: Link) -> None:
        del self.control.links[link.peer]
        self.control.on_link_lost(link.peer)


@pytest.fixture
def bed() -> Bed:
    return Bed()


def test_what_is_confirmed_is_answered_behind_the_last_receiver(bed: Bed) -> None:
    bed.ask("recipients_confirm")
    bed.answer(bed.resolver, b'["ldap:people"]')
    bed.answer(bed.receivers[0], b"[]")
    assert bed.told == []
    bed.answer(bed.receivers[1], b"[]")
    assert bed.told == [b'["ldap:people"]']


def test_what_is_forgotten_is_gone_from_receivers_and_from_the_disk(bed: Bed) -> None:
    bed.ask("recipients_forget")
    bed.answer(bed.resolver, b"1")
    assert bed.receivers[0].asked[0].what == "recipients_forget"
    assert bed.receivers[0].asked[0].arguments == {"names": ["a@example.test"]}
    assert bed.queue.asked == []
    for receiver in bed.receivers:
        bed.answer(receiver, b"1")
    assert bed.told == []
    bed.answer(bed.queue, b"{}")
    assert bed.told == [b"1"]


def test_a_receiver_that_ends_remembers_nothing(bed: Bed) -> None:
    bed.ask("recipients_confirm")
    bed.answer(bed.resolver, b"[]")
    bed.lose(bed.receivers[0])
    bed.answer(bed.receivers[1], b"[]")
    assert bed.told == [b"[]"]


def test_one_that_does_not_answer_is_said(bed: Bed) -> None:
    bed.ask("recipients_forget")
    bed.answer(bed.resolver, b"1")
    bed.answer(bed.receivers[0], b'{"error":"no answer in time"}')
    bed.answer(bed.receivers[1], b"1")
    assert bed.told == [b'{"error":"no answer in time"}']


def test_without_receivers_the_resolver_says_it_all(bed: Bed) -> None:
    for receiver in bed.receivers:
        bed.lose(receiver)
    bed.ask("recipients_confirm")
    bed.answer(bed.resolver, b"[]")
    bed.ask("recipients_status")
    bed.answer(bed.resolver, b"{}")
    assert bed.told == [b"[]", b"{}"]
