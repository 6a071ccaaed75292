"""`gatepost tls show`: what would be used towards a destination, host by host, and why. Asks what a delivery would ask; connects to nothing."""

from __future__ import annotations

from typing import Any

from gatepost.config.schema import Dns
from gatepost.delivery.demands import Demands
from gatepost.delivery.mx import RouteFailure
from gatepost.delivery.resolve import TargetResolver
from gatepost.delivery.securing import Lookup, Securing
from gatepost.delivery.tlspolicy import ASK_DANE, ASK_STS, MX_ONLY, Plan, Policy, plan
from gatepost.smtp.outgoing import Tls

_IN_WORDS = {Tls.NEVER: "never", Tls.IF_OFFERED: "if offered", Tls.ALWAYS: "always"}


async def show_destination(
    domain: str,
    next_hop: str,
    policy: Policy,
    resolver: TargetResolver,
    securing: Securing,
    lookup: Lookup,
    dns: Dns,
    demands: Demands | None = None,
) -> dict[str, Any]:
    """Everything that `gatepost tls show --json` prints."""
    is_mx = next_hop.startswith("mx:")
    mx_domain = next_hop.removeprefix("mx:") if is_mx else ""
    shown: dict[str, Any] = {
        "domain": domain,
        "next_hop": next_hop,
        "policy": {"level": policy.level, "row": policy.key.removeprefix("#") if policy.key else "tls.outbound"},
        "dane": await dane_state(lookup, dns.probe) if policy.level in ASK_DANE else "the policy does not ask for it",
        "mta_sts": await securing.sts_state(mx_domain)
        if policy.level in ASK_STS and is_mx
        else "the policy does not ask for it",
        "remembered": securing.remembered(mx_domain or domain),
        "hosts": [],
        "problem": "",
    }
    found = await resolver.resolve(next_hop, policy)
    if isinstance(found, RouteFailure):
        shown["problem"] = f"{found.status} {found.text}"
        return shown
    hosts: dict[str, list[str]] = {}
    for target in found.targets:
        hosts.setdefault(target.name, []).append(f"{target.address}:{target.port}")
    for host, addresses in hosts.items():
        way = found.plans.get(host) or plan(policy, host, mx_domain)
        if policy.level in MX_ONLY and not is_mx:
            way = way._replace(why="what a next hop that the configuration names may publish is not asked for")
        if demands is not None:
            way = demands.raised(policy, way, host, addresses[0].rpartition(":")[0])
        shown["hosts"].append({"host": host, "addresses": addresses, **_of_plan(way)})
    return shown


def _of_plan(way: Plan) -> dict[str, Any]:
    return {
        "level": way.level,
        "tls": "not used" if way.problem is not None else _IN_WORDS[way.tls],
        "verified": way.is_verified,
        "server_name": way.server_name or "",
        "why": way.why,
        "records": [str(record) for record in way.dane.records] if way.dane is not None else [],
    }


async def dane_state(lookup: Lookup, probe: str) -> str:
    """Whether DANE is in effect, in words."""
    if not probe:
        return "not known: dns.probe is empty"
    done = await lookup("SOA", probe)
    if done.status == "tempfail":
        return f"not in effect: {probe} cannot be looked up ({done.reason})"
    if done.secure:
        return "in effect"
    return f"not in effect: the resolver does not say that {probe} is validated, or is not believed (dns.trust_ad)"
