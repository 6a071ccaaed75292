"""From DNS answers to the ordered list of hosts to try (RFC 5321 5.1, RFC 7505). Pure: no lookup, no clock.

`domain_hosts` turns the answer to the MX question into names, `mx_targets` turns names and their addresses into
targets; `order` mixes equal preferences. A domain whose mail cannot be routed is a `RouteFailure` value.

Invariants: a failed lookup defers, it never fails a recipient; hosts of equal or worse preference than ourselves are
never tried (RFC 5321 5.1); the lists are bounded whatever the DNS says.
"""

from __future__ import annotations

import ipaddress
import random
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gatepost.model import NextHopTrouble, Result

MAX_ADDRESSES_PER_HOST = 4
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.(?!-)[a-z0-9_-]{1,63})*")
_ALL_DIGITS = re.compile(r"[0-9.]+")


class MxHost(NamedTuple):
    """A host name with its preference; lower is better."""

    preference: int
    name: str


class Target(NamedTuple):
    """An address to connect to."""

    name: str
    address: str
    port: int
    lmtp: bool
    preference: int

    @property
    def label(self) -> str:
        """The host as outcomes name it, "name[address]:port"."""
        return f"{self.name}[{self.address}]:{self.port}"


class Answer(NamedTuple):
    """A DNS answer: `status` is "ok", "nodata", "nxdomain" or "tempfail"."""

    status: str
    records: Sequence[str]


class RouteFailure(NamedTuple):
    """Why there is nothing to connect to."""

    result: Result
    status: str
    text: str
    trouble: NextHopTrouble = NextHopTrouble.NONE


def parse_literal(domain: str) -> str:
    """The address in an address literal (RFC 5321 4.1.3), empty if it is none."""
    if not (domain.startswith("[") and domain.endswith("]")):
        return ""
    text = domain[1:-1]
    try:
        if text[:5].lower() == "ipv6:":
            return str(ipaddress.IPv6Address(text[5:]))
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        return ""


def domain_hosts(domain: str, answer: Answer, max_hosts: int) -> list[MxHost] | RouteFailure:
    """The MX hosts of a domain, best first; the domain itself if it has no MX record."""
    if answer.status == "nxdomain":
        return RouteFailure(Result.FAILED, "5.1.2", f"the domain {domain} does not exist")
    if answer.status == "nodata":
        return [MxHost(0, domain)]  # implicit MX, RFC 5321 5.1
    if answer.status != "ok":
        return _tempfail(f"MX lookup of {domain} failed")
    hosts: list[MxHost] = []
    null = 0
    for record in answer.records:
        preference, _, name = record.strip().partition(" ")
        name = name.strip().lower()
        if name == ".":
            null += 1
            continue
        name = name.removesuffix(".")
        if preference.isascii() and preference.isdigit() and len(preference) <= 5 and _is_host_name(name):
            hosts.append(MxHost(int(preference), name))
    if null and null == len(answer.records):
        return RouteFailure(Result.FAILED, "5.1.10", f"the domain {domain} accepts no mail (null MX)")  # RFC 7505
    if not hosts:
        return RouteFailure(Result.FAILED, "5.4.4", f"no MX record of {domain} names a host")
    best: dict[str, int] = {}
    for host in hosts:
        best[host.name] = min(host.preference, best.get(host.name, host.preference))
    return sorted(MxHost(preference, name) for name, preference in best.items())[:max_hosts]


def mx_targets(
    domain: str,
    hosts: Sequence[MxHost],
    addresses: Mapping[str, tuple[Answer, Answer]],
    *,
    port: int,
    own_names: frozenset[str],
    own_addresses: frozenset[str],
    prefer_ipv6: bool = False,
    loopback: bool = False,
    is_backup: bool = False,
) -> list[Target] | RouteFailure:
    """The addresses of these hosts in order; `addresses` maps a name to its A and AAAA answers.

    With `is_backup` we must be one of the hosts ourselves: else which of them are preferred to us is not known, and one may be us.
    `loopback` allows MX hosts on 127.0.0.0/8 and ::1, which no domain of others has any business to name.
    """
    targets: list[Target] = []
    worst = 1 << 16  # preference of ourselves, if we are among the hosts
    unsure = False
    unusable = False
    for host in hosts:
        if host.name in own_names:
            worst = min(worst, host.preference)
            continue
        answers = addresses.get(host.name, (_MISSING, _MISSING))
        unsure = unsure or any(answer.status == "tempfail" for answer in answers)
        for address in host_addresses(answers, prefer_ipv6):
            if is_own(address, port, own_addresses):
                worst = min(worst, host.preference)
            elif _is_public_enough(address, loopback):
                targets.append(Target(host.name, address, port, False, host.preference))
            else:
                unusable = True
    if is_backup and worst == 1 << 16 and not unsure:
        text = f"this gateway is backup for {domain}, but not among its MX hosts; hostname or smtp.banner_name must be the name there"
        return RouteFailure(Result.DEFERRED, "4.4.6", text, NextHopTrouble.DOWN)
    usable = [target for target in targets if target.preference < worst]
    if usable and not (is_backup and worst == 1 << 16):
        return usable
    if unsure:
        return _tempfail(f"address lookup of the MX hosts of {domain} failed")
    if worst < 1 << 16:
        return RouteFailure(Result.FAILED, "5.4.6", f"mail for {domain} loops back to this host")
    if unusable:
        return RouteFailure(Result.FAILED, "5.4.4", f"the MX hosts of {domain} have only addresses that are not public")
    return RouteFailure(Result.FAILED, "5.4.4", f"the MX hosts of {domain} have no address")


def host_addresses(answers: tuple[Answer, Answer], prefer_ipv6: bool) -> list[str]:
    """The addresses of one host from its A and AAAA answers, in order of preference and bounded."""
    groups: list[list[str]] = []
    for answer, kind in zip(answers, (ipaddress.IPv4Address, ipaddress.IPv6Address), strict=True):
        group: list[str] = []
        for record in answer.records if answer.status == "ok" else ():
            try:
                group.append(str(kind(record)))
            except ValueError:
                continue
        groups.append(group[:MAX_ADDRESSES_PER_HOST])
    if prefer_ipv6:
        groups.reverse()
    return groups[0] + groups[1]


def is_own(address: str, port: int, own_addresses: frozenset[str]) -> bool:
    """Whether we listen there; `own_addresses` holds "address", for every port, or "address:port" ("[v6]:port")."""
    return address in own_addresses or (f"[{address}]" if ":" in address else address) + f":{port}" in own_addresses


def order(targets: Sequence[Target], rng: random.Random) -> list[Target]:
    """By preference, hosts of equal preference in random order (RFC 5321 5.1); the addresses of a host stay together."""
    lots: dict[tuple[int, str], float] = {}
    for target in targets:
        lots.setdefault((target.preference, target.name), rng.random())
    return sorted(targets, key=lambda target: (target.preference, lots[target.preference, target.name]))


def _is_host_name(name: str) -> bool:
    """RFC 5321 2.3.5: a name, not an address written as one."""
    return len(name) <= 253 and _NAME.fullmatch(name) is not None and _ALL_DIGITS.fullmatch(name) is None


def _is_public_enough(address: str, loopback: bool) -> bool:
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if parsed.is_loopback:
        return loopback
    if isinstance(parsed, ipaddress.IPv4Address) and parsed.packed[0] == 0:
        return False
    return not (parsed.is_unspecified or parsed.is_multicast or parsed.is_link_local or int(parsed) == 0xFFFFFFFF)


def _tempfail(text: str) -> RouteFailure:
    return RouteFailure(Result.DEFERRED, "4.4.3", text, NextHopTrouble.DOWN)


_MISSING = Answer("nodata", ())
