"""The names of a client: what its address leads to in DNS (PTR), if that leads back to the address (A, AAAA).

What sendmail calls ${client_name}. A name may refuse a client or demand more of it; it never gives a right, since whoever answers for an
address, and whoever answers for the name, decide it. Pure: DNS is asked through `Answers`, so that a decision may wait for it
(NeedsAnswer); what cannot be had raises TableUnavailable. RFC 8601 2.7.3 (`iprev`) checks in the same way.
"""

from __future__ import annotations

import ipaddress
import re

from gatepost.routing.answers import Answers

MAX_NAMES = 4  # of one address; sendmail takes one
MAX_NAME_CHARACTERS = 253
_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?")
_OWN = {"127.0.0.1", "::1"}  # RFC 6761 6.3: known without asking


def names_of_client(address: str, answers: Answers) -> tuple[str, ...]:
    """The names, in lower case; raises NeedsAnswer and TableUnavailable. What is no IP address has none."""
    try:
        client = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ()
    client = getattr(client, "ipv4_mapped", None) or client
    text = str(client)
    if text in _OWN:
        return ("localhost",)
    (reverse,) = answers.need_answers("dns:PTR", [text])
    found = dict.fromkeys(name.lower().rstrip(".") for name in reverse.records)
    names = sorted(name for name in found if len(name) <= MAX_NAME_CHARACTERS and _NAME.fullmatch(name))[:MAX_NAMES]
    if not names:
        return ()
    kind = "dns:A" if client.version == 4 else "dns:AAAA"
    forward = answers.need_answers(kind, names)
    return tuple(name for name, answer in zip(names, forward, strict=True) if text in map(_plain, answer.records))


def _plain(record: str) -> str:
    try:
        return str(ipaddress.ip_address(record))
    except ValueError:
        return ""
