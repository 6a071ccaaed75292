"""How many connections each client has opened within the last minute, where a table sets a rate.

A ring of twelve counters of five seconds for each client: bounded memory, no list of times. Each receiver counts for itself.
The clients that came first are forgotten first when there are too many; the clock is given.
"""

from __future__ import annotations

from collections import OrderedDict

from gatepost.roles.clients import client_key

WINDOW_S = 60.0
SLOTS = 12
MAX_CLIENTS = 100_000


class ClientRates:
    """Connections of the last minute by client."""

    __slots__ = ("_clients", "_most", "_slot_s")

    def __init__(self, most: int = MAX_CLIENTS, window_s: float = WINDOW_S) -> None:
        self._slot_s = window_s / SLOTS
        self._clients: OrderedDict[str, tuple[int, list[int]]] = OrderedDict()
        self._most = most

    def enter(self, address: str, now_s: float) -> int:
        """One more connection; returns how many there were within the window, a minute, this one included."""
        key = client_key(address)
        slot = int(now_s / self._slot_s)
        last, counts = self._clients.pop(key, (slot, [0] * SLOTS))
        for passed in range(last + 1, min(slot, last + SLOTS) + 1):
            counts[passed % SLOTS] = 0
        counts[slot % SLOTS] += 1
        self._clients[key] = (slot, counts)
        if len(self._clients) > self._most:
            self._clients.popitem(last=False)
        return sum(counts)
