"""DNS messages on the wire: build a query, match and parse its response, follow its CNAME chain. Sans-IO.

Not a general DNS library: it reads what a stub resolver for mail needs and skips every other record by its length. A response
is hostile input: bounds are checked, a compression pointer only ever points backwards, names and counts are limited, work is
linear in the packet, and `DnsFormatError` is the only exception. Authority and additional sections are read only where
they decide something (a negative answer), and nothing of them is ever believed as an answer.
RFC 1035 4, 2181, 2308, 6891 (EDNS0), 6840 5.7 (AD in queries), 6604 (rcode of a chain), draft-vixie-dnsext-dns0x20.
"""

from __future__ import annotations

import enum
import re
import socket
import struct
from collections.abc import Callable

import msgspec

KINDS = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33, "TLSA": 52}
CNAME = KINDS["CNAME"]
UDP_PAYLOAD_BYTES = 1232  # DNS flag day 2020: fits the smallest IPv6 MTU, so it is never fragmented
MAX_NAME_BYTES = 255  # RFC 1035 2.3.4, on the wire, root label included
MAX_RECORDS = 512  # in a section; more is refused: no mail needs it, and it bounds what goes to other roles
MAX_HOPS = 8  # CNAME records followed for one question
_MAX_POINTERS = 127  # in one name: as many as it can have labels

_NS, _SOA, _OPT, _IN = KINDS["NS"], KINDS["SOA"], 41, 1
_QUERY_HEADER = b"\x01\x20\x00\x01\x00\x00\x00\x00\x00\x01"  # RD, AD; one question, one additional record (OPT)
_OPT_PLAIN = b"\x00\x00\x29" + UDP_PAYLOAD_BYTES.to_bytes(2, "big") + b"\x00\x00\x00\x00\x00\x00"
_OPT_DNSSEC_OK = b"\x00\x00\x29" + UDP_PAYLOAD_BYTES.to_bytes(2, "big") + b"\x00\x00\x80\x00\x00\x00"

# A label may hold any octet (RFC 2181 11). Printable ones are enough to ask for (SPF macros put local parts into names);
# a name that is to be used as a host is held to letters, digits, hyphen and underscore.
_ASKABLE = re.compile(r"[!-\-/-~]{1,63}(?:\.[!-\-/-~]{1,63})*")
_HOST = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_PRINTABLE = bytes(range(0x21, 0x7F))
_CASE_BITS = bytes(0x20 if chr(octet).isascii() and chr(octet).isalpha() else 0 for octet in range(256))
_QUESTION_TAIL = {kind: b"\x00" + code.to_bytes(2, "big") + b"\x00\x01" for kind, code in KINDS.items()}
_LENGTH_OCTET = [bytes((length,)) for length in range(64)]

_record_head = struct.Struct("!HHIH").unpack_from  # type, class, TTL, length of the data
_soa_numbers = struct.Struct("!IIIII").unpack_from
_srv_numbers = struct.Struct("!HHH").unpack_from


class DnsFormatError(Exception):
    """A name that cannot be asked for, or a response that is not well formed or contradicts itself."""


class Rcode(enum.IntEnum):
    """The response codes with a name worth logging."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    YXDOMAIN = 6
    BADVERS = 16


# Constants of plain ints: an attribute of an enumeration costs more than the comparison.
_READABLE = (0, 3)  # NOERROR, NXDOMAIN: only these come with sections that mean something


class Match(enum.IntEnum):
    """How a packet relates to the question it might answer."""

    NO = 0
    YES = 1
    OTHER_CASE = 2  # the right name, but not in the letter case it was asked in


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A record of the answer section; `text` is None where its data holds a name that is no host name."""

    owner: str
    kind: int
    ttl_s: int
    text: str | None


class Response(msgspec.Struct, gc=False):
    """What a response says. `negative_ttl_s` is -1 without a fitting SOA; `referral` marks a delegation instead of an answer."""

    rcode: int
    truncated: bool
    authentic: bool
    answers: list[Answer]
    negative_ttl_s: int = -1
    referral: bool = False


class Followed(msgspec.Struct, gc=False):
    """The end of the CNAME chain within one response: the last name, its records, the lowest TTL on the way."""

    name: str
    records: list[str]
    ttl_s: int
    hops: int


def build_question(name: str, kind: str) -> bytes:
    """The question section for an A-label name in lower case without final dot. Raises DnsFormatError if it cannot be asked."""
    if not is_askable(name):
        raise DnsFormatError("not a domain name")
    octets = _LENGTH_OCTET
    parts = [octets[len(label)] + label for label in name.encode("ascii").split(b".")]
    parts.append(_QUESTION_TAIL[kind])
    return b"".join(parts)


def mix_case(question: bytes, entropy: bytes) -> bytes:
    """The question with the case of each letter of its name decided by `entropy` (at least as long): "0x20"."""
    # Length octets are below 64 and so never taken for letters; type and class are left out.
    size = len(question) - 4
    letters = int.from_bytes(question[:size].translate(_CASE_BITS), "big")
    mixed = int.from_bytes(question[:size], "big") ^ (letters & int.from_bytes(entropy[:size], "big"))
    return mixed.to_bytes(size, "big") + question[size:]


def build_query(query_id: bytes, question: bytes, *, dnssec_ok: bool = False) -> bytes:
    """A query packet: recursion desired, AD asked for, EDNS0 with our UDP size. `query_id` is two random bytes."""
    return query_id + _QUERY_HEADER + question + (_OPT_DNSSEC_OK if dnssec_ok else _OPT_PLAIN)


def match_response(packet: bytes, question: bytes) -> Match:
    """Whether a packet is a response to this question (its id is the caller's to compare)."""
    if len(packet) < 12 or packet[2] & 0xF8 != 0x80:  # QR set, opcode QUERY
        return Match.NO
    if packet[4:6] == b"\x00\x01":
        asked = packet[12 : 12 + len(question)]
        if asked == question:
            return Match.YES
        return Match.OTHER_CASE if asked.lower() == question.lower() else Match.NO
    # A server that could not read the query may answer with a bare header.
    if packet[4:6] == b"\x00\x00" and packet[3] & 15 not in _READABLE:
        return Match.YES
    return Match.NO


def parse_response(packet: bytes, question: bytes, name: str, kind: str) -> Response:
    """Parse a response that `match_response` matched. Answers of other kinds (but CNAME) and classes are left out."""
    try:
        rcode = packet[3] & 15
        response = Response(rcode, packet[2] & 2 != 0, packet[3] & 0x20 != 0, [])
        if response.truncated or rcode not in _READABLE:
            return response
        wanted = KINDS[kind]
        offset = _read_answers(packet, 12 + len(question), name, wanted, response.answers)
        for answer in response.answers:
            if answer.kind == wanted:
                return response
        _read_negative(packet, offset, response)
    except (IndexError, struct.error):
        raise DnsFormatError("the response ends too soon") from None
    return response


def follow(answers: list[Answer], name: str, kind: str) -> Followed:
    """Walk the CNAME chain from `name`. Raises DnsFormatError if it is too long (a loop is), or its end unusable."""
    wanted = KINDS[kind]
    aliases = None
    ttl_s = 0x7FFFFFFF
    hops = 0
    while True:
        found = [answer for answer in answers if answer.kind == wanted and answer.owner == name]
        if found:
            records = [answer.text for answer in found if answer.text is not None]
            if not records:
                raise DnsFormatError(f"the data of the {kind} record is not a host name")
            for answer in found:
                ttl_s = min(ttl_s, answer.ttl_s)
            return Followed(name, records, ttl_s, hops)
        if aliases is None:
            aliases = {answer.owner: answer for answer in answers if answer.kind == CNAME}
        alias = aliases.get(name)
        if alias is None:
            return Followed(name, [], ttl_s, hops)
        hops += 1
        if hops > MAX_HOPS:
            raise DnsFormatError("the CNAME chain is too long, or a loop")
        if alias.text is None:
            raise DnsFormatError("a CNAME record points to what is not a domain name")
        ttl_s = min(ttl_s, alias.ttl_s)
        name = alias.text


def is_askable(name: str) -> bool:
    """Whether a name (lower case, no final dot) can stand in a question: printable labels of 1 to 63 octets."""
    return len(name) <= MAX_NAME_BYTES - 2 and _ASKABLE.fullmatch(name) is not None


def is_host_name(name: str) -> bool:
    """Whether a lower-case name may be used as a host: letters, digits, hyphen, underscore (RFC 1123 2.1, plus `_`)."""
    return len(name) <= MAX_NAME_BYTES - 2 and _HOST.fullmatch(name) is not None


# --- sections -------------------------------------------------------------------------------------------------------


def _read_answers(packet: bytes, offset: int, name: str, wanted: int, answers: list[Answer]) -> int:
    """Collect the records of the answer section that matter, and return the offset behind it."""
    count = packet[6] << 8 | packet[7]
    if count > MAX_RECORDS:
        raise DnsFormatError("too many records")
    owner: str | None
    for _ in range(count):
        if packet[offset : offset + 2] == b"\xc0\x0c":  # the name of the question: nearly always
            owner = name
            offset += 2
        else:
            owner, offset = _read_name(packet, offset)
        kind, klass, ttl_s, size = _record_head(packet, offset)
        start = offset + 10
        offset = start + size
        if offset > len(packet):
            raise DnsFormatError("record data beyond the end")
        if (kind == wanted or kind == CNAME) and klass == _IN and owner is not None:
            # RFC 2181 8: a TTL with the top bit set counts as zero.
            answers.append(
                Answer(owner, kind, ttl_s if ttl_s < 0x80000000 else 0, _READERS[kind](packet, start, offset))
            )
    return offset


def _read_negative(packet: bytes, offset: int, response: Response) -> None:
    """Find in the authority section what makes a response negative (SOA) or a referral, and an extended rcode (OPT)."""
    authorities = packet[8] << 8 | packet[9]
    additionals = packet[10] << 8 | packet[11]
    if authorities > MAX_RECORDS or additionals > MAX_RECORDS:
        raise DnsFormatError("too many records")
    for index in range(authorities + additionals):
        _, offset = _read_name(packet, offset)
        kind, klass, ttl_s, size = _record_head(packet, offset)
        start = offset + 10
        offset = start + size
        if offset > len(packet):
            raise DnsFormatError("record data beyond the end")
        if index >= authorities:
            if kind == _OPT:
                response.rcode |= ttl_s >> 24 << 4
        elif kind == _SOA and klass == _IN:
            _read_soa(packet, start, offset)
            minimum = int.from_bytes(packet[offset - 4 : offset], "big")
            response.negative_ttl_s = 0 if ttl_s >= 0x80000000 else min(ttl_s, minimum)  # RFC 2308 5
        elif kind == _NS:
            response.referral = True


# --- names ----------------------------------------------------------------------------------------------------------


def _read_name(packet: bytes, offset: int) -> tuple[str | None, int]:
    """A name in lower case ("" is the root; None if a label is not printable or holds a dot) and the offset behind it."""
    labels: list[bytes] = []
    lowest = position = offset
    behind = pointers = 0
    size = 1
    while length := packet[position]:
        if length < 64:
            size += length + 1
            label = packet[position + 1 : position + 1 + length]
            if size > MAX_NAME_BYTES or len(label) != length:
                raise DnsFormatError("a name is too long")
            labels.append(label)
            position += length + 1
        elif length >= 192:
            # Each pointer goes to before everything read so far: a loop cannot be.
            target = (length & 63) << 8 | packet[position + 1]
            pointers += 1
            if not 12 <= target < lowest or pointers > _MAX_POINTERS:
                raise DnsFormatError("a compression pointer does not point backwards")
            behind = behind or position + 2
            lowest = position = target
        else:
            raise DnsFormatError("an unknown kind of label")
    raw = b".".join(labels)
    if raw.translate(None, _PRINTABLE) or (labels and raw.count(b".") != len(labels) - 1):
        return None, behind or position + 1
    return raw.lower().decode("ascii"), behind or position + 1


def _read_last_name(packet: bytes, start: int, end: int) -> str | None:
    """A name that must fill the record data to its end."""
    if start >= end:
        raise DnsFormatError("record data without its name")
    name, behind = _read_name(packet, start)
    if behind != end:
        raise DnsFormatError("the length of record data does not fit")
    return name


# --- record data, as presentation text ------------------------------------------------------------------------------


def _read_a(packet: bytes, start: int, end: int) -> str:
    if end - start != 4:
        raise DnsFormatError("an A record of the wrong size")
    return socket.inet_ntoa(packet[start:end])


def _read_aaaa(packet: bytes, start: int, end: int) -> str:
    if end - start != 16:
        raise DnsFormatError("an AAAA record of the wrong size")
    return socket.inet_ntop(socket.AF_INET6, packet[start:end])


def _read_alias(packet: bytes, start: int, end: int) -> str | None:
    # RFC 2317 aliases have "/" in them: any name that can be asked for will do.
    return _read_last_name(packet, start, end) or None


def _read_host(packet: bytes, start: int, end: int) -> str | None:
    name = _read_last_name(packet, start, end)
    return name if name and is_host_name(name) else None


def _read_mx(packet: bytes, start: int, end: int) -> str | None:
    name = _read_last_name(packet, start + 2, end)
    if name == "":
        name = "."  # null MX, RFC 7505
    elif name is None or not is_host_name(name):
        return None
    return f"{packet[start] << 8 | packet[start + 1]} {name}"


def _read_srv(packet: bytes, start: int, end: int) -> str | None:
    name = _read_last_name(packet, start + 6, end)
    if name is None or (name and not is_host_name(name)):
        return None
    priority, weight, port = _srv_numbers(packet, start)
    return f"{priority} {weight} {port} {name or '.'}"


def _read_soa(packet: bytes, start: int, end: int) -> str | None:
    mname, behind = _read_name(packet, start)
    rname, behind = _read_name(packet, behind)
    if end - behind != 20:
        raise DnsFormatError("an SOA record of the wrong size")
    if mname is None or rname is None:
        return None
    return " ".join((mname or ".", rname or ".", *map(str, _soa_numbers(packet, behind))))


def _read_txt(packet: bytes, start: int, end: int) -> str:
    """The strings joined without a space (RFC 7208 3.3, 6376 3.6.2.2), an octet to a character."""
    if start == end:
        raise DnsFormatError("a TXT record without a string")
    parts = []
    while start < end:
        behind = start + 1 + packet[start]
        parts.append(packet[start + 1 : behind])
        start = behind
    if start != end:
        raise DnsFormatError("a string of a TXT record beyond its end")
    return b"".join(parts).decode("latin-1")


def _read_tlsa(packet: bytes, start: int, end: int) -> str:
    if end - start < 4:
        raise DnsFormatError("a TLSA record without data")
    usage, selector, matching = packet[start : start + 3]
    return f"{usage} {selector} {matching} {packet[start + 3 : end].hex()}"


_READERS: dict[int, Callable[[bytes, int, int], str | None]] = {
    KINDS["A"]: _read_a,
    KINDS["NS"]: _read_host,
    KINDS["CNAME"]: _read_alias,
    KINDS["SOA"]: _read_soa,
    KINDS["PTR"]: _read_host,
    KINDS["MX"]: _read_mx,
    KINDS["TXT"]: _read_txt,
    KINDS["AAAA"]: _read_aaaa,
    KINDS["SRV"]: _read_srv,
    KINDS["TLSA"]: _read_tlsa,
}
