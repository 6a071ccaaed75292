"""From a next-hop name to targets: asks for what `mx.py` needs, and holds fixed next hops against the same rules.

It only asks (`lookup` is given); what the answers mean is `mx.py`. Invariants: an IP address and "localhost" are never
looked up; a next hop fixed by the operator never fails a recipient because of the DNS, it defers.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable

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
from gatepost.ipc.messages import LookupDone
from gatepost.model import NextHopTrouble, Result
from gatepost.routing.nexthop import NextHop, parse_next_hop

MIN_VALID_S = 10.0
MAX_VALID_S = 900.0

Lookup = Callable[[str, str], Awaitable[LookupDone]]


class TargetResolver:
    """Resolves next-hop names; stateless but for its settings."""

    def __init__(self, config: Config, own_addresses: frozenset[str], lookup: Lookup) -> None:
        self._delivery = config.delivery
        names = {config.hostname.lower()}
        if config.smtp.banner_name:
            names.add(config.smtp.banner_name.lower())
        self._own_names = frozenset(names)
        self._own_addresses = own_addresses
        self._lookup = lookup

    async def resolve(self, name: str) -> tuple[list[Target], float] | RouteFailure:
        """The targets of a next hop, and for how many seconds they hold."""
        hops = parse_next_hop(name)
        if hops[0].kind == "mx":
            return await self._resolve_domain(hops[0].host)
        return await self._resolve_fixed(name, hops)

    async def _resolve_domain(self, domain: str) -> tuple[list[Target], float] | RouteFailure:
        literal = parse_literal(domain)
        if literal:
            hosts: list[MxHost] | RouteFailure = [MxHost(0, domain)]
            ttl_s = MAX_VALID_S
            addresses = {domain: self._literal_answers(literal)}
        else:
            done = await self._lookup("MX", domain)
            hosts = domain_hosts(domain, Answer(done.status, done.records), self._delivery.max_mx_hosts)
            if isinstance(hosts, RouteFailure):
                return hosts
            names = [host.name for host in hosts if host.name not in self._own_names]
            pairs = await asyncio.gather(*(self._addresses(host) for host in names))
            addresses = {host: answers for host, (answers, _) in zip(names, pairs, strict=True)}
            ttl_s = min([MAX_VALID_S, float(done.ttl_s), *(ttl for _, ttl in pairs)])
        assert not isinstance(hosts, RouteFailure)
        targets = mx_targets(
            domain,
            hosts,
            addresses,
            port=self._delivery.port,
            own_names=self._own_names,
            own_addresses=self._own_addresses,
            prefer_ipv6=self._delivery.prefer_ipv6,
            loopback=self._delivery.port != 25,  # the port of MX hosts is another only where everything is on loopback
        )
        if isinstance(targets, RouteFailure):
            return targets
        return targets, max(MIN_VALID_S, ttl_s)

    async def _resolve_fixed(self, name: str, hops: tuple[NextHop, ...]) -> tuple[list[Target], float] | RouteFailure:
        targets: list[Target] = []
        ttl_s = MAX_VALID_S
        loops = False
        for preference, hop in enumerate(hops):
            if hop.kind not in ("smtp", "lmtp"):
                return _deferred("4.3.5", f"the next hop {name} is not one to connect to")
            addresses, ttl = await self._fixed_addresses(hop.host)
            ttl_s = min(ttl_s, ttl)
            for address in addresses:
                if f"{address}:{hop.port}" in self._own_addresses or (
                    ":" in address and is_own(address, hop.port, self._own_addresses - {address})
                ):
                    loops = True
                else:
                    targets.append(Target(hop.host, address, hop.port, hop.kind == "lmtp", preference))
        if targets:
            return targets, max(MIN_VALID_S, ttl_s)
        if loops:
            return _deferred("4.4.6", f"the next hop {name} is this host itself")
        return _deferred("4.4.3", f"no address found for the next hop {name}")

    async def _fixed_addresses(self, host: str) -> tuple[list[str], float]:
        if host == "localhost":
            return ["127.0.0.1", "::1"], MAX_VALID_S
        try:
            return [str(ipaddress.ip_address(host))], MAX_VALID_S
        except ValueError:
            answers, ttl_s = await self._addresses(host)
            return host_addresses(answers, self._delivery.prefer_ipv6), ttl_s

    async def _addresses(self, host: str) -> tuple[tuple[Answer, Answer], float]:
        ipv4, ipv6 = await asyncio.gather(self._lookup("A", host), self._lookup("AAAA", host))
        ttls = [float(done.ttl_s) for done in (ipv4, ipv6) if done.status == "ok"]
        return (Answer(ipv4.status, ipv4.records), Answer(ipv6.status, ipv6.records)), min(ttls, default=MAX_VALID_S)

    @staticmethod
    def _literal_answers(address: str) -> tuple[Answer, Answer]:
        found, nothing = Answer("ok", (address,)), Answer("nodata", ())
        return (nothing, found) if ":" in address else (found, nothing)


def _deferred(status: str, text: str) -> RouteFailure:
    return RouteFailure(Result.DEFERRED, status, text, NextHopTrouble.DOWN)
