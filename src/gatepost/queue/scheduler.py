"""The scheduler: which queued item is attempted next, and how many at once go to one next hop.

Pure: no clock, no I/O, no knowledge of messages. An item is a message id with one next hop; a message whose recipients lie
behind several next hops is several items. Times are whatever clock the caller uses, as long as it is one and the same.

Invariants: an item is in exactly one of the states fresh, waiting, active; each operation costs O(log n) of its own next hop;
the items of a next hop that is full or down are not looked at. Next hops are served in turn, and within one next hop fresh
mail and retried mail take turns, so that neither starves the other; items with a rank go before or after both (`ranked.py`).
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict, deque
from heapq import heapify, heappop, heappush
from typing import Any

import msgspec

from gatepost.config import schema
from gatepost.model import NextHopTrouble
from gatepost.queue import backoff
from gatepost.queue.ranked import Ranked

INITIAL_WINDOW = 5  # connections to a next hop of which nothing is known; few enough that no server minds

# Items that are with the deliverer for each connection: one under way and one that waits behind it, so that a connection that
# has finished goes on at once instead of idling for a round trip between deliverer and queue.
OUTSTANDING_PER_CONNECTION = 2

MAX_IDLE_NEXT_HOPS = 1000  # next hops without items whose window and back-off are remembered
COMPACT_OVER = 64  # removed items leave a shell behind; more shells than this and than live items: sweep

UP, DOWN, PROBING = "up", "down", "probing"
_WORKS, _BUSY = NextHopTrouble.NONE, NextHopTrouble.BUSY  # a look-up in an enum costs more than the comparison
_FRESH = object()  # state of an item that is due since it was added


class Item(msgspec.Struct, frozen=True, gc=False):
    """An item to attempt now; `limit` is how many connections its next hop may have open at present."""

    key: str
    next_hop: str
    limit: int


class _NextHop:
    """The items of one next hop and what is known of it."""

    __slots__ = (
        "active", "down_until", "epoch", "failures", "fresh", "in_ring", "items", "name", "probes", "ranked", "reason", "shells",
        "state", "timer", "turn", "waiting", "window",
    )  # fmt: skip

    def __init__(self, name: str, window: int) -> None:
        self.name = name
        self.state = UP
        self.window = window
        # key -> _FRESH, its entry in `waiting`, or the epoch (int) in which its attempt began
        self.items: dict[str, Any] = {}
        self.fresh: deque[str] = deque()
        self.waiting: list[tuple[float, str]] = []  # heap
        self.ranked: Ranked | None = None  # while there are items with a rank
        self.shells = 0  # entries of `fresh` and `waiting` that no item stands behind any more
        self.active = 0
        self.probes = 0  # attempts that began while probing
        self.epoch = 0  # counts when it was halved, put down, or retried by hand: what began before says nothing new
        self.failures = 0  # times put down in a row
        self.down_until = -math.inf
        self.reason = ""
        self.timer = math.inf  # its earliest entry in the scheduler's timers
        self.in_ring = False
        self.turn = False  # whose turn it is: False fresh, True waiting

    def due(self) -> float:
        """When its first item is due: -inf for now, inf for never."""
        if self.fresh:
            return -math.inf
        if self.ranked is not None:
            return min(self.ranked.due(), self.waiting[0][0] if self.waiting else math.inf)
        return self.waiting[0][0] if self.waiting else math.inf

    def take(self, now_s: float) -> str | None:
        """The key of an item that is due, which becomes active; None if there is none."""
        if self.ranked is not None:
            return self._take_ranked(self.ranked, now_s)
        items, fresh, waiting = self.items, self.fresh, self.waiting
        while True:
            if waiting and waiting[0][0] <= now_s and (self.turn or not fresh):
                entry = heappop(waiting)
                key = entry[1]
                live = items.get(key) is entry
            elif fresh:
                key = fresh.popleft()
                live = items.get(key) is _FRESH
            else:
                return None
            if live:
                self.turn = not self.turn
                items[key] = self.epoch
                self.active += 1
                return key
            self.shells -= 1

    def _take_ranked(self, ranked: Ranked, now_s: float) -> str | None:
        self.shells -= ranked.wake(self.items, now_s, _FRESH)
        self.ranked = None
        key = None if ranked.is_first() else self.take(now_s)
        if key is None:
            key = ranked.pop()
            if key is None:
                key = self.take(now_s)
            else:
                self.items[key] = self.epoch
                self.active += 1
        if ranked.ranks or ranked.ready or ranked.later:
            self.ranked = ranked
        return key

    def rank_of(self, key: str) -> int:
        """Its rank, 0 for nearly all."""
        return self.ranked.ranks.get(key, 0) if self.ranked is not None else 0

    def compact(self) -> None:
        """Sweep out the shells."""
        items = self.items
        if self.ranked is not None:
            self.ranked.compact(items, _FRESH)
        self.fresh = deque(dict.fromkeys(key for key in self.fresh if items.get(key) is _FRESH))
        self.waiting = [entry for entry in self.waiting if items.get(entry[1]) is entry]
        heapify(self.waiting)
        self.shells = 0


class Scheduler:
    """All items of the queue, by next hop.

    The caller: `add` for each new item, `next_batch` when it has room or `wake_at` has come, `finished` once for each item of a
    batch, even if it was removed meanwhile.
    """

    def __init__(self, config: schema.Queue, delivery: schema.Delivery, rng: random.Random) -> None:
        self._config = config
        self._max_window = max(1, delivery.max_connections_per_next_hop)
        self._rng = rng
        self._hops: dict[str, _NextHop] = {}
        self._idle: OrderedDict[str, None] = OrderedDict()  # names of next hops without items, oldest first
        self._ring: deque[_NextHop] = deque()  # next hops that have (as far as is known) due items and a free place
        self._timers: list[tuple[float, int, _NextHop]] = []  # heap; an entry counts if its time is the hop's `timer`
        self._timer_number = 0  # ties in the heap
        self._now_s = -math.inf  # the latest time that a caller gave
        self._items = 0
        self._active = 0

    def __len__(self) -> int:
        """How many items there are, active ones too."""
        return self._items

    @property
    def active(self) -> int:
        """How many items are under attempt."""
        return self._active

    def reconfigure(self, config: schema.Queue, delivery: schema.Delivery) -> None:
        """Go on with other settings; windows above the new maximum shrink."""
        self._config = config
        self._max_window = max(1, delivery.max_connections_per_next_hop)
        for hop in self._hops.values():
            hop.window = min(hop.window, self._max_window)
            self._place(hop)

    def add(self, key: str, next_hop: str, due_s: float, priority: int = 0, rank: int = 0) -> None:
        """Take an item in. One that is there already gets the new time, unless it is under attempt.

        `priority` 0 is fresh mail; above 0 the item stands with the retried ones, which get every second place while fresh
        mail waits. `rank` is the priority of RFC 6710: -9 to 9, high ones first.
        """
        hop = self._hops.get(next_hop)
        if hop is None:
            hop = self._hops[next_hop] = _NextHop(next_hop, min(INITIAL_WINDOW, self._max_window))
        items = hop.items
        state = items.get(key)
        if state is None:
            if not items:
                self._idle.pop(next_hop, None)
            self._items += 1
        elif type(state) is int:
            return
        else:
            hop.shells += 1
        if rank:
            hop.ranked = hop.ranked or Ranked()
            hop.ranked.ranks[key] = rank
            hop.ranked.put(key, items, due_s, self._now_s, _FRESH)
        elif due_s <= self._now_s and priority <= 0:
            items[key] = _FRESH
            hop.fresh.append(key)
        else:
            items[key] = entry = (due_s, key)
            heappush(hop.waiting, entry)
        if not hop.in_ring:
            self._place(hop)

    def remove(self, key: str, next_hop: str) -> bool:
        """Forget an item; of one under attempt the result will be ignored. Whether it was there."""
        hop = self._hops.get(next_hop)
        if hop is None or key not in hop.items:
            return False
        state = hop.items.pop(key)
        if hop.ranked is not None:
            hop.ranked.ranks.pop(key, None)
        self._items -= 1
        if type(state) is int:
            # Its attempt still takes a place until `finished`: left behind as a key that no caller can have.
            hop.items["\0" + key] = state
        else:
            hop.shells += 1
            if hop.shells > COMPACT_OVER and hop.shells > len(hop.items):
                hop.compact()
        if not hop.items:
            self._rest(hop)
        return True

    def next_batch(self, now_s: float, room: int) -> list[Item]:
        """At most `room` items to attempt now, taken from all next hops in turn; each becomes active until `finished`."""
        self._advance(now_s)
        batch: list[Item] = []
        ring = self._ring
        while room > 0 and ring:
            share = max(1, room // len(ring))
            for _ in range(min(len(ring), room)):
                hop = ring.popleft()
                hop.in_ring = False
                room -= self._take(hop, min(share, room), batch)
                self._place(hop)
        return batch

    def finished(
        self,
        key: str,
        next_hop: str,
        trouble: NextHopTrouble | None,
        retry_at_s: float | None,
        now_s: float,
        reason: str = "",
    ) -> None:
        """An attempt has ended: the item is gone, or waits again until `retry_at_s`.

        `trouble` None: the attempt says nothing of the next hop (the deliverer died). When the next hop was not reached at all
        (BUSY, or DOWN while connecting), `retry_at_s` may be `now_s`: the back-off of the next hop holds the item.
        """
        self._now_s = max(self._now_s, now_s)
        hop = self._hops[next_hop]
        epoch = hop.items.pop(key, None)
        if type(epoch) is not int:
            if epoch is not None:  # removed while under attempt, and added again
                hop.items[key] = epoch
            epoch = hop.items.pop("\0" + key)
            retry_at_s = None
        else:
            self._items -= 1
        hop.active -= 1
        self._active -= 1
        if hop.probes and epoch == hop.epoch:
            hop.probes -= 1
        if retry_at_s is not None:
            if hop.rank_of(key) and hop.ranked is not None:
                hop.ranked.put(key, hop.items, retry_at_s, now_s, _FRESH)
            else:
                hop.items[key] = entry = (retry_at_s, key)
                heappush(hop.waiting, entry)
            self._items += 1
        elif hop.ranked is not None:
            hop.ranked.ranks.pop(key, None)
        if trouble == _WORKS:
            if hop.state is not UP:
                self._reopen(hop)
            elif hop.window < self._max_window:
                hop.window += 1
            hop.failures = 0
        elif trouble is not None and epoch == hop.epoch:
            hop.reason = reason
            if trouble == _BUSY and hop.state is UP and hop.window > 1:
                hop.window //= 2
                hop.epoch += 1
            else:
                self._put_down(hop, now_s)
        self._place(hop)
        if not hop.items:
            self._rest(hop)

    def wake_at(self) -> float | None:
        """When `next_batch` has (at the earliest) something to give; a time in the past: now, if there is room."""
        if self._ring:
            return self._now_s
        timers = self._timers
        while timers and timers[0][0] != timers[0][2].timer:
            heappop(timers)
        return max(timers[0][0], self._now_s) if timers else None

    def retry(self, key: str | None = None, next_hop: str | None = None) -> int:
        """The operator's word: attempt the waiting items now, all or those named, even if their next hop is down.

        An attempt that began before it and fails says nothing any more. Returns how many items were waiting.
        """
        count = 0
        hops = (
            list(self._hops.values()) if next_hop is None else [self._hops[next_hop]] if next_hop in self._hops else []
        )
        for hop in hops:
            items = hop.items
            keys = [key] if key is not None else list(items)
            due = [each for each in keys if each in items and type(items[each]) is not int]
            if not due and key is not None:
                continue
            for each in due:
                if items[each] is not _FRESH:
                    items[each] = (-math.inf, each)
            hop.waiting = [entry for entry in items.values() if type(entry) is tuple]
            hop.compact()
            hop.down_until = -math.inf
            hop.failures = hop.probes = 0
            hop.epoch += 1
            count += len(due)
            self._place(hop)
        return count

    def waiting(self, next_hop: str | None) -> set[str]:
        """Keys of the items that `retry` would make due."""
        hops = self._hops.values() if next_hop is None else filter(None, [self._hops.get(next_hop)])
        return {key for hop in hops for key, state in hop.items.items() if type(state) is not int}

    def due_at(self, key: str, next_hop: str) -> float | None:
        """When the item is due next: -inf if it is due or under attempt; None if there is no such item.

        Of a next hop that is down: not before it is tried again.
        """
        hop = self._hops.get(next_hop)
        if hop is None or key not in hop.items:
            return None
        state = hop.items[key]
        if type(state) is int:
            return -math.inf
        due = -math.inf if state is _FRESH else state[0]
        return max(due, hop.down_until) if hop.state is DOWN else due

    def reason(self, next_hop: str) -> str:
        """What was said of the next hop when it last was in trouble; empty if it works or is not known."""
        hop = self._hops.get(next_hop)
        return hop.reason if hop else ""

    def is_active(self, key: str, next_hop: str) -> bool:
        """Whether the item is under attempt."""
        hop = self._hops.get(next_hop)
        return hop is not None and type(hop.items.get(key)) is int

    def is_down(self, next_hop: str) -> bool:
        """Whether the next hop is down, or only being probed."""
        hop = self._hops.get(next_hop)
        return hop is not None and hop.state is not UP

    def next_hops(self) -> list[dict[str, Any]]:
        """A row for each next hop that has items or trouble, for `gatepost queue list`, by name."""
        return [
            {
                "next_hop": hop.name,
                "state": hop.state,
                "window": hop.window,
                "active": hop.active,
                "waiting": len(hop.items) - hop.active,
                "down_until": hop.down_until if hop.state is DOWN else None,
                "failures": hop.failures,
                "reason": hop.reason,
            }
            for _, hop in sorted(self._hops.items())
            if hop.items or (hop.state is DOWN and hop.down_until > self._now_s)
        ]

    # --- inside -----------------------------------------------------------------------------------------------------

    def _take(self, hop: _NextHop, most: int, batch: list[Item]) -> int:
        """Move up to `most` due items of a hop into the batch; returns how many."""
        places = min(most, self._places(hop))
        probing = hop.state is PROBING
        limit = 1 if probing else hop.window
        now_s, name = self._now_s, hop.name
        taken = 0
        while taken < places:
            key = hop.take(now_s)
            if key is None:
                break
            batch.append(Item(key, name, limit))
            taken += 1
        self._active += taken
        if probing:
            hop.probes += taken
        return taken

    def _places(self, hop: _NextHop) -> int:
        """How many more of its items may go out now."""
        if hop.state is UP:
            return hop.window * OUTSTANDING_PER_CONNECTION - hop.active
        return 1 - hop.probes if hop.state is PROBING else 0

    def _place(self, hop: _NextHop) -> None:
        """Put the hop into the ring if it has work that may go out, else see that it is looked at when it may have."""
        if hop.in_ring:
            return
        due = hop.due()
        if hop.state is DOWN:
            due = max(due, hop.down_until)
            if due <= self._now_s:
                self._probe(hop)
        elif self._places(hop) <= 0:
            return  # full: `finished` looks again
        if due <= self._now_s:
            hop.in_ring = True
            self._ring.append(hop)
        elif due < hop.timer:
            hop.timer = due
            self._timer_number += 1
            heappush(self._timers, (due, self._timer_number, hop))

    def _advance(self, now_s: float) -> None:
        """Let time pass: hops whose timer has come are placed anew."""
        self._now_s = max(self._now_s, now_s)
        timers = self._timers
        while timers and timers[0][0] <= self._now_s:
            when, _, hop = heappop(timers)
            if when == hop.timer:
                hop.timer = math.inf
                self._place(hop)

    def _probe(self, hop: _NextHop) -> None:
        """Let a single item find out whether the next hop is back."""
        hop.state = PROBING
        hop.probes = 0
        hop.epoch += 1

    def _put_down(self, hop: _NextHop, now_s: float) -> None:
        if now_s - hop.down_until > self._config.retry_max_s:
            hop.failures = 0  # nothing was sent to it for long: that it was down then says little
        hop.failures += 1
        hop.state = DOWN
        hop.epoch += 1
        hop.probes = 0
        hop.down_until = backoff.next_hop_up_at(hop.failures, now_s, self._config, self._rng)

    def _reopen(self, hop: _NextHop) -> None:
        hop.state = UP
        hop.window = min(INITIAL_WINDOW, self._max_window)
        hop.probes = 0
        hop.down_until = -math.inf
        hop.reason = ""

    def _rest(self, hop: _NextHop) -> None:
        """A hop without items: remember some, drop the oldest."""
        if hop.shells:
            hop.compact()
        self._idle[hop.name] = None
        if len(self._idle) > MAX_IDLE_NEXT_HOPS:
            name, _ = self._idle.popitem(last=False)
            gone = self._hops.pop(name)
            gone.timer = math.nan  # no entry of the timers is equal to it
