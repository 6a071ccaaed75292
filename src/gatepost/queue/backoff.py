"""When to try again, when to tell the sender, when to give up. Pure: times come in as arguments.

A message is retried by its age, as Postfix does: it waits about as long as it has waited already, between `retry_min_s` and
`retry_max_s`, so that intervals double and a restart does not begin anew. All waits vary by a tenth either way, so that mail
that was deferred together does not come back together. RFC 5321 4.5.4.1.
"""

from __future__ import annotations

import random
from heapq import heapify, heappop, heappush

from gatepost.config import schema

JITTER = 0.1  # of the wait, either way


def retry_at(received_s: float, attempts: int, now_s: float, config: schema.Queue, rng: random.Random) -> float:
    """When a message is due again after its attempt number `attempts` has ended; never later than it expires."""
    age_s = max(0.0, now_s - received_s)
    if attempts <= 1:
        age_s = 0.0  # a message that waited long for its first attempt is still at its first
    wait_s = min(max(age_s, config.retry_min_s), config.retry_max_s) * rng.uniform(1 - JITTER, 1 + JITTER)
    return min(now_s + wait_s, max(now_s, received_s + config.lifetime_s))


def next_hop_up_at(failures: int, now_s: float, config: schema.Queue, rng: random.Random) -> float:
    """When a next hop that failed `failures` times in a row is tried again."""
    wait_s = min(
        config.next_hop_retry_s * 2.0 ** min(failures - 1, 32), max(config.retry_max_s, config.next_hop_retry_s)
    )
    return now_s + wait_s * rng.uniform(1 - JITTER, 1 + JITTER)


def expires_at(received_s: float, reverse_path: str, config: schema.Queue) -> float:
    """When a message is given up; mail with the null reverse-path sooner, for nobody waits for it."""
    return received_s + (config.lifetime_s if reverse_path else min(config.dsn_lifetime_s, config.lifetime_s))


def delay_notice_at(received_s: float, reverse_path: str, config: schema.Queue) -> float | None:
    """When the sender is told that the message is late; None: never."""
    if not reverse_path or config.delay_notice_s <= 0 or config.delay_notice_s >= config.lifetime_s:
        return None
    return received_s + config.delay_notice_s


class Deadlines:
    """The next deadline (delay notice, expiry) of each message, which must come whether or not its next hop is ever tried."""

    __slots__ = ("_at", "_heap")

    def __init__(self) -> None:
        self._at: dict[str, tuple[float, str]] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._at)

    def set(self, key: str, at_s: float) -> None:
        """Set or move the deadline of a message."""
        self._at[key] = entry = (at_s, key)
        heappush(self._heap, entry)
        self._sweep()

    def remove(self, key: str) -> None:
        """Forget a message, known or not."""
        if self._at.pop(key, None) is not None:
            self._sweep()

    def pop_due(self, now_s: float) -> list[str]:
        """The messages whose deadline has come, earliest first; they are forgotten."""
        due: list[str] = []
        heap = self._heap
        while heap and heap[0][0] <= now_s:
            entry = heappop(heap)
            if self._at.get(entry[1]) is entry:
                del self._at[entry[1]]
                due.append(entry[1])
        return due

    def wake_at(self) -> float | None:
        """The earliest deadline."""
        heap = self._heap
        while heap and self._at.get(heap[0][1]) is not heap[0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def _sweep(self) -> None:
        if len(self._heap) > 64 + 2 * len(self._at):
            self._heap = list(self._at.values())
            heapify(self._heap)
