"""What the hosts of a next hop publish about TLS, asked for when the next hop is resolved: a `Plan` for each host.

The chain of RFC 7672 2.2: a host is asked for TLSA records only if its MX record and its addresses are secure (DNSSEC, the AD flag of a
resolver on loopback). DANE comes first, MTA-STS only for hosts without TLSA records (RFC 8461 2), then what the policy says, held
against what the domain once could (`remembered`).

Invariants: a look-up of TLSA that fails, or is bogus, keeps mail from that host, and never makes it less secure; nothing is asked for a
policy that needs no facts; nothing here connects. What a plan means is `tlspolicy.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from gatepost.delivery.dane import usable_records
from gatepost.delivery.tlspolicy import (
    ASK_DANE,
    ASK_STS,
    Plan,
    Policy,
    StsLookup,
    StsPolicy,
    TlsPolicies,
    facts_of,
    plan,
    plan_dane,
    plan_held,
    plan_refused,
    plan_sts,
)
from gatepost.ipc.messages import LookupDone
from gatepost.smtp.outgoing import Tls

MAX_VALID_S = 900.0

Lookup = Callable[[str, str], Awaitable[LookupDone]]


class HostFacts(NamedTuple):
    """Of a host, from the answers to the questions for its addresses."""

    port: int
    is_secure: bool  # they are secure, and so is what named the host
    canonical: str  # where its CNAME chain ended; empty: it is no alias
    is_named_securely: bool = True  # what named the host is secure: the MX record, or the operator


class TlsaFound(NamedTuple):
    """`status` is "found", "none" or "failed"."""

    status: str
    base: str = ""
    records: tuple[str, ...] = ()
    ttl_s: float = MAX_VALID_S
    reason: str = ""


_NONE = TlsaFound("none")


class Securing:
    """See the module. `remembered(domain)` says by what a domain was verified before, or nothing."""

    def __init__(
        self,
        lookup: Lookup,
        policies: TlsPolicies,
        *,
        sts: StsLookup | None = None,
        remembered: Callable[[str], str] = lambda domain: "",
        event: Callable[..., None] = lambda name, **fields: None,
    ) -> None:
        self._lookup = lookup
        self._policies = policies
        self._sts = sts
        self.remembered = remembered
        self._event = event

    async def sts_state(self, domain: str) -> str:
        """What a domain publishes by MTA-STS, in words."""
        found = await self._sts(domain) if self._sts is not None else None
        if found is None:
            return "none"
        more = f", for {', '.join(found.mx)} (id {found.id})" if found.mx else ""
        return found.mode + more + (f" ({found.failure})" if found.failure else "")

    async def plans(
        self, policy: Policy, domain: str, hosts: Mapping[str, HostFacts], alias: str = ""
    ) -> tuple[dict[str, Plan], float]:
        """A plan for each host, and for how many seconds they hold.

        `domain` is that of the MX hosts, empty for others; `alias` where it led to, if it is an alias itself.
        """
        found: dict[str, TlsaFound] = dict.fromkeys(hosts, _NONE)
        if policy.level in ASK_DANE:
            answers = await asyncio.gather(*(self.tlsa(host, facts) for host, facts in hosts.items()))
            found = dict(zip(hosts, answers, strict=True))
        sts: StsPolicy | None = None
        if (
            self._sts is not None
            and domain
            and policy.level in ASK_STS
            and any(f.status == "none" for f in found.values())
        ):
            sts = await self._sts(domain)
        plans = {host: self._plan(policy, (domain, alias), host, tlsa, sts) for host, tlsa in found.items()}
        plans = {host: way._replace(facts=facts_of(domain, host, way, sts)) for host, way in plans.items()}
        return plans, min([MAX_VALID_S, *(tlsa.ttl_s for tlsa in found.values())])

    async def tlsa(self, host: str, facts: HostFacts) -> TlsaFound:
        """The TLSA records of a host, at the end of its CNAME chain or else at its own name (RFC 7672 2.2.2, 2.2.3)."""
        bases = [facts.canonical or host]
        if facts.is_secure and facts.canonical:
            bases.append(host)
        elif not facts.is_secure:
            # RFC 7672 2.2.2: a secure alias that leads to where nothing is signed
            if not facts.is_named_securely:
                return _none("the MX record that names it is not secure (DNSSEC)")
            if not facts.canonical:
                return _none("its addresses are not secure (DNSSEC)")
            alias = await self._lookup("CNAME", host)
            if alias.status == "tempfail":
                return _failed(host, alias)
            if alias.status != "ok" or not alias.secure:
                return _none("its addresses are not secure (DNSSEC)")
            bases = [host]
        for base in bases:
            done = await self._lookup("TLSA", f"_{facts.port}._tcp.{base}")
            if done.status == "tempfail":
                return _failed(f"_{facts.port}._tcp.{base}", done)
            if done.status == "ok" and done.secure:
                return TlsaFound("found", base, tuple(done.records), float(done.ttl_s))
        return _none(f"it has no secure TLSA records (_{facts.port}._tcp.{bases[0]})")

    def _plan(self, policy: Policy, names: tuple[str, str], host: str, tlsa: TlsaFound, sts: StsPolicy | None) -> Plan:
        domain = names[0]
        if tlsa.status == "failed":
            return plan_refused(policy, host, tlsa.reason, "lookup")
        if tlsa.status == "found":
            records = usable_records(tlsa.records)
            if not records and policy.level == "dane-only":
                return plan_refused(policy, host, f"the TLSA records of {tlsa.base} cannot be used")
            return plan_dane(self._policies, host, names, tlsa.base, records)
        if sts is not None and sts.mode != "none":
            chosen = plan_sts(self._policies, policy, sts, host, domain)
        else:
            chosen = plan(policy, host, domain)
        if chosen.tls is Tls.IF_OFFERED and (remembered := self.remembered(domain or host)):
            self._event("tls_downgrade", host=host, domain=domain or host, remembered=remembered)
            return plan_held(chosen, remembered, domain or host)
        return chosen if chosen.why else chosen._replace(why=tlsa.reason)


def _none(reason: str) -> TlsaFound:
    return TlsaFound("none", reason=reason)


def _failed(name: str, done: LookupDone) -> TlsaFound:
    reason = f"the look-up of its TLSA records at {name} failed or is bogus ({done.reason or 'no answer'})"
    return TlsaFound("failed", ttl_s=float(max(done.ttl_s, 5)), reason=reason)
