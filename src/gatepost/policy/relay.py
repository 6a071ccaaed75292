"""The relay decision: the small closed algebra of who may send where. Default deny.

There are five kinds of right: membership of a recipient domain, an address range of the client, a client certificate that was
verified, an identity that was authenticated, and a user of this host whom the kernel names; there is no sixth. Nothing here ever sees a reverse-path, a
HELO name or a DNS name, so no decision can depend on one. Pure and total: any text is answered, what is not an IP address has
no right. Apart from spam policy, so that it can be proved.
"""

from __future__ import annotations

import ipaddress
import socket
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable

import msgspec

_MAPPED = b"\0" * 10 + b"\xff\xff"  # ::ffff:0:0/96, RFC 4291 2.5.5.2
_ROUTE_CHARACTERS = frozenset("%!@:")


class AddressRange(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The client's address lies in a network of ours."""

    network: str

    @property
    def text(self) -> str:
        """As it is written to the envelope."""
        return f"network {self.network}"


class RecipientDomain(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The recipient's domain is one we accept mail for: from anyone."""

    @property
    def text(self) -> str:
        """As it is written to the envelope."""
        return "recipient-domain"


class ClientCertificate(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The client has proved that it holds the key of a certificate that is listed."""

    name: str

    @property
    def text(self) -> str:
        """As it is written to the envelope."""
        return f"certificate {self.name}"


class Identity(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The client has authenticated (AUTH) as a user of ours. Which reverse-paths are his is `identity.py`'s."""

    user: str

    @property
    def text(self) -> str:
        """As it is written to the envelope."""
        return f"identity {self.user}"


class LocalUser(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The kernel says that the client is a process of this user of this host, who is listed."""

    user: str

    @property
    def text(self) -> str:
        """As it is written to the envelope."""
        return f"local user {self.user}"


# Closed: what `decide` may be given is here and nowhere else.
ClientPermit = AddressRange | ClientCertificate | Identity | LocalUser
Permit = ClientPermit | RecipientDomain

RECIPIENT_DOMAIN = RecipientDomain()


class AddressSet:
    """Networks, for fast membership of an address given as text: one bisect over exact integers."""

    __slots__ = ("_ends4", "_ends6", "_names4", "_names6", "_starts4", "_starts6")

    def __init__(self, networks: Iterable[str]) -> None:
        ranges: dict[int, list[tuple[int, int, str]]] = {4: [], 6: []}
        for text in networks:
            network = ipaddress.ip_network(text)
            first, last = int(network.network_address), int(network.broadcast_address)
            version = network.version
            if version == 6 and network.prefixlen >= 96 and first >> 32 == 0xFFFF:  # IPv4-mapped
                version, first, last = 4, first & 0xFFFFFFFF, last & 0xFFFFFFFF
            ranges[version].append((first, -last, text))
        self._starts4, self._ends4, self._names4 = _disjoint(ranges[4])
        self._starts6, self._ends6, self._names6 = _disjoint(ranges[6])

    def match(self, address: str) -> str | None:
        """The network (as configured, the widest) that holds the address, or None. Any text may be asked."""
        try:
            if ":" not in address:
                number = int.from_bytes(socket.inet_pton(socket.AF_INET, address), "big")
            else:
                packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
                if packed[:12] != _MAPPED:
                    number = int.from_bytes(packed, "big")
                    index = bisect_right(self._starts6, number) - 1
                    return self._names6[index] if index >= 0 and number <= self._ends6[index] else None
                number = int.from_bytes(packed[12:], "big")
        except (OSError, ValueError):  # not an address: "local", a socket path, or not even text for C
            return None
        index = bisect_right(self._starts4, number) - 1
        return self._names4[index] if index >= 0 and number <= self._ends4[index] else None

    def __contains__(self, address: str) -> bool:
        return self.match(address) is not None


def _disjoint(ranges: list[tuple[int, int, str]]) -> tuple[list[int], list[int], list[str]]:
    """Starts, ends and names, without the networks that lie inside another. Networks nest or are apart, never overlap."""
    starts: list[int] = []
    ends: list[int] = []
    names: list[str] = []
    for first, minus_last, name in sorted(ranges):
        if ends and first <= ends[-1]:
            continue
        starts.append(first)
        ends.append(-minus_last)
        names.append(name)
    return starts, ends, names


class Permits:
    """The rights that a configuration gives."""

    __slots__ = ("_networks",)

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = AddressSet(networks)

    def of_client(self, client_address: str) -> AddressRange | None:
        """The right that a client has by its address; asked once for each connection."""
        network = self._networks.match(client_address)
        return None if network is None else AddressRange(network)


class CertificateRight(msgspec.Struct, frozen=True):
    """One `[[relay.certificates]]`; all are SHA-256 but the names."""

    anchors: frozenset[str]  # what the chain must end with
    names: tuple[str, ...] = ()  # "mx.example.net", "*.example.net" (one label), "user@example.net", an address
    fingerprints: frozenset[str] = frozenset()


def permit_of_certificate(
    rights: Iterable[CertificateRight], names: Iterable[str], fingerprint: str, anchor: str
) -> ClientCertificate | None:
    """The right of a certificate that was verified up to `anchor`; its `names` are "dns:", "email:" or "ip:" and the name.

    Where a row has names and fingerprints both must hold. Without an anchor there is no right, whatever else is known.
    """
    plain = [name.partition(":")[2] for name in names]
    for right in rights:
        if not anchor or anchor not in right.anchors or not (right.names or right.fingerprints):
            continue
        if right.fingerprints and fingerprint not in right.fingerprints:
            continue
        matching = [name for name in plain if any(is_certified(pattern, name) for pattern in right.names)]
        if right.names and not matching:
            continue
        return ClientCertificate(matching[0] if matching else f"sha256:{fingerprint}")
    return None


def is_certified(pattern: str, name: str) -> bool:
    """RFC 6125 6.4.3: a wildcard stands for one label, and a wildcard in a certificate for nothing."""
    if pattern.startswith("*."):
        first, dot, rest = name.partition(".")
        return bool(first and dot) and "*" not in name and "@" not in name and rest == pattern[2:]
    return pattern == name


def decide(client_permit: ClientPermit | None, recipient_domain_is_ours: bool) -> Permit | None:
    """The right under which this client may send to this recipient; None: it may not."""
    if recipient_domain_is_ours:
        return RECIPIENT_DOMAIN
    return client_permit


def is_routed_local(local: str) -> bool:
    """Whether an inside server might take this local part for the way to another host.

    Percent hack (`user%other@ours`), bang path, a quoted `user@other`, a quoted source route, and what becomes one of them
    when a server normalises it. A stranger who sends to such an address may be asking that server to relay for him.
    """
    if not local.isascii():
        local = unicodedata.normalize("NFKC", local)
        return not _ROUTE_CHARACTERS.isdisjoint(local)
    if local[:1] == '"':
        return not _ROUTE_CHARACTERS.isdisjoint(local)
    return "%" in local or "!" in local or "@" in local
