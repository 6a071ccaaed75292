"""Clients that guess recipients: slowed down, then sent away, and nobody else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gatepost.config.schema import Smtp
from gatepost.model import NeedsAnswer
from gatepost.roles.harvest import HOUR_S, TOO_MANY_UNKNOWN, Harvest
from gatepost.smtp.reply import Reply

UNKNOWN = Reply(550, "1.1", "No such mailbox")


class Bed:
    def __init__(self, **limits: Any) -> None:
        self.now_s = 0.0
        self.events: list[str] = []
        self.delays: list[str] = []
        loop = SimpleNamespace(time=lambda: self.now_s)
        self.harvest = Harvest(
            Smtp(**{"max_unknown_recipients": 8, **limits}),
            loop,
            lambda name, **fields: self.events.append(fields["address"]),
        )

    def note(self, address: str = "203.0.113.1", permit: object = None) -> Reply:
        facts = SimpleNamespace(client_permit=permit)
        return self.harvest.note(SimpleNamespace(address=address, facts=facts, session_id="S1"), UNKNOWN)  # type: ignore[arg-type]

    def is_slow(self, address: str = "203.0.113.1", wait: object = None) -> bool:
        connection: Any = SimpleNamespace(address=address, wait=wait, session_id="S1")
        try:
            self.harvest.delay(connection)
        except NeedsAnswer as needed:
            self.delays.append(needed.questions[0].source)
            return True
        return False

    def is_kept_away(self, address: str = "203.0.113.1", kind: str = "edge", permit: object = None) -> bool:
        facts, port = SimpleNamespace(client_permit=permit), SimpleNamespace(kind=kind)
        connection: Any = SimpleNamespace(address=address, facts=facts, port=port)
        return self.harvest.refusal(connection) is not None


def test_slow_from_a_quarter_and_away_above_the_limit() -> None:
    bed = Bed()
    assert [bed.note() for _ in range(9)] == [UNKNOWN] * 8 + [TOO_MANY_UNKNOWN]
    assert bed.note() == TOO_MANY_UNKNOWN and bed.events == ["203.0.113.1"]
    assert bed.is_slow() and not bed.is_slow("203.0.113.2") and bed.note("203.0.113.2") == UNKNOWN
    assert not bed.is_slow(wait=object())  # it has waited for this one
    fresh = Bed()
    fresh.note()
    assert not fresh.harvest.slow
    fresh.note()
    assert fresh.harvest.slow


def test_an_hour_later_all_is_forgotten() -> None:
    bed = Bed()
    for _ in range(9):
        bed.note()
    bed.now_s = HOUR_S + 1
    assert not bed.is_slow() and not bed.harvest.slow and bed.note() == UNKNOWN


def test_one_client_of_ipv6_is_its_network() -> None:
    bed = Bed()
    replies = [bed.note(f"2001:db8:1:2::{n}") for n in range(1, 10)]
    assert (
        replies[-1] == TOO_MANY_UNKNOWN and bed.is_slow("2001:db8:1:2:ffff::1") and not bed.is_slow("2001:db8:1:3::1")
    )


@pytest.mark.parametrize("limits", [{"max_unknown_recipients": 0}, {}])
def test_who_is_not_counted(limits: dict[str, int]) -> None:
    bed = Bed(**limits)
    permit = None if limits else object()
    assert {bed.note(permit=permit) for _ in range(20)} == {UNKNOWN} and not bed.harvest.slow


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatepost.roles.harvest.MAX_CLIENTS", 10)
    bed = Bed(max_unknown_recipients=1)
    for number in range(50):
        bed.note(f"203.0.113.{number}")
        bed.note(f"203.0.113.{number}")
    assert len(bed.harvest.slow) == 10 == len(bed.harvest._told)


def test_the_delay_grows_up_to_the_limit() -> None:
    bed = Bed()
    for _ in range(12):
        bed.note()
        bed.is_slow()
    assert bed.delays == [f"delay:{seconds:.2f}" for seconds in (1.25, 1.875, 2.5, 3.125, 3.75, 4.375, 5, 5, 5, 5, 5)]


def test_who_was_sent_away_is_not_let_in_for_a_while() -> None:
    bed = Bed(unknown_recipient_ban_s=60.0)
    for _ in range(8):
        bed.note()
    assert not bed.is_kept_away()
    bed.note()
    assert bed.is_kept_away() and not bed.is_kept_away("203.0.113.2")
    assert not bed.is_kept_away(kind="submission") and not bed.is_kept_away(permit=object())
    stats = bed.harvest.stats()
    assert stats["recipients_unknown"] == 9 and stats["recipients_cut_off"] == 1 and stats["guessers_kept_away"] == 1
    assert stats["guessers_slowed_now"] == stats["guessers_banned_now"] == stats["guessers_told"] == 1
    bed.now_s = 61.0
    assert not bed.is_kept_away() and not bed.harvest.banned
    never = Bed(unknown_recipient_ban_s=0.0)
    for _ in range(20):
        never.note()
    assert not never.is_kept_away()
