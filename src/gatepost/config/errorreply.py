"""What stands in place of a next hop and refuses: `error:...`, and `ERROR:...` of sendmail's tables, as a reply for the peer.

`error:nouser 550 text`, `error:5.7.0:550 text`, `error:text`, and in the access table `ERROR:D.S.N:code text` or just
`550 text`. The canonical form, in which next hops and routes carry it, is `error:CODE D.S.N TEXT`; the class of the status is the
first digit of the reply code, whatever the table says (RFC 3463 2).
"""

from __future__ import annotations

import re

import msgspec

_STATUS = re.compile(r"([245])\.(\d{1,3}\.\d{1,3}):?\s*(.*)", re.DOTALL)
_WORD = re.compile(r"([A-Za-z]+)(?:[:\s]+|$)")
_CODE = re.compile(r"([45]\d\d)(?:[ -]+([45])\.(\d{1,3}\.\d{1,3}))?(?:\s+(.*))?", re.DOTALL)

# sysexits words that stand for a status, as sendmail's parser of `$#error $@` knows them
_WORDS = {
    "usage": (501, "5.2"),
    "nouser": (550, "1.1"),
    "nohost": (550, "1.2"),
    "unavailable": (550, "0.0"),
    "unavail": (550, "0.0"),
    "software": (554, "3.0"),
    "protocol": (554, "5.0"),
    "config": (554, "3.5"),
    "noperm": (550, "7.0"),
    "tempfail": (450, "0.0"),
}
DEFAULT_CODE = 553  # sendmail's for a text without one
DEFAULT_DETAIL = "3.0"
DEFAULT_TEXT = "Refused by a rule of this site; ask its postmaster"
MAX_TEXT = 400


class ErrorReply(msgspec.Struct, frozen=True, gc=False):
    """A reply; `is_exact` is False where code and status of the table disagreed."""

    code: int
    detail: str
    text: str
    is_exact: bool = True


class BadError(Exception):
    """An error that is none."""


def parse_error(text: str) -> ErrorReply:
    """The reply in what stands behind `error:` or `ERROR:`; raises BadError."""
    rest = text.strip().strip('"').strip()
    detail, class_digit = "", ""
    word = _WORD.match(rest)
    named = _WORDS.get(word.group(1).lower()) if word else None
    if word and named:
        rest = rest[word.end() :].strip().strip('"')
        class_digit, detail = str(named[0] // 100), named[1]
    match = _STATUS.fullmatch(rest)
    if match:
        class_digit, detail, rest = match.group(1), match.group(2), match.group(3).strip().strip('"')
    elif named and not _CODE.fullmatch(rest):
        return ErrorReply(*named, _clean(rest))
    match = _CODE.fullmatch(rest)
    if match is None:
        code = {"4": 450, "5": DEFAULT_CODE, "2": DEFAULT_CODE}.get(class_digit, DEFAULT_CODE)
        return ErrorReply(code, detail or DEFAULT_DETAIL, _clean(rest), class_digit != "2")
    code = int(match.group(1))
    if match.group(3):
        class_digit, detail = match.group(2), match.group(3)
    if code == 421 or not 400 <= code <= 599:
        raise BadError(f"{code} is not a reply to a command")
    is_exact = not class_digit or class_digit == str(code // 100)
    return ErrorReply(code, detail or "0.0", _clean(match.group(4) or ""), is_exact)


def canonical_error(reply: ErrorReply) -> str:
    """The text in which a route carries it."""
    return f"error:{reply.code} {reply.code // 100}.{reply.detail} {reply.text}"


def reply_of(route: str) -> ErrorReply:
    """The reply out of its canonical text."""
    code, status, text = route.removeprefix("error:").split(" ", 2)
    return ErrorReply(int(code), status.partition(".")[2], text)


def _clean(text: str) -> str:
    """Text for a reply line: visible ASCII only."""
    shown = "".join(character if " " <= character <= "~" else "?" for character in text.strip().strip('"'))
    return shown[:MAX_TEXT] or DEFAULT_TEXT
