"""Where mail for an address goes, and whether the address exists.

One dictionary lookup for the domain and one for the recipient. Says nothing of rights: a Route with `ours` False is where the
mail would go if the client may relay, which `policy/relay.py` decides. Domains are compared as lower-case A-labels without
trailing dot, local parts of our domains without case. Postmaster exists in each of our domains, without a domain, and at our
own address literals (RFC 5321 4.5.1, 4.1.3). A domain with a dot in front is every name below it. Tables that the
configuration names are asked for what it does not say itself (`routing/tables/lookups.py`).
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import msgspec

from gatepost.config.errorreply import reply_of
from gatepost.config.nexthop import DISCARD, ERROR, HOLD, split_hold
from gatepost.config.ours import suffixes
from gatepost.config.recipients import fold_local
from gatepost.config.schema import Config
from gatepost.config.values import InvalidValue, parse_domain
from gatepost.model import Address
from gatepost.routing.answers import Answers
from gatepost.routing.expansion import Expander
from gatepost.routing.route import Refusal, Route
from gatepost.routing.table import Table, TableUnavailable
from gatepost.routing.tables.inline import InlineTable
from gatepost.routing.tables.lookups import Lookups
from gatepost.routing.tables.uses import is_plain_local

_QUOTED_PAIR = re.compile(r"\\(.)")
_POSTMASTER = "postmaster"
MAX_VIRTUAL_STEPS = 10
HELD = "held by its route"
_NO_PLACES = ("error", HOLD)
# what needs no second look; nothing else ever gets into the text of a next hop
_CANONICAL_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")

# Tables and codecs that `idna` loads when it first meets a name: a locked-in role could not open them later.
parse_domain("bücher.example")


UNKNOWN = Refusal(550, "1.1", "No such mailbox here; check the address for a typing mistake")
NO_DOMAIN = Refusal(550, "1.3", "The address has no domain; write the full address")
BAD_DOMAIN = Refusal(550, "1.2", "The domain of the address is not valid; check it for a typing mistake")
BAD_LITERAL = Refusal(550, "1.2", "This address literal is not that of another host; write a domain name")
LOOP = Refusal(550, "4.6", "The address leads in a circle; tell the postmaster of this site")
REWRITE_FAILED = Refusal(451, "3.0", "The address cannot be rewritten at the moment; try again later")
TABLE_DOWN = Refusal(451, "3.0", "The recipient cannot be checked at the moment; try again later")


class _OurDomain:
    __slots__ = ("catch_all", "is_plain", "name", "recipients", "route", "tables")

    def __init__(
        self,
        name: str,
        route: Route | Refusal,
        recipients: Table | None,
        tables: tuple[Any, ...] = (),
        asks: bool = False,
        catch_all: str = "",
    ) -> None:
        self.name = name
        self.catch_all = catch_all  # the address that unknown recipients go to
        self.route = route  # what is answered for whoever exists there
        self.recipients = recipients  # None: every local part, unless there are tables
        self.tables = tables
        self.is_plain = not (asks or tables or name[0] == ".")


class Router:
    """Routes of one configuration; immutable, shared by all sessions of a role."""

    __slots__ = (
        "_below",
        "_detail_separator",
        "_domains",
        "_expander",
        "_lookups",
        "_own_literals",
        "_postmaster",
        "_relay_next_hop",
    )

    def __init__(
        self, config: Config, recipients: dict[str, Table] | None = None, *, answers: Answers | None = None
    ) -> None:
        """`recipients` gives tables of recipients by domain in place of the lists in the configuration.

        `answers` is what tables that are asked over the network answer from; without it they cannot be had.
        """
        self._domains: dict[str, _OurDomain] = {}
        self._detail_separator = config.detail_separator or ""
        self._below: dict[str, _OurDomain] = {}
        self._lookups = Lookups(config, answers)
        self._expander = Expander(
            self._lookups, config.alias_domains, config.alias_max_recipients, self._ours, self._ended, self._outside
        )
        for name, domain in config.domains.items():
            table: Table | None = (recipients or {}).get(name)
            if table is None and domain.recipients is not None:
                table = InlineTable.of_keys(name, [entry for entry in domain.recipients if ":" not in entry])
            tables = self._lookups.named("recipients", (entry for entry in domain.recipients or () if ":" in entry))
            route = _led(_joined(domain.next_hop, name), "", name, True)
            place = self._below if name[0] == "." else self._domains  # ".a.test" itself is no address's domain
            place[name] = _OurDomain(name, route, table, tables, self._lookups.asks, domain.catch_all or "")
        relay = _joined(config.relay.next_hop, "")
        self._relay_next_hop = "" if relay == "mx:" else relay.removesuffix("mx:") if relay == "hold:mx:" else relay
        self._own_literals = {_host_of(listen) for listen in config.listen} - {"0.0.0.0", "::"}
        postmaster = config.postmaster or f"{_POSTMASTER}@{next(iter(config.domains)).lstrip('.')}"
        domain_name = postmaster.rpartition("@")[2]
        ours = self._domains.get(domain_name)
        next_hop = _joined(config.domains[domain_name].next_hop, domain_name) if ours else self._relay_next_hop
        self._postmaster = _led(next_hop, f"mx:{domain_name}", domain_name, True, postmaster)

    def resolve(self, address: Address, local_address: str = "") -> Route | Refusal:
        """Where mail for `address` goes; `local_address` is the IP address the client has connected to."""
        ours = self._domains.get(address.domain)
        if ours is None:
            return self._elsewhere(address, local_address)
        if not ours.is_plain:
            return self._asked(ours, address, address.domain)
        if ours.recipients is None:
            return ours.route
        local = address.local
        key = local.lower() if local.isascii() and local[:1] != '"' else compared_local(local)
        if key == _POSTMASTER:
            return ours.route
        try:
            if ours.recipients.lookup(key) is not None:
                return ours.route
            bare = self._without_detail(key)
            if bare and (bare == _POSTMASTER or ours.recipients.lookup(bare) is not None):
                return ours.route
            return self._caught(ours) if ours.catch_all else UNKNOWN
        except TableUnavailable:
            return TABLE_DOWN

    @property
    def has_sender_routes(self) -> bool:
        """Whether the reverse-path may name the next hop."""
        return self._lookups.has_sender_routes

    def route_by_sender(self, route: Route, reverse_path: str) -> Route | Refusal:
        """The route of mail for a domain that is not ours, as the tables of senders have it; a table of routes counts before."""
        if route.ours or route.is_tabled:
            return route
        try:
            next_hop = self._lookups.sender_route(reverse_path)
        except TableUnavailable:
            return TABLE_DOWN
        return route if next_hop is None else led_by(next_hop, route)

    def _ours(self, domain: str) -> _OurDomain | None:
        return self._domains.get(domain) or (self._above(domain) if self._below else None)

    def is_foreign(self, address: Address) -> bool:
        """Whether the domain is a name, and certainly none of ours."""
        return _CANONICAL_DOMAIN.fullmatch(address.domain) is not None and self._ours(address.domain) is None

    def _elsewhere(self, address: Address, local_address: str) -> Route | Refusal:
        domain = address.domain
        if not domain:
            return self._postmaster if compared_local(address.local) == _POSTMASTER else NO_DOMAIN
        if domain[0] == "[":
            return self._literal(address, local_address)
        if _CANONICAL_DOMAIN.fullmatch(domain) is None:
            try:
                name = parse_domain(domain)
            except InvalidValue:
                return BAD_DOMAIN
            if name in self._domains:
                return self.resolve(Address(address.text, address.local, name), local_address)
            domain = name
        above = self._above(domain) if self._below else None
        if above is not None:
            return self._asked(above, address, domain)
        return self._outside(address.local, domain)

    def _without_detail(self, key: str) -> str:
        """The local part in front of its detail; "" if it has none, or none is configured."""
        separator = self._detail_separator
        return key.partition(separator)[0] if separator and separator in key else ""

    def _above(self, domain: str) -> _OurDomain | None:
        """The entry `.rest` that a name lies below, the longest first."""
        for name in suffixes(domain):
            ours = self._below.get(name)
            if ours is not None:
                return ours
        return None

    def _outside(self, local: str, domain: str, written: str = "") -> Route | Refusal:
        """Where mail for a domain that is not ours goes; `written` is the address to put in place of the given one."""
        default = self._relay_next_hop
        if self._lookups.has_routes:
            try:
                next_hop = self._lookups.route(compared_local(local), domain)
            except TableUnavailable:
                return TABLE_DOWN
            if next_hop is not None:
                return _led(next_hop, default, domain, False, written, is_tabled=True)
        if default[:5] in _NO_PLACES:
            return _led(default, "", domain, False, written)
        return Route(default or "mx:" + domain, domain, False, written)

    def _asked(
        self, ours: _OurDomain, address: Address, domain: str, written: str = "", steps: int = 0
    ) -> Route | Refusal:
        """An address in a domain of ours, where tables are to be asked: does it stand for another, exist, go elsewhere?"""
        key = compared_local(address.local)
        try:
            new = self._lookups.virtual(key, domain, address.local) if self._lookups.has_virtual else None
            if new is not None and new != f"{address.local}@{domain}":
                if "," in new and "," not in address.local:  # what the client wrote makes no list of one address
                    return self._expander.expand(key, domain, new, "")
                return self._instead(new, steps)
            if self._lookups.has_aliases:
                alias = self._expander.find(key, domain)
                if alias is not None:
                    return self._expander.expand(key, domain, *alias)
        except TableUnavailable:
            return TABLE_DOWN
        found = self._ended(ours, address, domain, written)
        return self._caught(ours) if found is UNKNOWN and ours.catch_all and not written else found

    def _caught(self, ours: _OurDomain) -> Route | Refusal:
        """The route of a recipient that does not exist, where one address gets the mail of them all; it must exist itself."""
        text = ours.catch_all
        local, _, domain = text.rpartition("@")
        target = self._ours(domain)
        return UNKNOWN if target is None else self._asked(target, Address(text, local, domain), domain, text)

    def _ended(self, ours: _OurDomain, address: Address, domain: str, written: str = "") -> Route | Refusal:
        """An address of ours that stands for no other: does it exist, and where does it go?"""
        key = compared_local(address.local)
        try:
            if key != _POSTMASTER and not self._exists(ours, key, domain):
                bare = self._without_detail(key)
                if bare != _POSTMASTER and not (bare and self._exists(ours, bare, domain)):
                    return UNKNOWN
            next_hop = self._lookups.route(key, domain) if self._lookups.has_routes else None
        except TableUnavailable:
            return TABLE_DOWN
        route = ours.route
        if isinstance(route, Refusal):
            return route if next_hop is None else _led(next_hop, "", domain, True, written)
        default = f"mx:{domain}" if route.next_hop == f"mx:{ours.name}" else route.next_hop
        if next_hop is None:
            return Route(default, domain, True, written, route.hold)
        return _led(next_hop, default, domain, True, written)

    @staticmethod
    def _exists(ours: _OurDomain, key: str, domain: str) -> bool:
        if ours.recipients is None and not ours.tables:
            return True
        if ours.recipients is not None and ours.recipients.lookup(key) is not None:
            return True
        return any(table.find_address(key, domain) is not None for table in ours.tables)

    def _instead(self, new: str, steps: int) -> Route | Refusal:
        """The route of the address that stands for a recipient of ours; the right is that of the recipient."""
        if new.startswith("error:"):
            return _refusal(new)
        if steps >= MAX_VIRTUAL_STEPS:
            return LOOP
        local, _, domain = new.rpartition("@")
        if not _CANONICAL_DOMAIN.fullmatch(domain) or not local or not is_plain_local(local):
            return REWRITE_FAILED
        target = Address(new, local, domain)
        ours = self._domains.get(domain) or self._above(domain)
        if ours is not None:
            return self._asked(ours, target, domain, new, steps + 1)
        route = self._outside(local, domain, new)
        if isinstance(route, Refusal):
            return route
        return Route(route.next_hop, domain, True, new, route.hold)

    def _literal(self, address: Address, local_address: str) -> Route | Refusal:
        """`user@[192.0.2.1]`: our own has only a postmaster; another's is a host to relay to."""
        inner = address.domain[1:-1]
        tagged = inner[:5].lower() == "ipv6:"
        try:
            ip = ipaddress.ip_address(inner[5:] if tagged else inner)
        except ValueError:
            return BAD_LITERAL
        if tagged != (ip.version == 6) or address.domain[-1] != "]":
            return BAD_LITERAL
        plain = getattr(ip, "ipv4_mapped", None) or ip
        if str(plain) in self._own_literals or _same_address(plain, local_address):
            return self._postmaster if compared_local(address.local) == _POSTMASTER else UNKNOWN
        if plain.is_loopback or plain.is_unspecified or plain.is_multicast or plain.is_reserved:
            return BAD_LITERAL
        domain = f"[IPv6:{ip}]" if tagged else f"[{ip}]"
        return _led(self._relay_next_hop, "", domain, False)


def compared_local(local: str) -> str:
    """A local part as it is compared in our domains: without quotes, NFC, lower case."""
    if len(local) >= 2 and local[0] == local[-1] == '"':
        local = _QUOTED_PAIR.sub(r"\1", local[1:-1])
    return fold_local(local)


def _joined(next_hops: list[str], domain: str) -> str:
    """One canonical text; the "mx" of a configuration gets its domain."""
    if next_hops in (["mx"], ["hold:mx"]):
        return f"{next_hops[0]}:{domain}"
    return ",".join(next_hops)


def led_by(next_hop: str, route: Route) -> Route | Refusal:
    """Another next hop for a route: that of a rule, or of the sender."""
    led = _led(next_hop, route.next_hop, route.domain, route.ours, route.address)
    if isinstance(led, Refusal):
        return led
    expansion = route.expansion
    if expansion is not None:  # it is for all that the address stands for; "mx" and "hold:" mean another place for each
        routes = tuple(_led_member(next_hop, one) for one in expansion.routes)
        expansion = msgspec.structs.replace(expansion, routes=routes)
    return msgspec.structs.replace(route, next_hop=led.next_hop, hold=led.hold, expansion=expansion)


def _led_member(next_hop: str, route: Route) -> Route:
    """The same for one of several; what an alias drops is dropped."""
    if route.next_hop == DISCARD:
        return route
    led = _led(next_hop, route.next_hop, route.domain, route.ours)
    return route if isinstance(led, Refusal) else msgspec.structs.replace(route, next_hop=led.next_hop)


def _led(
    next_hop: str, default: str, domain: str, ours: bool, written: str = "", *, is_tabled: bool = False
) -> Route | Refusal:
    """What a next hop of the configuration or of a table means for an address; `default` is where held mail goes in the end."""
    if next_hop.startswith(ERROR):
        return _refusal(next_hop)
    is_held, place = split_hold(next_hop)
    place = place or split_hold(default)[1]
    if place.startswith(ERROR):
        return _refusal(place)
    if not place or place == "mx":
        place = "mx:" + domain
    return Route(place, domain, ours, written, HELD if is_held else "", is_tabled)


def _refusal(route: str) -> Refusal:
    """`error:CODE D.S.N TEXT`."""
    reply = reply_of(route)
    return Refusal(reply.code, reply.detail, reply.text)


def _host_of(listen: str) -> str:
    return listen.rpartition(":")[0].strip("[]")


def _same_address(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, text: str) -> bool:
    try:
        other = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return ip == (getattr(other, "ipv4_mapped", None) or other)
