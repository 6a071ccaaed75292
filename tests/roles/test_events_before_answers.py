"""Who has an answer finds the events of what it tells of written: a role writes them first, and so does the supervisor."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gatepost.events import EventLog
from gatepost.ipc import messages as m
from gatepost.privsep.supervisor import Supervisor
from gatepost.privsep.watch import Watch
from gatepost.roles.skeleton import Role


class Asker:
    """Sees what stands in the file of events at the moment of the answer."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.seen: list[str] = []
        self.answered = asyncio.Event()

    def post(self, message: m.Message) -> None:
        assert isinstance(message, m.Answer)
        self.seen.append(self.file.read_text())
        self.answered.set()

    send = post


@pytest.fixture
def asker(tmp_path: Path) -> Asker:
    return Asker(tmp_path / "events")


def open_log(file: Path) -> EventLog:
    return EventLog(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "role")


class Telling(Role):
    """Tells of something and answers in the same turn of its loop."""

    def answer(self, what: str, arguments: dict[str, Any]) -> Any:
        self.event("stopping", status=7)
        return self.later() if what == "later" else {}

    async def later(self) -> Any:
        self.event("stopping", status=8)
        return {}


@pytest.mark.parametrize(("what", "status"), [("at once", 7), ("later", 8)])
def test_a_role_answers_behind_its_events(asker: Asker, what: str, status: int) -> None:
    async def ask() -> None:
        loop = asyncio.get_running_loop()
        start = m.Start("control", 0, 1, b"", "", -1, -1)
        role = Telling(start, SimpleNamespace(), [], open_log(asker.file), loop)  # type: ignore[arg-type]
        role._from_peer(asker, m.Ask(1, what, {}), [])  # type: ignore[arg-type]
        await asker.answered.wait()

    asyncio.run(ask())
    assert f'"status":{status}' in asker.seen[0]


def test_the_supervisor_answers_behind_its_events(asker: Asker) -> None:
    log = open_log(asker.file)
    log.event("stopping", status=9)
    supervisor = SimpleNamespace(_log=log, _watch=Watch(), _pulse=SimpleNamespace(killed=0))
    Supervisor._answer(supervisor, asker, m.Ask(1, "stats", {}))  # type: ignore[arg-type]
    assert '"status":9' in asker.seen[0]
