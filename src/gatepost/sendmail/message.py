"""A message as a local program writes it, made fit for submission: line ends, the end mark, missing fields, recipients of -t.

Lines may end with LF, CRLF or a bare CR; they leave with CRLF, and without NUL, which no mail server takes. What is added is what sendmail
adds: Date, Message-ID, From, and their Resent forms; bare names in fields of addresses get the name of this host. Bcc and Return-Path go.
Fields that are there keep their octets otherwise, and so does the body, unless its lines are too long for mail (`lines.py`).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from email.header import Header
from email.utils import formataddr, getaddresses
from typing import BinaryIO

from gatepost.mail.date import build_date
from gatepost.sendmail.addresses import parse_addresses
from gatepost.sendmail.sysexits import EX_UNAVAILABLE, Failure

MAX_MESSAGE_BYTES = 256 * 1024 * 1024  # the gateway's own limit is lower

_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:").match
_BARE_CR = re.compile(rb"\r(?!\n)")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_TO = (b"to", b"cc", b"bcc")
_DROPPED = frozenset((b"bcc", b"resent-bcc", b"return-path"))  # for nobody's eyes, and for whoever delivers
_COMPLETED = (b"from", b"sender", b"reply-to", b"to", b"cc")

Field = tuple[bytes, bytes]  # name in lower case, the field with its CRLF


class Message:
    """Header fields and body, as they will be sent."""

    def __init__(self, fields: list[Field], body: bytes) -> None:
        self.fields = fields
        self.body = body

    def octets(self) -> bytes:
        """The whole message."""
        return b"".join([*(field for _, field in self.fields), b"\r\n", self.body])

    def has(self, name: bytes) -> bool:
        """Whether there is such a field."""
        return any(one == name for one, _ in self.fields)

    def value(self, name: bytes) -> bytes:
        """What stands in the first such field; empty if there is none."""
        return next((field.partition(b":")[2].strip() for one, field in self.fields if one == name), b"")


def read_input(stream: BinaryIO | None, *, ignore_dots: bool) -> bytes:
    """What the caller has to say; without `ignore_dots` up to a line with a dot alone, however long its end is open. Raises Failure."""
    if stream is None:  # closed
        return b""
    if ignore_dots:
        return check_size(stream.read(MAX_MESSAGE_BYTES + 1))
    lines: list[bytes] = []
    total = 0
    while line := stream.readline(MAX_MESSAGE_BYTES + 1):
        if line in (b".\n", b".\r\n") and (not lines or lines[-1][-1:] == b"\n"):
            break
        lines.append(line)
        total += len(line)
        if total > MAX_MESSAGE_BYTES:
            check_size(b"".join(lines))
    return b"".join(lines)


def read_message(data: bytes, *, ignore_dots: bool) -> Message:
    """What stood on standard input; without `ignore_dots` a line with a dot alone ends it."""
    data = _BARE_LF.sub(b"\r\n", _BARE_CR.sub(b"\r\n", data.replace(b"\0", b"")))
    if data and not data.endswith(b"\r\n"):
        data += b"\r\n"
    if data.startswith(b"From "):  # of a mailbox file
        data = data.partition(b"\r\n")[2]
    if not ignore_dots:
        end = 0 if data.startswith(b".\r\n") else data.find(b"\r\n.\r\n") + 2
        if end >= 2 or data.startswith(b".\r\n"):
            data = data[:end]
    return Message(*_split(data))


def _split(data: bytes) -> tuple[list[Field], bytes]:
    fields: list[Field] = []
    at = 0
    while at < len(data):
        end = data.index(b"\r\n", at) + 2
        line = data[at:end]
        if line == b"\r\n":
            return fields, data[end:]
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] = (fields[-1][0], fields[-1][1] + line)
        elif _FIELD(line):
            fields.append((line.partition(b":")[0].strip().lower(), line))
        else:
            break  # no header, or its end without an empty line
        at = end
    return fields, data[at:]


def find_recipients(message: Message) -> list[str]:
    """The recipients that the header names (-t): of the Resent fields, if there are any. Raises Failure for what is no address."""
    resent = any(name.startswith(b"resent-") for name, _ in message.fields)
    wanted = {b"resent-" + name for name in _TO} if resent else set(_TO)
    return [address for name, field in message.fields if name in wanted for address in parse_addresses(_value(field))]


def complete(message: Message, *, hostname: str, reverse_path: str, full_name: str, now_s: float) -> None:
    """Add what is missing; `reverse_path` is for a missing From."""
    for index, (name, field) in enumerate(message.fields):
        if name in _COMPLETED:
            message.fields[index] = (name, _complete_field(field, hostname))
    message.fields = [pair for pair in message.fields if pair[0] not in _DROPPED]
    resent = any(name.startswith(b"resent-") for name, _ in message.fields)
    added: list[Field] = []
    for prefix in ("Resent-", "") if resent else ("",):
        for missing, value in (
            ("From", _mailbox(full_name, reverse_path)),
            ("Date", build_date(now_s, local=True)),
            ("Message-ID", f"<{int(now_s):x}.{secrets.token_hex(8)}@{hostname}>"),
        ):
            key = f"{prefix}{missing}".lower().encode()
            if not message.has(key):
                added.append((key, f"{prefix}{missing}: {value}\r\n".encode("utf-8", "surrogateescape")))
    message.fields[:0] = added


def _value(field: bytes) -> str:
    return " ".join(field.partition(b":")[2].decode("utf-8", "surrogateescape").split())


def _addresses(field: bytes) -> Sequence[tuple[str, str]]:
    return getaddresses([_value(field)])


def _complete_field(field: bytes, hostname: str) -> bytes:
    """The field, rewritten only if an address in it is a bare name."""
    mailboxes = _addresses(field)
    if all("@" in address or not address for _, address in mailboxes) or b";" in field:
        return field
    try:
        if parse_addresses(_value(field)) != [address for _, address in mailboxes if address]:
            return field  # not understood alike
        text = ",\r\n\t".join(
            _mailbox(name, address if "@" in address else f"{address}@{hostname}")
            for name, address in mailboxes
            if address
        )
        return field.partition(b":")[0] + b": " + text.encode("utf-8", "surrogateescape") + b"\r\n"
    except (ValueError, Failure):  # not to be written anew: it stays as it was
        return field


def _mailbox(name: str, address: str) -> str:
    name = "".join(character for character in name if character.isprintable()).strip()
    if name and not name.isascii():
        return f"{Header(name, 'utf-8', maxlinelen=998).encode()} <{address}>"
    return formataddr((name, address))


def check_size(data: bytes) -> bytes:
    """The data itself; raises Failure if it is more than this program holds."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise Failure(EX_UNAVAILABLE, f"the message is longer than {MAX_MESSAGE_BYTES} bytes")
    return data
