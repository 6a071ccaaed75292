"""Delivery status notifications as messages: RFC 3464 in the container of RFC 6522, RFC 6533 where addresses are UTF-8.

Format only: who gets one, and for what, is decided in `queue/bounce.py`. Everything that a peer said (replies, addresses, the
message itself) is untrusted: it stands in a DSN without controls, cut to a length, and can neither end a field nor a part.
Without UTF-8 the result is 7-bit clean, with lines of at most 998 octets, so that any server can take it: what is returned of an
internationalised message is then encoded, as RFC 6532 3.7 and RFC 6533 allow for message/global and message/global-headers.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from typing import NamedTuple

from gatepost.mail import date, header

MAX_TEXT = 1000  # octets of a remote reply
MAX_ADDRESS = 512  # octets of an address; a path has at most 256
MAX_WORD = 900  # octets without a space: longer ones (never an address) are broken, lest a line becomes too long
MAX_HEADER_BYTES = 64 * 1024  # of the original header that is returned
MAX_CONTENT_BYTES = 128 * 1024  # a larger message is not returned in full
MAX_NAMED = 50  # recipients named in the text for people; the part for machines has all

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")
_NOT_ASCII = re.compile(r"[^\x20-\x7e]")
_XTEXT = re.compile(r"\+([0-9A-F]{2})")
_UTF8_ESCAPE = re.compile(r"\\x\{([0-9A-F]{2,6})\}")
_MESSAGE_ID = re.compile(rb"[ \t\r\n]*(<[!-;=?-~]{1,900}>)[ \t\r\n]*").fullmatch
_HOST = re.compile(r"([A-Za-z0-9._-]*)\[([0-9A-Fa-f.:]+)\]").match
_LONG_LINE = re.compile(rb"[^\r\n]{999}")
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\x00")


class Row(NamedTuple):
    """What became of one recipient. `original` is the ORCPT parameter as received, in xtext."""

    address: str
    original: str
    status: str
    code: int
    text: str
    host: str


class Report(NamedTuple):
    """A DSN to be. `kind` is a key of KINDS; `about` the message id of ours of the message that it is about.

    `is_global` says that this message was sent with SMTPUTF8, `utf8` that the DSN goes with it, to an address outside ASCII.
    """

    kind: str
    id: str
    about: str
    hostname: str
    to: str
    envelope_id: str
    arrival_s: float
    now_s: float
    rows: Sequence[Row]
    header: bytes
    content: bytes | None
    utf8: bool
    retry_until_s: float | None
    asked: tuple[str, ...] = ()  # more fields of the whole message
    is_global: bool = False


class _Kind(NamedTuple):
    action: str
    subject: str
    what: str
    advice: str


_ASK = "If you need help, forward this message to your postmaster."
KINDS: dict[str, _Kind] = {
    "failed": _Kind(
        "failed",
        "Undelivered: your message could not be delivered",
        "Your message could not be delivered to the recipients below.\nIt will not be tried again.",
        _ASK,
    ),
    "expired": _Kind(
        "failed",
        "Undelivered: your message could not be delivered in time",
        "Your message could not be delivered to the recipients below for {age}.\nIt will not be tried again.",
        "You may send it again later, or reach the recipients another way.\n" + _ASK,
    ),
    "delayed": _Kind(
        "delayed",
        "Delayed: your message is still on its way",
        "Your message has not reached the recipients below for {age}.\nThis is a warning only: it is still being tried{until}.",
        "You do not need to do anything, and you do not need to send it again.",
    ),
    "delivered": _Kind(
        "delivered",
        "Delivered: your message has arrived",
        "Your message was delivered to the recipients below, as you asked to be told.",
        "You do not need to do anything.",
    ),
    "relayed": _Kind(
        "relayed",
        "Relayed: your message was passed on",
        "Your message was passed on for the recipients below, to servers that do not send\nnotifications of delivery.",
        "You do not need to do anything. You will not hear of it again unless it fails.",
    ),
}

# What a sender can do about a failure, by the longest prefix of the enhanced status code without its class (RFC 3463).
ADVICE: dict[str, str] = {
    "1": "Check the address for typing mistakes.",
    "1.8": "The recipient's server does not know your domain: tell your postmaster.",
    "1.7": "The recipient's server does not accept your address: tell your postmaster.",
    "2": "The mailbox cannot take mail at present: reach the recipient another way.",
    "2.2": "The mailbox is full: reach the recipient another way, and send again later.",
    "2.3": "The message is too large for the recipient: send a smaller one, or place large files elsewhere.",
    "3.4": "The message is too large for the recipient's server: send a smaller one, or place large files elsewhere.",
    "4": "The recipient's server cannot be reached: check the part of the address behind the @, or send again later.",
    "4.6": "The message went in circles between servers: tell your postmaster.",
    "6": "The recipient's server cannot take this form of message: send it as plain text, or without the attachment.",
    "6.7": "The recipient's server cannot take addresses outside ASCII: ask the recipient for another address.",
    "7.30": "The message requires TLS all the way, and the recipient's server does not promise that: send it without this demand.",
    "7": "The recipient's server refuses the message by its rules: ask the recipient to have it let through.",
}


def build_report(report: Report) -> list[bytes]:
    """The whole message, header first, lines ending in CRLF, in chunks to be joined."""
    kind = KINDS[report.kind]
    text = _text_part(report, kind)
    status = _status_part(report, kind)
    returned = _returned_part(report)
    boundary = _boundary(report.id, (text, status, returned))
    mark = f"--{boundary}\r\n".encode()
    return [
        _top(report, kind, boundary),
        mark, text, b"\r\n", mark, status, b"\r\n", mark, returned,
        f"\r\n--{boundary}--\r\n".encode(),
    ]  # fmt: skip


def decode_xtext(text: str) -> str:
    """An xtext (RFC 3461 4) as it was meant; what is not well-formed stays."""
    return _XTEXT.sub(lambda match: chr(int(match[1], 16)), text)


def build_utf8_address(text: str, utf8: bool) -> str:
    """An address of the type utf-8 (RFC 6533 3), which may have escapes: as itself, or in ASCII."""
    plain = _UTF8_ESCAPE.sub(lambda match: chr(int(match[1], 16)) if int(match[1], 16) < 0x110000 else "?", text)
    if utf8:
        return plain
    return "".join(c if "!" <= c <= "~" and c not in "\\+=" else f"\\x{{{ord(c):02X}}}" for c in plain[:MAX_ADDRESS])


# --- the parts ----------------------------------------------------------------------------------------------------------


def _top(report: Report, kind: _Kind, boundary: str) -> bytes:
    lines = [
        f"From: Mail gateway <MAILER-DAEMON@{report.hostname}>",
        f"To: <{_clean(report.to, MAX_ADDRESS, report.utf8)}>",
        f"Subject: {kind.subject}",
        f"Date: {date.build_date(report.now_s)}",
        f"Message-ID: <{report.id}@{report.hostname}>",
    ]
    answered = _message_id(report.header)
    if answered:
        lines.append(f"In-Reply-To: {answered}")
        lines.append(f"References: {answered}")
    lines += [
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"',
    ]
    if report.utf8:
        lines.append("Content-Transfer-Encoding: 8bit")
    return _join(lines) + b"\r\nThis is a delivery status notification in MIME format.\r\n\r\n"


def _text_part(report: Report, kind: _Kind) -> bytes:
    age = _duration(report.now_s - report.arrival_s)
    until = f" until\n{date.build_date(report.retry_until_s)}" if report.retry_until_s else ""
    lines = [
        f"This is the mail gateway {report.hostname}.",
        "",
        *kind.what.format(age=age, until=until).split("\n"),
        "",
    ]
    for row in report.rows[:MAX_NAMED]:
        lines.append(f"  <{_clean(row.address, MAX_ADDRESS, True)}>")
        said = [_clean(line, MAX_TEXT, True) for line in row.text[:MAX_TEXT].split("\n")]
        host = _clean(row.host, MAX_ADDRESS, True)
        if row.code:
            lines.append(f"    The server {host} answered:" if host else "    The answer was:")
            lines += [f"      {row.code} {line}" for line in said]
        else:
            lines.append(f"    {' '.join(said)}{f' ({host})' if host else ''}")
        advice = _advice(row.status) if kind.action == "failed" else ""
        if advice:
            lines.append(f"    {advice}")
        lines.append("")
    if len(report.rows) > MAX_NAMED:
        lines += [f"  and {len(report.rows) - MAX_NAMED} more; the second part of this message has all.", ""]
    lines += [*kind.advice.split("\n"), "", f"The gateway's number for your message is {report.about}."]
    text = "\r\n".join(lines) + "\r\n"
    data = text.encode()
    if data.isascii() and not _LONG_LINE.search(data):
        return b"Content-Type: text/plain; charset=us-ascii\r\n\r\n" + data
    if report.utf8 and not _LONG_LINE.search(data):
        return b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + data
    return _encoded(b"text/plain; charset=utf-8", data)


def _status_part(report: Report, kind: _Kind) -> bytes:
    utf8 = report.utf8
    lines = [f"Reporting-MTA: dns; {report.hostname}"]
    if report.envelope_id:
        lines.append(_field("Original-Envelope-Id", "", decode_xtext(report.envelope_id), utf8))
    lines.append(f"X-Gatepost-Queue-ID: {report.about}")
    lines.append(f"Arrival-Date: {date.build_date(report.arrival_s)}")
    lines += report.asked
    for row in report.rows:
        lines.append("")
        if row.original:
            address_type, _, original = row.original.partition(";")
            if re.fullmatch(r"[A-Za-z0-9-]{1,40}", address_type):
                shown = decode_xtext(original)
                if address_type.lower() == "utf-8":
                    shown = build_utf8_address(shown, utf8)
                lines.append(_field("Original-Recipient", f"{address_type};", shown, utf8))
        if row.address.isascii():
            lines.append(_field("Final-Recipient", "rfc822;", row.address, utf8))
        else:
            lines.append(_field("Final-Recipient", "utf-8;", build_utf8_address(row.address, utf8), utf8))
        lines.append(f"Action: {kind.action}")
        lines.append(f"Status: {_status(row.status, report.kind)}")
        host = _HOST(row.host)
        if host:
            lines.append(f"Remote-MTA: dns; {host[1] or f'[{host[2]}]'}")
        if row.code:
            lines.append(_field("Diagnostic-Code", "smtp;", f"{row.code} {row.text}", utf8))
        elif row.text:
            lines.append(_field("Diagnostic-Code", "x-gatepost;", row.text, utf8))
        lines.append(f"Last-Attempt-Date: {date.build_date(report.now_s)}")
        if kind.action == "delayed" and report.retry_until_s:
            lines.append(f"Will-Retry-Until: {date.build_date(report.retry_until_s)}")
    if utf8:
        return b"Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + _join(lines)
    return b"Content-Type: message/delivery-status\r\n\r\n" + _join(lines)


def _returned_part(report: Report) -> bytes:
    content = report.content
    if content is not None and len(content) <= MAX_CONTENT_BYTES and _is_plain(content):
        if content.isascii():
            return b"Content-Type: message/rfc822\r\n\r\n" + content
        if report.utf8 and _is_utf8(content):
            return b"Content-Type: message/global\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + content
        if report.is_global and _is_utf8(content):
            return _encoded(b"message/global", content)
    original = _cut_header(report.header)
    if _is_plain(original):
        if original.isascii():
            return b"Content-Type: text/rfc822-headers\r\n\r\n" + original
        if report.utf8 and _is_utf8(original):
            return b"Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + original
    if not _is_utf8(original):
        return _encoded(b"text/rfc822-headers", original)
    return _encoded(b"message/global-headers" if report.is_global else b"text/rfc822-headers; charset=utf-8", original)


# --- pieces -------------------------------------------------------------------------------------------------------------


def _join(lines: list[str]) -> bytes:
    return ("\r\n".join(lines) + "\r\n").encode()


def _clean(text: str, limit: int, utf8: bool) -> str:
    """One line of untrusted text: no controls, nothing that turns the writing direction, cut."""
    text = _CONTROL.sub(" ", text[:limit]).encode()[:limit].decode(errors="ignore").strip()
    return text if utf8 else _NOT_ASCII.sub("?", text)


def _field(name: str, kind: str, value: str, utf8: bool) -> str:
    """A field of a status part, folded; no line is empty or longer than a server takes."""
    words = [word for line in value[: MAX_TEXT + 4].split("\n") if (word := _clean(line, MAX_TEXT + 4, utf8))]
    text = f"{name}: {kind}" if kind else f"{name}:"
    room = header.FOLD_AT - len(text)
    for number, line in enumerate(words):
        if number:
            text += "\r\n   "
            room = header.FOLD_AT - 3
        for word in line.split(" "):
            if not word:
                continue
            pieces = _pieces(word)
            for piece in pieces:
                if len(piece) + 1 > room and (len(piece) < header.FOLD_AT - 3 or len(pieces) > 1):
                    text += "\r\n   "
                    room = header.FOLD_AT - 3
                text += f" {piece}"
                room -= len(piece) + 1
    return text


def _pieces(word: str) -> Sequence[str]:
    if len(word.encode()) <= MAX_WORD:
        return (word,)
    return [word[begin : begin + MAX_WORD // 4] for begin in range(0, len(word), MAX_WORD // 4)]


def _status(status: str, kind: str) -> str:
    if kind == "expired" and not status.startswith("5"):
        if status in ("4.7.4", "4.7.5"):  # it waited for TLS that never came, and the policy allows no other way
            return f"5{status[1:]}"
        return "4.4.7"  # RFC 3463 3.5: delivery time expired, a persistent transient error
    return status if re.fullmatch(r"[245]\.\d{1,3}\.\d{1,3}", status) else "4.0.0" if kind == "delayed" else "5.0.0"


def _advice(status: str) -> str:
    _, _, detail = status.partition(".")
    return ADVICE.get(detail) or ADVICE.get(detail.partition(".")[0], "")


def _duration(seconds: float) -> str:
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{round(seconds / size)} {name}"
    return f"{max(0, round(seconds))} seconds"


def _message_id(fields: bytes) -> str:
    for name, field in header.iter_fields(fields):
        if name == b"message-id":
            match = _MESSAGE_ID(field.partition(b":")[2])
            return match[1].decode() if match else ""
    return ""


def _cut_header(fields: bytes) -> bytes:
    if len(fields) > MAX_HEADER_BYTES:
        end = fields.rfind(b"\r\n", 0, MAX_HEADER_BYTES)
        fields = fields[: end + 2] if end >= 0 else fields[:MAX_HEADER_BYTES]
    return fields


def _is_plain(data: bytes) -> bool:
    """Whether it may stand in a message as it is: lines that are not too long, no bare CR or LF, no NUL."""
    return not _LONG_LINE.search(data) and not _BARE.search(data)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _encoded(media_type: bytes, data: bytes) -> bytes:
    """A part in quoted-printable."""
    top = b"Content-Type: %b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" % media_type
    return top + _quoted_printable(data)


def _quoted_printable(data: bytes) -> bytes:
    encoded = binascii.b2a_qp(data.replace(b"\r\n", b"\n").replace(b"\r", b" "), istext=True)
    return encoded.replace(b"\n", b"\r\n")


def _boundary(id: str, parts: tuple[bytes, ...]) -> str:
    number = 0
    while True:
        boundary = f"=_{id}/{number}"  # "=_" cannot occur in quoted-printable (RFC 2045 6.7)
        if not any(boundary.encode() in part for part in parts):
            return boundary
        number += 1
