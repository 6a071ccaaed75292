"""What RELAY in an access table means here: rows of the relay algebra, or an error that says why not.

`Connect:10.1 RELAY` is a network that may relay, less what more specific lines say otherwise. `To:domain RELAY` makes the
domain and what is below it recipient domains. RELAY for a sender (`From:`) or for the name of a client is refused: anyone can
write the first, and whoever answers for an address in DNS decides the second. A line without tag means all of them to
sendmail; what is left of it here is told in a note.
"""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec

from gatepost.config.errors import ConfigError
from gatepost.config.ours import parse_our_domain
from gatepost.config.tables import TableData, TableNote
from gatepost.config.values import InvalidValue, parse_domain, parse_network
from gatepost.routing.tables.sendmail_keys import bare_key, network_of, parse_value, tag_of

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SAFE = 'give your own machines the right by their address, "Connect:192.0.2 RELAY", or let them authenticate'


class Rights(msgspec.Struct):
    """Networks that may relay; recipient domains, with a dot in front for what is below; names that stay outside."""

    networks: list[str] = []
    domains: list[str] = []
    excluded: list[str] = []
    errors: list[ConfigError] = []
    notes: list[TableNote] = []


def rights_of(data: TableData) -> Rights:
    """The rights that an access table gives, and what it may not give."""
    file = data.files[0] if data.files else data.argument
    rights = Rights()
    networks: dict[Network, tuple[int, bool]] = {}  # network -> (rank of the tag, whether RELAY)
    domains: dict[str, tuple[int, bool]] = {}
    for key, value in data.entries.items():
        tag = tag_of(key)
        if tag not in ("", "connect", "from", "to"):
            continue
        bare, is_relay = bare_key(key), parse_value(value).word == "RELAY"
        line = data.lines.get(key, 0)
        network = network_of(bare)
        if is_relay:
            _judge(tag, bare, network, file, line, rights)
        if network is not None and tag in ("", "connect"):
            _keep(networks, network, tag, is_relay)
        if network is None and "@" not in bare and not bare.startswith("[") and tag in ("", "to"):
            _keep(domains, bare, tag, is_relay)
    rights.networks = [str(network) for network in _without_exceptions(networks)]
    for name, (_, is_relay) in sorted(domains.items()):
        if is_relay:
            rights.domains += [name] if name.startswith(".") else [name, "." + name]
        elif _is_below(name, domains):
            rights.excluded.append(name)
    return rights


def _keep(found: dict[Any, tuple[int, bool]], key: object, tag: str, is_relay: bool) -> None:
    """A tagged line counts before one without tag."""
    rank = 1 if tag else 0
    if key not in found or found[key][0] < rank:
        found[key] = (rank, is_relay)


def _judge(tag: str, bare: str, network: Network | None, file: str, line: int, rights: Rights) -> None:
    if tag == "from":
        problem = f'"From:{bare} RELAY" would let everyone relay who writes this sender address'
        rights.errors.append(ConfigError(file, line, "", problem, _SAFE))
    elif tag == "connect" and network is None:
        problem = f'"Connect:{bare} RELAY" would let everyone relay whose address is given this name in DNS'
        rights.errors.append(ConfigError(file, line, "", problem, _SAFE))
    elif tag != "to" and network is not None:
        try:
            parse_network(str(network))
        except InvalidValue as refused:
            rights.errors.append(ConfigError(file, line, "", f'"{bare} RELAY": {refused.problem}', refused.advice))
    elif tag == "to" and (network is not None or "@" in bare):
        problem = f'"To:{bare} RELAY" gives no right: rights to receive are given to domains'
        rights.notes.append(TableNote(file, line, problem, f'write "To:{bare.rpartition("@")[2]} RELAY"'))
    elif network is None and "@" not in bare and (error := _too_wide(bare)) is not None:
        rights.errors.append(ConfigError(file, line, "", f'"{bare} RELAY": {error.problem}', error.advice))
    elif not tag and network is None:
        name = bare.rpartition("@")[2]
        if "@" in bare:
            problem = f'"{bare} RELAY" gives no right: rights to receive are given to domains'
            rights.notes.append(TableNote(file, line, problem, f'write "To:{name} RELAY"'))
        else:
            problem = (
                f'"{bare} RELAY" is taken as To:, for mail to the domain; clients with this name in DNS get no right'
            )
            rights.notes.append(TableNote(file, line, problem, f'write "To:{bare} RELAY"'))


def _too_wide(bare: str) -> InvalidValue | None:
    """What is wrong with a domain that is ours with all below it; what is no name at all matches nothing."""
    try:
        parse_domain(bare.removeprefix("."))
    except InvalidValue:
        return None
    try:
        parse_our_domain("." + bare.removeprefix("."))
    except InvalidValue as error:
        return error
    return None


def _without_exceptions(networks: dict[Network, tuple[int, bool]]) -> list[Network]:
    """The networks with RELAY, less the more specific ones without it, plus the ones inside those that have it again.

    One walk over the addresses in their order: networks nest or are apart, so that the innermost one open says what counts.
    """
    found: list[Network] = []
    for version in (4, 6):
        address_of = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
        for first, last in _relay_ranges(networks, version):
            found.extend(ipaddress.summarize_address_range(address_of(first), address_of(last)))
    return found


def _relay_ranges(networks: dict[Network, tuple[int, bool]], version: int) -> list[tuple[int, int]]:
    spans = sorted(
        (int(network.network_address), -int(network.broadcast_address), is_relay)
        for network, (_, is_relay) in networks.items()
        if network.version == version
    )
    ranges: list[tuple[int, int]] = []
    outer: list[tuple[int, bool]] = []  # (last address, whether RELAY) of the networks around the place
    at = 0

    def upto(end: int) -> None:
        nonlocal at
        if outer and outer[-1][1] and at < end:
            if ranges and ranges[-1][1] == at - 1:
                ranges[-1] = (ranges[-1][0], end - 1)
            else:
                ranges.append((at, end - 1))
        at = max(at, end)

    for first, minus_last, is_relay in [*spans, (1 << 129, -(1 << 129), False)]:
        while outer and outer[-1][0] < first:
            upto(outer[-1][0] + 1)
            outer.pop()
        upto(first)
        outer.append((-minus_last, is_relay))
    return ranges


def _is_below(name: str, domains: dict[str, tuple[int, bool]]) -> bool:
    """Whether a domain lies below one that has RELAY."""
    rest = name.lstrip(".")
    while "." in rest:
        rest = rest.partition(".")[2]
        if domains.get(rest, (0, False))[1] or domains.get("." + rest, (0, False))[1]:
            return True
    return False
