"""How many connections each client has: one count per IPv4 address and per IPv6 /64, which is what one IPv6 client has."""

from __future__ import annotations


class ClientCounts:
    """Counts of open connections."""

    __slots__ = ("_counts", "total")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self.total = 0

    def enter(self, address: str) -> int:
        """One more connection of this client; returns how many it has now."""
        key = client_key(address)
        count = self._counts.get(key, 0) + 1
        self._counts[key] = count
        self.total += 1
        return count

    def leave(self, address: str) -> None:
        key = client_key(address)
        count = self._counts[key] - 1
        if count:
            self._counts[key] = count
        else:
            del self._counts[key]
        self.total -= 1


def client_key(address: str) -> str:
    """The address itself, or the /64 of an IPv6 address."""
    if ":" not in address:
        return address
    head, gap, tail = address.partition("::")
    groups = head.split(":") if head else []
    if gap:
        after = tail.split(":") if tail else []
        groups += ["0"] * (8 - len(groups) - len(after)) + after
    return ":".join(groups[:4])
