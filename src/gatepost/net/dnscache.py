"""The resolver's cache: least recently used answers go first, each lives as long as its TTL says and a cap allows.

Not a store of records: it keeps whole answers to whole questions, negative and failed ones too. Bounded by the number of
entries and by the characters in them, since the records of a sender's domain are as large as the sender likes. The clock is
injected. RFC 2308 5 and 7 (negative answers, failures).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import msgspec

from gatepost.ipc.messages import LookupDone

TEMPFAIL_TTL_S = 5  # RFC 2308 7 allows up to five minutes; mail is retried later than this anyway
ENTRY_COST = 200  # characters that an entry counts besides its records
CHARACTERS_PER_ENTRY = 1000  # mean over the whole cache; one entry may take more


class _Entry(msgspec.Struct, frozen=True, gc=False):
    expires_s: float
    cost: int
    status: str
    records: list[str]
    secure: bool
    reason: str
    canonical: str


class DnsCache:
    """Answers by (kind, name). `get` and `put` take constant time, but for the entries that `put` pushes out."""

    __slots__ = ("_clock", "_entries", "_limits_s", "_max_cost", "_max_entries", "_max_negative_ttl_s", "cost")

    def __init__(
        self, max_entries: int, *, max_ttl_s: int, max_negative_ttl_s: int, clock: Callable[[], float]
    ) -> None:
        self._max_entries = max_entries
        self._max_cost = max_entries * CHARACTERS_PER_ENTRY
        self._limits_s = {"ok": max_ttl_s, "tempfail": TEMPFAIL_TTL_S}
        self._max_negative_ttl_s = max_negative_ttl_s
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self.cost = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, kind: str, name: str) -> LookupDone | None:
        """The answer with the TTL that is left, a new object each time (its `records` list is shared: do not change it)."""
        key = (kind, name)
        entry = self._entries.get(key)
        if entry is None:
            return None
        left_s = entry.expires_s - self._clock()
        if left_s <= 0:
            del self._entries[key]
            self.cost -= entry.cost
            return None
        self._entries.move_to_end(key)
        return LookupDone(0, entry.status, entry.records, int(left_s), entry.secure, entry.reason, entry.canonical)

    def put(self, kind: str, name: str, done: LookupDone) -> None:
        """Keep an answer for its `ttl_s`, lowered to the cap for its status; with a TTL of zero it is not kept."""
        ttl_s = min(done.ttl_s, self._limits_s.get(done.status, self._max_negative_ttl_s))
        if ttl_s <= 0:
            return
        cost = ENTRY_COST + len(name) + len(done.reason) + len(done.canonical) + sum(map(len, done.records))
        if cost > self._max_cost:
            return
        entries = self._entries
        old = entries.pop((kind, name), None)
        if old is not None:
            self.cost -= old.cost
        expires_s = self._clock() + ttl_s
        entries[kind, name] = _Entry(
            expires_s, cost, done.status, done.records, done.secure, done.reason, done.canonical
        )
        self.cost += cost
        while len(entries) > self._max_entries or self.cost > self._max_cost:
            _, oldest = entries.popitem(last=False)
            self.cost -= oldest.cost
