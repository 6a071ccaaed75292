"""The values of MAIL and RCPT parameters: each parser turns what stands behind the `=` into its meaning, or the refusing Reply.

A parser gets the value (None: none given) and the limit on a message. What is malformed is 501 5.5.4; whether what is asked for may be
had is not decided here. Which parameters exist on a connection is the table in `extensions.py`. RFC 1870, 2852, 3461, 4865,
4954, 6152, 6531, 6533, 6710.
"""

from __future__ import annotations

import re
from datetime import datetime

from gatepost.model import NOTIFY_DELAY, NOTIFY_FAILURE, NOTIFY_NEVER, NOTIFY_SUCCESS
from gatepost.smtp.command import Parameters, Value
from gatepost.smtp.reply import BAD_PARAMETER, MESSAGE_TOO_LARGE, Reply

MAX_ENVELOPE_ID = 100  # RFC 3461 4.4
MAX_ORIGINAL = 500  # RFC 3461 4.2

_XTEXT = re.compile(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+").fullmatch  # RFC 3461 4
# 4.4: decodes to printable ASCII
_PRINTABLE_XTEXT = re.compile(rb"(?:[!-*,-<>-~]|\+(?:[2-6][0-9A-F]|7[0-9A-E]))+").fullmatch
_ORIGINAL = re.compile(rb"([A-Za-z0-9-]{1,40});(.+)", re.DOTALL).fullmatch
# RFC 6533 3: besides UTF-8 itself, \x{HEX}; no "\", "+" or "=" stands for itself
_UTF8_ADDRESS = re.compile(r"(?:[!-*,-<>-\[\]-~]|[^\x00-\xa0]|\\x\{[0-9A-F]{2,6}\}|\+[0-9A-F]{2})+").fullmatch
_NOTIFY = {b"NEVER": NOTIFY_NEVER, b"SUCCESS": NOTIFY_SUCCESS, b"FAILURE": NOTIFY_FAILURE, b"DELAY": NOTIFY_DELAY}
_RET = {b"FULL": "FULL", b"HDRS": "HDRS"}

_PRIORITY = re.compile(rb"0|-?[1-9]").fullmatch  # RFC 6710 3
_BY = re.compile(rb"([+-]?[0-9]{1,9});([NRnr][Tt]?)").fullmatch  # RFC 2852 4
_HOLD_FOR = re.compile(rb"[0-9]{1,9}").fullmatch  # RFC 4865 3
_DATE_TIME = re.compile(
    rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})"
).fullmatch

# What every message may carry: nothing of it has to be looked at together, or kept beside the envelope.
ORDINARY: frozenset[str] = frozenset(("SIZE", "BODY", "SMTPUTF8", "AUTH"))


def parse_size(value: bytes | None, max_message_bytes: int) -> Value | Reply:
    """RFC 1870 3: size-value = 1*20DIGIT; 0 means not known."""
    if value is None or len(value) > 20 or not value.isdigit():
        return BAD_PARAMETER
    size = int(value)
    return MESSAGE_TOO_LARGE if size > max_message_bytes else size


def parse_body(value: bytes | None, max_message_bytes: int) -> Value | Reply:
    """RFC 6152 2."""
    name = (value or b"").upper()
    return name.decode("ascii") if name in (b"7BIT", b"8BITMIME") else BAD_PARAMETER


def parse_binary_body(value: bytes | None, max_message_bytes: int) -> Value | Reply:
    """RFC 6152 2 with RFC 3030 3."""
    return "BINARYMIME" if (value or b"").upper() == b"BINARYMIME" else parse_body(value, max_message_bytes)


def parse_flag(value: bytes | None, max_message_bytes: int) -> Value | Reply:
    """A keyword without a value, as SMTPUTF8 (RFC 6531 3.4)."""
    return BAD_PARAMETER if value is not None else True


def parse_auth(value: bytes | None, max_message_bytes: int) -> Value | Reply:
    """RFC 4954 5: who submitted the message first, as xtext or "<>". It is taken and believed of nobody: not passed on."""
    if value is None or (value != b"<>" and _XTEXT(value) is None):
        return BAD_PARAMETER
    return value


def parse_ret(value: bytes | None, max_message_bytes: int) -> Value | Reply:
    """RFC 3461 4.3."""
    return _RET.get((value or b"").upper(), BAD_PARAMETER)


def parse_envelope_id(value: bytes | None, max_message_bytes: int) -> Value | Reply:
    """RFC 3461 4.4: kept as received."""
    if value is None or len(value) > MAX_ENVELOPE_ID or _PRINTABLE_XTEXT(value) is None:
        return BAD_PARAMETER
    return value.decode("ascii")


def parse_notify(value: bytes | None, max_message_bytes: int) -> Value | Reply:
    """RFC 3461 4.1: NEVER alone, or each of the others at most once, as bits."""
    bits = 0
    for name in (value or b"").upper().split(b","):
        bit = _NOTIFY.get(name, 0)
        if not bit or bits & (bit | NOTIFY_NEVER):
            return BAD_PARAMETER
        bits |= bit
    return BAD_PARAMETER if bits & NOTIFY_NEVER and bits != NOTIFY_NEVER else bits


def parse_original(value: bytes | None, max_message_bytes: int) -> Value | Reply:
    """RFC 3461 4.2 and RFC 6533 3: addr-type ";" address, kept as received."""
    if value is None or len(value) > MAX_ORIGINAL:
        return BAD_PARAMETER
    match = _ORIGINAL(value)
    if match is None:
        return BAD_PARAMETER
    if match[1].lower() != b"utf-8":
        return value.decode("ascii") if _XTEXT(match[2]) is not None else BAD_PARAMETER
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return BAD_PARAMETER
    return text if _UTF8_ADDRESS(text.partition(";")[2]) is not None else BAD_PARAMETER


def parse_priority(value: bytes | None, max_message_bytes: int) -> Value | Reply:
    """RFC 6710 3: -9 to 9."""
    return BAD_PARAMETER if value is None or _PRIORITY(value) is None else int(value)


def parse_by(value: bytes | None, max_message_bytes: int) -> Value | Reply:
    """RFC 2852 4: seconds from now, a semicolon, and what then: as "-3600;NT"."""
    match = _BY(value or b"")
    if match is None:
        return BAD_PARAMETER
    seconds, mode = int(match[1]), match[2].upper().decode("ascii")
    return BAD_PARAMETER if mode.startswith("R") and seconds <= 0 else f"{seconds};{mode}"


def parse_hold_for(value: bytes | None, max_message_bytes: int) -> Value | Reply:
    """RFC 4865 3: seconds from now."""
    return BAD_PARAMETER if value is None or _HOLD_FOR(value) is None else int(value)


def parse_hold_until(value: bytes | None, max_message_bytes: int) -> Value | Reply:
    """RFC 4865 3: a time of RFC 3339, as seconds since the epoch."""
    if value is None or _DATE_TIME(value) is None:
        return BAD_PARAMETER
    try:
        return int(datetime.fromisoformat(value.decode("ascii")).timestamp())
    except (ValueError, OverflowError):
        return BAD_PARAMETER


def check_mail(parameters: Parameters) -> Reply | None:
    """What parameters of one MAIL, each well-formed, must not be together."""
    return BAD_PARAMETER if "HOLDFOR" in parameters and "HOLDUNTIL" in parameters else None  # RFC 4865 4


def check_rcpt(parameters: Parameters, *, smtputf8: bool) -> Reply | None:
    """What parameters of one RCPT, each well-formed, must not be in this message."""
    original = parameters.get("ORCPT")
    if type(original) is str and not smtputf8 and not original.isascii():
        return BAD_PARAMETER  # RFC 6533 3: unitext only where SMTPUTF8 was given
    return None
