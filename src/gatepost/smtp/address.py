"""Paths of SMTP (RFC 5321 4.1.2, RFC 6531 3.3): from the octets between MAIL FROM: or RCPT TO: and the parameters.

Grammar only: nothing here knows which domains are ours. Most paths are a dot-string at a domain, which one regular
expression accepts; only a miss goes through the full grammar. Every domain that leaves here is lower case A-labels or a
validated address literal. All repetition in the expressions is bounded or possessive, so matching is linear.
"""

from __future__ import annotations

import ipaddress
import re

import idna

from gatepost.model import Address

# RFC 5321 4.5.3.1.1 to 4.5.3.1.3; the path with its angle brackets.
MAX_LOCAL_BYTES = 64
MAX_DOMAIN_BYTES = 255
MAX_PATH_BYTES = 256

_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
DOT_STRING = rf"{_ATEXT}++(?:\.{_ATEXT}++)*+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*+"

_FAST_PATH = re.compile(rf"<(({DOT_STRING})@({DOMAIN}))?>".encode())
_FAST_DOMAIN = re.compile(DOMAIN)

# RFC 6531 3.3 adds UTF8-non-ascii to atext and qtextSMTP. C1 controls and the Unicode line ends are left out: they are of
# no use in an address and harm whoever shows it.
_NON_ASCII = "\u00a0-\u2027\u202a-\ud7ff\ue000-\U0010ffff"
_UTF8_ATEXT = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~\-{_NON_ASCII}]"
_LOCAL = re.compile(
    rf"(?:{_UTF8_ATEXT}++(?:\.{_UTF8_ATEXT}++)*+"
    rf'|"(?:[ !#-\[\]-~{_NON_ASCII}]|\\[ -~])*+")(?=@)'
)
_ROUTE_DOMAIN = re.compile(rf"@([A-Za-z0-9.{_NON_ASCII}-]++|\[[!-Z^-~]++\])([,:])")
_LITERAL = re.compile(r"\[(?:(?P<v4>[0-9.]{7,15})|(?i:IPv6):(?P<v6>[0-9A-Fa-f:.]{2,45}))\]")


class PathError(ValueError):
    """A path that is not one; `reason` can be shown to the peer, `needs_smtputf8` says it would be one with SMTPUTF8."""

    def __init__(self, reason: str, *, needs_smtputf8: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.needs_smtputf8 = needs_smtputf8


def parse_path(path: bytes, *, smtputf8: bool = False, forward: bool = False) -> Address | None:
    """The mailbox of a path with its angle brackets; None is the null reverse-path.

    `forward` makes it a forward-path: `<Postmaster>` is one (RFC 5321 4.1.1.3), `<>` is not. Raises PathError.
    """
    match = _FAST_PATH.fullmatch(path)
    if match is not None:
        text, local, domain = match.groups()
        if text is None:
            if forward:
                raise PathError("A recipient cannot be the null path")
            return None
        if len(path) <= MAX_PATH_BYTES and len(local) <= MAX_LOCAL_BYTES:
            return Address(text.decode("ascii"), local.decode("ascii"), domain.lower().decode("ascii"))
    return _parse_in_full(path, smtputf8, forward)


def _parse_in_full(path: bytes, smtputf8: bool, forward: bool) -> Address:
    if len(path) > MAX_PATH_BYTES:
        raise PathError("Path too long")
    if path[:1] != b"<" or path[-1:] != b">":
        raise PathError("An address stands between angle brackets")
    try:
        text = path[1:-1].decode("utf-8")
    except UnicodeDecodeError:
        raise PathError("Address is neither ASCII nor UTF-8") from None
    if not text.isascii() and not smtputf8:
        raise PathError("A non-ASCII address needs SMTPUTF8", needs_smtputf8=True)
    if text[:1] == "@":
        text = _without_route(text)
    if forward and text.lower() == "postmaster":
        return Address(text, text, "")
    match = _LOCAL.match(text)
    if match is None:
        raise PathError("Malformed local part, or no domain")
    local = match.group()
    if len(local.encode()) > MAX_LOCAL_BYTES:
        raise PathError("Local part too long")
    return Address(text, local, parse_domain(text[match.end() + 1 :]))


def _without_route(text: str) -> str:
    """The mailbox behind a source route, which is checked and ignored (RFC 5321 4.1.1.3, appendix C)."""
    at = 0
    while True:
        match = _ROUTE_DOMAIN.match(text, at)
        if match is None:
            raise PathError("Malformed source route")
        parse_domain(match.group(1))
        at = match.end()
        if match.group(2) == ":":
            return text[at:]


def parse_domain(text: str) -> str:
    """A domain or address literal in the form used inside: lower case A-labels, or `[192.0.2.1]`, `[IPv6:2001:db8::1]`."""
    if text[:1] == "[":
        return _parse_literal(text)
    domain = text if text.isascii() else _to_a_labels(text)
    if len(domain) > MAX_DOMAIN_BYTES:
        raise PathError("Domain too long")
    if _FAST_DOMAIN.fullmatch(domain) is None:
        raise PathError("Malformed domain")
    return domain.lower()


def _to_a_labels(text: str) -> str:
    if len(text.encode()) > MAX_DOMAIN_BYTES:
        raise PathError("Domain too long")
    try:
        return idna.encode(text, uts46=True, std3_rules=True).decode("ascii")
    except UnicodeError:
        raise PathError("Malformed internationalized domain") from None


def _parse_literal(text: str) -> str:
    """RFC 5321 4.1.3; no general address literal is registered, so none is taken."""
    match = _LITERAL.fullmatch(text)
    try:
        if match is not None and match["v4"] is not None:
            return f"[{ipaddress.IPv4Address(match['v4'])}]"
        if match is not None:
            return f"[IPv6:{ipaddress.IPv6Address(match['v6'])}]"
    except ValueError:
        pass
    raise PathError("Malformed address literal")
