"""Tables of a resolver: those of sources (`tables.py`), and next hops that the deliverer asks for recipients (`delivery/callahead.py`).

The resolver is the one who has recipients asked for, for all receivers: a question under way is asked once, and a snapshot of what was
found last (`snapshot.py`) answers while nobody does. Which deliverer asks a next hop is always the same, so that limits hold for all.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from gatepost.config.callahead import PREFIX, call_ahead_tables
from gatepost.config.schema import Config
from gatepost.delivery.callahead import DEFERRED, KNOWN
from gatepost.ipc import messages as m
from gatepost.ipc.wire import Channel
from gatepost.roles.snapshot import Snapshot
from gatepost.routing.answers import is_askable

if TYPE_CHECKING:
    from gatepost.roles.tables import Tables

MAX_UNDER_WAY = 4096
WAIT_S = 38.0  # longer than any question of a deliverer; below the limit of a decision (asking.py)
LINK_WAIT_S = 10.0  # for a deliverer, at a start or when it died: as long as the longest delay of a restart
MAX_KEYS = 64  # of one question
NO_KEY = "keys that no server could have"
NOBODY = "no deliverer is there to ask"

Answered = Callable[[list[str | None], str], None]


class _Ask:
    """A question under way, and who waits for it: `call(value, failed)`."""

    __slots__ = ("channel", "number", "timer", "waiting")

    def __init__(self, number: int) -> None:
        self.number = number
        self.channel: Channel | None = None  # nobody yet
        self.timer: Any = None
        self.waiting: list[Callable[[str | None, str], None]] = []


class CallAheadAsker:
    """Of one resolver. `deliverers` gives the links to those of this generation."""

    def __init__(self, config: Config, loop: Any, deliverers: Callable[[], list[Channel]]) -> None:
        self._tables = frozenset(call_ahead_tables(config))
        self._loop = loop
        self._deliverers = deliverers
        self._numbers = count(1)
        self._by_key: dict[tuple[str, str], _Ask] = {}
        self._by_number: dict[int, tuple[str, str]] = {}
        self.taking_all: set[str] = set()  # addresses' domains at tables whose host takes everything
        self.counts = {"call_aheads": 0, "call_aheads_failed": 0}

    def ask(self, table: str, address: str, answered: Callable[[str | None, str], None]) -> None:
        """Ask, or join who asks already; `answered(value, failed)` is called once."""
        key = (table, address)
        ask = self._by_key.get(key)
        if ask is None:
            if table not in self._tables or len(self._by_key) >= MAX_UNDER_WAY:
                why = f"{table} is not in the configuration" if table not in self._tables else ""
                answered(None, why or "too many questions are under way")
                return
            ask = self._by_key[key] = _Ask(next(self._numbers))
            self._by_number[ask.number] = key
            self._post(key, ask)
        ask.waiting.append(answered)

    def linked(self) -> None:
        """A deliverer is there: what waits for one is asked."""
        for key, ask in list(self._by_key.items()):
            if ask.channel is None:
                ask.timer.cancel()
                self._post(key, ask)

    def _post(self, key: tuple[str, str], ask: _Ask) -> None:
        channels = sorted(self._deliverers(), key=lambda channel: channel.peer)
        if not channels:
            ask.timer = self._loop.call_later(LINK_WAIT_S, self._end, ask.number, None, NOBODY)
            return
        table, address = key
        place = f"{table} {address.rpartition('@')[2]}"
        ask.channel = channels[zlib.crc32(place.encode()) % len(channels)]
        ask.timer = self._loop.call_later(WAIT_S, self._end, ask.number, None, "the deliverer does not answer")
        self.counts["call_aheads"] += 1
        ask.channel.post(m.CallAhead(ask.number, table, address))

    def answered(self, message: m.CallAheadDone) -> None:
        """A deliverer's answer."""
        key = self._by_number.get(message.query)
        if key is None:
            return
        place = f"{key[0]} {key[1].rpartition('@')[2]}"
        if message.status == DEFERRED:
            self._end(message.query, None, message.text or "no answer")
            return
        if message.takes_all:
            self.taking_all.add(place)
        else:
            self.taking_all.discard(place)
        self._end(message.query, message.text or "250" if message.status == KNOWN else None, "")

    def lost(self, peer: tuple[str, int, int]) -> None:
        """A deliverer is gone, and what it was asked with it."""
        asked = [ask for ask in self._by_key.values() if ask.channel is not None and ask.channel.peer == peer]
        for number in [ask.number for ask in asked]:
            self._end(number, None, "the deliverer ended before it answered")

    def _end(self, number: int, value: str | None, failed: str) -> None:
        key = self._by_number.pop(number, None)
        if key is None:
            return
        ask = self._by_key.pop(key)
        ask.timer.cancel()
        self.counts["call_aheads_failed"] += bool(failed)
        for call in ask.waiting:
            call(value, failed)

    def takes_all(self, table: str, address: str) -> bool:
        """Whether a yes of this host says nothing."""
        return f"{table} {address.rpartition('@')[2]}" in self.taking_all


class Existence:
    """Every table that a resolver answers for."""

    def __init__(self, tables: Tables | None, asker: CallAheadAsker, snapshot: Snapshot) -> None:
        self._tables = tables
        self._asker = asker
        self._snapshot = snapshot

    def submit(self, table: str, keys: list[str], answered: Answered) -> None:
        """Ask a table, with the snapshot behind it; `answered(values, failed)` is called once."""
        if len(keys) > MAX_KEYS or not all(map(is_askable, keys)):  # the roles that ask know that
            answered([], NO_KEY)
            return
        answered = self._snapshot.behind(table, keys, answered)
        if table.startswith(PREFIX):
            self._ask_ahead(table, keys, answered)
        elif self._tables is None:
            answered([], f"there is no source for {table}")
        else:
            self._tables.submit(table, keys, answered)

    def _ask_ahead(self, table: str, keys: list[str], answered: Answered) -> None:
        found: dict[str, tuple[str | None, str]] = {}

        def take(key: str, value: str | None, failed: str) -> None:
            found[key] = value, failed
            if len(found) == len(set(keys)):
                why = next((failed for _, failed in found.values() if failed), "")
                answered([] if why else [found[key][0] for key in keys], why)

        for key in dict.fromkeys(keys):
            self._asker.ask(table, key, partial(take, key))
        if not keys:
            answered([], "")
