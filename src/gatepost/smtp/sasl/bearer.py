"""OAUTHBEARER (RFC 7628) and XOAUTH2 (Google's, older): a token of an authorization server stands for the user.

Only the messages; whether a token is good is the owner's to say. A failure is told in JSON, which the client must answer
before it hears 535: RFC 7628 3.2.3.
"""

from __future__ import annotations

import re

from gatepost.smtp.sasl.mechanism import Challenge, Done, Exchange, Malformed, Security, TokenOf, parse_name
from gatepost.smtp.sasl.prepare import NotPreparable, prepare_name
from gatepost.smtp.sasl.scram import parse_saslname

_GS2 = re.compile(rb"n,(?:a=([^,\x00-\x20]+))?,\x01", re.DOTALL).match
_TOKEN = re.compile(rb"(?i:bearer) +([A-Za-z0-9._~+/-]+=*)").fullmatch  # RFC 6750 2.1
_REFUSED = b'{"status":"invalid_token"}'


def oauthbearer(initial: bytes | None, security: Security, plus_offered: bool) -> Exchange:
    """gs2-header %x01 key=value %x01 ... %x01."""
    message = initial if initial is not None else (yield Challenge(b""))
    header = _GS2(message)
    if header is None:
        raise Malformed("not a message of OAUTHBEARER")
    name = parse_saslname(header[1]) if header[1] else ""
    return (yield from _check(name, _parse_pairs(message[header.end() :])))


def xoauth2(initial: bytes | None, security: Security, plus_offered: bool) -> Exchange:
    """user=NAME %x01 auth=Bearer TOKEN %x01 %x01."""
    message = initial if initial is not None else (yield Challenge(b""))
    pairs = _parse_pairs(message)
    name = parse_name(pairs.get(b"user", b""))
    if not name:
        raise Malformed("not a message of XOAUTH2")
    return (yield from _check(name, pairs))


def _parse_pairs(octets: bytes) -> dict[bytes, bytes]:
    if not octets.endswith(b"\x01\x01"):
        raise Malformed("the message is cut off")
    pairs: dict[bytes, bytes] = {}
    for item in octets[:-2].split(b"\x01"):
        key, equals, value = item.partition(b"=")
        if not equals or key in pairs:
            raise Malformed("not a list of key=value")
        pairs[key] = value
    return pairs


def _check(name: str, pairs: dict[bytes, bytes]) -> Exchange:
    match = _TOKEN(pairs.get(b"auth", b""))
    cause = "the token is not valid here"
    found = ""
    try:
        user = prepare_name(name) if name else ""
    except NotPreparable:
        match, user, cause = None, name, "the name cannot be prepared"
    if match is not None:
        found = yield TokenOf(user, match[1].decode("ascii"))
    if found:
        return Done(True, found)
    yield Challenge(_REFUSED)  # whatever it answers
    return Done(False, user, cause)
