"""A message as a local program writes it, made fit for submission: line ends, the end mark, missing fields, recipients of -t.

Lines may end with LF, CRLF or a bare CR; they leave with CRLF. What is added is what sendmail adds: Date, Message-ID, From; bare
names in fields of addresses get the name of this host. Fields that are there keep their octets otherwise. Bcc goes with -t.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from email.header import Header
from email.utils import formataddr, getaddresses

from gatepost.mail.date import build_date
from gatepost.sendmail.arguments import check_address
from gatepost.sendmail.sysexits import EX_DATAERR, EX_USAGE, Failure

MAX_MESSAGE_BYTES = 256 * 1024 * 1024  # the gateway's own limit is lower

_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:").match
_BARE_CR = re.compile(rb"\r(?!\n)")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_TO = (b"to", b"cc", b"bcc")
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


def read_message(data: bytes, *, ignore_dots: bool) -> Message:
    """What stood on standard input; without `ignore_dots` a line with a dot alone ends it."""
    data = _BARE_LF.sub(b"\r\n", _BARE_CR.sub(b"\r\n", data))
    if data and not data.endswith(b"\r\n"):
        data += b"\r\n"
    if data.startswith(b"From "):  # of a mailbox file
        data = data.partition(b"\r\n")[2]
    if not ignore_dots:
        end = 0 if data.startswith(b".\r\n") else data.find(b"\r\n.\r\n") + 2
        if end >= 2 or data.startswith(b".\r\n"):
            data = data[:end]
    if b"\0" in data:
        raise Failure(EX_DATAERR, "the message holds a NUL, which no mail server takes")
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


def take_recipients(message: Message) -> list[str]:
    """The recipients that the header names (-t); Bcc is gone then. Resent fields stand before the others, if there are any."""
    resent = any(name.startswith(b"resent-") for name, _ in message.fields)
    wanted = {b"resent-" + name for name in _TO} if resent else set(_TO)
    found = [address for name, field in message.fields if name in wanted for _, address in _addresses(field)]
    message.fields = [pair for pair in message.fields if pair[0] not in (b"bcc", b"resent-bcc")]
    return [check_address(address) for address in found if address]


def complete(message: Message, *, hostname: str, reverse_path: str, full_name: str, now_s: float) -> None:
    """Add what is missing; `reverse_path` is for a missing From."""
    for index, (name, field) in enumerate(message.fields):
        if name in _COMPLETED:
            message.fields[index] = (name, _complete_field(field, hostname))
    added: list[Field] = []
    if not message.has(b"from"):
        added.append((b"from", f"From: {_mailbox(full_name, reverse_path)}\r\n".encode("utf-8", "surrogateescape")))
    if not message.has(b"date"):
        added.append((b"date", f"Date: {build_date(now_s, local=True)}\r\n".encode()))
    if not message.has(b"message-id"):
        mark = f"{int(now_s):x}.{secrets.token_hex(8)}@{hostname}"
        added.append((b"message-id", f"Message-ID: <{mark}>\r\n".encode()))
    message.fields[:0] = added


def _addresses(field: bytes) -> Sequence[tuple[str, str]]:
    value = field.partition(b":")[2].decode("utf-8", "surrogateescape")
    return getaddresses([" ".join(value.split())])


def _complete_field(field: bytes, hostname: str) -> bytes:
    """The field, rewritten only if an address in it is a bare name."""
    mailboxes = _addresses(field)
    if all("@" in address or not address for _, address in mailboxes) or b";" in field:
        return field
    try:
        text = ",\r\n\t".join(
            _mailbox(name, address if "@" in address else f"{address}@{hostname}")
            for name, address in mailboxes
            if address
        )
        return field.partition(b":")[0] + b": " + text.encode("utf-8", "surrogateescape") + b"\r\n"
    except ValueError:  # not to be written anew: it stays as it was
        return field


def _mailbox(name: str, address: str) -> str:
    name = "".join(character for character in name if character.isprintable()).strip()
    if name and not name.isascii():
        return f"{Header(name, 'utf-8', maxlinelen=998).encode()} <{address}>"
    return formataddr((name, address))


def check_size(data: bytes) -> bytes:
    """The data itself; raises Failure if it is more than this program holds."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise Failure(EX_USAGE, f"the message is longer than {MAX_MESSAGE_BYTES} bytes")
    return data
