"""Which next hops a configuration can yield for a recipient: all that the queue takes from a receiver. Pure.

The receiver decides where mail goes, and parses what strangers say. The queue, which has the configuration too, holds every next hop against
it, so that whoever breaks into a receiver cannot have the deliverer connect to a host of their choice, log in at a smart host for mail that
is not for it, or write into another's Maildir. Permitted for a domain is where the router sends it without tables (`mx:` of that domain only where
that is by MX), what tables in files say of the domain or of the address, what rules give it, what tables of senders name for domains that are not
ours, and of tables that are asked over the network whatever their source may name (`next_hops`). To drop is always permitted.

Invariant: whatever the engine yields from this configuration is permitted. More may be: whose right, which sender and which client led
to a rule or to a sender's route is not asked, since a receiver could say that as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from gatepost.config.hoppatterns import permits
from gatepost.config.nexthop import DISCARD
from gatepost.config.ours import suffixes
from gatepost.config.relayvalues import OURS
from gatepost.config.schema import Config
from gatepost.config.sources import source_of
from gatepost.config.tables import LoadedConfig, table_key
from gatepost.config.values import InvalidValue, parse_domain
from gatepost.model import Address, Recipient
from gatepost.routing.route import Refusal, Route
from gatepost.routing.router import BAD_DOMAIN, BAD_LITERAL, NO_DOMAIN, UNKNOWN, Router, compared_local, led_by
from gatepost.routing.table import TableUnavailable
from gatepost.routing.tables.lookups import Lookups
from gatepost.routing.tables.uses import route_of

MAX_KNOWN = 20_000  # pairs of domain and next hop that are remembered
_SOMEBODY = "postmaster"  # exists in each of our domains
_NO_DOMAIN_OF_MAIL = (BAD_DOMAIN, BAD_LITERAL, NO_DOMAIN, UNKNOWN)


class PermittedHops:
    """Of one configuration."""

    __slots__ = (
        "_has_other_domains",
        "_known",
        "_limits",
        "_plain",
        "_rules",
        "_sender_limits",
        "_sender_values",
        "_tables",
    )

    def __init__(self, config: Config) -> None:
        domains = {name: msgspec.structs.replace(one, recipients=None) for name, one in config.domains.items()}
        bare = msgspec.structs.replace(config, domains=domains, routes=[], virtual=[], aliases=[], sender_routes=[])
        self._plain = Router(bare)
        local, self._limits = _divided(config, config.routes)
        self._tables = Lookups(msgspec.structs.replace(bare, routes=local)).named("routes", local)
        senders, self._sender_limits = _divided(config, config.sender_routes)
        self._sender_values = _values_of(config, senders)
        self._rules: dict[str, list[str]] = {}
        for rule in config.relay.rules:
            if rule.next_hop and rule.mode == "enforce":
                for key in rule.domains or ("",):
                    self._rules.setdefault(key, []).append(",".join(rule.next_hop))
        # What an address of ours stands for goes where the rule of that address says.
        self._has_other_domains = bool(config.virtual or config.aliases)
        self._known: dict[tuple[str, str], bool] = {}

    def permits(self, recipient: Recipient) -> bool:
        """Whether this configuration can have sent a recipient to the next hop that it has."""
        domain = recipient.domain
        known = self._known.get((domain, recipient.next_hop))
        if known is None:
            known = self._learn(domain, recipient.next_hop)
        if not known and not (self._tables and self._is_said_of_address(recipient)):
            return False
        address = recipient.address
        at = len(address) - len(domain)
        return (address.endswith(domain) and address[at - 1 : at] == "@") or self._is_written_otherwise(recipient)

    def _learn(self, domain: str, next_hop: str) -> bool:
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        answer = self._known[domain, next_hop] = self._is_said_of_domain(domain, next_hop)
        return answer

    def _is_said_of_domain(self, domain: str, next_hop: str) -> bool:
        base = self._base(domain)
        if base is None:
            return False
        if next_hop in (base.next_hop, DISCARD):
            return True
        if next_hop in _led(self._named(base), base):
            return True
        limits = self._limits if base.ours else self._limits + self._sender_limits
        return bool(limits) and any(permits(patterns, next_hop, domain) for patterns in limits)

    def _base(self, domain: str) -> Route | None:
        """Where mail for a domain goes without tables and rules: an empty next hop where it is refused; None: no mail can be for it."""
        found = self._plain.resolve(Address(f"{_SOMEBODY}@{domain}", _SOMEBODY, domain))
        if isinstance(found, Route):
            return found if found.domain == domain else None  # else it is written otherwise than it is ever routed
        try:
            if found in _NO_DOMAIN_OF_MAIL or (domain[:1] != "[" and parse_domain(domain) != domain):
                return None
        except InvalidValue:
            return None
        return Route("", domain, not self._plain.is_foreign(Address("", "", domain)) and domain[:1] != "[")

    def _named(self, base: Route) -> Iterator[str]:
        """What tables in files and rules name for any address of a domain."""
        domain = base.domain
        for key in self._rules if self._has_other_domains else _rule_keys(domain, base.ours):
            yield from self._rules.get(key, ())
        if not base.ours:
            yield from self._sender_values
        if domain[:1] == "[":
            return
        for table in self._tables:
            if hasattr(table, "route") or hasattr(table, "has_bare_locals"):
                yield from _asked(table, "", domain)

    def _is_said_of_address(self, recipient: Recipient) -> bool:
        """What tables in files say of this one address: patterns are asked, too."""
        base = self._base(recipient.domain)
        if base is None or base.domain[:1] == "[":
            return False
        local = compared_local(recipient.address.rpartition("@")[0])
        said = (value for table in self._tables for value in _asked(table, local, base.domain))
        return recipient.next_hop in _led(said, base)

    def _is_written_otherwise(self, recipient: Recipient) -> bool:
        """Whether the address is one of the domain for all that: capital letters, U-labels, another form of a literal."""
        _, at, written = recipient.address.rpartition("@")
        if not at:
            return False
        if written[:1] == "[":
            found = self._plain.resolve(Address(f"{_SOMEBODY}@{written}", _SOMEBODY, written))
            return isinstance(found, Route) and found.domain == recipient.domain
        try:
            return parse_domain(written) == recipient.domain
        except InvalidValue:
            return False


def _led(values: Iterable[str], base: Route) -> set[str]:
    """The next hops that values lead to where the configuration itself would send it to `base`."""
    found = (led_by(value, base) for value in values)
    return {route.next_hop for route in found if not isinstance(route, Refusal)}


def _asked(table: object, local: str, domain: str) -> list[str]:
    try:
        found = route_of(table, local, domain)
    except TableUnavailable:
        return []
    return [] if found is None else [found]


def _rule_keys(domain: str, is_ours: bool) -> list[str]:
    """Under which keys rules are that hold for a domain; as `policy/relayrules.py` looks."""
    return [OURS if is_ours else "", domain, *suffixes(domain)]


def _divided(config: Config, names: list[str]) -> tuple[list[str], list[tuple[str, ...]]]:
    """The tables in files, and for each of the others which next hops its source may name."""
    sources = [source_of(name, config.sources) for name in names]
    in_files = [name for name, source in zip(names, sources, strict=True) if source is None]
    return in_files, [tuple(source.next_hops) for source in sources if source is not None]


def _values_of(config: Config, names: list[str]) -> list[str]:
    """Every value of tables of routes by sender."""
    tables = config.tables if isinstance(config, LoadedConfig) else {}
    found: dict[str, None] = {}
    for name in names:
        data = tables.get(table_key("sender_routes", name))
        if data is not None:
            found |= dict.fromkeys(data.entries.values())
            found |= dict.fromkeys(rule[-1] for rule in data.rules if rule[0] in ("rule", "value"))
    return list(found)
