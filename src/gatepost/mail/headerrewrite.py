"""Changes addresses in a header section, and hides the Received fields of inside hosts (RFC 5322 3.6, RFC 5321 4.4).

No octet changes outside of an address that is replaced. What an address becomes is the caller's to say; a field that is no
list of addresses stays as it is and is told. A hidden Received field stays as a field with its date, so that whoever counts
hops finds the same number (RFC 5321 6.3). Which DKIM signatures a change breaks is told, not prevented.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import msgspec

from gatepost.mail.addressfield import Span, find_addresses

SENDERS = (
    b"from", b"sender", b"reply-to", b"resent-from", b"resent-sender", b"resent-reply-to", b"errors-to",
    b"disposition-notification-to", b"return-receipt-to",
)  # fmt: skip
RECIPIENTS = (b"to", b"cc", b"bcc", b"resent-to", b"resent-cc", b"resent-bcc", b"apparently-to")
MAX_LINE_BYTES = 998  # RFC 5322 2.1.1
MAX_SIGNATURES = 32
TOKENS_OF_ADDRESS = 10  # a name of five words, and the address
MIN_TOKENS = 1000
HIDDEN = b"Received: (a host inside)"

_NAMES = sorted((*SENDERS, *RECIPIENTS), key=len, reverse=True)  # the longest first
_FIELD = re.compile(rb"^(" + b"|".join(_NAMES) + rb")[ \t]*:", re.IGNORECASE | re.MULTILINE)
_SENDERS = frozenset(SENDERS)
_RECEIVED = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)
_SIGNATURE = re.compile(rb"^(?:dkim-signature|arc-message-signature)[ \t]*:", re.IGNORECASE | re.MULTILINE)
_FIELD_END = re.compile(rb"\r\n(?![ \t])")
_BY = re.compile(rb"[ \t\n]by[ \t\r]", re.IGNORECASE)
_LITERAL = re.compile(rb"[\[(](?:IPv6:)?([0-9A-Fa-f:.]{2,45})[\])]", re.IGNORECASE)
_DATE = re.compile(rb"[ \t\r\n]*+[A-Za-z0-9:,+ \t\r\n-]{10,80}(?:\([A-Za-z0-9 +-]{1,20}\)[ \t]*)?\Z")

# Local part and domain as written, whether the field names a sender -> the new address and the rule; None: stays.
Replace = Callable[[str, str, bool], tuple[str, str] | None]


class FieldChange(msgspec.Struct, frozen=True, gc=False):
    """One address of one field."""

    field: str
    before: str
    after: str
    rule: str


class Kept(msgspec.Struct, frozen=True, gc=False):
    """A field that stays as it is, and why."""

    field: str
    reason: str


class HeaderResult(msgspec.Struct):
    """A header section and what was done to it."""

    header: bytes
    changes: list[FieldChange] = []
    kept: list[Kept] = []
    hidden: int = 0  # Received fields


def rewrite_addresses(header: bytes, replace: Replace, max_addresses: int) -> HeaderResult:
    """The header section with its addresses replaced; at most `max_addresses` are asked about."""
    pieces: list[bytes] = []
    changes: list[FieldChange] = []
    kept: list[Kept] = []
    done, left = 0, max_addresses
    for match in _FIELD.finditer(header):
        end = _end_of_field(header, match.end())
        value = header[match.end() : end]
        name = match.group(1).decode("ascii")
        signs = value.count(b"@")
        if not signs:
            continue
        spans = find_addresses(value, TOKENS_OF_ADDRESS * left + MIN_TOKENS) if signs <= left else None
        if spans is None and signs <= left:
            kept.append(Kept(name, "it is no list of addresses"))
            continue
        if spans is None or len(spans) > left:
            kept.append(Kept(name, "the header names more addresses than are looked at"))
            continue
        left -= len(spans)
        new, found = _replaced(value, spans, name, replace)
        if not found:
            continue
        if _longest(new) + len(name) + 2 > MAX_LINE_BYTES >= _longest(value) + len(name) + 2:
            kept.append(Kept(name, "a line of it would become too long"))
            continue
        pieces += (header[done : match.end()], new)
        changes += found
        done = end
    if not changes:
        return HeaderResult(header, [], kept)
    pieces.append(header[done:])
    return HeaderResult(b"".join(pieces), changes, kept)


def _replaced(value: bytes, spans: Iterable[Span], name: str, replace: Replace) -> tuple[bytes, list[FieldChange]]:
    is_sender = name.lower().encode() in _SENDERS
    pieces: list[bytes] = []
    changes: list[FieldChange] = []
    done = 0
    for span in spans:
        try:
            answer = replace(span.local.decode(), span.domain.decode(), is_sender)
        except UnicodeDecodeError:
            continue
        if answer is None:
            continue
        pieces += (value[done : span.start], answer[0].encode())
        done = span.end
        changes.append(FieldChange(name, value[span.start : span.end].decode(), *answer))
    return (b"".join((*pieces, value[done:])), changes) if changes else (value, changes)


def hide_received(header: bytes, is_inside: Callable[[str], bool]) -> tuple[bytes, int]:
    """The header section, each Received field that names a client inside replaced by one that only has its date."""
    pieces: list[bytes] = []
    done = hidden = 0
    for match in _RECEIVED.finditer(header):
        end = _end_of_field(header, match.end())
        value = header[match.end() : end]
        by = _BY.search(value)
        client = value[: by.start()] if by is not None else value
        if not any(is_inside(literal.group(1).decode()) for literal in _LITERAL.finditer(client)):
            continue
        date = value.rpartition(b";")[2]
        pieces += (header[done : match.start()], HIDDEN)
        if _DATE.match(date) is not None:
            pieces += (b";", date)
        done = end
        hidden += 1
    return (b"".join((*pieces, header[done:])), hidden) if hidden else (header, 0)


def broken_signatures(header: bytes, fields: Iterable[str]) -> list[tuple[str, list[str]]]:
    """The signatures over one of the fields: the domain of each (RFC 6376 3.5, `d=`), and the fields of its `h=`."""
    changed = {field.lower() for field in fields}
    found: list[tuple[str, list[str]]] = []
    if not changed:
        return found
    for match in _SIGNATURE.finditer(header):
        if len(found) == MAX_SIGNATURES:
            break
        value = header[match.end() : _end_of_field(header, match.end())].decode("ascii", "replace")
        pairs = (tag.partition("=") for tag in value.split(";"))
        tags = {name.strip(): text for name, _, text in pairs}
        signed = {"".join(name.split()).lower() for name in tags.get("h", "").split(":")}
        if both := sorted(signed & changed):
            found.append(("".join(tags.get("d", "").split())[:255], both))
    return found


def _end_of_field(header: bytes, at: int) -> int:
    """Where the CRLF begins that ends the field."""
    match = _FIELD_END.search(header, at)
    return match.start() if match is not None else len(header)


def _longest(value: bytes) -> int:
    return max(map(len, value.split(b"\r\n")))
