"""What an address is rewritten to: the rules of a configuration in one order, one after the other.

Pure: domain maps first, then generic addresses, then `[[rewrite.rules]]` as they stand; each is asked once, with what the
one before it made (with `repeat`, until nothing changes). It gives no right to anybody: who may send to a rewritten address is
decided about that address. A table that is asked over the network raises NeedsAnswer. Not here: whether the result may stand in a path (`policy/rewriting.py`), and
header fields (`mail/headerrewrite.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from gatepost.config.recipients import fold_local
from gatepost.config.relayvalues import OURS
from gatepost.config.rewritevalues import USE
from gatepost.config.schema import Config, RewriteRule
from gatepost.routing.answers import Answers
from gatepost.routing.router import compared_local
from gatepost.routing.tables.lookups import Lookups
from gatepost.routing.tables.remote import RemoteTable

REVERSE_PATH, FORWARD_PATH = "reverse-path", "forward-path"
HEADER_SENDERS, HEADER_RECIPIENTS = "header-senders", "header-recipients"
PARTS = (REVERSE_PATH, FORWARD_PATH, HEADER_SENDERS, HEADER_RECIPIENTS)
BOTH = ["outbound", "inbound"]
MAX_STEPS = 10  # of a rule that repeats


class Networks(Protocol):
    """What knows whether an address, given as text, is in one of its networks."""

    def __contains__(self, address: str, /) -> bool: ...


class RewriteFailed(Exception):
    """No address comes out; `args[0]` says why, for the log."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """One rule that made one address of another; in shadow it has changed nothing."""

    rule: str
    before: str
    after: str
    is_shadow: bool = False


class Domains:
    """A set of domains: names, `.names` with all below them, and those that are ours."""

    __slots__ = ("_below", "_exact", "_ours")

    def __init__(self, patterns: Iterable[str], ours: Domains | None = None) -> None:
        texts = frozenset(patterns)
        self._ours = ours if OURS in texts else None
        self._exact = frozenset(text for text in texts if text[:1] != ".")
        self._below = tuple(text for text in texts if text[:1] == ".")

    def __contains__(self, domain: object) -> bool:
        name = str(domain)
        return (
            name in self._exact
            or (bool(self._below) and name.endswith(self._below))
            or (self._ours is not None and name in self._ours)
        )

    def __bool__(self) -> bool:
        return bool(self._exact or self._below or self._ours is not None)


def own_domains(config: Config) -> Domains:
    """The domains we accept mail for."""
    return Domains(config.domains)


class Rule:
    """A rule with its tables built."""

    __slots__ = (
        "domains", "except_domains", "except_users", "has_domain_keys", "inbound", "is_shadow", "name", "networks", "outbound",
        "parts", "repeat", "stop", "tables", "to_domain",
    )  # fmt: skip

    def __init__(
        self,
        rule: RewriteRule,
        tables: tuple[Any, ...],
        ours: Domains,
        networks: Networks | None,
        *,
        has_domain_keys: bool = False,
    ) -> None:
        self.name = rule.name
        self.outbound, self.inbound = ("outbound" in rule.directions), ("inbound" in rule.directions)
        self.parts = frozenset(rule.parts)
        self.networks = networks
        self.domains = Domains(rule.domains, ours)
        self.except_domains = Domains(rule.except_domains, ours)
        self.except_users = frozenset(fold_local(user) for user in rule.except_users)
        self.to_domain = rule.to_domain
        self.tables = tables
        self.repeat, self.stop = rule.repeat, rule.stop
        self.is_shadow = rule.mode == "shadow"
        self.has_domain_keys = has_domain_keys

    def holds(self, part: str, outbound: bool, client: str) -> bool:
        """Whether the rule is about this part of this session."""
        return (
            part in self.parts
            and (self.outbound if outbound else self.inbound)
            and (self.networks is None or client in self.networks)
        )


class Rewriter:
    """The rules of one configuration; immutable. `address_set` makes what answers `address in` of a list of networks."""

    __slots__ = ("_own_names", "_rules", "_separator", "parts")

    def __init__(
        self, config: Config, address_set: Callable[[list[str]], Networks], answers: Answers | None = None
    ) -> None:
        lookups = Lookups(config, answers)
        ours = own_domains(config)
        self._own_names = Domains([*config.domains, config.hostname])
        self._separator = config.detail_separator or ""
        self._rules: list[Rule] = []
        if config.domaintable:
            rule = RewriteRule(name="domaintable", directions=BOTH, parts=list(PARTS))
            self._rules.append(
                Rule(rule, lookups.named("domaintable", config.domaintable), ours, None, has_domain_keys=True)
            )
        if config.genericstable:
            names = [*config.domains, config.hostname]
            rule = RewriteRule(name="genericstable", parts=[REVERSE_PATH, HEADER_SENDERS], domains=names, stop=True)
            self._rules.append(Rule(rule, lookups.named("genericstable", config.genericstable), ours, None))
        for rule in config.rewrite.rules:
            if rule.mode != "off":
                networks = address_set(rule.networks) if rule.networks else None
                self._rules.append(Rule(rule, lookups.named(USE, rule.tables), ours, networks))
        self.parts = frozenset(part for rule in self._rules for part in rule.parts)

    def rules_for(self, part: str, outbound: bool, client: str) -> tuple[Rule, ...]:
        """The rules about this part of a session, to be asked for each of its addresses."""
        return tuple(rule for rule in self._rules if rule.holds(part, outbound, client))

    def rewrite(self, rules: Iterable[Rule], local: str, domain: str) -> tuple[str, str, list[Change]]:
        """Local part (as written) and domain (canonical) of what an address becomes, and which rules did it.

        Raises RewriteFailed, TableUnavailable and NeedsAnswer.
        """
        changes: list[Change] = []
        stopped = not domain or domain[0] == "["
        for rule in rules:
            if stopped:
                break
            for step in range(MAX_STEPS + 1):
                new = self._apply(rule, local, domain)
                before = f"{local}@{domain}"
                if new is None or new == before:
                    break
                if step == MAX_STEPS:
                    raise RewriteFailed(f"rule {rule.name}: {before} leads in a circle")
                changes.append(Change(rule.name, before, new, rule.is_shadow))
                if rule.is_shadow:
                    break
                local, _, domain = new.rpartition("@")
                stopped = rule.stop
                if not rule.repeat:
                    break
        return local, domain, changes

    def _apply(self, rule: Rule, local: str, domain: str) -> str | None:
        if rule.domains and domain not in rule.domains:
            return None
        if rule.except_domains and domain in rule.except_domains:
            return None
        key = compared_local(local)
        if rule.except_users and key in rule.except_users:
            return None
        if rule.to_domain:
            return f"{local}@{rule.to_domain}"
        for table in rule.tables:
            value = self._ask(table, key, domain, local, rule.has_domain_keys)
            if value is not None:
                return self._whole(value, local, domain)
        return None

    def _ask(self, table: Any, key: str, domain: str, local: str, has_domain_keys: bool) -> str | None:
        found: str | None
        if table.name.startswith("sendmail-domaintable:") or has_domain_keys:
            found = table.lookup(domain)
            return None if found is None else f"@{found}"
        if hasattr(table, "rewrite"):
            found = table.rewrite(key, domain, local)
            return found
        if type(table) is RemoteTable:
            return self._ask_remote(table, key, domain)
        found = table.lookup(f"{key}@{domain}")
        if found is not None or not hasattr(table, "has_bare_locals"):
            return found
        bare, separator, detail = key.partition(self._separator) if self._separator else (key, "", "")
        if separator and bare:
            found = table.lookup(f"{bare}@{domain}")
        if found is None and domain in self._own_names:
            found = table.lookup(key)
            if found is not None:
                return found
            found = table.lookup(bare) if separator and bare else None
        if found is not None:
            new_local, _, new_domain = found.rpartition("@")
            return f"{new_local}{separator}{detail}@{new_domain}" if new_local else found
        found = table.lookup(f"@{domain}")
        return found

    def _ask_remote(self, table: RemoteTable, key: str, domain: str) -> str | None:
        """In the forms that its source is asked for; without its detail if there is nothing with it."""
        found = table.find_address(key, domain)
        bare, separator, detail = key.partition(self._separator) if self._separator else (key, "", "")
        if found is not None or not separator or not bare:
            return found
        found = table.find_address(bare, domain)
        new_local, _, new_domain = found.rpartition("@") if found is not None else ("", "", "")
        return f"{new_local}{separator}{detail}@{new_domain}" if new_local else found

    @staticmethod
    def _whole(value: str, local: str, domain: str) -> str:
        """What a table says as a whole address: `@other` keeps the local part, `other` the domain."""
        new_local, at, new_domain = value.rpartition("@")
        if not at:
            return f"{value}@{domain}"
        return f"{new_local or local}@{new_domain.lower()}"
