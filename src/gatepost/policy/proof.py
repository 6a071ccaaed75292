"""The relay proof: every permitted relay has a right that permits it, or here is the session that has none.

It runs the real engine over one session of each class (`policy/sessions.py`) and compares it with a specification of its own,
written as plainly as can be and sharing no code with the engine's look-ups. Each rule is tried twice: as the engine applies it, and as
it is written (`literal_rules`), so that a rule which asks for an open relay is refuted with the session it asks for.

The claim is about this policy, not about the network: who can send from a trusted address is not known here.
"""

from __future__ import annotations

import ipaddress
import secrets
import time
import unicodedata
from itertools import chain

import msgspec

from gatepost.config.authvalues import has_users
from gatepost.config.proxies import proxy_networks
from gatepost.config.relayvalues import NULL_PATH, OURS, end_of_day_s
from gatepost.config.schema import Config, RelayRule
from gatepost.config.values import InvalidValue, parse_domain
from gatepost.model import Address
from gatepost.policy.engine import Engine
from gatepost.policy.rewriting import Rewriting
from gatepost.policy.sessions import SIGNED, Session, Target, bounces_of, sessions_of, targets_of
from gatepost.policy.verdict import Verdict
from gatepost.routing.answers import Assumed

MOST_ADDRESSES = {4: 16 << 24, 6: 16 << 112}  # of all that may relay: sixteen /8, sixteen /16
MAX_COUNTEREXAMPLES = 5
_WORLD = ("8.8.8.8", "2600::1")

CLAIM = (
    "This is about the policy, not about the network: it holds for clients whose address is their own. Whether strangers can reach "
    "the gateway through a trusted address (NAT, proxy, load balancer) is not known here."
)
BELIEVED = "A client's address is what one of these says it is, and whoever sends from there can say any"


class Counterexample(msgspec.Struct, frozen=True):
    """A session that would relay without a right."""

    reason: str
    rule: str
    conversation: list[str]

    def lines(self) -> list[str]:
        """For people."""
        return [
            self.reason + (f" (rule {self.rule})" if self.rule else ""),
            *(f"    {line}" for line in self.conversation),
        ]


class Proof(msgspec.Struct, frozen=True):
    """What was tried, and what came of it."""

    sessions: int
    relayed: int  # accepted for a domain that is not ours, each with a right
    is_whole: bool  # the product of all classes was tried, not each rule by itself
    counterexamples: list[Counterexample] = []
    claim: str = CLAIM
    believed: list[str] = []  # proxies that say who the client is

    @property
    def holds(self) -> bool:
        """Whether no session relays without a right."""
        return not self.counterexamples

    def lines(self) -> list[str]:
        """For people."""
        if not self.holds:
            head = "REFUTED: this configuration relays for strangers."
            return [head, *(line for example in self.counterexamples for line in example.lines())]
        how = "all combinations" if self.is_whole else "strangers with everything, and each rule by itself"
        return [
            f"Proved: {self.sessions} classes of sessions ({how}); {self.relayed} relay, each by a right; no other does.",
            self.claim,
            *([f"{BELIEVED}: {', '.join(self.believed)}."] if self.believed else ()),
        ]


def prove(config: Config, now_s: float | None = None) -> Proof:
    """Try every class of sessions against the engine of this configuration."""
    now_s = time.time() if now_s is None else now_s
    examples = _world(config)
    assumed = Assumed()
    engine, literal = Engine(config, answers=assumed), Engine(config, literal_rules=True, answers=assumed)
    has_open_rules = any(
        rule.mode == "enforce" and not (rule.networks or rule.identities or rule.certificates)
        for rule in config.relay.rules
    )
    specification = Specification(config, now_s)
    sessions, is_whole = sessions_of(config)
    if config.rewrite.srs.domain:  # with a secret for this occasion: what is tried is the form, not the key
        engine.rewriting = literal.rewriting = rewriting = Rewriting(config, [secrets.token_bytes(32)], assumed)
        assert rewriting.srs is not None
        sessions = chain(sessions, bounces_of(config, rewriting.srs, now_s))
    count = relayed = 0
    refuted: set[str] = {example.rule for example in examples}
    for session in sessions:
        count += 1
        verdict = decide(engine, session, now_s)
        fault = specification.fault(session, verdict)
        if not fault:
            relayed += verdict.accepted and verdict.route is not None and not verdict.route.ours
            if has_open_rules:
                verdict = decide(literal, session, now_s)
                fault = specification.fault(session, verdict)
        if fault and (not verdict.rule or verdict.rule not in refuted) and len(examples) < MAX_COUNTEREXAMPLES:
            refuted.add(verdict.rule)
            examples.append(Counterexample(fault, verdict.rule, conversation(config, session, verdict)))
    believed = list(dict.fromkeys(text for _, text in proxy_networks(config)))
    return Proof(count, relayed, is_whole, examples, believed=believed)


def decide(engine: Engine, session: Session, now_s: float, local_address: str = "") -> Verdict:
    """What the engine says of a session."""
    facts = engine.facts_of(session.client, local_address)
    facts.certificate = session.certificate
    if session.identity:
        engine.authenticate(facts, session.identity)
    if session.local_user:
        engine.attest(facts, session.local_user, session.local_groups, relays=not session.by_lmtp)
    facts.reverse_path, facts.now_s = session.reverse_path, now_s
    return engine.decide_rcpt(facts, session.target.address)


class Specification:
    """Who may relay, in the words of the documentation: slow, without an index, and sharing nothing with the engine."""

    def __init__(self, config: Config, now_s: float) -> None:
        self._config = config
        self._networks = [ipaddress.ip_network(text) for text in config.relay.networks]
        self._rules = [
            (rule, [ipaddress.ip_network(text) for text in rule.networks])
            for rule in config.relay.rules
            if rule.mode == "enforce" and (not rule.expires or end_of_day_s(rule.expires) > now_s)
        ]
        self._by_name = {pair[0].name: pair for pair in self._rules}
        self._written = _written_domains(config)
        self._own = {listen.rpartition(":")[0].strip("[]") for listen in config.listen}

    def fault(self, session: Session, verdict: Verdict) -> str:
        """What is wrong with a verdict: nothing (empty), or why this session must not be accepted."""
        if not verdict.accepted:
            return ""
        if self._is_trusted(session):
            return ""
        if verdict.permit.startswith("srs "):
            return self._bounce_fault(session, verdict)
        if verdict.rewritten:  # who may send is a matter of where it goes
            session = _as_rewritten(session, verdict)
        address = session.target.address
        if not self.is_ours(address):
            witness = self._by_name.get(verdict.rule)  # look at the rule that the engine names before all others
            if witness is not None and self.holds(*witness, session):
                return ""
            if any(self.holds(rule, networks, session) for rule, networks in self._rules):
                return ""
            return "a client without a right sends to a domain that is not ours"
        if _asks_for_route(address.local):
            return "a stranger's address asks an inside server for a route to another host"
        return self._destination_fault(address, verdict)

    def _destination_fault(self, address: Address, verdict: Verdict) -> str:
        """Where mail with the right of a recipient of ours goes in the end: to us, or to what the administrator has written."""
        route = verdict.route
        if route is None:
            return "it is taken, and nobody knows where it goes"
        for one in (route, *(route.expansion.routes if route.expansion is not None else ())):
            local, _, domain = (one.address or address.text).rpartition("@")
            if not domain and not local:
                continue
            if not self.is_ours(Address(one.address or address.text, local, domain)) and domain not in self._written:
                return f"it goes to {one.address or address.text}, which is not ours and which nobody has written"
        return ""

    @staticmethod
    def _bounce_fault(session: Session, verdict: Verdict) -> str:
        """An address of ours that stands for one elsewhere: signed by us, and for notices of non-delivery only."""
        if session.target.form != SIGNED:
            return "a return address without our signature is turned back"
        goes_to = verdict.route.address if verdict.route is not None else ""
        if goes_to.lower() != session.target.stands_for.lower():
            return f"a return address for {session.target.stands_for} is turned into {goes_to}"
        return "a return address is turned back for mail that is no bounce" if session.reverse_path else ""

    def _is_trusted(self, session: Session) -> bool:
        return self._is_user(session) or self._is_local(session) or _lies_in(session.client, self._networks)

    def _is_user(self, session: Session) -> bool:
        """Whether the client has authenticated as a user of ours; whether it can, is not policy's."""
        return session.identity != "" and has_users(self._config.auth)

    def _is_local(self, session: Session) -> bool:
        """Whether the kernel says that the client is a user of this host who is listed; over LMTP that is no right."""
        return not session.by_lmtp and self._is_listed(session)

    def _is_listed(self, session: Session) -> bool:
        local = self._config.local
        if not session.local_user:
            return False
        named = {"*", session.local_user} & set(local.users)
        return bool(named or set(session.local_groups) & set(local.groups))

    def has_right(self, session: Session) -> bool:
        """Whether the words give this session a right to relay."""
        return self._is_trusted(session) or any(self.holds(rule, nets, session) for rule, nets in self._rules)

    def is_ours(self, address: Address) -> bool:
        """Whether the address is in a domain of ours, or that of our postmaster."""
        is_postmaster = address.local.strip('"').lower() == "postmaster"
        if not address.domain:
            return is_postmaster
        if address.domain.startswith("["):
            return is_postmaster and address.domain.strip("[]").removeprefix("IPv6:") in self._own
        try:
            labels = parse_domain(address.domain).split(".")
            above = ["." + ".".join(labels[index:]) for index in range(1, len(labels))]
            return any(name in self._config.domains for name in (".".join(labels), *above))
        except InvalidValue:
            return False

    def holds(
        self, rule: RelayRule, networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network], session: Session
    ) -> bool:
        """Whether a rule, read aloud, gives this session a right to relay."""
        if not (rule.networks or rule.identities or rule.certificates):
            return False
        if rule.networks and not _lies_in(session.client, networks):
            return False
        identity = f"uid:{session.local_user}" if self._is_listed(session) else session.identity
        if rule.identities and not _is_named(identity, rule.identities):
            return False
        if rule.certificates and not _is_named(session.certificate, rule.certificates):
            return False
        if rule.reverse_paths and not any(_fits(session.reverse_path, pattern) for pattern in rule.reverse_paths):
            return False
        domain = _canonical(session.target.address.domain)
        if not rule.domains:
            return True
        return any(
            name == domain or (name.startswith(".") and domain.endswith(name)) for name in rule.domains if name != OURS
        )


def _written_domains(config: Config) -> set[str]:
    """Domains that the administrator has written as targets: of the postmaster, of virtual addresses, of aliases."""
    found = {(config.postmaster or "").rpartition("@")[2]}
    tables = getattr(config, "tables", {})
    for key, data in tables.items():
        if key.partition(" ")[0] in ("virtual", "aliases"):
            values = [*data.entries.values(), *(rule[-1] for rule in data.rules)]
            found.update(one.rpartition("@")[2].strip() for value in values for one in value.split(","))
    return found


def _as_rewritten(session: Session, verdict: Verdict) -> Session:
    texts = [change.after for change in verdict.rewritten if not change.is_shadow]
    if not texts:
        return session
    local, _, domain = texts[-1].rpartition("@")
    target = Target(session.target.form, Address(texts[-1], local, domain))
    return msgspec.structs.replace(session, target=target)


def _lies_in(client: str, networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return False
    plain = getattr(address, "ipv4_mapped", None) or address
    return any(
        one in network for network in networks for one in (plain, address) if one.version == network.version
    ) or any(
        network.version == 6 and plain.version == 4 and ipaddress.ip_address(f"::ffff:{plain}") in network
        for network in networks
    )


def _is_named(name: str, names: list[str]) -> bool:
    return name != "" and (name in names or "*" in names)


def _fits(reverse_path: str, pattern: str) -> bool:
    if not reverse_path:
        return pattern == NULL_PATH
    path = reverse_path.lower()
    place = path.rpartition("@")[2]
    return pattern in (path, "@" + place) or (pattern.startswith("@.") and place.endswith(pattern[1:]))


def _canonical(domain: str) -> str:
    try:
        return parse_domain(domain)
    except InvalidValue:
        return domain.lower()


def _asks_for_route(local: str) -> bool:
    plain = unicodedata.normalize("NFKC", local)
    return any(character in plain for character in "%!@") or (plain.startswith('"') and ":" in plain)


def _world(config: Config) -> list[Counterexample]:
    """Networks that together are the world make a relay of it, whatever each of them is called."""
    texts = [*config.relay.networks]
    for rule in config.relay.rules:
        if rule.mode == "enforce" and not rule.identities and not rule.certificates:
            texts += rule.networks
    parsed = [ipaddress.ip_network(text) for text in dict.fromkeys(texts)]
    examples = []
    for version, most in MOST_ADDRESSES.items():
        merged = list(ipaddress.collapse_addresses([net for net in parsed if net.version == version]))  # type: ignore[type-var]
        if sum(network.num_addresses for network in merged) <= most:
            continue
        world = ipaddress.ip_address(_WORLD[version == 6])
        client = str(world if any(world in network for network in merged) else merged[0].network_address + 1)
        session = Session(client, "", "", "someone@elsewhere.example", targets_of(config)[0])
        verdict = decide(Engine(config, answers=Assumed()), session, time.time())
        reason = f"the IPv{version} networks that may relay are together far more than one organisation"
        examples.append(Counterexample(reason, verdict.rule, conversation(config, session, verdict)))
    return examples


def conversation(config: Config, session: Session, verdict: Verdict) -> list[str]:
    """The session as it goes over the wire."""
    who = [f"authenticated as {session.identity}"] if session.identity else []
    who += [f"a process of the user {session.local_user} of this host"] if session.local_user else []
    who += [f"with the client certificate {session.certificate}"] if session.certificate else []
    end = f"S: {verdict.code} {verdict.status} {verdict.text}" if verdict.code else "S: 250 2.1.5 Recipient ok"
    hop = [f"   (goes to {verdict.route.next_hop})"] if verdict.route is not None else []
    return [
        f"   ({', '.join([f'a client connects from {session.client or chr(63)}', *who])})",
        f"S: 220 {config.hostname} ESMTP Gatepost",
        "C: EHLO client.example",
        f"S: 250 {config.hostname}",
        f"C: MAIL FROM:<{session.reverse_path}>",
        "S: 250 2.1.0 Sender ok",
        f"C: RCPT TO:<{session.target.address.text}>",
        end,
        *hop,
    ]
