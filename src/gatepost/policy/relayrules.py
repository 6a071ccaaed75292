"""`[[relay.rules]]` as the engine uses them: the first rule that holds gives the right, the route and the rate.

Part of the relay algebra, and as closed: a right comes from the client's address, its identity or its certificate; everybody
else has only that of our own domains. A reverse-path narrows a rule and never gives a right. Immutable and pure; the time is
a fact. A look-up costs the same for ten rules and for a hundred thousand: rules lie in buckets by domain and reverse-path, in a
bucket by address, identity and certificate.

With `literal` a rule means what is written, even where that opens the relay: for `policy/proof.py`, which shows the session.
"""

from __future__ import annotations

import ipaddress
import socket
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from operator import itemgetter

import msgspec

from gatepost.config.ours import suffixes
from gatepost.config.relayvalues import NULL_PATH, OURS, end_of_day_s
from gatepost.config.schema import RelayRule
from gatepost.policy.relay import AddressSet

EVERY = ""  # key of the rules that name no domain, or no reverse-path
Number = tuple[int, int]  # version, address
_MAPPED = b"\0" * 10 + b"\xff\xff"


class Rule(msgspec.Struct, frozen=True, gc=False):
    """What a rule gives, and what its bucket has not looked at already."""

    name: str
    next_hop: str  # joined by ","; "" is the ordinary route, "mx" that of the recipient's domain
    max_per_hour: int
    expires_s: float  # 0: never
    expect_many: bool
    networks: AddressSet | None  # with one of the next two only
    identities: frozenset[str] | None
    certificates: frozenset[str] | None
    is_right: bool  # False: it holds for everybody


class Found(msgspec.Struct, frozen=True, gc=False):
    """The rule that holds, and the right it rests on, as text of the envelope: "rule NAME (network N)"."""

    rule: Rule
    permit: str


def _found(rule: Rule, right: str) -> Found:
    return Found(rule, f"rule {rule.name} ({right})")


Entry = tuple[int, float, Found]  # number of the rule, until when it holds (0: always), what it gives


_NUMBER = itemgetter(0)
_ONLY_EVERY = (EVERY,)
_NO_NAMES: dict[str, list[int]] = {}
_NO_STARTS: list[int] = []
_NO_LISTS: list[tuple[Entry, ...]] = []


class _Gathered:
    """Rules of one domain key and one reverse-path key, while they are gathered."""

    __slots__ = ("certificates", "everybody", "identities", "ranges")

    def __init__(self) -> None:
        self.ranges: dict[int, list[tuple[int, int, int, str]]] = {4: [], 6: []}
        self.identities: dict[str, list[int]] = {}
        self.certificates: dict[str, list[int]] = {}
        self.everybody: list[int] = []


class _Bucket:
    """The same, for look-ups; every list ascends, so that the first that holds is the first.

    What is empty is shared: of a hundred thousand buckets few are in the processor's cache, and each object more would be one more to
    wait for (bench/policy.py).
    """

    __slots__ = ("certificates", "everybody", "has_others", "identities", "lists4", "lists6", "starts4", "starts6")

    def __init__(self, gathered: _Gathered, rules: Sequence[Rule]) -> None:
        starts4, self.lists4 = _segments(gathered.ranges[4], rules)
        self.starts4 = array("Q", starts4) if starts4 else _NO_STARTS  # numbers side by side: fewer waits for memory
        self.starts6, self.lists6 = _segments(gathered.ranges[6], rules)
        self.identities = gathered.identities or _NO_NAMES
        self.certificates = gathered.certificates or _NO_NAMES
        self.everybody = tuple(gathered.everybody)
        self.has_others = bool(self.identities or self.certificates or self.everybody)

    def at(self, number: Number) -> tuple[Entry, ...]:
        """The rules of an address."""
        if number[0] == 4:
            index = bisect_right(self.starts4, number[1]) - 1
            return self.lists4[index] if index >= 0 else ()
        index = bisect_right(self.starts6, number[1]) - 1
        return self.lists6[index] if index >= 0 else ()


def _segments(
    ranges: list[tuple[int, int, int, str]], rules: Sequence[Rule]
) -> tuple[list[int], list[tuple[Entry, ...]]]:
    """Where a different set of rules begins, and the rules from there on; networks nest or are apart."""
    starts: list[int] = []
    lists: list[tuple[Entry, ...]] = []
    open_ranges: list[tuple[int, tuple[Entry, ...]]] = []

    def begin(at: int, entries: tuple[Entry, ...]) -> None:
        if starts and starts[-1] == at:
            lists[-1] = entries
        else:
            starts.append(at)
            lists.append(entries)

    def close_before(at: int) -> None:
        while open_ranges and open_ranges[-1][0] < at:
            last, _ = open_ranges.pop()
            begin(last + 1, open_ranges[-1][1] if open_ranges else ())

    for first, minus_last, index, text in sorted(ranges):
        close_before(first)
        outer = open_ranges[-1][1] if open_ranges else ()
        rule = rules[index]
        entry = (index, rule.expires_s, _found(rule, f"network {text}"))
        entries = _first_that_hold(sorted((*outer, entry), key=_NUMBER))
        open_ranges.append((-minus_last, entries))
        begin(first, entries)
    close_before(1 << 129)
    return (starts, lists) if starts else (_NO_STARTS, _NO_LISTS)


def _first_that_hold(entries: list[Entry]) -> tuple[Entry, ...]:
    """Behind a rule that never ends no other is reached."""
    kept = []
    for entry in entries:
        kept.append(entry)
        if not entry[1]:
            break
    return tuple(kept)


ByPath = dict[str, _Bucket] | tuple[str, _Bucket]


class RelayRules:
    """The rules of one configuration."""

    __slots__ = ("_buckets", "_has_paths", "_has_suffixes", "_literal", "by_name", "rules")

    def __init__(self, rules: Iterable[RelayRule], *, literal: bool = False) -> None:
        self._literal = literal
        self.rules: list[Rule] = []
        gathered: dict[tuple[str, str], _Gathered] = {}
        for number, rule in enumerate(rules):
            self.rules.append(_compiled(rule))
            _place(gathered, number, rule)
        by_domain: dict[str, dict[str, _Bucket]] = {}
        for (domain, path), found in gathered.items():
            by_domain.setdefault(domain, {})[path] = _Bucket(found, self.rules)
        # A domain with one reverse-path key has a pair instead of a dictionary, which would be three waits for memory more.
        self._buckets: dict[str, ByPath] = {
            domain: next(iter(by_path.items())) if len(by_path) == 1 else by_path
            for domain, by_path in by_domain.items()
        }
        self._has_paths = any(path != EVERY for _, path in gathered)
        self._has_suffixes = any(domain.startswith(".") for domain in self._buckets)
        self.by_name = {rule.name: rule for rule in self.rules}

    def __bool__(self) -> bool:
        return bool(self.rules)

    def find(
        self,
        client: Number | None,
        identity: str,
        certificate: str,
        reverse_path: str,
        domain: str,
        is_ours: bool,
        now_s: float,
    ) -> Found | None:
        """The first rule that holds. `client` is from `number_of`; `domain` canonical; `now_s` 0: the time is not known."""
        best = len(self.rules)
        found: Found | None = None
        paths: list[str] | None = None
        for by_path in self._by_domain(domain, is_ours):
            if self._has_paths and paths is None:
                paths = [EVERY, *path_keys(reverse_path)]
            if type(by_path) is tuple:
                only = by_path[0]
                keys: Sequence[str] = (only,) if only == EVERY or (paths and only in paths) else ()
            else:
                keys = paths or _ONLY_EVERY
            for path in keys:
                bucket = by_path[1] if type(by_path) is tuple else by_path.get(path)  # type: ignore[union-attr]
                if bucket is None:
                    continue
                if client is not None:
                    for number, expires_s, candidate in bucket.at(client):
                        if number >= best:
                            break
                        if not expires_s or 0.0 < now_s < expires_s:
                            best, found = number, candidate
                            break
                if not bucket.has_others:
                    continue
                for number, permit in self._others(bucket, identity, certificate, is_ours):
                    if number < best and self._holds(number, client, identity, certificate, now_s):
                        best, found = number, _found(self.rules[number], permit)
        return found

    def _by_domain(self, domain: str, is_ours: bool) -> list[ByPath]:
        """The buckets of every key that fits a domain."""
        get = self._buckets.get
        found = []
        every = get(OURS if is_ours else EVERY)
        if every is not None:
            found.append(every)
        own = get(domain)
        if own is not None:
            found.append(own)
        if self._has_suffixes:
            found += filter(None, map(get, suffixes(domain)))
        return found

    def _others(self, bucket: _Bucket, identity: str, certificate: str, is_ours: bool) -> Iterable[tuple[int, str]]:
        if identity and bucket.identities:
            for key in (identity, "*"):
                for number in bucket.identities.get(key, ()):
                    yield number, f"identity {identity}"
        if certificate and bucket.certificates:
            for key in (certificate, "*"):
                for number in bucket.certificates.get(key, ()):
                    yield number, f"certificate {certificate}"
        if is_ours or self._literal:
            for number in bucket.everybody:
                yield number, "recipient-domain" if is_ours else "anyone"

    def _is_in_time(self, number: int, now_s: float) -> bool:
        expires_s = self.rules[number].expires_s
        return not expires_s or 0.0 < now_s < expires_s

    def _holds(self, number: int, client: Number | None, identity: str, certificate: str, now_s: float) -> bool:
        rule = self.rules[number]
        if not self._is_in_time(number, now_s):
            return False
        if rule.networks is not None and (client is None or not _is_member(rule.networks, client)):
            return False
        if rule.identities is not None and identity not in rule.identities and "*" not in rule.identities:
            return False
        certificates = rule.certificates
        return certificates is None or bool(certificate) and (certificate in certificates or "*" in certificates)


def _place(gathered: dict[tuple[str, str], _Gathered], number: int, rule: RelayRule) -> None:
    """Put a rule into the buckets of its domains and reverse-paths."""
    for domain in rule.domains or (EVERY,):
        for path in rule.reverse_paths or (EVERY,):
            bucket = gathered.get((domain, path))
            if bucket is None:
                bucket = gathered[domain, path] = _Gathered()
            if rule.identities:
                for identity in rule.identities:
                    bucket.identities.setdefault(identity, []).append(number)
            elif rule.certificates:
                for certificate in rule.certificates:
                    bucket.certificates.setdefault(certificate, []).append(number)
            elif rule.networks:
                for text in rule.networks:
                    version, first, last = range_of(text)
                    bucket.ranges[version].append((first, -last, number, text))
            else:
                bucket.everybody.append(number)


def _compiled(rule: RelayRule) -> Rule:
    has_name = bool(rule.identities or rule.certificates)
    return Rule(
        name=rule.name,
        next_hop=",".join(rule.next_hop),
        max_per_hour=rule.max_per_hour,
        expires_s=end_of_day_s(rule.expires) if rule.expires else 0.0,
        expect_many=rule.expect_many,
        networks=AddressSet(rule.networks) if rule.networks and has_name else None,
        identities=frozenset(rule.identities) if rule.identities else None,
        certificates=frozenset(rule.certificates) if rule.certificates else None,
        is_right=bool(rule.networks or has_name),
    )


def range_of(text: str) -> tuple[int, int, int]:
    """Version, first and last address of a network; IPv4-mapped IPv6 is IPv4."""
    network = ipaddress.ip_network(text)
    first, last = int(network.network_address), int(network.broadcast_address)
    if network.version == 6 and network.prefixlen >= 96 and first >> 32 == 0xFFFF:
        return 4, first & 0xFFFFFFFF, last & 0xFFFFFFFF
    return network.version, first, last


def number_of(address: str) -> Number | None:
    """An address as a number; None for what is not an address. Any text may be asked."""
    try:
        if ":" not in address:
            return 4, int.from_bytes(socket.inet_pton(socket.AF_INET, address), "big")
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):
        return None
    if packed[:12] == _MAPPED:
        return 4, int.from_bytes(packed[12:], "big")
    return 6, int.from_bytes(packed, "big")


def path_keys(reverse_path: str) -> list[str]:
    """Every pattern (see config/relayvalues.py) that fits a reverse-path."""
    if not reverse_path:
        return [NULL_PATH]
    local, _, domain = reverse_path.lower().rpartition("@")
    domain = domain.removesuffix(".")
    return [f"{local}@{domain}", f"@{domain}", *["@" + suffix for suffix in suffixes(domain)]]


def _is_member(networks: AddressSet, client: Number) -> bool:
    version, number = client
    text = str(ipaddress.IPv4Address(number)) if version == 4 else str(ipaddress.IPv6Address(number))
    return text in networks
