"""What `[pools.NAME]` must be, and that every `pool:NAME` names one. Pools do not hold pools, so they cannot run in circles."""

from __future__ import annotations

from collections.abc import Iterator

from gatepost.config.errors import Findings, KeyPath
from gatepost.config.nexthop import HOLD, POOL, NextHopError, canonical, parse_next_hop, parse_pool_name
from gatepost.config.tables import TableData
from gatepost.config.values import InvalidValue

MAX_MEMBERS = 100


def parse_member(text: str) -> str:
    """The canonical next hop of a member: one host."""
    hops = parse_next_hop(text)
    if len(hops) != 1 or hops[0].kind not in ("smtp", "lmtp"):
        raise NextHopError(f'"{text}" is not one host', 'write "smtp://HOST:PORT", and a member for each host')
    return canonical(hops)


def check_pools(values: dict[str, object], tables: dict[str, TableData], findings: Findings) -> None:
    """Note what is wrong with pools, and next hops of pools that are not there."""
    pools = values.get("pools")
    names = set(pools) if isinstance(pools, dict) else set()
    for name, pool in pools.items() if isinstance(pools, dict) else ():
        here: KeyPath = ("pools", name)
        try:
            if parse_pool_name(name) != name:
                findings.add(here, f'the name "{name}" holds capital letters', f"write [pools.{name.lower()}]")
        except InvalidValue as error:
            findings.add(here, error.problem, error.advice)
        members = [member.get("next_hop") for member in pool.get("members") or ()]
        if not members:
            findings.add(here, "the pool has no members", f"add [[pools.{name}.members]] with next_hop")
        if len(members) > MAX_MEMBERS:
            findings.add(here, f"the pool has more than {MAX_MEMBERS} members", "name an MX domain instead: mx:DOMAIN")
        for index, member in enumerate(members):
            if member is not None and member in members[:index]:
                findings.add((*here, "members", index), f'"{member}" is a member already', "raise its weight instead")
    for path, hop in _named(values):
        _check(hop, names, path, findings)
    for key, data in tables.items():
        if key.startswith(("routes ", "sender_routes ")):
            for value in {*data.entries.values(), *(rule[-1] for rule in data.rules)}:
                _check(value, names, (key.partition(" ")[0],), findings)


def _check(hop: object, names: set[str], path: KeyPath, findings: Findings) -> None:
    name = str(hop).removeprefix(HOLD)
    if name.startswith(POOL) and name.removeprefix(POOL) not in names:
        missing = name.removeprefix(POOL)
        advice = f"add [[pools.{missing}.members]] with next_hop for each host"
        findings.add(path, f'there is no pool "{missing}"', advice)


def _named(values: dict[str, object]) -> Iterator[tuple[KeyPath, object]]:
    domains = values.get("domains")
    for name, domain in domains.items() if isinstance(domains, dict) else ():
        for hop in domain.get("next_hop") or ():
            yield ("domains", name, "next_hop"), hop
    relay = values.get("relay")
    if isinstance(relay, dict):
        for hop in relay.get("next_hop") or ():
            yield ("relay", "next_hop"), hop
        for index, rule in enumerate(relay.get("rules") or ()):
            for hop in rule.get("next_hop") or ():
                yield ("relay", "rules", index, "next_hop"), hop
