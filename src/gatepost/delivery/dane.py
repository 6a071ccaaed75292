"""TLSA records, and whether a certificate chain matches them. Pure: records and DER in, an answer out.

Not here: where the records come from and whether they are secure (`securing.py`), signatures of a chain: a chain that ends in a
matching authority is verified by OpenSSL, in a handshake that trusts nothing else (docs/decisions/0009-dane.md).

Invariants: whatever a record or a certificate holds, nothing but ValueError comes out of here; a record that cannot be used never
matches. RFC 6698 2, RFC 7671 5 and 9, RFC 7672 3.1 (usages 0 and 1 are unusable for SMTP).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

DANE_TA, DANE_EE = 2, 3
_USAGES = (DANE_TA, DANE_EE)
_SELECTORS = (0, 1)  # the whole certificate, its public key
_DIGESTS = {1: hashlib.sha256, 2: hashlib.sha512}
_STRONGEST = (2, 1)  # RFC 7671 9: digest algorithm agility
MAX_RECORDS = 64  # of one host; more are as if they could not be used
_SEQUENCE, _VERSION = 0x30, 0xA0


class Tlsa(NamedTuple):
    """One record (RFC 6698 2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes

    def __str__(self) -> str:
        data = self.data.hex()
        return f"{self.usage} {self.selector} {self.matching} {data if len(data) <= 128 else data[:125] + '...'}"


def parse_tlsa(text: str) -> Tlsa:
    """A record in presentation form, "3 1 1 HEX"; raises ValueError."""
    usage, selector, matching, data = text.split(None, 3)
    return Tlsa(int(usage), int(selector), int(matching), bytes.fromhex(data))


def is_usable(record: Tlsa) -> bool:
    """Whether SMTP may use a record (RFC 7672 3.1): its numbers are known, and its data can be what they say."""
    if record.usage not in _USAGES or record.selector not in _SELECTORS:
        return False
    digest = _DIGESTS.get(record.matching)
    if digest is not None:
        return len(record.data) == digest().digest_size
    return record.matching == 0 and bool(record.data)


def usable_records(texts: Iterable[str]) -> tuple[Tlsa, ...]:
    """The usable ones, and of digests with the same usage and selector the strongest only (RFC 7671 9)."""
    found: list[Tlsa] = []
    for text in texts:
        try:
            record = parse_tlsa(text)
        except ValueError:
            continue
        if is_usable(record) and record not in found:
            found.append(record)
        if len(found) > MAX_RECORDS:
            return ()
    best: dict[tuple[int, int], int] = {}
    for record in found:
        if record.matching:
            key = record.usage, record.selector
            best[key] = min(best.get(key, record.matching), record.matching, key=_STRONGEST.index)
    return tuple(r for r in found if not r.matching or best[r.usage, r.selector] == r.matching)


def is_match(record: Tlsa, certificate: bytes) -> bool:
    """Whether a usable record says this certificate (DER)."""
    try:
        selected = certificate if record.selector == 0 else public_key_of(certificate)
    except ValueError:
        return False
    digest = _DIGESTS.get(record.matching)
    return (selected if digest is None else digest(selected).digest()) == record.data


def is_end_entity(records: Sequence[Tlsa], chain: Sequence[bytes]) -> bool:
    """Whether the host's own certificate, first in the chain, matches by DANE-EE: names and dates are of no account (RFC 7671 5.1)."""
    return bool(chain) and any(is_match(record, chain[0]) for record in records if record.usage == DANE_EE)


def find_anchors(records: Sequence[Tlsa], chain: Sequence[bytes]) -> list[bytes]:
    """The certificates (DER) that DANE-TA records say a chain may end in: of the chain, or a whole one in a record (RFC 7671 5.2)."""
    records = [record for record in records if record.usage == DANE_TA]
    if not chain:
        return []
    found = [one for one in chain[1:] if any(is_match(record, one) for record in records)]
    found += [record.data for record in records if record.selector == record.matching == 0]
    return list(dict.fromkeys(found))


def public_key_of(certificate: bytes) -> bytes:
    """SubjectPublicKeyInfo of a certificate (DER, RFC 5280 4.1), with its header. Raises ValueError."""
    tag, start, end = _element(certificate, 0, len(certificate))
    if tag != _SEQUENCE or end != len(certificate):
        raise ValueError("not a certificate")
    tag, start, end = _element(certificate, start, end)
    if tag != _SEQUENCE:
        raise ValueError("not a certificate")
    if certificate[start : start + 1] == bytes((_VERSION,)):
        _, _, start = _element(certificate, start, end)
    for _ in range(5):  # serialNumber, signature, issuer, validity, subject
        _, _, start = _element(certificate, start, end)
    tag, _, stop = _element(certificate, start, end)
    if tag != _SEQUENCE:
        raise ValueError("no public key where it belongs")
    return certificate[start:stop]


def _element(der: bytes, offset: int, end: int) -> tuple[int, int, int]:
    """Tag, begin and end of the content of the element at `offset`, which must lie before `end`."""
    if offset + 2 > end or der[offset] & 0x1F == 0x1F:
        raise ValueError("an element is cut short")
    size = der[offset + 1]
    start = offset + 2
    if size >= 0x80:
        count = size & 0x7F
        if not 1 <= count <= 4 or start + count > end:
            raise ValueError("a length that is none")
        size = int.from_bytes(der[start : start + count], "big")
        start += count
    if start + size > end:
        raise ValueError("an element is cut short")
    return der[offset], start, start + size
