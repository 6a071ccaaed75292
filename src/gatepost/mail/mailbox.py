"""Whether a text is a mailbox that may stand in a path (RFC 5321 4.1.2), for whoever makes addresses.

Not here: paths as they come over the wire (`smtp/command.py`).
"""

from __future__ import annotations

from gatepost.model import Address
from gatepost.smtp.address import PathError, parse_path


class InvalidMailbox(ValueError):
    """It may not; `args[0]` says why."""


def parse_mailbox(text: str, *, utf8: bool = False) -> Address:
    """The address in `text`; `utf8` says that octets over 127 may stand in it. Raises InvalidMailbox."""
    try:
        address = parse_path(f"<{text}>".encode(), smtputf8=utf8, forward=True)
    except (PathError, UnicodeEncodeError) as error:
        raise InvalidMailbox(str(error)) from None
    assert address is not None
    return address
