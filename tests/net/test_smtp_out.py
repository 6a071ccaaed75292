"""The protocol around a client session, on a transport that only records."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gatepost.config.schema import Delivery
from gatepost.net.smtp_out import SmtpOut, build_timeouts
from gatepost.smtp.client import ClientSettings, State, Transaction


class Pipe:
    """A transport without a network."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.aborted = False
        self.full_at = math.inf
        self.connection: SmtpOut | None = None

    def write(self, data: bytes) -> None:
        self.writes.append(bytes(data))
        if len(data) >= self.full_at:
            assert self.connection is not None
            self.connection.pause_writing()

    def writelines(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def abort(self) -> None:
        self.aborted = True

    def get_extra_info(self, name: str) -> None:
        return None


class Message(Transaction):
    __slots__ = ("content",)

    def __init__(self, content: bytes) -> None:
        super().__init__("s@example.org", ["u@example.test"], len(content))
        self.content = content

    def read(self, offset: int, count: int) -> bytes:
        return self.content[offset : offset + count]


class Desk:
    """An owner that notes what it is told."""

    def __init__(self, *messages: Message, block_bytes: int = 1 << 18) -> None:
        self.waiting = list(messages)
        self.told: list[Any] = []
        self.now = 0.0
        self.pipe = Pipe()
        settings = ClientSettings("gate.test", block_bytes=block_bytes)
        config = Delivery(greeting_timeout_s=1, command_timeout_s=2, data_block_timeout_s=3, data_end_timeout_s=4)
        self.connection = SmtpOut(self, settings, build_timeouts(config), lambda: self.now, "target")
        self.pipe.connection = self.connection
        self.connection.connection_made(self.pipe)  # type: ignore[arg-type]

    def say(self, data: bytes) -> list[bytes]:
        self.pipe.writes.clear()
        self.connection.data_received(data)
        return list(self.pipe.writes)

    def next_transaction(self, connection: SmtpOut) -> Message | None:
        return self.waiting.pop(0) if self.waiting else None

    def ready(self, connection: SmtpOut) -> None:
        self.told.append("ready")

    def idle(self, connection: SmtpOut) -> None:
        self.told.append("idle")

    def closed(self, connection: SmtpOut) -> None:
        self.told.append("closed")

    def finished(self, connection: SmtpOut, transaction: Transaction) -> None:
        self.told.append(transaction)


EHLO = b"250-host\r\n250 PIPELINING\r\n"
GO = b"250 ok\r\n250 ok\r\n354 go\r\n"


def open_desk(*messages: Message) -> Desk:
    desk = Desk(*messages)
    desk.say(b"220 host\r\n")
    desk.say(EHLO)
    return desk


def test_one_write_for_each_step():
    first, second = Message(b"a\r\n"), Message(b"b\r\n")
    desk = Desk(first, second)
    assert len(desk.say(b"220 host\r\n")) == 1
    assert len(desk.say(EHLO)) == 1
    (write,) = desk.say(GO)
    assert write.startswith(b"a\r\n.\r\nMAIL") and write.endswith(b"DATA\r\n")
    assert desk.say(b"250 done\r\n" + GO) == [b"b\r\n.\r\n"]
    assert desk.say(b"250 done\r\n") == []
    assert desk.told == ["ready", first, "idle", second]


def test_flow_control_holds_back_the_content():
    desk = Desk(Message(b"x" * 1_000_000), block_bytes=100_000)
    desk.say(b"220 host\r\n")
    desk.say(EHLO)
    desk.pipe.full_at = 50_000
    desk.say(GO)
    assert sum(map(len, desk.pipe.writes)) == 100_000
    while desk.connection.session.state is State.CONTENT:
        before = len(desk.pipe.writes)
        desk.connection.resume_writing()
        assert len(desk.pipe.writes) == before + 1
    assert sum(map(len, desk.pipe.writes)) == 1_000_000 + len(b"\r\n.\r\n")


@pytest.mark.parametrize(
    ("replies", "limit_s"),
    [([], 1), ([b"220 host\r\n"], 2), ([b"220 host\r\n", EHLO], 2), ([b"220 host\r\n", EHLO, GO], 4)],
)
def test_deadline_of_each_step(replies: list[bytes], limit_s: float):
    message = Message(b"a\r\n")
    desk = Desk(message)
    desk.now = 100.0
    if not replies:
        desk.connection.connection_made(desk.pipe)  # type: ignore[arg-type]
    for reply in replies:
        desk.say(reply)
    desk.connection.check(100.0 + limit_s - 0.001)
    assert not desk.pipe.aborted
    desk.now = 100.0 + limit_s
    desk.connection.check(desk.now)
    assert desk.pipe.aborted and desk.told.count("closed") == 1
    if len(replies) >= 2:
        assert message.problem is not None and message.problem.kind == "timeout"
    else:
        assert desk.connection.session.failure is not None


def test_the_handshake_of_a_next_hop_has_a_limit_of_its_own():
    limits = build_timeouts(Delivery(), 7.25)
    assert [state for state, limit_s in zip(State, limits, strict=True) if limit_s == 7.25] == [State.TLS]


def test_a_dripping_server_does_not_move_the_deadline():
    desk = open_desk(Message(b"a\r\n"))
    before = desk.connection.deadline
    desk.now = 1.5
    desk.say(b"250-still\r\n250")
    assert desk.connection.deadline == before
    desk.say(b" ok\r\n")
    assert desk.connection.deadline == 1.5 + 2


def test_idle_has_no_deadline():
    assert open_desk().connection.deadline == math.inf


def test_lost_connection_is_told_once_and_before_its_transactions():
    message = Message(b"a\r\n")
    desk = open_desk(message)
    desk.connection.connection_lost(None)
    desk.connection.connection_lost(None)
    desk.connection.abort("lost", "again")
    assert desk.told == ["ready", "closed", message]


def test_abandoned_connection_tells_nothing():
    desk = Desk(Message(b"a\r\n"))
    assert desk.connection.abandon()
    assert desk.pipe.aborted
    desk.connection.data_received(b"220 host\r\n")
    desk.connection.connection_lost(None)
    assert desk.told == [] and desk.pipe.writes == []
    assert not desk.connection.abandon()


def test_wake_and_quit():
    desk = open_desk()
    desk.waiting.append(Message(b"a\r\n"))
    desk.connection.wake()
    assert desk.pipe.writes[-1].startswith(b"MAIL")
    desk.say(GO)
    desk.say(b"250 ok\r\n")
    desk.connection.quit()
    assert desk.pipe.writes[-1] == b"QUIT\r\n"
    desk.say(b"221 bye\r\n")
    assert desk.told[-1] == "closed"
