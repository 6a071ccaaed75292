"""Postfix's cidr: tables: networks and values, the first that matches counts (cidr_table(5)).

`!network` is every other address of the same family, `if network ... endif` limits the rules between them. All rules
together become disjoint ranges of addresses when the table is built, so that a lookup is one bisect however many rules there are.
"""

from __future__ import annotations

import heapq
import ipaddress
import socket
from bisect import bisect_right
from typing import ClassVar

from gatepost.config.tables import TableData
from gatepost.config.values import InvalidValue
from gatepost.routing.tables.postfix_text import read_rules

Range = tuple[int, int]
_LAST = {4: (1 << 32) - 1, 6: (1 << 128) - 1}
_MAPPED = b"\0" * 10 + b"\xff\xff"


class CidrTable:
    """Values by network; a key is an IP address, anything else has no value."""

    kind: ClassVar[str] = "cidr"
    is_path = True
    __slots__ = ("_starts", "_values", "name")

    def __init__(self, name: str, rules: list[tuple[str, ...]]) -> None:
        self.name = name
        self._starts: dict[int, list[int]] = {}
        self._values: dict[int, list[str | None]] = {}
        for version in (4, 6):
            self._starts[version], self._values[version] = _paint(_ranges(rules, version))

    @classmethod
    def load(cls, argument: str) -> TableData:
        """Read the file; raises ConfigErrors with every bad line."""
        return read_rules(cls.kind, argument, _parse_rule)

    @classmethod
    def of_data(cls, data: TableData) -> CidrTable:
        """The table out of what was read."""
        return cls(data.name, data.rules)

    def lookup(self, key: str) -> str | None:
        """The value of the first network that holds the address."""
        try:
            if ":" in key:
                packed = socket.inet_pton(socket.AF_INET6, key)
                version = 6
                if packed[:12] == _MAPPED:
                    packed, version = packed[12:], 4
            else:
                packed, version = socket.inet_pton(socket.AF_INET, key), 4
        except (OSError, ValueError):
            return None
        index = bisect_right(self._starts[version], int.from_bytes(packed, "big")) - 1
        return self._values[version][index] if index >= 0 else None

    def find_address(self, local: str, domain: str) -> str | None:
        """None: a mail address is no IP address."""
        return None


def _parse_rule(text: str) -> tuple[str, ...]:
    """(what, "!" or "", network, value) of one logical line; raises InvalidValue."""
    word, rest = _first_word(text)
    name = "rule"
    if word.lower() == "endif":
        return ("endif",)
    if word.lower() == "if":
        name = "if"
        word, rest = _first_word(rest)
    negated = word.startswith("!")
    network_text = word[1:] if negated else word
    if not network_text and negated:
        network_text, rest = _first_word(rest)
    try:
        network = ipaddress.ip_network(network_text)
    except ValueError:
        try:
            wide = ipaddress.ip_network(network_text, strict=False)
        except ValueError:
            advice = 'write one such as "192.0.2.0/24 REJECT"'
            raise InvalidValue(f'"{network_text}" is not a network', advice) from None
        problem = f'"{network_text}" has bits set behind its prefix length'
        raise InvalidValue(problem, f'write "{wide}"') from None
    if name == "rule" and not rest.strip():
        raise InvalidValue(f'"{network_text}" has no value', "write: network, white space, value")
    return (name, "!" if negated else "", str(network), rest.strip())


def _first_word(text: str) -> tuple[str, str]:
    parts = text.split(None, 1)
    return (parts[0] if parts else ""), (parts[1] if len(parts) > 1 else "")


def _ranges(rules: list[tuple[str, ...]], version: int) -> list[tuple[int, int, int, str]]:
    """(first, last, order, value) of each rule for one family of addresses."""
    everything: list[Range] = [(0, _LAST[version])]
    scopes: list[list[Range]] = [everything]
    found: list[tuple[int, int, int, str]] = []
    for order, rule in enumerate(rules):
        if rule[0] == "endif":
            scopes.pop()
            continue
        own = _matching(rule[1] == "!", ipaddress.ip_network(rule[2]), version)
        inside = [(max(a, c), min(b, d)) for a, b in own for c, d in scopes[-1] if max(a, c) <= min(b, d)]
        if rule[0] == "if":
            scopes.append(inside)
        else:
            found.extend((first, last, order, rule[3]) for first, last in inside)
    return found


def _matching(negated: bool, network: ipaddress.IPv4Network | ipaddress.IPv6Network, version: int) -> list[Range]:
    if network.version != version:
        return []
    first, last = int(network.network_address), int(network.broadcast_address)
    if not negated:
        return [(first, last)]
    return [span for span in ((0, first - 1), (last + 1, _LAST[version])) if span[0] <= span[1]]


def _paint(spans: list[tuple[int, int, int, str]]) -> tuple[list[int], list[str | None]]:
    """Starts of disjoint ranges and their values: of the spans over a range the one with the lowest order."""
    bounds = sorted({bound for first, last, _, _ in spans for bound in (first, last + 1)})
    waiting = sorted(spans, reverse=True)
    over: list[tuple[int, int, str]] = []
    starts: list[int] = []
    values: list[str | None] = []
    for bound in bounds:
        while waiting and waiting[-1][0] <= bound:
            _, last, order, value = waiting.pop()
            heapq.heappush(over, (order, last, value))
        while over and over[0][1] < bound:
            heapq.heappop(over)
        value_here = over[0][2] if over else None
        if not values or values[-1] != value_here:
            starts.append(bound)
            values.append(value_here)
    return starts, values
