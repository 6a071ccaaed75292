"""XCLIENT and XFORWARD in a server session: what a proxy or a filter says of the client it speaks for (Postfix's XCLIENT_README and
XFORWARD_README). Without I/O, like the session.

Both exist only where the settings of the session say so: for everybody else they are refused with 550 5.7.0. XCLIENT is the owner's to
decide; after a positive answer the session is as new, with the greeting. XFORWARD is for the log, and changes nothing. Values are
xtext (RFC 3461 4) of printable ASCII; one that the proxy does not know is None.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping

from gatepost.smtp.conversation import HELLO
from gatepost.smtp.events import Event, Forwarded, Introduced
from gatepost.smtp.messagetext import MessageText
from gatepost.smtp.reply import OK, Reply, constant

Attributes = dict[str, "str | None"]
Parser = Callable[[str], "str | None"]

NOT_FOR_YOU = constant(550, "7.0", "Not for your address")
BAD_ATTRIBUTE = constant(501, "5.4", "Syntax: NAME=value, each name once, each value as xtext")

_UNKNOWN = frozenset({"[UNAVAILABLE]", "[TEMPUNAVAIL]"})
_ITEM = re.compile(rb"([A-Za-z]+)=((?:[!-*,-<>-~]|\+[0-9A-Fa-f]{2})+)").fullmatch
_ESCAPED = re.compile(rb"\+([0-9A-Fa-f]{2})")
_WORD = re.compile(r"[!-~]{1,255}").fullmatch
_PORT = re.compile(r"[1-9][0-9]{0,4}").fullmatch


def _parse_word(text: str) -> str | None:
    return text if _WORD(text) else None


def _parse_address(text: str) -> str | None:
    is_six = text[:5].upper() == "IPV6:"
    try:
        address = ipaddress.IPv6Address(text[5:]) if is_six else ipaddress.IPv4Address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)


def _parse_port(text: str) -> str | None:
    return text if _PORT(text) and int(text) < 65536 else None


def _one_of(*words: str) -> Parser:
    return lambda text: text.upper() if text.upper() in words else None


XCLIENT: Mapping[str, Parser] = {
    "NAME": _parse_word,
    "ADDR": _parse_address,
    "PORT": _parse_port,
    "PROTO": _one_of("SMTP", "ESMTP"),
    "HELO": _parse_word,
    "LOGIN": _parse_word,
    "DESTADDR": _parse_address,
    "DESTPORT": _parse_port,
}
XFORWARD: Mapping[str, Parser] = {
    "NAME": _parse_word,
    "ADDR": _parse_address,
    "PORT": _parse_port,
    "PROTO": _parse_word,
    "HELO": _parse_word,
    "IDENT": _parse_word,
    "SOURCE": _one_of("LOCAL", "REMOTE"),
}


def parse_attributes(words: bytes, table: Mapping[str, Parser]) -> Attributes | Reply:
    """`NAME=value ...` as names in upper case and values, or the refusal."""
    found: Attributes = {}
    for item in words.split(b" "):
        if not item:
            continue
        match = _ITEM(item)
        name = match[1].decode("ascii").upper() if match is not None else ""
        if match is None or name not in table or name in found:
            return BAD_ATTRIBUTE
        value = _ESCAPED.sub(lambda code: bytes([int(code[1], 16)]), match[2]).decode("latin-1")
        if value.upper() in _UNKNOWN:
            found[name] = None
            continue
        found[name] = table[name](value)
        if found[name] is None:
            return BAD_ATTRIBUTE
    return found or BAD_ATTRIBUTE


class Introduction(MessageText):
    """What the two verbs add to a session."""

    __slots__ = ()

    def _xclient(self, line: bytes) -> Event | None:
        if not self.settings.xclient:
            return self._violate("disabled", NOT_FOR_YOU, line)
        attributes = parse_attributes(line[8:], XCLIENT)
        if isinstance(attributes, Reply):
            return self._violate("syntax", attributes, line)
        self._pending = Introduction._answer_xclient
        return Introduced(attributes)

    def _answer_xclient(self, reply: Reply | None) -> None:
        if reply is not None and not reply.is_positive:
            self._end(reply)
            return
        self.helo = ""
        self.user = ""
        self.esmtp = False
        self._state = HELLO
        self._write(self.settings.greeting)

    def _xforward(self, line: bytes) -> Event | None:
        if not self.settings.xforward:
            return self._violate("disabled", NOT_FOR_YOU, line)
        attributes = parse_attributes(line[9:], XFORWARD)
        if isinstance(attributes, Reply):
            return self._violate("syntax", attributes, line)
        self._put(OK)
        return Forwarded(attributes)
