"""SSL contexts: certificates by name for the receiving side, trust for the sending side. Built before a role is locked in.

OpenSSL wants files for certificates with keys: they come as descriptors of the supervisor and are read by /proc/self/fd; afterwards
no file is needed. Each pair proves itself in a handshake in memory, which also loads whatever OpenSSL loads late.

Not here: connections (`net/tls.py`), which policy holds (`delivery/tlspolicy.py`). RFC 8996 (no TLS 1.0, 1.1), RFC 9325, RFC 6066 3.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import ssl
import warnings
from collections.abc import Sequence
from typing import Any

from gatepost.net.tls import certificate_names

# of TLS 1.2: forward secret, authenticated; ECDSA first as OpenSSL sorts
SERVER_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
CAREFUL_CIPHERS = "DEFAULT:!aNULL:!eNULL"  # where the peer is verified
# Where nothing is verified anyway a weak cipher is better than clear text, which is what would follow a refusal.
OPPORTUNISTIC_CIPHERS = "DEFAULT:!aNULL:!eNULL:@SECLEVEL=1"
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME: the pair is looked at, not believed
_STRONGER = (  # object identifiers of signatures: RSA, ECDSA
    ((b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c", b"\x2a\x86\x48\xce\x3d\x04\x03\x03"), "sha384"),
    ((b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d", b"\x2a\x86\x48\xce\x3d\x04\x03\x04"), "sha512"),
)
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class CertificateError(Exception):
    """A certificate, key or CA file that cannot be used; the text says which and why."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.advice = advice


class Pair:
    """A certificate with its key, in one PEM text, and what stands in it."""

    def __init__(self, label: str, pem: bytes, names: Sequence[str] = ()) -> None:
        self.label = label
        self.pem = pem
        self.decoded = prove(label, pem)
        found = [name.partition(":")[2] for name in certificate_names(self.decoded) if name.startswith("dns:")]
        self.names = frozenset(name.lower() for name in (names or found))
        self.end_point = end_point_of(pem)
        self.expires_s = ssl.cert_time_to_seconds(str(self.decoded["notAfter"]))


class ServerTls:
    """The contexts of a receiving side: one for each set of names; clients without a known name get the first."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        min_version: str = "1.2",
        ciphers: str = "",
        client_authorities: Sequence[bytes] = (),
        asks_client: bool = False,
    ) -> None:
        self._by_name: dict[str, ssl.SSLContext] = {}
        self._wildcards: dict[str, ssl.SSLContext] = {}
        groups: dict[frozenset[str], ssl.SSLContext] = {}
        self._end_points: dict[int, tuple[bytes, ...]] = {}
        for pair in pairs:
            context = groups.get(pair.names)
            if context is None:
                context = groups[pair.names] = new_server_context(min_version, ciphers)
                if asks_client:
                    ask_client(context, client_authorities)
            # Which of several a client got is not told
            self._end_points[id(context)] = (*self._end_points.get(id(context), ()), pair.end_point)
            load_pair(context, pair.label, pair.pem)  # of another kind of key: OpenSSL takes what the client can
            for name in pair.names:
                known = self._wildcards if name.startswith("*.") else self._by_name
                known.setdefault(name.removeprefix("*."), context)
        self.default = next(iter(groups.values()))
        self.default.sni_callback = self._choose

    def bindings(self, tls: ssl.SSLObject) -> dict[str, tuple[bytes, ...]]:
        """Channel bindings by type (RFC 5929): tls-unique before TLS 1.3, tls-server-end-point of each certificate it may be."""
        found: dict[str, tuple[bytes, ...]] = {}
        if tls.version() == "TLSv1.2" and (unique := tls.get_channel_binding("tls-unique")):
            found["tls-unique"] = (unique,)
        if end_point := self._end_points.get(id(tls.context)):
            found["tls-server-end-point"] = end_point
        return found

    def _choose(self, tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """RFC 6066 3: by the client's server name; an unknown one is no reason to refuse."""
        if not name:
            return
        name = name.lower().removesuffix(".")
        tls.gatepost_server_name = name  # type: ignore[attr-defined]
        context = self._by_name.get(name) or self._wildcards.get(name.partition(".")[2])
        if context is not None and context is not self.default:
            tls.context = context


def first_certificate(pem: bytes) -> str:
    """The first certificate of a PEM text."""
    begin, end = pem.find(b"-----BEGIN CERTIFICATE-----"), pem.find(b"-----END CERTIFICATE-----")
    return pem[max(begin, 0) : end + 25].decode("ascii", "replace")


def end_point_of(pem: bytes) -> bytes:
    """RFC 5929 4.1: a hash of the certificate, by the hash of its signature, which is SHA-256 if that is weaker."""
    return end_point_of_der(ssl.PEM_cert_to_DER_cert(first_certificate(pem)))


def end_point_of_der(der: bytes) -> bytes:
    """The same of a certificate as it came over the wire."""
    for oids, name in _STRONGER:
        if any(oid in der for oid in oids):
            return hashlib.new(name, der).digest()
    return hashlib.sha256(der).digest()


def new_server_context(min_version: str, ciphers: str) -> ssl.SSLContext:
    """TLS 1.2 and 1.3, no compression, no renegotiation, our order of ciphers, one session ticket."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[min_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    set_ciphers(context, ciphers or SERVER_CIPHERS)
    context.num_tickets = 1  # a mail client comes back with one connection at a time
    return context


def set_ciphers(context: ssl.SSLContext, ciphers: str) -> None:
    """Raises CertificateError for a list in which OpenSSL finds nothing."""
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError:
        problem = f'OpenSSL knows no cipher of "{ciphers}"'
        raise CertificateError(problem, "write a list as `openssl ciphers` takes it") from None


def load_pair(context: ssl.SSLContext, label: str, pem: bytes) -> None:
    """Load a certificate chain with its key; raises CertificateError."""
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem)
        # A key with a pass phrase would ask on a terminal.
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=lambda: b"")
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        advice = (
            "write the certificate with its chain in one PEM file, and its own key, without a pass phrase, in the other"
        )
        raise CertificateError(f"{label} cannot be used: {reason}", advice) from None
    finally:
        os.close(descriptor)


def ask_client(context: ssl.SSLContext, authorities: Sequence[bytes]) -> None:
    """Ask clients for a certificate. CPython cannot take one that it cannot verify: such a handshake fails."""
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0  # a resumed session does not tell by which authority its certificate was verified
    context.options |= ssl.OP_NO_TICKET
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a single certificate may be trusted by itself
    for pem in authorities:
        load_authorities(context, pem, "relay.certificates")


def load_authorities(context: ssl.SSLContext, pem: bytes, label: str) -> None:
    """Trust the certificates of a PEM text; raises CertificateError."""
    try:
        context.load_verify_locations(cadata=pem.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError):
        raise CertificateError(f"{label} holds no certificate that can be read", "write certificates in PEM") from None


def new_anchored_context(anchors: Sequence[bytes]) -> ssl.SSLContext:
    """For sending: trusts nothing but these certificates (DER), whatever stands above them; names are for the caller to look at."""
    context = new_client_context(careful=True)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        for anchor in anchors:
            context.load_verify_locations(cadata=anchor)
    except (ssl.SSLError, ValueError):
        raise CertificateError("a TLSA record names what is no certificate", "publish another record") from None
    return context


def new_client_context(
    min_version: str = "1.2", authorities: bytes | None = None, label: str = "", *, careful: bool = False
) -> ssl.SSLContext:
    """For sending: with `authorities` (PEM) the server is verified by them and by its name, without it nothing is.

    `careful` is for a context without authorities whose caller verifies by other means: no weak ciphers.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = VERSIONS[min_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if authorities is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_ciphers(CAREFUL_CIPHERS if careful else OPPORTUNISTIC_CIPHERS)
        return context
    context.set_ciphers(CAREFUL_CIPHERS)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    load_authorities(context, authorities, label)
    return context


def prove(label: str, pem: bytes) -> dict[str, Any]:
    """A handshake in memory with a pair: the certificate decoded. Raises CertificateError if the pair does not work."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_pair(server, label, pem)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client.verify_flags |= NO_CHECK_TIME
    load_authorities(client, first_certificate(pem).encode("ascii"), label)
    try:
        return handshake(server, client)
    except ssl.SSLError as error:
        problem = f"{label} does not work in a handshake: {(error.reason or str(error)).replace('_', ' ').lower()}"
        raise CertificateError(problem, "write a certificate for a TLS server, with its own key") from None


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    """Both sides in memory; the server's certificate, decoded. Raises SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server)
    other = server.wrap_bio(to_server, to_client, True)
    for _ in range(4):
        with contextlib.suppress(ssl.SSLWantReadError):
            one.do_handshake()
        with contextlib.suppress(ssl.SSLWantReadError):
            other.do_handshake()
    return dict(one.getpeercert() or {})
