"""Which TLS policy holds for a recipient domain at a next hop, and what it means for a connection.

Levels: "none", "opportunistic" (TLS if it is offered, nothing verified, clear text if it fails), "encrypt" (TLS always, nothing
verified), "verify" (TLS with a certificate that fits). The first row of `[[tls.policies]]` that names the domain or the next hop
holds, else `tls.outbound`. DANE and MTA-STS (RFC 7672, 8461) become further levels, with facts of the DNS as arguments of `plan`.

Invariant: only "none" and "opportunistic" ever let a message travel in clear. Contexts are built before the lock-in; nothing is read
here. RFC 7435 (opportunistic security), RFC 6125 (names).
"""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
from collections.abc import Mapping
from typing import NamedTuple

from gatepost.config.schema import Config, TlsPolicy
from gatepost.config.tlsvalues import SYSTEM_CA_FILE
from gatepost.net.tls import TlsLayer
from gatepost.net.tlscontext import new_client_context
from gatepost.smtp.outgoing import Tls

_TLS_OF = {"none": Tls.NEVER, "opportunistic": Tls.IF_OFFERED, "encrypt": Tls.ALWAYS, "verify": Tls.ALWAYS}


class Policy:
    """A level with what it needs; one object for each row, so that it can be compared by identity."""

    __slots__ = ("context", "fingerprints", "key", "level", "names")

    def __init__(
        self,
        level: str,
        context: ssl.SSLContext,
        *,
        key: str = "",
        names: tuple[str, ...] = (),
        fingerprints: frozenset[str] = frozenset(),
    ) -> None:
        self.level = level
        self.context = context
        self.key = key  # tells pools of one next hop apart; empty for the general policy
        self.names = names
        self.fingerprints = fingerprints

    @property
    def tls(self) -> Tls:
        """What a session asks for."""
        return _TLS_OF[self.level]

    @property
    def may_be_clear(self) -> bool:
        """Whether a message may travel without TLS."""
        return self.level in ("none", "opportunistic")


class Plan(NamedTuple):
    """What one connection does: a name to ask for (and to verify, if the context does), fingerprints of which one must fit."""

    context: ssl.SSLContext
    server_name: str | None
    fingerprints: frozenset[str]
    is_verified: bool

    def check(self, layer: TlsLayer) -> str:
        """What is wrong with the peer of a finished handshake, beyond what OpenSSL has verified; empty: nothing."""
        if not self.fingerprints:
            return ""
        certificate = layer.peer_certificate()
        found = hashlib.sha256(certificate).hexdigest() if certificate else "none"
        return "" if found in self.fingerprints else f"certificate with the fingerprint {found} is not the one expected"


class TlsPolicies:
    """The policies of one configuration."""

    def __init__(self, config: Config, authorities: Mapping[str, bytes]) -> None:
        """`authorities` are the contents of the files by path; raises CertificateError."""
        self._system = config.tls.ca_file or SYSTEM_CA_FILE
        self._authorities = authorities
        self._verifying: dict[str, ssl.SSLContext] = {}
        self._unverified = new_client_context()
        self.general = self._policy(TlsPolicy(level=config.tls.outbound), "")
        self._domains: dict[str, tuple[int, Policy]] = {}
        self._below: dict[str, tuple[int, Policy]] = {}
        self._next_hops: dict[str, tuple[int, Policy]] = {}
        for number, row in enumerate(config.tls.policies):
            policy = self._policy(row, f"#{number + 1}")
            for domain in row.domains:
                where = self._below if domain.startswith(".") else self._domains
                where.setdefault(domain.removeprefix("."), (number, policy))
            for next_hop in row.next_hops:
                self._next_hops.setdefault(next_hop, (number, policy))
        self.is_uniform = not config.tls.policies

    def of(self, next_hop: str, domain: str) -> Policy:
        """The policy for mail to a recipient domain at a next hop (canonical text)."""
        if self.is_uniform:
            return self.general
        best = self._next_hops.get(next_hop)
        found = self._domains.get(domain)
        if found is not None and (best is None or found[0] < best[0]):
            best = found
        rest = domain
        while self._below and "." in rest:
            rest = rest.partition(".")[2]
            found = self._below.get(rest)
            if found is not None and (best is None or found[0] < best[0]):
                best = found
        return best[1] if best is not None else self.general

    def _policy(self, row: TlsPolicy, key: str) -> Policy:
        context = self._unverified
        if row.level == "verify" and not row.fingerprints:
            path = row.ca_file or self._system
            if path not in self._verifying:
                self._verifying[path] = new_client_context(authorities=self._authorities[path], label=path)
            context = self._verifying[path]
        return Policy(row.level, context, key=key, names=tuple(row.names), fingerprints=frozenset(row.fingerprints))


def plan(policy: Policy, host: str, mx_domain: str = "") -> Plan:
    """What a connection to `host` does; `mx_domain` is the domain whose MX host it is, empty if the operator named it.

    MX records are unauthenticated: without names in the policy the certificate must fit the domain itself, or the host if it
    lies within the domain. The operator's own names are held against the host, and the first stands if none fits.
    """
    name = host
    if policy.level == "verify":
        if policy.names:
            fitting = [pattern for pattern in policy.names if is_fitting(pattern, host)]
            plain = [pattern for pattern in policy.names if not pattern.startswith("*.")]
            name = host if fitting or not plain else plain[0]
            if not fitting and not plain:
                name = policy.names[0].removeprefix("*.")
        elif mx_domain and host != mx_domain and not host.endswith("." + mx_domain):
            name = mx_domain
    is_verified = policy.level == "verify"
    return Plan(policy.context, _asked_for(name, is_verified), policy.fingerprints, is_verified)


def is_fitting(pattern: str, name: str) -> bool:
    """RFC 6125 6.4.3: a wildcard stands for one label."""
    if pattern.startswith("*."):
        first, dot, rest = name.partition(".")
        return bool(first and dot) and rest == pattern[2:]
    return pattern == name


def _asked_for(name: str, is_verified: bool) -> str | None:
    """An address is no server name (RFC 6066 3); OpenSSL wants it to verify, and then does not send it."""
    try:
        ipaddress.ip_address(name.strip("[]").removeprefix("IPv6:"))
    except ValueError:
        return name or None
    return name.strip("[]").removeprefix("IPv6:") if is_verified else None
