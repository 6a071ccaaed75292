"""The masquerade guard: notices that a trusted address is in truth the world behind NAT or a proxy, and suspends its trust.

One host names itself in one way and writes for its own people. An address that greets with many names and brings mail of many
outside senders for outside recipients is a door for strangers; our own gateway or bridge address is one all the sooner. Nothing here
gives a right: it only takes one away, for a time, with 450. Clock and surroundings are given; memory is bounded.
Not asked for clients without a relay right, nor for mail to our own domains.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection

import msgspec

from gatepost.config.schema import Policy
from gatepost.policy.verdict import Verdict

NAME = "masquerade"
WINDOW_S = 3600.0
MAX_NAME = 255

SUSPENDED = Verdict(
    450, "7.1", "Relaying for your address is suspended; the administrator of this gateway is told why", check=NAME
)


def rests_on_address(verdict: Verdict) -> bool:
    """Whether the right is one by address, which is what the guard watches."""
    permit = verdict.permit
    return permit.startswith("network ") or (bool(verdict.rule) and "(network " in permit)


class Suspicion(msgspec.Struct, frozen=True):
    """Why the trust in an address is suspended, and what to do."""

    address: str
    names: list[str]
    senders: list[str]
    kind: str  # "the default gateway of this host" ...; empty: nothing special
    until_s: float

    @property
    def advice(self) -> str:
        """What the operator should do."""
        what = f"{self.address} is {self.kind}" if self.kind else f"many clients seem to stand behind {self.address}"
        return (
            f"{what}: let it pass on the clients' own addresses, take it out of the networks that may relay, or, if all behind it are "
            'yours, write a [[relay.rules]] for it with expect_many = true and owner = "..."'
        )


class _Watched:
    __slots__ = ("began_s", "names", "senders")

    def __init__(self, began_s: float) -> None:
        self.began_s = began_s
        self.names: set[str] = set()
        self.senders: set[str] = set()


class MasqueradeGuard:
    """Of one receiver."""

    def __init__(
        self, policy: Policy, our_domains: Collection[str], kind_of: Callable[[str], str] = lambda address: ""
    ) -> None:
        self._most_names = policy.masquerade_names
        self._most_senders = policy.masquerade_senders
        self._suspend_s = policy.masquerade_suspend_s
        self._most_addresses = policy.masquerade_addresses
        self._ours = our_domains
        self._kind_of = kind_of
        self._watched: OrderedDict[str, _Watched] = OrderedDict()
        self._suspended: OrderedDict[str, float] = OrderedDict()

    def is_suspended(self, address: str, now_s: float) -> bool:
        """Whether this address may not relay at the moment."""
        until_s = self._suspended.get(address)
        if until_s is None:
            return False
        if now_s < until_s:
            return True
        del self._suspended[address]
        return False

    def observe(self, address: str, helo: str, reverse_path: str, now_s: float) -> Suspicion | None:
        """Note one recipient elsewhere; a Suspicion when the trust in the address has just been suspended."""
        watched = self._watched.get(address)
        if watched is None or now_s - watched.began_s > WINDOW_S:
            watched = self._watched[address] = _Watched(now_s)
            if len(self._watched) > self._most_addresses:
                self._watched.popitem(last=False)
        self._watched.move_to_end(address)
        domain = reverse_path.rpartition("@")[2].lower()
        is_news = False
        if helo not in watched.names and len(watched.names) < self._most_names:
            watched.names.add(helo[:MAX_NAME])
            is_news = True
        if (
            domain
            and domain not in self._ours
            and domain not in watched.senders
            and len(watched.senders) < self._most_senders
        ):
            watched.senders.add(domain[:MAX_NAME])
            is_news = True
        return self._judge(address, watched, now_s) if is_news else None

    def _judge(self, address: str, watched: _Watched, now_s: float) -> Suspicion | None:
        names, senders = len(watched.names), len(watched.senders)
        if names < 2 or senders < 2:
            return None
        kind = self._kind_of(address)
        share = 5 if kind else 1
        if names * share < self._most_names or senders * share < self._most_senders:
            return None
        del self._watched[address]
        self._suspended[address] = until_s = now_s + self._suspend_s
        if len(self._suspended) > self._most_addresses:
            self._suspended.popitem(last=False)
        return Suspicion(address, sorted(watched.names), sorted(watched.senders), kind, until_s)
