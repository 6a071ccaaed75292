"""Lines that are too long for mail (RFC 5322 2.1.1), as programs write them: a page of HTML in one, the output of a job.

sendmail and Postfix break them wherever they are; many servers refuse them. Here a body of text is written as quoted-printable, which shows it
as it was, and a field is folded at its blanks. What is encoded already, signed, or of several parts is left alone.
"""

from __future__ import annotations

import binascii
import re

from gatepost.sendmail.message import Message

MAX_LINE_BYTES = 998
_FOLD_AT = 900

_LONG = re.compile(rb"[^\r\n]{%d}" % (MAX_LINE_BYTES + 1)).search
_FOLDING = re.compile(rb"([^\r\n]{78,%d})[ \t](?=[^ \t\r\n])" % _FOLD_AT)
_OPEN = (b"7bit", b"8bit", b"")


def shorten_lines(message: Message) -> None:
    """Have no line of the message longer than mail allows, where that can be."""
    if message.has(b"dkim-signature"):
        return
    message.fields = [
        (name, _FOLDING.sub(rb"\1\r\n ", field) if _LONG(field) else field) for name, field in message.fields
    ]
    if _LONG(message.body) and _is_plain_text(message):
        _encode(message)


def _is_plain_text(message: Message) -> bool:
    kind = message.value(b"content-type").lower()
    return (not kind or kind.startswith(b"text/")) and message.value(b"content-transfer-encoding").lower() in _OPEN


def _encode(message: Message) -> None:
    message.fields = [pair for pair in message.fields if pair[0] != b"content-transfer-encoding"]
    if not message.has(b"mime-version"):
        message.fields.append((b"mime-version", b"MIME-Version: 1.0\r\n"))
    if not message.has(b"content-type"):
        field = b"Content-Type: text/plain; charset=" + _charset_of(message.body) + b"\r\n"
        message.fields.append((b"content-type", field))
    field = b"Content-Transfer-Encoding: quoted-printable\r\n"
    message.fields.append((b"content-transfer-encoding", field))
    message.body = binascii.b2a_qp(message.body, istext=True)


def _charset_of(body: bytes) -> bytes:
    if body.isascii():
        return b"us-ascii"
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return b"unknown-8bit"  # RFC 1428
    return b"utf-8"
