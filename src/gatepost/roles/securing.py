"""TLS in a receiver: begins it, keeps what it came to, gives the rights of client certificates.

Whoever presents a certificate that we cannot verify fails in OpenSSL (CPython has no say in it); such a client is not asked again for
an hour, so that its next try is not lost to clear text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from gatepost.config.schema import Config
from gatepost.net.smtp_in import SmtpIn
from gatepost.net.tls import TlsFacts, TlsLayer, read_peer
from gatepost.policy.relay import CertificateRight, permit_of_certificate
from gatepost.roles.material import take_material
from gatepost.roles.ports import Port, build_ports, certificate_rights
from gatepost.smtp.reply import TLS_UNAVAILABLE, Reply
from gatepost.smtp.sasl.mechanism import Security
from gatepost.smtp.settings import ServerSettings

NOT_ASKED_S = 3600.0
MAX_NOT_ASKED = 10_000


class Securing:
    """One for a receiver; `ports` are in the order of its listening sockets."""

    def __init__(
        self,
        config: Config,
        descriptors: Sequence[int],
        event: Callable[..., None],
        is_repaired: Callable[[str], bool],
    ) -> None:
        material = take_material(descriptors)
        self.ports: list[Port] = build_ports(config, material)
        self.handshake_timeout_s = config.tls.handshake_timeout_s
        self.counts = {"handshakes": 0, "handshakes_failed": 0}
        self._rights: list[CertificateRight] = certificate_rights(config, material)
        self._max_handshake_bytes = config.tls.max_handshake_bytes
        self._event = event
        self._is_repaired = is_repaired
        self.extend: Callable[[ServerSettings, SmtpIn], ServerSettings] | None = None  # what else some clients may do
        self._not_asked: dict[str, float] = {}  # by address, until when

    def settings_of(self, connection: SmtpIn, *, secured: bool = False) -> ServerSettings:
        """The settings of a session, in clear or inside TLS."""
        port = connection.port
        if self._is_repaired(connection.address):
            settings = port.secured_repair if secured else port.repair
        else:
            settings = port.secured if secured else port.plain
        return settings if self.extend is None else self.extend(settings, connection)

    def decide_starttls(self, connection: SmtpIn) -> Reply | None:
        """None: go on."""
        return None if connection.port.tls is not None else TLS_UNAVAILABLE

    def new_layer(self, connection: SmtpIn) -> TlsLayer:
        """A layer for the connection, on the transport it has."""
        port = connection.port
        chosen = port.tls
        if self._not_asked and self._not_asked.get(connection.address, 0.0) > time.monotonic():
            chosen = port.quiet_tls
        assert chosen is not None
        return TlsLayer(
            chosen.default,
            connection,
            connection.transport,
            is_server=True,
            max_handshake_bytes=self._max_handshake_bytes,
        )

    def begun(self, connection: SmtpIn, layer: TlsLayer, facts: TlsFacts) -> None:
        """The handshake is done."""
        self.counts["handshakes"] += 1
        session = connection.session
        session.secured(self.settings_of(connection, secured=True))
        port = connection.port
        bindings: dict[str, tuple[bytes, ...]] = {}
        for contexts in (port.tls, port.quiet_tls):
            if contexts is not None:
                bindings |= contexts.bindings(layer.object)
        is_own = not connection.introducer  # else the certificate is a proxy's, and the session another client's
        session.security = Security(bindings=bindings, certificate_user=_user_of(facts) if is_own else "")
        known = connection.facts
        if is_own:
            known.tls = read_peer(layer.object, facts)
        if is_own and (facts.peer_names or facts.peer):
            known.certificate = facts.peer
            if known.client_permit is None:
                known.client_permit = permit_of_certificate(
                    self._rights, facts.peer_names, facts.fingerprint, facts.anchor
                )
        self._event(
            "tls",
            session=connection.session_id,
            address=connection.address,
            version=facts.version,
            cipher=facts.cipher,
            peer=facts.peer,
            fingerprint=facts.fingerprint,
            server_name=facts.server_name,
            resumed=facts.resumed,
        )

    def failed(self, connection: SmtpIn, reason: str) -> None:
        """There is no TLS; the connection is over."""
        self.counts["handshakes_failed"] += 1
        if reason.startswith("certificate not verified") and connection.port.tls is not connection.port.quiet_tls:
            if len(self._not_asked) >= MAX_NOT_ASKED:
                self._not_asked.clear()
            self._not_asked[connection.address] = time.monotonic() + NOT_ASKED_S
        self._event("tls_failed", session=connection.session_id, address=connection.address, reason=reason)


def _user_of(facts: TlsFacts) -> str:
    """Whom a verified certificate names: its first mail name, else its first DNS name."""
    for kind in ("email:", "dns:"):
        for name in facts.peer_names:
            if name.startswith(kind):
                return name.removeprefix(kind)
    return ""
