"""The arguments of SMTP commands (RFC 5321 4.1): a command line without its CRLF becomes values, or the refusing Reply.

Here a path becomes `str`, once. Which command is legal when is not known here (`server.py`), nor which parameters exist
(`extensions.py`). A line that is wrong is a value, never an exception.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from gatepost.model import Address
from gatepost.smtp.address import (
    DOMAIN,
    DOT_STRING,
    MAX_DOMAIN_BYTES,
    MAX_LOCAL_BYTES,
    MAX_PATH_BYTES,
    PathError,
    parse_domain,
    parse_path,
)
from gatepost.smtp.reply import (
    BAD_BDAT,
    BAD_HELLO,
    BAD_MAIL,
    BAD_PARAMETER,
    BAD_RCPT,
    NEEDS_SMTPUTF8,
    REPEATED_PARAMETER,
    UNKNOWN_PARAMETER,
    Reply,
)

# A parser takes the value (None: none given; else any octets but space and controls of a line end, empty too) and the limit
# on a message, and returns what it means or the refusal.
Value = int | str | bool | bytes
ParameterParser = Callable[[bytes | None, int], Value | Reply]
Parameters = dict[str, Value]

_PATH = rf"<(?:({DOT_STRING})@({DOMAIN}))?>"
_FAST_MAIL = re.compile(rf"(?i:MAIL FROM:){_PATH}( .*)?".encode(), re.DOTALL).fullmatch
_FAST_RCPT = re.compile(rf"(?i:RCPT TO:){_PATH}( .*)?".encode(), re.DOTALL).fullmatch
# RFC 5321 3.3 forbids the space behind the colon; people at a terminal, old Outlook and many appliances send it, and it
# is not ambiguous.
_EXTENT = rb' ?(<(?:[^<>"\\]|\\.|"(?:[^"\\]|\\.)*+")*+>)( .*)?'
_FULL_MAIL = re.compile(rb"(?i:MAIL FROM:)" + _EXTENT, re.DOTALL).fullmatch
_FULL_RCPT = re.compile(rb"(?i:RCPT TO:)" + _EXTENT, re.DOTALL).fullmatch
_PARAMETER = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*+)(?:=([!-<>-~\x80-\xff]++))?").fullmatch
_BDAT = re.compile(rb"(?i:BDAT) ([0-9]{1,20})(?: (?i:(LAST)))? *").fullmatch
_NO_PARAMETERS: Parameters = {}


class PathCommand(msgspec.Struct, frozen=True, gc=False):
    """What MAIL or RCPT says. `parameters` is shared when there are none: do not change it."""

    path: Address | None
    parameters: Parameters


def parse_mail(line: bytes, table: Mapping[bytes, ParameterParser], max_message_bytes: int) -> PathCommand | Reply:
    """MAIL FROM:<reverse-path> [parameters]; `table` has the parameters that are offered, keywords in upper case."""
    match = _FAST_MAIL(line)
    if match is not None:
        local, domain, rest = match.groups()
        parameters = _NO_PARAMETERS
        if rest:
            checked = parse_parameters(rest, table, max_message_bytes)
            if type(checked) is Reply:
                return checked
            parameters = checked  # type: ignore[assignment]
        if local is None:
            return PathCommand(None, parameters)
        if len(local) <= MAX_LOCAL_BYTES and len(local) + len(domain) + 3 <= MAX_PATH_BYTES:
            name = local.decode("ascii")
            place = domain.decode("ascii")
            return PathCommand(Address(f"{name}@{place}", name, place.lower()), parameters)
    match = _FULL_MAIL(line)
    if match is None:
        return BAD_MAIL
    checked = parse_parameters(match[2] or b"", table, max_message_bytes)
    if isinstance(checked, Reply):
        return checked
    try:
        return PathCommand(parse_path(match[1], smtputf8="SMTPUTF8" in checked), checked)
    except PathError as error:
        return NEEDS_SMTPUTF8 if error.needs_smtputf8 else Reply(501, "1.7", error.reason)


def parse_rcpt(
    line: bytes, table: Mapping[bytes, ParameterParser], max_message_bytes: int, *, smtputf8: bool = False
) -> PathCommand | Reply:
    """RCPT TO:<forward-path> [parameters]; the path of the result is never None."""
    match = _FAST_RCPT(line)
    if match is not None:
        local, domain, rest = match.groups()
        if (
            not rest
            and local is not None
            and len(local) <= MAX_LOCAL_BYTES
            and len(local) + len(domain) + 3 <= MAX_PATH_BYTES
        ):
            name = local.decode("ascii")
            place = domain.decode("ascii")
            return PathCommand(Address(f"{name}@{place}", name, place.lower()), _NO_PARAMETERS)
    match = _FULL_RCPT(line)
    if match is None:
        return BAD_RCPT
    checked = parse_parameters(match[2] or b"", table, max_message_bytes)
    if isinstance(checked, Reply):
        return checked
    try:
        return PathCommand(parse_path(match[1], smtputf8=smtputf8, forward=True), checked)
    except PathError as error:
        return NEEDS_SMTPUTF8 if error.needs_smtputf8 else Reply(501, "1.3", error.reason)


def parse_parameters(raw: bytes, table: Mapping[bytes, ParameterParser], max_message_bytes: int) -> Parameters | Reply:
    """esmtp-keyword[=value] separated by spaces (RFC 5321 4.1.1.11), as keyword in upper case -> parsed value."""
    parameters: Parameters = {}
    for item in raw.split(b" "):
        if not item:
            continue
        keyword, equals, given = item.partition(b"=")
        keyword = keyword.upper()
        parser = table.get(keyword)
        if parser is None:
            return UNKNOWN_PARAMETER if _PARAMETER(item) is not None else BAD_PARAMETER
        name = keyword.decode("ascii")
        if name in parameters:
            return REPEATED_PARAMETER
        value = parser(given if equals else None, max_message_bytes)
        if isinstance(value, Reply):
            return value
        parameters[name] = value
    return parameters


def parse_hello(line: bytes) -> str | Reply:
    """The domain or address literal of HELO or EHLO (RFC 5321 4.1.1.1), as written."""
    name = line[5:].strip(b" ")
    if not name or len(name) > MAX_DOMAIN_BYTES or not name.isascii():
        return BAD_HELLO
    text = name.decode("ascii")
    try:
        parse_domain(text)
    except PathError:
        return BAD_HELLO
    return text


def parse_bdat(line: bytes) -> tuple[int, bool] | Reply:
    """BDAT size [LAST] (RFC 3030 2): the octets that follow, and whether they are the last."""
    match = _BDAT(line)
    if match is None:
        return BAD_BDAT
    return int(match[1]), match[2] is not None
