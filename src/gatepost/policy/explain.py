"""Why a recipient is taken or refused: each rule in order with the facts it used, and what would have changed the verdict.

Pure and without effect: the verdict is the engine's own, and "would be accepted from ..." is not reasoned but tried, by asking the engine
again with one fact changed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

import msgspec

from gatepost.config.nexthop import POOL
from gatepost.config.ours import find_domain
from gatepost.config.relayvalues import OURS, end_of_day_s
from gatepost.config.schema import Config, RelayRule
from gatepost.model import Address
from gatepost.policy.engine import Engine, Facts, Step
from gatepost.policy.relay import ClientCertificate, Identity, is_routed_local
from gatepost.policy.relayrules import path_keys
from gatepost.policy.verdict import Verdict
from gatepost.routing.answers import Answers, NotAsked
from gatepost.routing.route import Refusal, Route
from gatepost.routing.router import Router

MAX_SHOWN = 50  # rules that do not hold; those that do are always shown
MAX_TRIED = 8  # of each kind of change
# enhanced status of a refusal, without its class -> how the other local part, which is accepted, differs
_OTHER_LOCAL = {
    "1.1": "if the recipient existed",
    "4.6": "if its aliases led to an end",
    "3.0": "if it were rewritten to a valid address",
}
STRANGER = "198.51.100.77"


class Line(msgspec.Struct, frozen=True):
    """One rule or check: whether it held, and the facts it used."""

    rule: str
    holds: bool
    facts: list[str]
    decided: bool = False


class Explanation(msgspec.Struct, kw_only=True):
    """All that can be said of one recipient."""

    recipient: str
    accepted: bool
    reply: str  # "550 5.7.1 text"; of an accepted one the reply of the session
    check: str
    permit: str
    rule: str
    route: str
    forward_path: str
    lines: list[Line]
    shadows: list[str]
    changes: list[str]
    missing: str = ""  # why a fact from elsewhere could not be had

    def text(self) -> list[str]:
        """For people."""
        shown = [f"RCPT TO:<{self.recipient}>"]
        for line in self.lines:
            mark = "=>" if line.decided else "  "
            shown.append(f"  {mark} {'yes' if line.holds else 'no ':3} {line.rule}")
            shown += [f"           {fact}" for fact in line.facts]
        shown += [f"     shadow: {shadow}" for shadow in self.shadows]
        shown.append(f"  verdict: {'accepted' if self.accepted else 'refused'}: {self.reply}")
        if self.accepted:
            shown.append(f"  right: {self.permit}")
            shown.append(f"  route: {self.route}" + (f", as <{self.forward_path}>" if self.forward_path else ""))
        if self.missing:
            shown.append(f"  not known: {self.missing}")
        shown += [f"  {change}" for change in self.changes]
        return shown


class Explainer:
    """Explains under one configuration. Makes an engine of its own; nothing is counted and nothing is kept."""

    def __init__(self, config: Config, engine: Engine | None = None, answers: Answers | None = None) -> None:
        """`answers` gives facts from elsewhere at once, or says that they cannot be had; an `engine` must have the same."""
        self._config = config
        self._answers = NotAsked() if answers is None else answers
        self._router = Router(config, answers=self._answers)
        self._engine = engine or Engine(config, self._router, answers=self._answers)

    def rcpt(self, facts: Facts, address: Address) -> Explanation:
        """The explanation of one recipient; `facts` is left as it was."""
        trace: list[Step] = []
        own = msgspec.structs.replace(facts, trace=trace, shadows=None, record=None)
        self._answers.why = ""
        verdict = self._engine.decide_rcpt(own, address)
        missing = self._answers.why
        route = verdict.route
        reply = f"{verdict.code} {verdict.status} {verdict.text}" if verdict.code else "250 2.1.5 Recipient ok"
        return Explanation(
            recipient=address.text,
            accepted=verdict.accepted,
            reply=reply,
            check=verdict.check,
            permit=verdict.permit,
            rule=verdict.rule,
            route=self._place(route) if route is not None else "",
            forward_path=route.address if route is not None else "",
            lines=list(self._lines(own, address, verdict, trace)),
            shadows=[_shadow_text(shadow) for shadow in own.shadows or ()],
            changes=[] if missing else self._changes(facts, address, verdict),
            missing=missing,
        )

    def _place(self, route: Route) -> str:
        """Where mail goes, with the members of a pool, and whether it waits for the operator first."""
        text = route.next_hop
        pool = self._config.pools.get(text.removeprefix(POOL)) if text.startswith(POOL) else None
        if pool is not None:
            members = ", ".join(f"{m.next_hop} (weight {m.weight}, priority {m.priority})" for m in pool.members)
            text += f" = {members}"
        return f"{text}; held until the operator releases it: {route.hold}" if route.hold else text

    # --- each rule in order -----------------------------------------------------------------------------------------

    def _lines(self, facts: Facts, address: Address, verdict: Verdict, trace: list[Step]) -> Iterator[Line]:
        routed = is_routed_local(address.local)
        is_refused_route = routed and facts.client_permit is None
        local = f"local part {address.local!r} {'asks for a route' if routed else 'is plain'}"
        yield Line(
            "the address asks no inside server for a route (relay.networks and authenticated clients may)",
            not is_refused_route,
            [local],
            is_refused_route,
        )
        if is_refused_route:
            return
        if self._engine.rewriting is not None:
            yield from self._rewrite_lines(facts, address, verdict)
            if verdict.check in ("rewrite", "srs") or verdict.permit.startswith("srs "):
                return
            address = _as_rewritten(address, verdict)
        self._answers.said.clear()
        found = self._router.resolve(address, facts.local_address)
        asked = self._answers.said[:MAX_SHOWN]
        if isinstance(found, Refusal):
            cause = [found.cause] if found.cause else []
            yield Line("the address leads somewhere", False, [f"{address.text}: {found.text}", *cause, *asked], True)
            return
        entry = find_domain(self._config, address.domain)[1]
        kind = "is ours" if found.ours else "is not ours"
        if found.ours and find_domain(self._config, found.domain)[1] is None:
            kind = f"is not ours, and <{address.text}>, which stands for it, is"
        told = [f"domain {found.domain} {kind}; next hop {found.next_hop}"]
        if entry is not None and entry.catch_all and found.address == entry.catch_all:
            told.append(
                f"it does not exist, or stands for {entry.catch_all}: catch_all of its domain takes what does not exist"
            )
        if found.expansion is not None:
            told += found.expansion.chain[:MAX_SHOWN]
            told += [f"<{one.address}> by {one.next_hop}" for one in found.expansion.routes[:MAX_SHOWN]]
            told += [f"left out: {text}" for text in found.expansion.skipped[:MAX_SHOWN]]
        yield Line("the address leads somewhere", True, told + asked)
        yield from self._rule_lines(facts, found.domain, found.ours, verdict)
        permit = facts.client_permit
        by_client = not verdict.rule and not found.ours and permit is not None
        names = ", ".join(self._config.relay.networks[:MAX_TRIED]) or "none"
        yield Line(
            "the client may relay by itself (relay.networks, AUTH, relay.certificates)",
            permit is not None,
            [
                f"client {facts.client_address}: {permit.text if permit is not None else 'no right'}; relay.networks: {names}"
            ],
            by_client and verdict.check != "relay",
        )
        yield Line(
            "the recipient's domain is one we accept mail for",
            found.ours,
            [f"domain {found.domain if not found.ours or entry is None else address.domain}"],
            found.ours and not verdict.rule and verdict.accepted,
        )
        for step in trace:
            if step.check not in ("relay", "recipient"):
                refuses = bool(step.verdict.code)
                result = (
                    f"{step.verdict.code} {step.verdict.status} {step.verdict.text}" if refuses else "nothing to say"
                )
                name = f"check {step.check} [{step.mode.value}]"
                yield Line(name, not refuses, [result], refuses and step.verdict == verdict)

    def _rewrite_lines(self, facts: Facts, address: Address, verdict: Verdict) -> Iterator[Line]:
        rewriting = self._engine.rewriting
        if rewriting is not None and rewriting.is_bounce_address(address):
            path = f"reverse-path <{facts.reverse_path}>, wanted <>"
            found = f"stands for <{verdict.route.address}>" if verdict.route is not None else verdict.cause
            name = "a return address of ours (SRS), which takes only bounces and only with our signature"
            yield Line(name, verdict.accepted, [path, found] if found else [path], True)
            return
        for change in verdict.rewritten:
            name = f"rewrite rule {change.rule}{' [shadow]' if change.is_shadow else ''}"
            yield Line(name, not change.is_shadow, [f"<{change.before}> becomes <{change.after}>"])
        if verdict.check == "rewrite":
            yield Line("the address can be rewritten", False, [verdict.cause], True)

    def _rule_lines(self, facts: Facts, domain: str, ours: bool, verdict: Verdict) -> Iterator[Line]:
        hidden = 0
        for number, rule in enumerate(self._config.relay.rules):
            conditions = list(_conditions(rule, facts, domain, ours))
            holds = rule.mode != "off" and all(good for good, _ in conditions)
            if not holds and number >= MAX_SHOWN:
                hidden += 1
                continue
            mode = "" if rule.mode == "enforce" else f" [{rule.mode}]"
            facts_used = [f"{'yes' if good else 'no '} {text}" for good, text in conditions]
            decided = rule.name == verdict.rule
            yield Line(f"rule {rule.name}{mode}", holds, facts_used, decided)
            if decided:
                break
        if hidden:
            yield Line(f"{hidden} more rules that do not hold", False, [])

    # --- what would have changed it ---------------------------------------------------------------------------------

    def _changes(self, facts: Facts, address: Address, verdict: Verdict) -> list[str]:
        if verdict.accepted:
            return [*self._would_refuse(facts, address, verdict), *self._without_tables(facts, address, verdict)]
        changes = [*self._would_accept(facts, address, verdict), *self._without_tables(facts, address, verdict)]
        if not changes:
            changes = [
                "no single change of client, identity, certificate, reverse-path or local part would have it accepted"
            ]
        return changes

    def _is_accepted(self, facts: Facts, address: Address) -> bool:
        return self._engine.decide_rcpt(facts, address).accepted

    def _would_accept(self, facts: Facts, address: Address, verdict: Verdict) -> Iterator[str]:
        plain = Address(f"postmaster@{address.domain}", "postmaster", address.domain)
        if address.domain and self._is_accepted(_copy(facts), plain):
            if is_routed_local(address.local):
                yield "would be accepted with a local part that asks for no route"
            else:
                yield f"would be accepted {_OTHER_LOCAL.get(verdict.detail, 'with another local part')}"
        rules = [rule for rule in self._config.relay.rules if rule.mode == "enforce"]
        networks = [*self._config.relay.networks[:MAX_TRIED], *(rule.networks[0] for rule in rules if rule.networks)]
        for text in list(dict.fromkeys(networks))[:MAX_TRIED]:
            client = str(ipaddress.ip_network(text)[0])
            if self._is_accepted(self._from(facts, client), address):
                yield f"would be accepted from {text}"
        for identity in _first(name for rule in rules for name in rule.identities):
            if self._is_accepted(_copy(facts, identity="anyone" if identity == "*" else identity), address):
                yield f"would be accepted if it authenticated as {'anybody' if identity == '*' else identity}"
        for certificate in _first(name for rule in rules for name in rule.certificates):
            if self._is_accepted(_copy(facts, certificate=certificate), address):
                yield f"would be accepted with the client certificate {certificate}"
        for path in _first(path for rule in rules for path in rule.reverse_paths):
            local, _, domain = path.rpartition("@")
            text = "" if path == "<>" else f"{local or 'someone'}@{'below' if domain.startswith('.') else ''}{domain}"
            if self._is_accepted(_copy(facts, reverse_path=text), address):
                yield f"would be accepted with mail from {path}"

    def _would_refuse(self, facts: Facts, address: Address, verdict: Verdict) -> Iterator[str]:
        stranger = _copy(self._from(facts, STRANGER), identity="", certificate="")
        if not self._is_accepted(stranger, address):
            yield f"would be refused without that right, such as from {STRANGER}"
        if verdict.rule:
            without = [rule for rule in self._config.relay.rules if rule.name != verdict.rule]
            relay = msgspec.structs.replace(self._config.relay, rules=without)
            trial = msgspec.structs.replace(self._config, relay=relay)
            other = Engine(trial, self._router, answers=self._answers).decide_rcpt(_copy(facts), address)
            if not other.accepted:
                yield f"would be refused without the rule {verdict.rule}"
            elif (
                other.route is not None and verdict.route is not None and other.route.next_hop != verdict.route.next_hop
            ):
                yield f"would go to {other.route.next_hop} without the rule {verdict.rule}"

    def _without_tables(self, facts: Facts, address: Address, verdict: Verdict) -> Iterator[str]:
        """The same without each thing that may have given another address, or another route."""
        config = self._config
        trials: list[tuple[str, dict[str, object]]] = []
        for name in dict.fromkeys(change.rule for change in verdict.rewritten if not change.is_shadow):
            if name == "domaintable":
                trials.append((name, {name: []}))
            elif name != "srs":
                rules = [rule for rule in config.rewrite.rules if rule.name != name]
                rewrite = msgspec.structs.replace(config.rewrite, rules=rules)
                trials.append((f"the rewrite rule {name}", {"rewrite": rewrite}))
        if config.virtual:
            trials.append(("the virtual addresses", {"virtual": []}))
        if config.routes:
            trials.append(("the tables of routes", {"routes": []}))
        for what, changes in trials:
            trial = Engine(msgspec.structs.replace(config, **changes), answers=self._answers)
            other = trial.decide_rcpt(_copy(facts), address)
            if (after := _outcome(other)) != _outcome(verdict):
                yield f"would be {after} without {what}"

    def _from(self, facts: Facts, client: str) -> Facts:
        """The same session from another address; rights of identity and certificate stay."""
        moved = self._engine.facts_of(client, facts.local_address, facts.session_id)
        permit = facts.client_permit if isinstance(facts.client_permit, Identity | ClientCertificate) else None
        return _copy(
            facts,
            client_address=client,
            client_names=(),
            client_permit=permit or moved.client_permit,
            client_number=moved.client_number,
        )


def _as_rewritten(address: Address, verdict: Verdict) -> Address:
    texts = [change.after for change in verdict.rewritten if not change.is_shadow]
    if not texts:
        return address
    local, _, domain = texts[-1].rpartition("@")
    return Address(texts[-1], local, domain)


def _outcome(verdict: Verdict) -> str:
    if verdict.route is None or verdict.code:
        return f"refused ({verdict.code} {verdict.status})"
    written = f" as <{verdict.route.address}>" if verdict.route.address else ""
    return f"accepted, by way of {verdict.route.next_hop}{written}"


def _copy(facts: Facts, **changes: Any) -> Facts:
    return msgspec.structs.replace(facts, trace=None, shadows=None, record=None, **changes)


def _first(names: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(names))[:MAX_TRIED]


def _conditions(rule: RelayRule, facts: Facts, domain: str, ours: bool) -> Iterator[tuple[bool, str]]:
    """Each condition of a rule, whether it holds, and the fact it looked at."""
    if rule.expires:
        yield 0.0 < facts.now_s < end_of_day_s(rule.expires), f"until {rule.expires}"
    if rule.networks:
        network = _network_of(facts.client_address, rule.networks)
        yield network != "", f"client {facts.client_address} in {network or ', '.join(rule.networks[:MAX_TRIED])}"
    if rule.identities:
        name = facts.identity
        good = name != "" and (name in rule.identities or "*" in rule.identities)
        yield good, f"authenticated as {name or 'nobody'}, wanted {', '.join(rule.identities[:MAX_TRIED])}"
    if rule.certificates:
        name = facts.certificate
        good = name != "" and name in rule.certificates
        yield good, f"certificate {name or 'none'}, wanted {', '.join(rule.certificates[:MAX_TRIED])}"
    if not (rule.networks or rule.identities or rule.certificates):
        yield ours, "anyone, which is a right for our own domains only"
    if rule.reverse_paths:
        keys = path_keys(facts.reverse_path)
        good = any(pattern in keys for pattern in rule.reverse_paths)
        yield good, f"reverse-path <{facts.reverse_path}>, wanted {', '.join(rule.reverse_paths[:MAX_TRIED])}"
    good = not ours
    if rule.domains:
        good = any(
            name == domain or (name == OURS and ours) or (name.startswith(".") and domain.endswith(name))
            for name in rule.domains
        )
    yield good, f"domain {domain}, wanted {', '.join(rule.domains[:MAX_TRIED]) or 'every domain that is not ours'}"


def _network_of(client: str, networks: list[str]) -> str:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return ""
    plain = getattr(address, "ipv4_mapped", None) or address
    return next((text for text in networks if plain in ipaddress.ip_network(text)), "")


def _shadow_text(shadow: Verdict) -> str:
    what = f"rule {shadow.rule}" if shadow.rule else f"check {shadow.check}"
    if shadow.code:
        return f"{what} would refuse: {shadow.code} {shadow.status} {shadow.text}"
    return f"{what} would accept, by way of {shadow.route.next_hop if shadow.route is not None else ''}"
