"""Control waits for a role that is being started again: what it was asked is neither refused nor said to be unknown meanwhile."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gatepost.ipc import messages as m
from gatepost.roles.control import AWAY_WAIT_S, Control


class Loop:
    """Time passes only by `run`."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> None:
        self.timers.append((self.now_s + delay_s, lambda: call(*arguments)))

    def create_task(self, task: None) -> None:
        pass

    def run(self, until_s: float) -> None:
        while due := [timer for timer in self.timers if timer[0] <= until_s]:
            first = min(due, key=lambda timer: timer[0])
            self.timers.remove(first)
            self.now_s = first[0]
            first[1]()
        self.now_s = until_s


class Deaf(Control):
    """It listens to nobody; the test asks."""

    def _listen(self, sock: socket.socket) -> None:  # type: ignore[override]
        sock.close()


class Channel:
    def __init__(self, role: str) -> None:
        self.peer = (role, 0, 1)
        self.asked: list[str] = []

    def post(self, message: m.Message) -> None:
        assert isinstance(message, m.Ask)
        self.asked.append(message.what)


@pytest.fixture
def control() -> Control:
    start = m.Start("control", 0, 1, b"", "", -1, -1)
    loop, log = Loop(), SimpleNamespace()
    role = Deaf(start, SimpleNamespace(), [socket.socket().detach()], log, loop)  # type: ignore[arg-type]
    role.begin()
    return role


VERBS = [
    ("queue", "ledger"),
    ("queue", "retry"),
    ("deliverer", "tls_show"),
    ("resolver", "lookup"),
    ("resolver", "recipients_status"),
    ("resolver", "recipients_confirm"),
]


@pytest.mark.parametrize(("role", "what"), VERBS)
def test_a_role_that_comes_back_is_asked_once(control: Control, role: str, what: str) -> None:
    heard: list[bytes] = []
    control.ask(what, {}, heard.append)
    control.loop.run(100.0 + AWAY_WAIT_S - 1)
    assert heard == []
    channel = Channel(role)
    control.links[channel.peer] = channel  # type: ignore[assignment]
    control.loop.run(100.0 + AWAY_WAIT_S)
    assert channel.asked == [what]
    control.handle(channel, m.Answer(1, b'"known"', False), [])  # type: ignore[arg-type]
    assert heard == [b'"known"']


@pytest.mark.parametrize(("role", "what"), VERBS)
def test_one_that_does_not_is_named(control: Control, role: str, what: str) -> None:
    heard: list[bytes] = []
    control.ask(what, {}, heard.append)
    control.loop.run(100.0 + AWAY_WAIT_S + 1)
    assert [json.loads(one) for one in heard] == [
        {"error": f"the {role} is not running at the moment; try again in a second"}
    ]


def test_what_nobody_knows_is_said_at_once(control: Control) -> None:
    heard: list[bytes] = []
    control.ask("exec", {}, heard.append)
    assert json.loads(heard[0]) == {"error": "unknown request 'exec'"}
