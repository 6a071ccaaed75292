"""What the TLS_ lines of sendmail's access table demand of a peer: `[TEMP+|PERM+]VERIFY[:BITS]` or `ENCR:BITS`, then `+CN:..++CI:..`.

Here are the values, and whether a peer fulfils one, for clients (`policy/checks/access.py`) and for servers (`delivery/demands.py`) alike;
where a line is looked up is in `routing/tables/sendmail_access.py`. What sendmail's rule set TLS_connection says, in its words. One
thing is stricter: a name in a certificate counts only if the certificate was verified. Pure.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gatepost.config.schema import Config
from gatepost.model import TlsPeer

CLIENT_KEYS = ("tls_clt:",)
SERVER_KEYS = ("tls_srv:", "tls_rcpt:")
TRY_KEYS = ("try_tls:",)
ISSUER_KEYS = ("citag:",)
DELIVERY_KEYS = (*SERVER_KEYS, *TRY_KEYS, *ISSUER_KEYS)  # of the entries that the deliverer asks
# sendmail's own; the first where TLS_PERM_ERR is not set
CODES = {"": (454, "7.0"), "TEMP": (403, "7.0"), "PERM": (503, "7.0")}
MAX_BITS = 4096
ADVICE = "write VERIFY, VERIFY:128 or ENCR:128, with TEMP+ or PERM+ before it, +CN:name, +CS:subject or +CI:issuer behind it, or OK"

_VALUE = re.compile(r"(?:(PERM|TEMP)\s*\+\s*)?(VERIFY|ENCR)(?::(\d{1,4}))?(?:\s*\+(.+))?", re.IGNORECASE | re.DOTALL)
_ENCODED = re.compile(r"\+([0-9A-Fa-f]{2})")
# whatever is no demand is none to sendmail; of those only what one writes on purpose
_NOTHING = ("OK", "RELAY", "SKIP", "NO")


class BadDemand(Exception):
    """A value that is neither a demand nor plainly none."""


class Demand(msgspec.Struct, frozen=True):
    """What is demanded, and the reply to who does not fulfil it."""

    is_verified: bool
    bits: int = 0
    # ("CN" | "CS" | "CI" | "CITAG", value); an empty CN is the name of the other side
    extensions: tuple[tuple[str, str], ...] = ()
    code: int = 454
    detail: str = "7.0"

    @property
    def needs_certificate(self) -> bool:
        """Whether a certificate has to be verified."""
        return self.is_verified or bool(self.extensions)

    @property
    def is_permanent(self) -> bool:
        """Whether mail is refused for good, or returned, instead of waiting."""
        return self.code >= 500


def demanding_tables(config: Config) -> list[Any]:
    """The access tables of a configuration, in their order, that say something of TLS towards servers."""
    keys = (*SERVER_KEYS, *TRY_KEYS)
    return [data for data in _tables(config) if any(key.startswith(keys) for key in data.entries)]


def verifies_servers(config: Config) -> bool:
    """Whether certificates of servers have to be verified for that."""
    return _verifies(config, SERVER_KEYS)


def verifies_clients(config: Config) -> bool:
    """Whether a certificate is demanded of some client."""
    return _verifies(config, CLIENT_KEYS)


def _tables(config: Config) -> list[Any]:
    data = getattr(config, "tables", {})
    return [data[f"access {name}"] for name in config.access if f"access {name}" in data]


def _verifies(config: Config, keys: tuple[str, ...]) -> bool:
    values = (value for data in _tables(config) for key, value in data.entries.items() if key.startswith(keys))
    return any(demand is not None and demand.needs_certificate for demand in map(parse_demand, values))


@functools.lru_cache(maxsize=1024)
def parse_demand(value: str) -> Demand | None:
    """The meaning of a value, None for one that demands nothing; raises BadDemand."""
    if value.upper() in _NOTHING:
        return None
    match = _VALUE.fullmatch(value.strip())
    if match is None:
        raise BadDemand(f'"{value}" is not a demand of TLS')
    prefix, kind, bits, rest = match.groups()
    if kind.upper() == "ENCR" and not bits:
        raise BadDemand(f'"{value}" does not say how many bits')
    if bits and int(bits) > MAX_BITS:
        raise BadDemand(f'"{value}" asks for more bits than any cipher has')
    code, detail = CODES[(prefix or "").upper()]
    extensions = tuple(_parse_extension(part.strip()) for part in rest.split("++")) if rest else ()
    return Demand(kind.upper() == "VERIFY", int(bits or 0), extensions, code, detail)


def _parse_extension(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    name = name.upper()
    if name == "CN" and not value:
        return "CN", ""
    if name not in ("CN", "CS", "CI", "CITAG") or not colon or not value:
        raise BadDemand(f'"{text}" is not a demand of a certificate')
    return (name, value.lower()) if name == "CITAG" else (name, decoded(value))


def issuer_tags(demand: Demand | None) -> list[str]:
    """The tags under which a demand looks for issuers, in lower case."""
    return [value for kind, value in demand.extensions if kind == "CITAG"] if demand is not None else []


def with_issuers(demand: Demand | None, issuers: Mapping[str, list[str]]) -> Demand | None:
    """A demand with the issuers themselves in place of their tags, one on each line."""
    if demand is None or not issuer_tags(demand):
        return demand
    named = tuple(
        (kind, "\n".join(issuers.get(value, ())) if kind == "CITAG" else value) for kind, value in demand.extensions
    )
    return msgspec.structs.replace(demand, extensions=named)


def unmet(demand: Demand, peer: TlsPeer | None, name: str) -> str:
    """What a peer lacks, in sendmail's words; empty: nothing. `peer` None: there is no TLS; `name` is that of the other side."""
    if demand.is_verified and (peer is None or not peer.is_verified):
        if peer is None:
            return "other side does not support STARTTLS"
        return "authentication failed" if peer.has_certificate else "not authenticated"
    bits = 0 if peer is None else peer.bits
    if bits < demand.bits:
        return f"encryption too weak {bits} less than {demand.bits}"
    for kind, value in demand.extensions:
        wanted = value or name
        verified = peer is not None and peer.is_verified
        if peer is None or not verified or not _fits(kind, wanted, peer):
            if kind == "CITAG":
                return f"Cert Issuer {peer.issuer if peer is not None else ''} not acceptable"
            found = "" if peer is None else {"CN": peer.common_name, "CS": peer.subject, "CI": peer.issuer}[kind]
            word = {"CN": "CN", "CS": "Cert Subject", "CI": "Cert Issuer"}[kind]
            return f"{word} {found or '(none verified)'} does not match {wanted}"
    return ""


def _fits(kind: str, wanted: str, peer: TlsPeer) -> bool:
    if kind == "CN":
        return wanted.lower() in (peer.common_name.lower(), *peer.names)
    if kind == "CITAG":
        return canonical_issuer(peer.issuer) in wanted.split("\n") and peer.issuer != ""
    return wanted.lower() == (peer.subject if kind == "CS" else peer.issuer).lower()


def canonical_issuer(text: str) -> str:
    """As issuers are compared: sendmail's documentation writes a slash at the end, OpenSSL does not."""
    return text.lower().rstrip("/")


def decoded(text: str) -> str:
    """`+20` is a space: how sendmail writes what its tables cannot hold."""
    return _ENCODED.sub(lambda match: chr(int(match.group(1), 16)), text)
