"""When to retry, to warn, to give up."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from gatepost.config import schema
from gatepost.queue import backoff
from gatepost.queue.backoff import Deadlines

CONFIG = schema.Queue()
T0 = 1_000_000.0


@pytest.mark.parametrize(
    ("age_s", "attempts", "wanted_s"),
    [
        (0, 1, 300),
        (7200, 1, 300),  # its next hop was down: this was its first attempt
        (200, 2, 300),
        (600, 2, 600),
        (3000, 4, 3000),
        (100_000, 20, 14_400),
        (-50, 2, 300),  # the clock was set back
    ],
)
def test_a_message_waits_as_long_as_it_is_old(age_s, attempts, wanted_s):
    rng = random.Random(3)
    waits = [backoff.retry_at(T0, attempts, T0 + age_s, CONFIG, rng) - (T0 + age_s) for _ in range(200)]
    assert wanted_s * 0.9 <= min(waits) < wanted_s < max(waits) <= wanted_s * 1.1


def test_intervals_double():
    rng = random.Random(3)
    now, waits = T0, []
    for attempt in range(1, 8):
        due = backoff.retry_at(T0, attempt, now, CONFIG, rng)
        waits.append(due - now)
        now = due
    assert all(1.5 < later / earlier < 2.5 for earlier, later in pairwise(waits[1:]))


def test_no_retry_is_later_than_the_expiry():
    now = T0 + CONFIG.lifetime_s - 10
    assert backoff.retry_at(T0, 30, now, CONFIG, random.Random(1)) == T0 + CONFIG.lifetime_s
    assert backoff.retry_at(T0, 30, now + 100, CONFIG, random.Random(1)) == now + 100


def test_expiry_is_sooner_for_the_null_reverse_path():
    assert backoff.expires_at(T0, "a@b.test", CONFIG) == T0 + 5 * 86400
    assert backoff.expires_at(T0, "", CONFIG) == T0 + 2 * 86400


def test_delay_notice():
    assert backoff.delay_notice_at(T0, "a@b.test", CONFIG) == T0 + 4 * 3600
    assert backoff.delay_notice_at(T0, "", CONFIG) is None
    assert backoff.delay_notice_at(T0, "a@b.test", schema.Queue(delay_notice_s=0)) is None
    assert backoff.delay_notice_at(T0, "a@b.test", schema.Queue(delay_notice_s=100, lifetime_s=100)) is None


def test_deadlines():
    deadlines = Deadlines()
    for number in (5, 3, 8, 1):
        deadlines.set(f"m{number}", T0 + number)
    deadlines.remove("m1")
    deadlines.remove("unknown")
    deadlines.set("m8", T0 + 2)
    assert deadlines.wake_at() == T0 + 2
    assert deadlines.pop_due(T0 + 3) == ["m8", "m3"]
    assert len(deadlines) == 1
    assert deadlines.pop_due(T0 + 100) == ["m5"]
    assert deadlines.wake_at() is None


def test_deadlines_do_not_grow_with_what_is_gone():
    deadlines = Deadlines()
    for number in range(5000):
        deadlines.set(f"m{number}", T0 + number)
        deadlines.remove(f"m{number}")
    assert len(deadlines._heap) < 200
