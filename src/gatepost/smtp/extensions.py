"""The table of SMTP extensions: what EHLO announces, and the parameters and verbs that come with it (RFC 5321 2.2).

To add an extension: a row in EXTENSIONS, a switch of its name in `[smtp]` and in ServerSettings, a parser in `parameters.py` for each of
its parameters, a handler in `server.py` for each of its verbs, what the owner does with it (`roles/requests.py`), how it goes along to the
next hop (`asked.py`), and a dialog in tests/dialogs. A parameter or a verb whose extension is not announced does not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from gatepost.smtp.command import ParameterParser
from gatepost.smtp.limits import Limits, build_limits
from gatepost.smtp.parameters import (
    parse_auth,
    parse_binary_body,
    parse_body,
    parse_by,
    parse_envelope_id,
    parse_flag,
    parse_hold_for,
    parse_hold_until,
    parse_notify,
    parse_original,
    parse_priority,
    parse_ret,
    parse_size,
)
from gatepost.smtp.reply import Reply

if TYPE_CHECKING:
    from gatepost.smtp.settings import ServerSettings


class Extension(msgspec.Struct, frozen=True, kw_only=True):
    """One row. `setting` names the field of ServerSettings that it hangs on, `requires` keywords of rows above it.

    With `is_switch` the field is the key of that name in the `[smtp]` section; without, it follows from something else. With `is_secured`
    it exists inside TLS only.
    """

    keyword: str
    setting: str
    is_switch: bool = True
    is_secured: bool = False
    requires: tuple[str, ...] = ()
    argument: Callable[[ServerSettings], str] | None = None
    mail: dict[bytes, ParameterParser] = {}
    rcpt: dict[bytes, ParameterParser] = {}
    verbs: tuple[bytes, ...] = ()


class Offer(msgspec.Struct, frozen=True):
    """What one server offers after EHLO. `missing_verbs` are verbs of extensions that it does not offer."""

    lines: str  # of the reply to EHLO
    ehlo: bytes  # that reply
    mail: dict[bytes, ParameterParser]
    rcpt: dict[bytes, ParameterParser]
    missing_verbs: frozenset[bytes]


LATEST = "9999-12-31T23:59:59Z"  # stands in EHLO until who has a clock puts a time in its place


def _limits_of(settings: ServerSettings) -> str:
    return build_limits(Limits(mailmax=settings.max_transactions, rcptmax=settings.max_recipients))


EXTENSIONS: tuple[Extension, ...] = (
    Extension(keyword="PIPELINING", setting="pipelining"),
    Extension(
        keyword="SIZE",
        setting="size",
        argument=lambda settings: str(settings.max_message_bytes),
        mail={b"SIZE": parse_size},
    ),
    Extension(keyword="8BITMIME", setting="eightbitmime", mail={b"BODY": parse_body}),
    # RFC 6531 3.1: a server that offers SMTPUTF8 offers 8BITMIME
    Extension(keyword="SMTPUTF8", setting="smtputf8", requires=("8BITMIME",), mail={b"SMTPUTF8": parse_flag}),
    Extension(
        keyword="AUTH",
        setting="mechanisms",
        is_switch=False,
        argument=lambda settings: " ".join(settings.mechanisms),
        mail={b"AUTH": parse_auth},
        verbs=(b"AUTH",),
    ),
    Extension(keyword="CHUNKING", setting="chunking", verbs=(b"BDAT",)),
    Extension(  # RFC 3030 3; its values of BODY are those of 8BITMIME and one more
        keyword="BINARYMIME",
        setting="binarymime",
        requires=("CHUNKING", "8BITMIME"),
        mail={b"BODY": parse_binary_body},
    ),
    Extension(
        keyword="DSN",  # RFC 3461
        setting="dsn",
        mail={b"RET": parse_ret, b"ENVID": parse_envelope_id},
        rcpt={b"NOTIFY": parse_notify, b"ORCPT": parse_original},
    ),
    Extension(
        keyword="REQUIRETLS", setting="requiretls", is_secured=True, mail={b"REQUIRETLS": parse_flag}
    ),  # RFC 8689
    Extension(keyword="DELIVERBY", setting="deliverby", mail={b"BY": parse_by}),  # RFC 2852
    Extension(keyword="MT-PRIORITY", setting="mt_priority", mail={b"MT-PRIORITY": parse_priority}),  # RFC 6710
    Extension(  # RFC 4865; for submission
        keyword="FUTURERELEASE",
        setting="future_release",
        argument=lambda settings: f"{settings.max_hold_s} {LATEST}",
        mail={b"HOLDFOR": parse_hold_for, b"HOLDUNTIL": parse_hold_until},
    ),
    Extension(keyword="LIMITS", setting="limits", argument=_limits_of),  # RFC 9422
    Extension(keyword="ENHANCEDSTATUSCODES", setting="enhancedstatuscodes"),
    Extension(keyword="STARTTLS", setting="starttls", is_switch=False, verbs=(b"STARTTLS",)),  # RFC 3207
    Extension(
        keyword="XCLIENT",
        setting="xclient",
        is_switch=False,
        argument=lambda settings: "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT",
        verbs=(b"XCLIENT",),
    ),
    Extension(
        keyword="XFORWARD",
        setting="xforward",
        is_switch=False,
        argument=lambda settings: "NAME ADDR PORT PROTO HELO IDENT SOURCE",
        verbs=(b"XFORWARD",),
    ),
)


SWITCHES: tuple[str, ...] = tuple(row.setting for row in EXTENSIONS if row.is_switch)


def build_offer(settings: ServerSettings) -> Offer:
    """The offer of a server with these settings."""
    lines = [settings.hostname]
    on: set[str] = set()
    mail: dict[bytes, ParameterParser] = {}
    rcpt: dict[bytes, ParameterParser] = {}
    missing: set[bytes] = set()
    for row in EXTENSIONS:
        is_on = getattr(settings, row.setting) and (settings.is_secured or not row.is_secured)
        if not is_on or not on.issuperset(row.requires):
            missing.update(row.verbs)
            continue
        on.add(row.keyword)
        lines.append(f"{row.keyword} {row.argument(settings)}" if row.argument else row.keyword)
        mail.update(row.mail)
        rcpt.update(row.rcpt)
    text = "\n".join(lines)
    return Offer(text, Reply(250, "", text).wire(), mail, rcpt, frozenset(missing))
