"""LDAP messages (RFC 4511) as far as a look-up needs them: bind, StartTLS, search, unbind. Sans-IO, standard library only.

No server, no update, no referral. BER with definite lengths only (RFC 4511 5.1); what comes is bounded, and anything that is not
understood raises LdapError. An assertion value goes into a search as octets of its own: there is no filter text at run time, and
so nothing in a key can change a filter. `ldapfilter.py` reads the filter of a configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gatepost.config.ldapfilter import Filter

MAX_MESSAGE_BYTES = 256 * 1024
PAGED = b"1.2.840.113556.1.4.319"  # RFC 2696 2
MAX_COOKIE_BYTES = 4096
START_TLS = b"1.3.6.1.4.1.1466.20037"  # RFC 4511 4.14.1

BIND_RESPONSE, ENTRY, DONE, REFERENCE, EXTENDED_RESPONSE = 0x61, 0x64, 0x65, 0x73, 0x78
SUCCESS, SIZE_LIMIT_EXCEEDED, NO_SUCH_OBJECT = 0, 4, 32
SCOPES = {"base": 0, "one": 1, "sub": 2}
_RESULTS = {
    1: "operationsError", 2: "protocolError", 3: "timeLimitExceeded", 4: "sizeLimitExceeded", 8: "strongerAuthRequired",
    10: "referral", 13: "confidentialityRequired", 16: "noSuchAttribute", 18: "inappropriateMatching", 32: "noSuchObject",
    34: "invalidDNSyntax", 48: "inappropriateAuthentication", 49: "invalidCredentials", 50: "insufficientAccessRights",
    51: "busy", 52: "unavailable", 53: "unwillingToPerform", 80: "other",
}  # fmt: skip
_PASSING = frozenset({51, 52, 80})


class LdapError(Exception):
    """What came is no LDAP, or more than is taken."""


class Result(NamedTuple):
    """How an operation ended."""

    code: int
    text: str

    @property
    def words(self) -> str:
        """For the log."""
        name = _RESULTS.get(self.code, f"result {self.code}")
        text = "".join(c if c.isprintable() else "?" for c in self.text)[:200]
        return f"{name} ({text})" if text else name


class Response(NamedTuple):
    """A message of a server: `result` of the kinds that end an operation, `values` of an entry by lower-case attribute."""

    number: int
    kind: int
    result: Result | None = None
    values: dict[str, list[bytes]] | None = None
    cookie: bytes = b""  # of a page: what to ask for the next one with; empty: it was the last


# --- writing ----------------------------------------------------------------------------------------------------------


def tlv(tag: int, content: bytes) -> bytes:
    """One element."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def integer(number: int, tag: int = 0x02) -> bytes:
    """An INTEGER or ENUMERATED that is not negative."""
    return tlv(tag, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def build_bind(number: int, name: str, password: bytes) -> bytes:
    """A simple bind (RFC 4511 4.2); with both empty an anonymous one."""
    return _message(number, tlv(0x60, integer(3) + tlv(0x04, name.encode()) + tlv(0x80, password)))


def build_start_tls(number: int) -> bytes:
    """The extended request."""
    return _message(number, tlv(0x77, tlv(0x80, START_TLS)))


def build_search(
    number: int, base: str, scope: int, filter_: bytes, attributes: list[str], *, most: int, limit_s: int,
    page: tuple[int, bytes] | None = None,
) -> bytes:  # fmt: skip
    """A search (RFC 4511 4.5.1) that follows no alias. `filter_` is encoded; no attribute: none is wanted.

    `page` is the size of a page and the cookie of the one before (RFC 2696), empty for the first.
    """
    wanted = b"".join(tlv(0x04, name.encode()) for name in attributes or ["1.1"])
    request = (
        tlv(0x04, base.encode())
        + integer(scope, 0x0A)
        + integer(0, 0x0A)
        + integer(most)
        + integer(limit_s)
        + tlv(0x01, b"\0")
        + filter_
        + tlv(0x30, wanted)
    )
    if page is None:
        return _message(number, tlv(0x63, request))
    control = tlv(0x04, PAGED) + tlv(0x04, tlv(0x30, integer(page[0]) + tlv(0x04, page[1])))
    return _message(number, tlv(0x63, request) + tlv(0xA0, tlv(0x30, control)))


def encode_filter(filter_: Filter, values: Mapping[str, str]) -> bytes:
    """The filter of a configuration for a key: each value is an element of its own."""
    if filter_.parts:
        return tlv(filter_.tag, b"".join(encode_filter(part, values) for part in filter_.parts))
    name = filter_.name.encode()
    if filter_.tag == 0x87:
        return tlv(0x87, name)
    octets = [tlv(tag, pieces.fill(values).encode()) for tag, pieces in filter_.pieces]
    content = tlv(0x30, b"".join(octets)) if filter_.tag == 0xA4 else octets[0]
    return tlv(filter_.tag, tlv(0x04, name) + content)


def _message(number: int, operation: bytes) -> bytes:
    return tlv(0x30, integer(number) + operation)


# --- reading ----------------------------------------------------------------------------------------------------------


def parse_response(data: bytes) -> tuple[Response, int] | None:
    """The first message and how many octets it took; None if it is not whole yet. Raises LdapError."""
    if len(data) < 2:
        return None
    if data[0] != 0x30:
        raise LdapError("this is not LDAP")
    header = _header(data, 0)
    if header is None:
        return None
    start, size = header
    if size > MAX_MESSAGE_BYTES:
        raise LdapError(f"a message of {size} octets is more than is taken")
    if len(data) < start + size:
        return None
    parts = _children(data[start : start + size])
    if len(parts) < 2 or parts[0][0] != 0x02:
        raise LdapError("a message without number")
    kind, content = parts[1]
    number = int.from_bytes(parts[0][1], "big")
    if kind == ENTRY:
        return Response(number, kind, None, _entry(content)), start + size
    if kind in (BIND_RESPONSE, DONE, EXTENDED_RESPONSE):
        cookie = _cookie(parts[2][1]) if kind == DONE and len(parts) > 2 and parts[2][0] == 0xA0 else b""
        return Response(number, kind, _result(content), None, cookie), start + size
    return Response(number, kind), start + size


def _header(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the content of the element at `at` begins, and its length; None if that is not there yet."""
    first = data[at + 1]
    if first < 0x80:
        return at + 2, first
    count = first & 0x7F
    if not 1 <= count <= 4:
        raise LdapError("a length that cannot be")
    if len(data) < at + 2 + count:
        return None
    return at + 2 + count, int.from_bytes(data[at + 2 : at + 2 + count], "big")


def _children(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    at = 0
    while at < len(data):
        header = _header(data, at) if at + 2 <= len(data) else None
        if header is None or header[0] + header[1] > len(data):
            raise LdapError("an element ends early")
        found.append((data[at], data[header[0] : header[0] + header[1]]))
        at = header[0] + header[1]
    return found


def _result(content: bytes) -> Result:
    parts = _children(content)
    if len(parts) < 3 or parts[0][0] != 0x0A:
        raise LdapError("a result without code")
    return Result(int.from_bytes(parts[0][1], "big"), parts[2][1].decode("utf-8", "replace"))


def _entry(content: bytes) -> dict[str, list[bytes]]:
    parts = _children(content)
    if len(parts) < 2:
        raise LdapError("an entry without attributes")
    values: dict[str, list[bytes]] = {}
    for _, attribute in _children(parts[1][1]):
        pair = _children(attribute)
        if len(pair) < 2:
            raise LdapError("an attribute without values")
        name = pair[0][1].decode("utf-8", "replace").lower().partition(";")[0]
        values.setdefault(name, []).extend(value for _, value in _children(pair[1][1]))
    return values


def _cookie(controls: bytes) -> bytes:
    """That of the control for pages, if there is one among the controls of a response."""
    for _, control in _children(controls):
        parts = _children(control)
        if not parts or parts[0][1] != PAGED:
            continue
        value = next((content for tag, content in parts[1:] if tag == 0x04), b"")
        sequence = _children(value)
        inner = _children(sequence[0][1]) if sequence else []
        if len(inner) < 2 or len(inner[1][1]) > MAX_COOKIE_BYTES:
            raise LdapError("a page without cookie, or with one too long")
        return inner[1][1]
    return b""


def is_passing(code: int) -> bool:
    """Whether the server may do better in a moment."""
    return code in _PASSING
