"""What a receiver knows of each address it listens on: kind, settings of its sessions in clear and inside TLS, contexts.

Built before the lock-in from the material of the supervisor; nothing of it is read again. Not here: the sockets themselves.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Sequence
from typing import Any

import msgspec

from gatepost.config.authvalues import offered_mechanisms
from gatepost.config.listening import is_unix, listener_rows
from gatepost.config.schema import Config, Listener
from gatepost.net.tlscontext import Pair, ServerTls
from gatepost.policy.relay import AddressSet, CertificateRight
from gatepost.smtp.settings import ServerSettings

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


class Port:
    """One listening address. `tls` asks for a client certificate if the port does, `quiet_tls` never."""

    __slots__ = (
        "is_implicit",
        "is_local",
        "kind",
        "plain",
        "proxies",
        "quiet_tls",
        "repair",
        "secured",
        "secured_repair",
        "tls",
    )

    def __init__(self, config: Config, row: Listener, tls: ServerTls | None, quiet_tls: ServerTls | None) -> None:
        requires = row.kind != "edge" if row.require_tls is None else row.require_tls
        self.kind = row.kind
        self.is_local = is_unix(row.address)
        self.is_implicit = row.kind == "submissions"
        self.tls = tls
        self.quiet_tls = quiet_tls
        self.proxies = AddressSet(row.proxy_from) if row.proxy_from else None
        offers_hold = config.smtp.future_release and row.kind in ("submission", "submissions")  # RFC 4865 1
        if self.is_local:
            self._be_local(config, offers_hold)
            return
        auth = config.auth
        asks = row.client_certificates and bool(config.relay.certificates)
        in_tls = offered_mechanisms(auth, row.kind, secured=True, asks_certificate=asks)
        common: dict[str, Any] = {
            "future_release": offers_hold,
            "require_tls": requires,
            "max_auth_failures": auth.max_failures_per_session,
        }
        plain = common | {
            "starttls": tls is not None,
            "mechanisms": offered_mechanisms(auth, row.kind, secured=False, asks_certificate=False),
            "mechanisms_in_tls": in_tls,
        }
        secured = common | {"is_secured": True, "mechanisms": in_tls}
        self.plain = ServerSettings.from_config(config, **plain)
        self.repair = ServerSettings.from_config(config, repair=True, **plain)
        self.secured = ServerSettings.from_config(config, **secured)
        self.secured_repair = ServerSettings.from_config(config, repair=True, **secured)

    def _be_local(self, config: Config, offers_hold: bool) -> None:
        """The kernel says who the client is, and what passes goes over no wire: no TLS, no AUTH."""
        lmtp = self.kind == "lmtp"
        for name, repair in (("plain", False), ("repair", True)):
            settings = ServerSettings.from_config(config, repair=repair, future_release=offers_hold)
            if lmtp:
                settings = msgspec.structs.replace(settings, lmtp=True, chunking=False, future_release=False)
            setattr(self, name, settings)
        self.secured, self.secured_repair = self.plain, self.repair


def build_ports(config: Config, material: Sequence[bytes]) -> list[Port]:
    """The ports in order of `listener_rows`; `material` is that of `privsep.material`. Raises CertificateError."""
    rows = config.tls.certificates
    pairs = [Pair(row.certificate_file, pem, row.names) for row, pem in zip(rows, material[: len(rows)], strict=True)]
    authorities = material[len(rows) :]
    made: dict[bool, ServerTls | None] = {False: None, True: None}
    if pairs:
        for asks in (False, True):
            made[asks] = ServerTls(
                pairs,
                min_version=config.tls.min_version,
                ciphers=config.tls.ciphers,
                client_authorities=authorities,
                asks_client=asks,
            )
    return [
        Port(config, row, made[row.client_certificates and bool(authorities)], made[False])
        for row in listener_rows(config)
    ]


def certificate_rights(config: Config, material: Sequence[bytes]) -> list[CertificateRight]:
    """The rights that `[[relay.certificates]]` give."""
    rows = config.relay.certificates
    authorities = material[len(config.tls.certificates) :]
    return [
        CertificateRight(fingerprints_of(pem), tuple(row.names), frozenset(row.fingerprints))
        for row, pem in zip(rows, authorities, strict=True)
    ]


def fingerprints_of(pem: bytes) -> frozenset[str]:
    """SHA-256 of each certificate in a PEM text."""
    found = set()
    text = pem.decode("ascii", "replace")
    while (begin := text.find(_BEGIN)) >= 0 and (end := text.find(_END, begin)) >= 0:
        block, text = text[begin : end + len(_END)], text[end + len(_END) :]
        found.add(hashlib.sha256(ssl.PEM_cert_to_DER_cert(block)).hexdigest())
    return frozenset(found)
