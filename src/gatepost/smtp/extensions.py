"""The table of SMTP extensions: what EHLO announces, and the parameters and verbs that come with it (RFC 5321 2.2).

To add an extension: a row in EXTENSIONS, a parser for each of its parameters, a handler in `server.py` for each of its
verbs, and a dialog in tests/dialogs. A parameter or a verb whose extension is not announced does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from gatepost.smtp.command import ParameterParser, Value
from gatepost.smtp.reply import BAD_PARAMETER, MESSAGE_TOO_LARGE, Reply

if TYPE_CHECKING:
    from gatepost.smtp.settings import ServerSettings


_XTEXT = re.compile(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+").fullmatch  # RFC 3461 4


class Extension(msgspec.Struct, frozen=True, kw_only=True):
    """One row. `setting` names the switch in ServerSettings (empty: always on), `requires` keywords of rows above it."""

    keyword: str
    setting: str = ""
    requires: tuple[str, ...] = ()
    argument: Callable[[ServerSettings], str] | None = None
    mail: dict[bytes, ParameterParser] = {}
    rcpt: dict[bytes, ParameterParser] = {}
    verbs: tuple[bytes, ...] = ()


class Offer(msgspec.Struct, frozen=True):
    """What one server offers after EHLO. `missing_verbs` are verbs of extensions that it does not offer."""

    ehlo: bytes
    mail: dict[bytes, ParameterParser]
    rcpt: dict[bytes, ParameterParser]
    missing_verbs: frozenset[bytes]


def _parse_size(value: bytes | None, max_message_bytes: int) -> Value | Reply:
    """RFC 1870 3: size-value = 1*20DIGIT; 0 means not known."""
    if value is None or len(value) > 20 or not value.isdigit():
        return BAD_PARAMETER
    size = int(value)
    return MESSAGE_TOO_LARGE if size > max_message_bytes else size


def _parse_body(value: bytes | None, max_message_bytes: int) -> Value | Reply:
    """RFC 6152 2."""
    name = (value or b"").upper()
    return name.decode("ascii") if name in (b"7BIT", b"8BITMIME") else BAD_PARAMETER


def _parse_flag(value: bytes | None, max_message_bytes: int) -> Value | Reply:
    """A keyword without a value, as SMTPUTF8 (RFC 6531 3.4)."""
    return BAD_PARAMETER if value is not None else True


def _parse_auth(value: bytes | None, max_message_bytes: int) -> Value | Reply:
    """RFC 4954 5: who submitted the message first, as xtext or "<>". It is taken and believed of nobody: not passed on."""
    if value is None or (value != b"<>" and _XTEXT(value) is None):
        return BAD_PARAMETER
    return value


EXTENSIONS: tuple[Extension, ...] = (
    Extension(keyword="PIPELINING", setting="pipelining"),
    Extension(keyword="SIZE", argument=lambda settings: str(settings.max_message_bytes), mail={b"SIZE": _parse_size}),
    Extension(keyword="8BITMIME", setting="eightbitmime", mail={b"BODY": _parse_body}),
    # RFC 6531 3.1: a server that offers SMTPUTF8 offers 8BITMIME
    Extension(keyword="SMTPUTF8", setting="smtputf8", requires=("8BITMIME",), mail={b"SMTPUTF8": _parse_flag}),
    Extension(
        keyword="AUTH",
        setting="mechanisms",
        argument=lambda settings: " ".join(settings.mechanisms),
        mail={b"AUTH": _parse_auth},
        verbs=(b"AUTH",),
    ),
    Extension(keyword="CHUNKING", setting="chunking", verbs=(b"BDAT",)),
    Extension(keyword="ENHANCEDSTATUSCODES"),
    Extension(keyword="STARTTLS", setting="starttls", verbs=(b"STARTTLS",)),  # RFC 3207
)


def build_offer(settings: ServerSettings) -> Offer:
    """The offer of a server with these settings."""
    lines = [settings.hostname]
    on: set[str] = set()
    mail: dict[bytes, ParameterParser] = {}
    rcpt: dict[bytes, ParameterParser] = {}
    missing: set[bytes] = set()
    for row in EXTENSIONS:
        if (row.setting and not getattr(settings, row.setting)) or not on.issuperset(row.requires):
            missing.update(row.verbs)
            continue
        on.add(row.keyword)
        lines.append(f"{row.keyword} {row.argument(settings)}" if row.argument else row.keyword)
        mail.update(row.mail)
        rcpt.update(row.rcpt)
    return Offer(Reply(250, "", "\n".join(lines)).wire(), mail, rcpt, frozenset(missing))
