"""The commands that begin a mail transaction as a client, MAIL, RCPT ... and DATA, fitted to what the host offers. Pure.

Invariant: what a host does not offer is never used, and a message that needs it is not sent to that host; an address can never become a
command. RFC 5321, 1870, 6152, 6531, 3030.
"""

from __future__ import annotations

from collections.abc import Mapping

from gatepost.smtp.asked import Host, Lack
from gatepost.smtp.outgoing import PROBE, Problem, Transaction

DATA = "DATA\r\n"
NO_SMTPUTF8 = "internationalised mail, and the host does not offer SMTPUTF8"


def build_group(
    transaction: Transaction, extensions: Mapping[str, str], size_limit: int, is_last: bool, is_verified: bool
) -> bytes | Problem:
    """The group, without DATA for a binary message and for a probe; or why the host cannot take the message."""
    parameters = ""
    is_binary = transaction.body_type == "BINARYMIME"
    is_probe = transaction.body_type == PROBE
    if "SIZE" in extensions and not is_probe:
        if 0 < size_limit < transaction.size_bytes:
            return _unfit("5.3.4", f"message is larger than the {size_limit} bytes it takes")
        parameters = f" SIZE={transaction.size_bytes}"
    if is_binary:  # RFC 3030 3: never by DATA, which would let its octets end the message, and begin commands
        if not extensions.keys() >= {"BINARYMIME", "CHUNKING"}:
            return _unfit("5.6.1", "binary message, and the host does not offer BINARYMIME")
        parameters += " BODY=BINARYMIME"
    elif transaction.has_8bit:
        if "8BITMIME" not in extensions:
            return _unfit("5.6.3", "8-bit message, and the host does not offer 8BITMIME")
        parameters += " BODY=8BITMIME"
    is_utf8 = transaction.smtputf8 and "SMTPUTF8" in extensions
    if is_utf8:
        parameters += " SMTPUTF8"
    # else only its addresses may need it; many clients always ask
    elif transaction.smtputf8 and not transaction.ascii_header:
        return _unfit("5.6.7", NO_SMTPUTF8)
    paths = transaction.forward_paths
    if transaction.asked is None:
        rcpts = ">\r\nRCPT TO:<".join(paths)
        rcpts = f"RCPT TO:<{rcpts}>\r\n"
    else:
        found = transaction.asked.build_parameters(Host(extensions, is_last, is_verified))
        if isinstance(found, Lack):
            return _unfit(found.status, found.text, found.kind)
        parameters += found[0]
        rcpts = "".join(f"RCPT TO:<{path}>{more}\r\n" for path, more in zip(paths, found[1], strict=True))
    text = f"MAIL FROM:<{transaction.reverse_path}>{parameters}\r\n{rcpts}{'' if is_binary or is_probe else DATA}"
    try:
        commands = text.encode("utf-8" if is_utf8 else "ascii")
    except UnicodeEncodeError:
        return _unfit(
            "5.6.7",
            NO_SMTPUTF8 if transaction.smtputf8 else "an address is not ASCII, and the message not internationalised",
        )
    lines = len(paths) + (1 if is_binary or is_probe else 2)
    if commands.count(b"\n") != lines or commands.count(b"\r") != lines:
        return _unfit("5.1.3", "an address holds a line end")
    return commands


def _unfit(status: str, text: str, kind: str = "unfit") -> Problem:
    return Problem("mail", kind, text, None, status)
