"""`call-ahead:WHERE` among the recipients of a domain: which next hop is asked whether a recipient exists.

WHERE is "next-hop", that of the domain, or hosts to ask instead: "call-ahead:smtp://10.0.0.5:25". It stands among recipients of our own
domains and nowhere else, so that nobody outside can be asked. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gatepost.config.errors import Findings
from gatepost.config.nexthop import POOL, NextHopError, canonical, parse_next_hop, split_hold
from gatepost.config.ours import find_domain
from gatepost.config.schema import Config
from gatepost.config.values import InvalidValue

PREFIX = "call-ahead:"
OWN = "call-ahead:next-hop"
_ASKABLE = ("smtp", "lmtp", "mx", "pool")


def parse_call_ahead(text: str) -> str:
    """The canonical name of a table; raises InvalidValue."""
    where = text.removeprefix(PREFIX)
    if where == "next-hop":
        return OWN
    advice = f'write "{OWN}", or a host such as "call-ahead:smtp://10.0.0.5:25"'
    try:
        hops = parse_next_hop(where)
    except NextHopError as error:
        raise InvalidValue(f'"{text}" names nobody to ask: {error.problem}', advice) from None
    if hops[0].kind not in ("smtp", "lmtp"):
        raise InvalidValue(f'"{text}" names nobody to ask', advice)
    return PREFIX + canonical(hops)


def call_ahead_tables(config: Config) -> list[str]:
    """Every such table of a configuration, once."""
    names = (entry for domain in config.domains.values() for entry in domain.recipients or ())
    return list(dict.fromkeys(entry for entry in names if entry.startswith(PREFIX)))


def place_to_ask(config: Config, table: str, domain: str) -> str:
    """The next hop that is asked about a recipient in `domain`; empty: the configuration says nothing of the kind."""
    name, ours = find_domain(config, domain)
    if ours is None or table not in (ours.recipients or ()):
        return ""
    if table != OWN:
        return table.removeprefix(PREFIX)
    next_hop = split_hold(",".join(ours.next_hop))[1]
    if next_hop.startswith(POOL):
        pool = config.pools.get(next_hop.removeprefix(POOL))
        members = sorted(pool.members, key=lambda member: member.priority) if pool is not None else []
        return ",".join(member.next_hop for member in members)
    return f"mx:{domain}" if next_hop in ("mx", f"mx:{name}") else next_hop


def check_call_ahead(values: Mapping[str, Any], findings: Findings) -> None:
    """Whether there is somebody to ask."""
    domains = values.get("domains")
    for name, domain in domains.items() if isinstance(domains, dict) else ():
        hops = domain.get("next_hop") or []
        if OWN not in (domain.get("recipients") or ()) or not hops:
            continue
        place = split_hold(",".join(hops))[1]
        kind = parse_next_hop(place)[0].kind if place else "hold"
        if kind not in _ASKABLE:
            problem = f"the next hop of {name} is no host that can be asked for recipients"
            findings.add(
                ("domains", name, "recipients"),
                problem,
                'write "call-ahead:smtp://HOST:25" for the host that knows them',
            )
