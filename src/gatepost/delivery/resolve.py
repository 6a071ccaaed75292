"""From a next-hop name to targets: asks for what `mx.py` needs, and holds fixed next hops against the same rules.

It only asks (`lookup` is given); what the answers mean is `mx.py`, and for TLS `securing.py`. Invariants: an IP address and "localhost" are never
looked up; a next hop fixed by the operator never fails a recipient because of the DNS, it defers.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping
from typing import NamedTuple

from gatepost.config.ours import find_domain
from gatepost.config.schema import Config
from gatepost.delivery.mx import (
    Answer,
    MxHost,
    RouteFailure,
    Target,
    domain_hosts,
    host_addresses,
    is_own,
    mx_targets,
    parse_literal,
)
from gatepost.delivery.securing import HostFacts, Lookup, Securing
from gatepost.delivery.tlspolicy import Plan, Policy
from gatepost.ipc.messages import LookupDone
from gatepost.model import NextHopTrouble, Result
from gatepost.routing.nexthop import NextHop, parse_next_hop

MIN_VALID_S = 10.0
MAX_VALID_S = 900.0

_NO_PLANS: Mapping[str, Plan] = {}


class Found(NamedTuple):
    """The targets of a next hop, for how many seconds they hold, and what TLS is to be to a host where more than the policy says so."""

    targets: list[Target]
    valid_s: float
    plans: Mapping[str, Plan] = _NO_PLANS


class Addresses(NamedTuple):
    """Of one host: IPv4 and IPv6, how long they hold, and whether DNSSEC says so."""

    answers: tuple[Answer, Answer]
    ttl_s: float
    is_secure: bool = False
    canonical: str = ""


class TargetResolver:
    """Resolves next-hop names; stateless but for its settings."""

    def __init__(self, config: Config, own_addresses: frozenset[str], lookup: Lookup, securing: Securing) -> None:
        self._config = config
        self._delivery = config.delivery
        names = {config.hostname.lower()}
        if config.smtp.banner_name:
            names.add(config.smtp.banner_name.lower())
        self._own_names = frozenset(names)
        self._own_addresses = own_addresses
        self._lookup = lookup
        self._securing = securing

    async def resolve(self, name: str, policy: Policy) -> Found | RouteFailure:
        """Where mail for a next hop goes under a TLS policy."""
        hops = parse_next_hop(name)
        if hops[0].kind == "mx":
            is_backup = self._is_backup(hops[0].host)
            found = await self._resolve_domain(hops[0].host, policy, is_backup)
            if is_backup and isinstance(found, RouteFailure) and found.result is Result.FAILED:
                # A domain of ours: its DNS is mended sooner than its mail comes a second time.
                return _deferred(f"4{found.status[1:]}", found.text)
            return found
        return await self._resolve_fixed(name, hops, policy)

    def _is_backup(self, domain: str) -> bool:
        ours = find_domain(self._config, domain)[1]
        return ours is not None and ours.backup_mx

    async def _resolve_domain(self, domain: str, policy: Policy, is_backup: bool) -> Found | RouteFailure:
        literal = parse_literal(domain)
        if literal:
            hosts: list[MxHost] | RouteFailure = [MxHost(0, domain)]
            ttl_s = MAX_VALID_S
            is_secure = False
            known = {domain: Addresses(self._literal_answers(literal), MAX_VALID_S)}
        else:
            done = await self._lookup("MX", domain)
            hosts = domain_hosts(domain, Answer(done.status, done.records), self._delivery.max_mx_hosts)
            if isinstance(hosts, RouteFailure):
                return hosts
            names = [host.name for host in hosts if host.name not in self._own_names]
            is_secure = done.secure
            known = dict(zip(names, await asyncio.gather(*map(self._addresses, names)), strict=True))
            ttl_s = min([MAX_VALID_S, float(done.ttl_s), *(found.ttl_s for found in known.values())])
        assert not isinstance(hosts, RouteFailure)
        targets = mx_targets(
            domain,
            hosts,
            {host: found.answers for host, found in known.items()},
            port=self._delivery.port,
            own_names=self._own_names,
            own_addresses=self._own_addresses,
            prefer_ipv6=self._delivery.prefer_ipv6,
            is_backup=is_backup,
            loopback=self._delivery.port != 25,  # the port of MX hosts is another only where everything is on loopback
        )
        if isinstance(targets, RouteFailure):
            return targets
        if literal or not policy.asks(True):
            return Found(targets, max(MIN_VALID_S, ttl_s))
        facts = {
            target.name: HostFacts(
                target.port, is_secure and known[target.name].is_secure, known[target.name].canonical, is_secure
            )
            for target in targets
        }
        return await self._secured(policy, domain, targets, ttl_s, facts, done.canonical)

    async def _secured(
        self,
        policy: Policy,
        domain: str,
        targets: list[Target],
        ttl_s: float,
        facts: dict[str, HostFacts],
        alias: str = "",
    ) -> Found:
        plans, plans_ttl_s = await self._securing.plans(policy, domain, facts, alias)
        return Found(targets, max(MIN_VALID_S, min(ttl_s, plans_ttl_s)), plans)

    async def _resolve_fixed(self, name: str, hops: tuple[NextHop, ...], policy: Policy) -> Found | RouteFailure:
        targets: list[Target] = []
        facts: dict[str, HostFacts] = {}
        ttl_s = MAX_VALID_S
        loops = False
        for preference, hop in enumerate(hops):
            if hop.kind not in ("smtp", "lmtp"):
                return _deferred("4.3.5", f"the next hop {name} is not one to connect to")
            known = await self._fixed_addresses(hop.host)
            ttl_s = min(ttl_s, known.ttl_s)
            facts[hop.host] = HostFacts(hop.port, known.is_secure, known.canonical)
            for address in host_addresses(known.answers, self._delivery.prefer_ipv6):
                if f"{address}:{hop.port}" in self._own_addresses or (
                    ":" in address and is_own(address, hop.port, self._own_addresses - {address})
                ):
                    loops = True
                else:
                    targets.append(Target(hop.host, address, hop.port, hop.kind == "lmtp", preference))
        if targets:
            if policy.asks(False):
                return await self._secured(policy, "", targets, ttl_s, facts)
            return Found(targets, max(MIN_VALID_S, ttl_s))
        if loops:
            return _deferred("4.4.6", f"the next hop {name} is this host itself")
        return _deferred("4.4.3", f"no address found for the next hop {name}")

    async def _fixed_addresses(self, host: str) -> Addresses:
        if host == "localhost":
            return Addresses((Answer("ok", ("127.0.0.1",)), Answer("ok", ("::1",))), MAX_VALID_S)
        try:
            return Addresses(self._literal_answers(str(ipaddress.ip_address(host))), MAX_VALID_S)
        except ValueError:
            return await self._addresses(host)

    async def _addresses(self, host: str) -> Addresses:
        ipv4, ipv6 = await asyncio.gather(self._lookup("A", host), self._lookup("AAAA", host))
        good: list[LookupDone] = [done for done in (ipv4, ipv6) if done.status == "ok"]
        return Addresses(
            (Answer(ipv4.status, ipv4.records), Answer(ipv6.status, ipv6.records)),
            min([float(done.ttl_s) for done in good], default=MAX_VALID_S),
            bool(good) and all(done.secure for done in good),
            good[0].canonical if good else "",
        )

    @staticmethod
    def _literal_answers(address: str) -> tuple[Answer, Answer]:
        found, nothing = Answer("ok", (address,)), Answer("nodata", ())
        return (nothing, found) if ":" in address else (found, nothing)


def _deferred(status: str, text: str) -> RouteFailure:
    return RouteFailure(Result.DEFERRED, status, text, NextHopTrouble.DOWN)
