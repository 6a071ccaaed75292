"""Which TLS policy holds for a recipient domain at a next hop, and what it means for a connection.

Levels: "none", "opportunistic" (TLS if it is offered, nothing verified, clear text if it fails), "encrypt" (TLS always, nothing
verified), "verify" (TLS with a certificate that fits); and those that ask what the other side publishes: "dane", "dane-only", "sts",
"best" (DANE, else MTA-STS, else opportunistic). The first row of `[[tls.policies]]` that names the domain or the next hop holds, else
`tls.outbound`. What is published comes as facts: `securing.py` asks for them when a next hop is resolved, and makes a `Plan` for each host
with `plan_dane`, `plan_sts`, `plan_held`; a host without one of its own gets `plan`.

Invariant: only "none", "opportunistic" and what came to no more than that ever let a message travel in clear. Contexts are built before
the lock-in, but for those of DANE-TA (`HostDane`); nothing is read here. RFC 7435 (opportunistic security), RFC 6125 (names), RFC 7672, RFC 8461.
"""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from gatepost.config.credentialsfile import unruled_next_hops
from gatepost.config.schema import Config, TlsPolicy
from gatepost.config.tlsdemands import Demand, unmet
from gatepost.config.tlsvalues import SYSTEM_CA_FILE
from gatepost.delivery.dane import Tlsa, find_anchors, is_end_entity
from gatepost.model import TlsPeer
from gatepost.net.tls import TlsLayer, common_names, presented_chain, read_peer
from gatepost.net.tlscontext import CertificateError, new_anchored_context, new_client_context
from gatepost.smtp.outgoing import Problem, Tls

# What a session asks for where nothing more is known of its host.
_TLS_OF = {
    "none": Tls.NEVER,
    "opportunistic": Tls.IF_OFFERED,
    "encrypt": Tls.ALWAYS,
    "verify": Tls.ALWAYS,
    "best": Tls.IF_OFFERED,
    "dane": Tls.IF_OFFERED,
    "dane-only": Tls.ALWAYS,
    "sts": Tls.IF_OFFERED,
}
RELAXED = "!"  # at the end of the key of a relaxed policy
ASK_DANE = frozenset({"best", "dane", "dane-only"})
ASK_STS = frozenset({"best", "sts"})
PUBLISHED = frozenset({"best", "dane", "sts"})  # where the other side decides
MX_ONLY = frozenset({"best", "sts"})  # for a next hop that the operator has named they are "opportunistic"


class StsPolicy(NamedTuple):
    """What a domain publishes by MTA-STS (RFC 8461 3.2), as whoever fetched it gives it to `plan_sts`."""

    mode: str  # "enforce", "testing", "none"; "unknown": it cannot be said now whether there is one, so mail waits
    mx: tuple[str, ...]  # patterns: "mx.example.net", "*.example.net"
    id: str = ""
    lines: tuple[str, ...] = ()  # as a report quotes it (RFC 8460 4.4)
    # why it could not be renewed, or "none" why there is none to apply: a type of RFC 8460 4.3, a colon, words
    failure: str = ""


# by domain; None: it has no policy. It never raises, and is quick if cached.
StsLookup = Callable[[str], Awaitable[StsPolicy | None]]


class Policy:
    """A level with what it needs; one object for each row, so that it can be compared by identity."""

    __slots__ = ("context", "demand", "fingerprints", "is_relaxed", "key", "level", "names")

    def __init__(
        self,
        level: str,
        context: ssl.SSLContext,
        *,
        key: str = "",
        names: tuple[str, ...] = (),
        fingerprints: frozenset[str] = frozenset(),
    ) -> None:
        self.level = level
        self.context = context
        self.key = key  # tells pools of one next hop apart; empty for the general policy
        self.names = names
        self.fingerprints = fingerprints
        self.demand: Demand | None = None  # of the access table, for the recipients of these connections
        # For messages that do without what others publish; what comes of them says nothing in a TLS report.
        self.is_relaxed = key.endswith(RELAXED)

    @property
    def tls(self) -> Tls:
        """What a session asks for where nothing more is known of its host."""
        return _TLS_OF[self.level]

    @property
    def may_be_clear(self) -> bool:
        """Whether a message may travel without TLS, if nothing more is known of its host."""
        return self.tls is not Tls.ALWAYS

    def asks(self, is_mx: bool) -> bool:
        """Whether facts of the hosts are needed before a connection is made."""
        return self.level in ASK_DANE | ASK_STS if is_mx else self.level in ASK_DANE - MX_ONLY


class PolicyFacts(NamedTuple):
    """What was published, as a TLS report tells it (RFC 8460 4.2)."""

    kind: str  # "sts", "tlsa" or "no-policy-found"
    domain: str
    strings: tuple[str, ...] = ()
    trouble: str = ""  # what is wrong although mail goes: a result type, a colon, words


class Plan(NamedTuple):
    """What one connection does: a name to ask for (and to verify, if the context does), fingerprints of which one must fit."""

    context: ssl.SSLContext
    server_name: str | None
    fingerprints: frozenset[str]
    is_verified: bool
    tls: Tls = Tls.IF_OFFERED
    level: str = "opportunistic"  # what it came to; for events and `gatepost tls show`
    why: str = ""
    dane: HostDane | None = None
    problem: Problem | None = None  # the host is not to be used, and why
    trial: StsTrial | None = None
    facts: PolicyFacts | None = None
    demands: tuple[tuple[Demand, str], ...] = ()  # of the access table, each with the host it is held against

    @property
    def may_be_clear(self) -> bool:
        """Whether a message may travel without TLS."""
        return self.tls is not Tls.ALWAYS

    @property
    def is_published(self) -> bool:
        """Whether it is verified by what the other side publishes; worth remembering."""
        return self.is_verified and self.level in ("dane", "sts")

    def check(self, layer: TlsLayer) -> str:
        """What is wrong with the peer of a finished handshake, beyond what OpenSSL has verified; empty: nothing."""
        return self._check_peer(layer) or (self._check_demands(layer) if self.demands else "")

    def _check_demands(self, layer: TlsLayer) -> str:
        facts = layer.facts
        peer = read_peer(layer.object, facts) if facts is not None else None
        if peer is not None and self.is_verified and not peer.is_verified:  # by DANE or its fingerprint, not by OpenSSL
            peer = TlsPeer(peer.bits, True, True)
        for demand, host in self.demands:
            if lack := unmet(demand, peer, host):
                return f"{lack}: the access table demands it"
        return ""

    def _check_peer(self, layer: TlsLayer) -> str:
        if self.dane is not None:
            return self.dane.check(layer, self.context)
        if not self.fingerprints:
            return ""
        certificate = layer.peer_certificate()
        found = hashlib.sha256(certificate).hexdigest() if certificate else "none"
        return "" if found in self.fingerprints else f"certificate with the fingerprint {found} is not the one expected"


class StsTrial:
    """MTA-STS in testing mode at one host, while its plan holds: the certificate is verified once, and never needed (RFC 8461 5)."""

    __slots__ = ("_public", "why")

    def __init__(self, public: ssl.SSLContext | None) -> None:
        self._public = public
        self.why = ""  # what was wrong

    def context(self, unverified: ssl.SSLContext) -> ssl.SSLContext:
        """For the next connection."""
        return unverified if self.why or self._public is None else self._public

    def goes_on(self, used: ssl.SSLContext, why: str) -> bool:
        """Whether a handshake that failed is to be tried again without verifying."""
        if self.why or used is not self._public:
            return False
        self.why = why
        return True


class HostDane:
    """The TLSA records of one host while they hold, and the trust anchor by which its chain was verified.

    A certificate that matches by DANE-EE is known after one handshake. For DANE-TA the chain has to be verified: the first handshake shows
    it, a second one on a connection of its own trusts nothing but the certificates in it that the records name. `goes_on` says when.
    """

    __slots__ = ("_anchored", "base", "names", "records")

    def __init__(self, records: tuple[Tlsa, ...], base: str, names: tuple[str, ...]) -> None:
        self.records = records
        self.base = base  # TLSA base domain (RFC 7672 2.2.3)
        self.names = names  # reference identifiers for DANE-TA (RFC 7672 3.2.2)
        self._anchored: ssl.SSLContext | None = None

    def context(self, unverified: ssl.SSLContext) -> ssl.SSLContext:
        """For the next connection."""
        return self._anchored or unverified

    def check(self, layer: TlsLayer, used: ssl.SSLContext) -> str:
        """What is wrong with the peer of a finished handshake; empty: nothing."""
        if used.verify_mode is ssl.CERT_REQUIRED:
            return self._check_names(layer)
        chain = presented_chain(layer.object)
        if is_end_entity(self.records, chain):
            return ""
        if anchors := find_anchors(self.records, chain):
            try:
                self._anchored = new_anchored_context(anchors)
            except CertificateError as error:
                return str(error)
            return "the chain is yet to be verified by its TLSA records"
        return f"no certificate matches the TLSA records of {self.base}"

    def goes_on(self, used: ssl.SSLContext) -> bool:
        """Whether a connection that failed is to be made again at once: a trust anchor was found in it. At most once."""
        if used.verify_mode is not ssl.CERT_REQUIRED:
            return self._anchored is not None
        self._anchored = None  # it does not fit any more: the next connection looks for another
        return False

    def _check_names(self, layer: TlsLayer) -> str:
        facts = layer.facts
        found = [name[4:] for name in facts.peer_names if name.startswith("dns:")] if facts is not None else []
        found = found or common_names(layer.object)  # RFC 7672 3.2.3: only where there are no DNS names
        if any(is_fitting(pattern, name) for pattern in found for name in self.names):
            return ""
        return f"the certificate is for none of {', '.join(self.names)}"


class TlsPolicies:
    """The policies of one configuration."""

    def __init__(self, config: Config, authorities: Mapping[str, bytes]) -> None:
        """`authorities` are the contents of the files by path, not kept: they are a fifth of a megabyte. Raises CertificateError."""
        self._system = config.tls.ca_file or SYSTEM_CA_FILE
        self._verifying: dict[str, ssl.SSLContext] = {}
        self.unverified = new_client_context()
        self.careful = new_client_context(careful=True)  # for DANE: verified by us, not by OpenSSL
        if authorities.get(self._system):
            self._verifying_by(self._system, authorities)
        self.general = self._policy(TlsPolicy(level=config.tls.outbound), "", authorities)
        self._relaxed: dict[str, Policy] = {}
        self._domains: dict[str, tuple[int, Policy]] = {}
        self._below: dict[str, tuple[int, Policy]] = {}
        self._next_hops: dict[str, tuple[int, Policy]] = {}
        for number, row in enumerate(config.tls.policies):
            policy = self._policy(row, f"#{number + 1}", authorities)
            for domain in row.domains:
                where = self._below if domain.startswith(".") else self._domains
                where.setdefault(domain.removeprefix("."), (number, policy))
            for next_hop in row.next_hops:
                self._next_hops.setdefault(next_hop, (number, policy))
        verified = unruled_next_hops(config)  # a login goes only to who is known to be meant
        for next_hop in verified:
            policy = self._policy(TlsPolicy(level="verify"), "#login", authorities)
            self._next_hops.setdefault(next_hop, (len(config.tls.policies), policy))
        self._has_logins = bool(config.delivery.credentials)
        self.is_uniform = not config.tls.policies and not verified

    def of(self, next_hop: str, domain: str) -> Policy:
        """The policy for mail to a recipient domain at a next hop (canonical text)."""
        if self.is_uniform:
            return self.general
        best = self._next_hops.get(next_hop)
        if best is None and self._has_logins and "," in next_hop:
            best = next((self._next_hops[hop] for hop in next_hop.split(",") if hop in self._next_hops), None)
        found = self._domains.get(domain)
        if found is not None and (best is None or found[0] < best[0]):
            best = found
        rest = domain
        while self._below and "." in rest:
            rest = rest.partition(".")[2]
            found = self._below.get(rest)
            if found is not None and (best is None or found[0] < best[0]):
                best = found
        return best[1] if best is not None else self.general

    def relaxed(self, policy: Policy) -> Policy:
        """The policy for a message that says "TLS-Required: No" (RFC 8689 4.3): what others publish does not count, the operator's word does."""
        if policy.level not in PUBLISHED:
            return policy
        return self._relaxed.setdefault(policy.key, Policy("opportunistic", self.unverified, key=policy.key + RELAXED))

    def public_context(self) -> ssl.SSLContext | None:
        """Verifies by the authorities of `tls.ca_file`; None if they were not given to this role."""
        return self._verifying.get(self._system)

    def _verifying_by(self, path: str, authorities: Mapping[str, bytes]) -> ssl.SSLContext:
        if path not in self._verifying:
            self._verifying[path] = new_client_context(authorities=authorities[path], label=path)
        return self._verifying[path]

    def _policy(self, row: TlsPolicy, key: str, authorities: Mapping[str, bytes]) -> Policy:
        context = self.unverified
        if row.level == "verify" and not row.fingerprints:
            context = self._verifying_by(row.ca_file or self._system, authorities)
        return Policy(row.level, context, key=key, names=tuple(row.names), fingerprints=frozenset(row.fingerprints))


def plan(policy: Policy, host: str, mx_domain: str = "") -> Plan:
    """What a connection to `host` does by the policy alone; `mx_domain` is the domain whose MX host it is, empty if the operator named it.

    MX records are unauthenticated: without names in the policy the certificate must fit the domain itself, or the host if it
    lies within the domain. The operator's own names are held against the host, and the first stands if none fits.
    """
    name = host
    level = policy.level
    if level == "dane-only":
        return plan_refused(policy, host, "there are no TLSA records for it")
    if level == "verify":
        if policy.names:
            fitting = [pattern for pattern in policy.names if is_fitting(pattern, host)]
            plain = [pattern for pattern in policy.names if not pattern.startswith("*.")]
            name = host if fitting or not plain else plain[0]
            if not fitting and not plain:
                name = policy.names[0].removeprefix("*.")
        elif mx_domain and host != mx_domain and not host.endswith("." + mx_domain):
            name = mx_domain
    is_verified = level == "verify"
    asked = asked_for(name, is_verified)
    shown = level if level in ("none", "encrypt", "verify") else "opportunistic"
    return Plan(policy.context, asked, policy.fingerprints, is_verified, policy.tls, shown)


def plan_dane(policies: TlsPolicies, host: str, domains: Sequence[str], base: str, records: Sequence[Tlsa]) -> Plan:
    """For a host with secure TLSA records at `base`; without a usable one among them TLS is used and nothing verified (RFC 7672 2.2).

    `domains` are the names of the domain whose MX host it is: its own, and where that leads if it is an alias (RFC 7672 3.2.2).
    """
    nothing: frozenset[str] = frozenset()
    if not records:
        why = f"the TLSA records of {base} cannot be used"
        return Plan(policies.unverified, asked_for(base, False), nothing, False, Tls.ALWAYS, "encrypt", why)
    names = tuple(dict.fromkeys(name for name in (base, host, *domains) if name))
    found = HostDane(tuple(records), base, names)
    why = f"TLSA records of {base}"
    return Plan(policies.careful, asked_for(base, False), nothing, True, Tls.ALWAYS, "dane", why, found)


def plan_sts(policies: TlsPolicies, policy: Policy, sts: StsPolicy, host: str, domain: str) -> Plan:
    """For an MX host without TLSA records, of a domain that publishes MTA-STS (RFC 8461 4, 5)."""
    if sts.mode == "unknown":
        return plan_refused(
            policy, host, f"whether {domain} has an MTA-STS policy is not known ({sts.failure})", "lookup"
        )
    is_named = any(is_fitting(pattern, host) for pattern in sts.mx)
    if sts.mode != "enforce":
        found = plan(policy, host, domain)._replace(why=f"the MTA-STS policy of {domain} says {sts.mode}")
        if sts.mode == "testing" and is_named:
            return found._replace(trial=StsTrial(policies.public_context()))
        return found
    if not is_named:
        return plan_refused(policy, host, f"the MTA-STS policy of {domain} does not name it")
    context = policies.public_context()
    if context is None:
        return plan_refused(policy, host, "there are no authorities to verify it by; set tls.ca_file")
    why = f"the MTA-STS policy of {domain} says enforce"
    return Plan(context, asked_for(host, True), frozenset(), True, Tls.ALWAYS, "sts", why)


def facts_of(domain: str, host: str, found: Plan, sts: StsPolicy | None) -> PolicyFacts:
    """What a report says was published for a host; `found` is the plan that was made of it."""
    if found.dane is not None:
        return PolicyFacts("tlsa", found.dane.base, tuple(str(record) for record in found.dane.records))
    if found.level in ("refused", "encrypt") and "TLSA" in found.why:
        return PolicyFacts("tlsa", host)
    if sts is None or (sts.mode == "none" and not sts.failure):
        return PolicyFacts("no-policy-found", domain or host)
    trouble = sts.failure
    if sts.mode == "testing" and not any(is_fitting(pattern, host) for pattern in sts.mx):
        trouble = f"validation-failure: the policy does not name {host}"
    return PolicyFacts("sts", domain, sts.lines, trouble)


def plan_held(found: Plan, remembered: str, domain: str) -> Plan:
    """For a domain that once was verified and is not now: never in clear without the operator's word."""
    why = f"{remembered}, so mail does not go in clear any more (to let it: gatepost tls forget {domain})"
    return found._replace(tls=Tls.ALWAYS, level="encrypt", why=why)


def plan_refused(policy: Policy, host: str, reason: str, kind: str = "unsecured", status: str = "") -> Plan:
    """For a host that is not to be used: it waits, or another host is."""
    problem = Problem("tls", kind, f"{host} cannot be used: {reason}", None, status)
    return Plan(policy.context, None, frozenset(), False, Tls.ALWAYS, "refused", reason, None, problem)


def explain_failure(way: Plan, failure: Problem) -> Problem:
    """A failure of TLS with the reason why it must be, where that does not follow from the policy alone."""
    if failure.stage != "tls":
        return failure
    if way.why and way.level == "encrypt" and way.why not in failure.text:
        failure = failure._replace(text=f"{failure.text}: {way.why}")
    if failure.kind in ("tls", "unsecured") and any(demand.is_permanent for demand, _ in way.demands):
        return failure._replace(kind="refused")
    return failure


def is_fitting(pattern: str, name: str) -> bool:
    """RFC 6125 6.4.3: a wildcard stands for one label."""
    if pattern.startswith("*."):
        first, dot, rest = name.partition(".")
        return bool(first and dot) and rest == pattern[2:]
    return pattern == name


def asked_for(name: str, is_verified: bool) -> str | None:
    """An address is no server name (RFC 6066 3); OpenSSL wants it to verify, and then does not send it."""
    try:
        ipaddress.ip_address(name.strip("[]").removeprefix("IPv6:"))
    except ValueError:
        return name or None
    return name.strip("[]").removeprefix("IPv6:") if is_verified else None
