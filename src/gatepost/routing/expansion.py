"""One address that stands for several: aliases, nested and with owners, and virtual addresses with several targets. Pure.

An alias is asked for in the domains of `alias_domains`, its targets again, until addresses are left that stand for no other. Each is
there once. Targets that do not exist are left out and told, as long as one is left: the client is a stranger to them, and a DSN
to a forged sender would be backscatter. An address that leads back to itself over another is a loop, and refused with its chain; one
that names itself directly means its mailbox. Members of an alias with an `owner-` get that as their reverse-path.

Invariant: what comes out is bounded by `limit`, and the depth by MAX_DEPTH, whatever the tables say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from gatepost.config.nexthop import DISCARD
from gatepost.config.recipients import fold_local
from gatepost.model import Address, NeedsAnswer, Question
from gatepost.routing.route import Expansion, Refusal, Route

if TYPE_CHECKING:
    from gatepost.routing.tables.lookups import Lookups

MAX_DEPTH = 20
OWNER = "owner-"
LOOP_TEXT = "The address leads in a circle; tell the postmaster of this site"
TOO_MANY_TEXT = "The address stands for too many others; tell the postmaster of this site"
NOBODY = Refusal(550, "1.1", "Nobody is behind this address any more; tell the postmaster of this site")

OursOf = Callable[[str], Any]  # domain -> the router's entry for it, or None
End = Callable[[Any, Address, str], Route | Refusal]  # where an address of ours leads that stands for no other


class _Walk:
    """One expansion under way."""

    __slots__ = ("lines", "routes", "skipped")

    def __init__(self) -> None:
        self.routes: dict[tuple[str, str], Route] = {}
        self.lines: list[str] = []
        self.skipped: list[str] = []


class Expander:
    """Of one router; `domains` are those with aliases."""

    __slots__ = ("_domains", "_end", "_limit", "_lookups", "_ours_of", "_outside")

    def __init__(
        self,
        lookups: Lookups,
        domains: list[str],
        limit: int,
        ours_of: OursOf,
        end: End,
        outside: Callable[[str, str, str], Route | Refusal],
    ) -> None:
        self._lookups = lookups
        self._domains = frozenset(domains)
        self._limit = limit
        self._ours_of = ours_of
        self._end = end
        self._outside = outside

    def find(self, key: str, domain: str) -> tuple[str, str] | None:
        """The targets of an alias and its owner ("" if it has none); None: there is no such alias. Raises TableUnavailable."""
        if domain not in self._domains:
            return None
        name, targets = self._lookups.alias(key, domain)
        if targets is None:
            return None
        owner = "" if name.startswith(OWNER) else OWNER + name
        has_owner = bool(owner) and self._lookups.alias(owner, domain)[1] is not None
        return targets, f"{owner}@{domain}" if has_owner else ""

    def expand(self, key: str, domain: str, targets: str, owner: str) -> Route | Refusal:
        """The route of an address that stands for `targets`; several are in its `expansion`. Raises TableUnavailable."""
        walk = _Walk()
        refusal = self._targets(walk, targets, domain, owner, (f"{key}@{domain}",))
        if refusal is not None:
            return refusal
        routes = tuple(walk.routes.values())
        if not routes:
            return msgspec.structs.replace(NOBODY, cause="; ".join(walk.skipped)[:1000])
        found = Expansion(routes, tuple(walk.lines), tuple(walk.skipped))
        hold = next((route.hold for route in routes if route.hold), "")
        return msgspec.structs.replace(routes[0], ours=True, hold=hold, expansion=found)

    def _targets(self, walk: _Walk, targets: str, domain: str, owner: str, chain: tuple[str, ...]) -> Refusal | None:
        walk.lines.append(f"{chain[-1]} -> {targets}" + (f" (reverse-path {owner})" if owner else ""))
        if len(chain) > MAX_DEPTH:
            return Refusal(550, "4.6", LOOP_TEXT, " -> ".join(chain))
        missing: list[Sequence[Question]] = []
        for target in targets.split(", "):
            try:
                refusal = self._one(walk, target, domain, owner, chain)
            except NeedsAnswer as needed:  # all are asked at once: a list would else wait for each member in turn
                missing += needed.groups
                if len(missing) >= self._limit:
                    break
                continue
            if refusal is not None:
                return refusal
            if len(walk.routes) > self._limit:
                cause = f"{chain[0]} stands for more than {self._limit} addresses"
                return Refusal(550, "2.4", TOO_MANY_TEXT, cause)
        if missing:
            raise NeedsAnswer(*missing)
        return None

    def _one(self, walk: _Walk, target: str, domain: str, owner: str, chain: tuple[str, ...]) -> Refusal | None:
        if target == DISCARD:
            self._add(walk, Route(DISCARD, domain, True, chain[-1]), chain[-1], owner)
            return None
        plain = target.removeprefix("\\")
        is_last = plain is not target and plain != target
        local, at, at_domain = plain.rpartition("@")
        if not at:
            local, at_domain = plain, domain
        key = fold_local(local)
        address = f"{key}@{at_domain}"
        ours = self._ours_of(at_domain)
        if ours is None:
            return self._take(walk, self._outside(local, at_domain, f"{local}@{at_domain}"), address, owner)
        if not is_last and address in chain[:-1]:
            return Refusal(550, "4.6", LOOP_TEXT, " -> ".join((*chain, address)))
        if not is_last and address != chain[-1]:
            new = self._lookups.virtual(key, at_domain, local) if self._lookups.has_virtual else None
            if new is not None and new != address and not new.startswith("error:"):
                return self._targets(walk, new, at_domain, owner, (*chain, address))
            alias = self.find(key, at_domain)
            if alias is not None:
                return self._targets(walk, alias[0], at_domain, alias[1] or owner, (*chain, address))
        written = f"{local}@{at_domain}"
        return self._take(walk, self._end(ours, Address(written, local, at_domain), at_domain), address, owner)

    def _take(self, walk: _Walk, found: Route | Refusal, address: str, owner: str) -> Refusal | None:
        if isinstance(found, Refusal):
            if found.code < 500:
                return found
            walk.skipped.append(f"{address}: {found.text}")
            return None
        self._add(walk, found, address, owner)
        return None

    @staticmethod
    def _add(walk: _Walk, route: Route, address: str, owner: str) -> None:
        known = msgspec.structs.replace(route, ours=True, reverse_path=owner, address=route.address or address)
        walk.routes.setdefault((address, "" if route.next_hop != DISCARD else DISCARD), known)
