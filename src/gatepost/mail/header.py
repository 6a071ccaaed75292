"""Header fields: the trace fields that we put on top (RFC 5321 4.4), and a look at the fields of others (RFC 5322 2.2).

It builds bytes and splits bytes. It does not interpret a field, nor change one: what a message says stays as it is, octet for
octet. Whatever a peer sent (HELO, addresses) goes into a trace field only as printable ASCII that cannot end the field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gatepost.mail import date

FOLD_AT = 78  # RFC 5322 2.1.1: a line SHOULD be no longer
MAX_HELO_BYTES = 255  # of a domain; what is longer is shown cut

_PLAIN_HELO = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}").fullmatch
_NOT_HELO = re.compile(r"[^A-Za-z0-9._:\[\]-]")
_PLAIN_PATH = re.compile(r"[!-;=?-~]{1,320}").fullmatch  # no space, no angle bracket, no control
_UTF8_PATH = re.compile(r"[^\x00-\x20<>\x7f-\x9f\u2028\u2029]{1,320}").fullmatch
_RECEIVED = re.compile(rb"\nreceived[ \t]*:")
_FIELD_END = re.compile(rb"\r\n(?![ \t])")
_NO_FIELD = re.compile(rb"(?:\A|\r\n)(?![!-9;-~]+[ \t]*:|[ \t])")


class TraceBuilder:
    """Builds the Received field of one gateway; constant parts and the date of the second are rendered once."""

    __slots__ = ("_by", "_date", "_local", "_second")

    def __init__(self, hostname: str, *, local: bool = False) -> None:
        self._by = f"\r\n\tby {hostname} with "
        self._local = local
        self._second = -1
        self._date = ""

    def build(
        self,
        helo: str,
        peer_address: str,
        protocol: str,
        id: str,
        single_recipient: str | None,
        now_s: float,
        comment: str = "",
    ) -> bytes:
        """The field with its CRLF.

        `protocol` is "SMTP", "ESMTP", "UTF8SMTP" ... (RFC 3848, RFC 6531); `single_recipient` the forward-path if the
        transaction has only that one, which is named only then, lest recipients learn of each other (RFC 5321 7.6).
        `comment`, with its parentheses, is printable ASCII.
        """
        second = int(now_s)
        if second != self._second:
            self._date = date.build_date(second, local=self._local)
            self._second = second
        if _PLAIN_HELO(helo) is None:
            helo = _NOT_HELO.sub("?", helo[:MAX_HELO_BYTES]) or "unknown"
        literal = f"[IPv6:{peer_address}]" if ":" in peer_address else f"[{peer_address}]"
        # 17: "Received: from " and " ("  ")" around the literal, less what the CRLF does not count.
        gap = " " if len(helo) + len(literal) + 18 <= FOLD_AT else "\r\n\t"
        text = f"Received: from {helo}{gap}({literal}){self._by}{protocol} id {id}"
        if comment:
            text += f"\r\n\t{comment}"
        if single_recipient:
            if _PLAIN_PATH(single_recipient) is not None:
                gap = " " if len(single_recipient) + 48 <= FOLD_AT else "\r\n\t"
                return f"{text}\r\n\tfor <{single_recipient}>;{gap}{self._date}\r\n".encode()
            if protocol.startswith("UTF8") and _UTF8_PATH(single_recipient) is not None:
                return f"{text}\r\n\tfor <{single_recipient}>;\r\n\t{self._date}\r\n".encode()
        return f"{text};\r\n\t{self._date}\r\n".encode()


def split_header(content: bytes) -> tuple[bytes, int]:
    """The header (with the CRLF of its last field) and where the body begins.

    The body begins behind the first empty line. A header without one ends at the first line that is no field: the body
    begins there, and that may be at once.
    """
    if content.startswith(b"\r\n"):
        return b"", 2
    end = content.find(b"\r\n\r\n")
    header = content[: end + 2] if end >= 0 else content
    no_field = _NO_FIELD.search(header, 0, len(header) - 2 if header.endswith(b"\r\n") else len(header))
    if no_field is not None:
        end = no_field.start() + 2 if no_field.start() or header.startswith(b"\r\n") else 0
        return header[:end], end
    return header, end + 4 if end >= 0 else len(content)


def count_received(header: bytes) -> int:
    """How many Received fields a header has: the hops behind it."""
    return len(_RECEIVED.findall(b"\n" + header.lower()))


def iter_fields(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each field in order: its name in lower case, and the whole field, folding and final CRLF included.

    A line that is no field comes with an empty name.
    """
    begin = 0
    for end in _FIELD_END.finditer(header):
        yield _name(header, begin, end.end())
        begin = end.end()
    if begin < len(header):
        yield _name(header, begin, len(header))


def _name(header: bytes, begin: int, end: int) -> tuple[bytes, bytes]:
    field = header[begin:end]
    name, colon, _ = field.partition(b":")
    return (name.rstrip(b" \t").lower() if colon else b""), field
