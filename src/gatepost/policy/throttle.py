"""Guessing passwords: failures are counted by address and by user, each costs more time than the last, many cost a time out.

Pure but for its clock, which is given. An attempt counts as a failure from its begin until it has succeeded, so that many at once
are no more than many in a row; a success takes back its own attempt only, so that nobody wipes guesses away with an account of
his own. Bounded: the entries not used for longest are forgotten first. Each receiver counts for itself.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable

KNOWN_PAIRS = 10_000


class _Count:
    __slots__ = ("failures", "last_s")

    def __init__(self) -> None:
        self.failures = 0
        self.last_s = 0.0


class Throttle:
    """Counters of one receiver. A user is locked for strangers only: where he logged in before, he still can."""

    def __init__(
        self,
        *,
        max_failures: int,
        lockout_s: float,
        delay_s: float,
        max_delay_s: float,
        max_entries: int,
        clock: Callable[[], float],
    ) -> None:
        self._max_failures = max_failures
        self._lockout_s = lockout_s
        self._delay_s = delay_s
        self._max_delay_s = max_delay_s
        self._max_entries = max_entries
        self._clock = clock
        self._addresses: OrderedDict[str, _Count] = OrderedDict()
        self._users: OrderedDict[str, _Count] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def begin(self, address: str, user: str) -> bool:
        """Whether this attempt may be made; one that may counts as failed until `succeeded`."""
        place = _network_of(address)
        by_address = self._count(self._addresses, place)
        by_user = self._count(self._users, user) if user else _Count()  # a token may name its user itself
        if by_address.failures >= self._max_failures:
            return False
        if by_user.failures >= self._max_failures and (place, user) not in self._known:
            return False
        now_s = self._clock()
        for count in (by_address, by_user):
            count.failures += 1
            count.last_s = now_s
        return True

    def delay_s(self, address: str, user: str) -> float:
        """How long the refusal of an attempt is held back."""
        failures = max(
            self._count(self._addresses, _network_of(address)).failures, self._count(self._users, user).failures
        )
        return min(self._max_delay_s, self._delay_s * 2.0 ** min(max(0, failures - 1), 30))

    def succeeded(self, address: str, user: str) -> None:
        """The attempt was a good one."""
        place = _network_of(address)
        self.withdraw(address, user)
        self._known[place, user] = None
        self._known.move_to_end((place, user))
        if len(self._known) > KNOWN_PAIRS:
            self._known.popitem(last=False)

    def withdraw(self, address: str, user: str) -> None:
        """The attempt came to no result: it says nothing of who made it."""
        for count in (self._count(self._addresses, _network_of(address)), self._count(self._users, user)):
            count.failures = max(0, count.failures - 1)

    @property
    def entries(self) -> int:
        """How many are remembered."""
        return len(self._addresses) + len(self._users)

    def _count(self, table: OrderedDict[str, _Count], key: str) -> _Count:
        count = table.get(key)
        if count is None:
            count = table[key] = _Count()
            if len(table) > self._max_entries:
                table.popitem(last=False)
        else:
            table.move_to_end(key)
            if count.failures and self._clock() - count.last_s > self._lockout_s:
                count.failures = 0
        return count


def _network_of(address: str) -> str:
    """What counts as one client: an IPv4 address, an IPv6 /64."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(int(parsed) >> 64)
