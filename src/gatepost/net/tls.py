"""TLS of one connection: a layer between a transport and a protocol, over `ssl.MemoryBIO` (RFC 3207, 8314, 8446).

The protocol above sees plain text and a transport as without it; the transport below sees records. `loop.start_tls` is not used: it
executed what was pipelined behind STARTTLS, and an idle connection cost ten times as much. OpenSSL does the cryptography.

Not here: contexts and certificates (`net/tlscontext.py`), when TLS is begun (`smtp/`), what it is worth (`delivery/tlspolicy.py`).
Invariants: nothing is written in clear through a layer, before, during or after the handshake; `tls_begun` or `tls_failed` is called
exactly once; an unfinished handshake costs at most `max_handshake_bytes`; no time-out is kept here (the protocol above has one).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, cast

from gatepost.model import TlsPeer

RECORD_BYTES = 16384  # RFC 8446 5.1
MAX_HANDSHAKE_BYTES = 64 * 1024
MAX_REASON = 120

_WANTS = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
_SHORT = {
    "countryName": "C", "stateOrProvinceName": "ST", "localityName": "L", "organizationName": "O", "organizationalUnitName": "OU",
    "commonName": "CN", "domainComponent": "DC", "surname": "SN", "givenName": "GN", "userId": "UID",
}  # fmt: skip
_NO_ASCII = {code: "?" for code in (*range(32), *range(127, 256))}


class TlsFacts(NamedTuple):
    """What a handshake came to. The peer's names are "" and () unless its certificate was asked for and verified."""

    version: str  # "TLSv1.3"
    cipher: str
    bits: int
    server_name: str = ""  # SNI of the client
    peer: str = ""  # first DNS or mail name of the peer's certificate, else its common name
    peer_names: tuple[str, ...] = ()  # "dns:mx.example.net", "email:x@example.net", "ip:192.0.2.1"
    fingerprint: str = ""  # SHA-256 of the peer's certificate, lower-case hexadecimal
    anchor: str = ""  # SHA-256 of the certificate that was trusted, where its chain ends
    resumed: bool = False

    @property
    def comment(self) -> str:
        """As it stands in a Received field (RFC 5321 4.4)."""
        peer = f" peer={self.peer}" if self.peer else ""
        return f"(version={self.version} cipher={self.cipher} bits={self.bits}{peer})"

    @property
    def event_fields(self) -> dict[str, str]:
        """For the events of a connection."""
        fields = {"tls": self.version, "cipher": self.cipher}
        if self.peer or self.fingerprint:
            fields["peer"] = self.peer or self.fingerprint
        return fields


class Secured(Protocol):
    """The protocol above a layer, beside what asyncio asks of it."""

    def tls_begun(self, facts: TlsFacts) -> None:
        """The handshake is done: what is written from now on goes out encrypted."""

    def tls_failed(self, reason: str) -> None:
        """There will be no TLS; the connection is of no use any more, and is closed by the layer."""


class TlsLayer(asyncio.Protocol):
    """See the module. It is the protocol of `transport`, and the transport of `above`."""

    __slots__ = (
        "_above", "_fed_bytes", "_incoming", "_is_closing", "_is_over", "_max_bytes", "_object", "_outgoing",
        "_transport", "facts",
    )  # fmt: skip

    def __init__(
        self,
        context: ssl.SSLContext,
        above: Any,
        transport: Any,
        *,
        is_server: bool,
        server_name: str | None = None,
        max_handshake_bytes: int = MAX_HANDSHAKE_BYTES,
    ) -> None:
        self._above = above
        self._transport = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, is_server, server_name)
        self._max_bytes = max_handshake_bytes
        self._fed_bytes = 0
        self._is_closing = False
        self._is_over = False  # `tls_failed` was called, or the connection is lost
        self.facts: TlsFacts | None = None

    def begin(self) -> None:
        """Take the transport over; a client says hello. May fail at once."""
        self._transport.set_protocol(self)
        self._shake_hands()

    # --- asyncio, from below ----------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Records, or parts of them."""
        if self._is_over or self._is_closing:
            return
        self._incoming.write(data)
        if self.facts is None:
            self._fed_bytes += len(data)
            if self._fed_bytes > self._max_bytes:
                self._fail(f"handshake of more than {self._max_bytes} octets")
                return
            if not self._shake_hands():
                return
        self._read()

    def _read(self) -> None:
        incoming = self._incoming
        read = self._object.read
        pieces: list[bytes] = []
        over = False
        try:
            while incoming.pending:  # without the exception that a read of nothing costs
                piece = read(RECORD_BYTES)
                if not piece:
                    over = True
                    break
                pieces.append(piece)
        except _WANTS:
            pass
        except ssl.SSLZeroReturnError:
            over = True
        except ssl.SSLError as error:  # a forged or broken record: OpenSSL has the alert ready
            self._flush()
            if pieces:
                self._above.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            self._broken(error)
            return
        if self._outgoing.pending:  # a key update, a session ticket
            self._flush()
        if pieces:
            self._above.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if over and not self._is_closing:
            self._above.eof_received()
            self.close()

    def eof_received(self) -> bool:
        """The peer closes without close_notify: SMTP has its own ends, so nothing can be cut off unseen."""
        if self.facts is None:
            self._fail("the peer closed during the handshake")
        elif not self._is_closing:
            self._above.eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone."""
        if self.facts is None and not self._is_over:
            self._is_over = True
            self._above.tls_failed("the connection was lost during the handshake")
        self._is_over = self._is_closing = True
        # it knows us as its transport: a cycle that would wait for the collector
        above, self._above = self._above, None
        above.connection_lost(exc)

    def pause_writing(self) -> None:
        self._above.pause_writing()

    def resume_writing(self) -> None:
        self._above.resume_writing()

    # --- a transport, from above ------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Encrypt and write; what comes before the handshake is done, or after the end, is dropped."""
        if self.facts is None or self._is_closing:
            return
        write = self._object.write
        try:
            done = write(data)
            if done < len(data):  # one record at a time
                rest = memoryview(data)
                while done < len(data):
                    done += write(rest[done : done + RECORD_BYTES])
        except ssl.SSLError as error:
            self._broken(error)
            return
        self._transport.write(self._outgoing.read())

    def writelines(self, pieces: list[bytes]) -> None:
        """One write."""
        self.write(b"".join(pieces))

    def close(self) -> None:
        """close_notify, then close; without waiting for the peer's, which says nothing that SMTP did not say (RFC 8446 6.1)."""
        if self._is_closing:
            return
        self._is_closing = True
        if self.facts is None:
            self._transport.abort()
            return
        with contextlib.suppress(ssl.SSLError, OSError):
            self._object.unwrap()
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._is_closing = True
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._is_closing or cast("bool", self._transport.is_closing())

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    @property
    def object(self) -> ssl.SSLObject:
        """OpenSSL's side of it."""
        return self._object

    def peer_certificate(self) -> bytes | None:
        """The peer's certificate in DER, verified or not."""
        return self._object.getpeercert(True)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _shake_hands(self) -> bool:
        """A step of the handshake; whether it is done."""
        try:
            self._object.do_handshake()
        except _WANTS:
            self._flush()
            return False
        except ssl.SSLError as error:
            self._flush()  # the alert
            self._fail(explain(error))
            return False
        except (OSError, ValueError) as error:
            self._fail(str(error)[:MAX_REASON])
            return False
        self._flush()
        self.facts = read_facts(self._object)
        self._above.tls_begun(self.facts)
        return not (self._is_over or self._is_closing)

    def _flush(self) -> None:
        if self._outgoing.pending and not self._transport.is_closing():
            self._transport.write(self._outgoing.read())

    def _fail(self, reason: str) -> None:
        if self._is_over:
            return
        self._is_over = self._is_closing = True
        self._above.tls_failed(reason)
        self._transport.close()

    def _broken(self, error: ssl.SSLError) -> None:
        """A record that is no record, after the handshake: the connection is over."""
        self._is_closing = True
        self._flush()
        self._transport.close()


def read_facts(tls: ssl.SSLObject) -> TlsFacts:
    """What a finished handshake came to."""
    cipher = tls.cipher() or ("", "", 0)
    name = getattr(tls, "gatepost_server_name", "")
    version = tls.version() or ""
    resumed = bool(tls.session_reused)
    certificate = tls.getpeercert(True)
    if not certificate:
        return TlsFacts(version, cipher[0], cipher[2], name, resumed=resumed)
    verified = cast("dict[str, Any]", tls.getpeercert()) or {}
    names = certificate_names(verified)
    chain = verified_chain(tls) if verified else []
    return TlsFacts(
        version,
        cipher[0],
        cipher[2],
        name,
        shown_name(verified, names),
        names,
        hashlib.sha256(certificate).hexdigest(),
        hashlib.sha256(chain[-1]).hexdigest() if chain else "",
        resumed,
    )


def certificate_names(certificate: dict[str, Any]) -> tuple[str, ...]:
    """The subject alternative names of a decoded certificate as "kind:name", lower case."""
    kinds = {"DNS": "dns", "email": "email", "IP Address": "ip", "URI": "uri"}
    return tuple(
        f"{kinds[kind]}:{value.strip().lower()}"
        for kind, value in certificate.get("subjectAltName", ())
        if kind in kinds
    )


def shown_name(certificate: dict[str, Any], names: tuple[str, ...]) -> str:
    """The name by which a certificate is shown, printable ASCII without what a comment in a header may not hold."""
    common = [value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"]
    first = [name.partition(":")[2] for name in names] + common
    text = first[0].translate(_NO_ASCII).encode("ascii", "replace").decode("ascii") if first else ""
    return "".join("?" if character in '()\\" ' else character for character in text[:200])


def read_peer(tls: ssl.SSLObject, facts: TlsFacts) -> TlsPeer:
    """The other side of a finished handshake, as the policy sees it."""
    verified = cast("dict[str, Any]", tls.getpeercert()) if facts.fingerprint else {}
    if not verified:
        return TlsPeer(facts.bits, bool(facts.fingerprint))
    names = tuple(name[4:] for name in facts.peer_names if name.startswith("dns:"))
    common = [value for part in verified.get("subject", ()) for kind, value in part if kind == "commonName"]
    subject, issuer = (_distinguished(verified.get(key, ())) for key in ("subject", "issuer"))
    return TlsPeer(facts.bits, True, True, common[-1] if common else "", subject, issuer, names)


def _distinguished(name: Iterable[Iterable[tuple[str, str]]]) -> str:
    """A distinguished name on one line, as OpenSSL and sendmail write it."""
    return "".join(f"/{_SHORT.get(kind, kind)}={value}" for part in name for kind, value in part)


def verified_chain(tls: ssl.SSLObject) -> list[bytes]:
    """The chain by which the peer's certificate was verified, DER, the trusted one last; empty if this Python cannot say.

    Public from Python 3.13 on, the same function without a name in front of it before.
    """
    return _chain(tls, "get_verified_chain")


def presented_chain(tls: ssl.SSLObject) -> list[bytes]:
    """The certificates that the peer has sent, DER, its own first, nothing of them verified; empty if this Python cannot say."""
    return _chain(tls, "get_unverified_chain")


def common_names(tls: ssl.SSLObject) -> list[str]:
    """The common names in the subject of the peer's certificate, if it was verified; lower case."""
    verified = cast("dict[str, Any]", tls.getpeercert()) or {}
    subject = verified.get("subject", ())
    return [value.lower() for part in subject for kind, value in part if kind == "commonName"]


def _chain(tls: ssl.SSLObject, name: str) -> list[bytes]:
    read = getattr(tls, name, None) or getattr(tls._sslobj, name, None)  # type: ignore[attr-defined]
    if read is None:
        return []
    found = read() or []
    return [one if isinstance(one, bytes) else ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in found]


def explain(error: ssl.SSLError) -> str:
    """What went wrong, in few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not verified: {error.verify_message}"[:MAX_REASON]
    return (error.reason or str(error)).replace("_", " ").lower()[:MAX_REASON]
