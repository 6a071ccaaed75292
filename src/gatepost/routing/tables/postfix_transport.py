"""Postfix's transport values as next hops: `transport:nexthop` (transport(5)), and our own way of writing them.

`smtp:host`, `relay:[host]:port`, `lmtp:inet:host:port`, `error:D.S.N text`, `discard:`, `:[host]`, a bare `[host]:port`. A
transport that master.cf defines by itself is not known here, and one that would run a program or open a path does not exist.
An empty value, "as if there were no table", is None.
"""

from __future__ import annotations

import re

from gatepost.config.errorreply import BadError, canonical_error, parse_error
from gatepost.config.nexthop import NextHopError, canonical, parse_next_hop
from gatepost.config.tables import TableNote

SMTP_TRANSPORTS = ("smtp", "relay", "esmtp")
_OURS = re.compile(r"(?:smtp|lmtp)://|mx(?::|$)|(?:maildir|pool|hold):")
_WITH_PORT = re.compile(r"(\[[^\]]+\]|[^:\[\]]+):(\w+)")
_PORTS = {"smtp": "25", "submission": "587", "lmtp": "24"}


class BadTransport(Exception):
    """A value that cannot be used; `args` are what is wrong and what to write."""


def parse_transport(value: str, default: str = "") -> tuple[str | None, TableNote | None]:
    """Canonical next hop or "error:CODE D.S.N TEXT", and a note without place; raises BadTransport.

    `default` is the next hop of an empty transport with an empty nexthop.
    """
    text = value.strip()
    if _OURS.match(text):
        return _checked(text), None
    transport, colon, nexthop = text.partition(":")
    if text.startswith("["):
        transport, colon, nexthop = "", ":", text
    elif not colon:
        transport, nexthop = text, ""
    transport = transport.lower()
    if transport in ("error", "retry"):
        return _error(transport, nexthop), None
    if transport == "discard":
        return _checked("discard:", f'"{text}" is not available'), None
    if transport == "lmtp":
        return _lmtp(nexthop, text), None
    if transport == "" and not nexthop:
        return default or None, None
    if transport in ("", *SMTP_TRANSPORTS):
        return _smtp(nexthop, default)
    if transport in ("local", "virtual", "pipe", "maildrop", "procmail", "uucp", "cyrus", "mailman", "dovecot"):
        advice = "let the other side listen for LMTP on TCP, and write lmtp:inet:127.0.0.1:24"
        raise BadTransport(f'"{transport}" delivers into mailboxes or programs, which a gateway has not', advice)
    raise BadTransport(f'there is no transport "{transport}" here', 'write "smtp:[host]:port" or "lmtp:inet:host:port"')


def _smtp(nexthop: str, default: str) -> tuple[str | None, TableNote | None]:
    if not nexthop:
        return default or None, None
    note = None
    hops = []
    parts = [part.strip() for part in nexthop.split(",")]
    for part in parts:
        match = _WITH_PORT.fullmatch(part)
        host, port = (match.group(1), match.group(2)) if match else (part, "")
        port = _PORTS.get(port.lower(), port)
        if host.startswith("["):
            hops.append(_smtp_hop(host, port))
        elif port or len(parts) > 1:
            problem = f'"{nexthop}" is looked up by MX in Postfix; here the addresses of the host are used'
            note = TableNote("", 0, problem, "write it in brackets, which means the same for both")
            hops.append(_smtp_hop(f"[{host}]", port))
        else:
            hops.append(f"mx:{host}")
    return _checked(",".join(hops)), note


def _smtp_hop(host: str, port: str) -> str:
    inner = host[1:-1]
    if inner[:5].lower() == "ipv6:":
        inner = inner[5:]
    shown = f"[{inner}]" if ":" in inner else inner
    return f"smtp://{shown}:{port}" if port else f"smtp://{shown}"


def _lmtp(nexthop: str, text: str) -> str:
    rest = nexthop
    if rest.startswith(("unix:", "/")):
        advice = "let the server listen for LMTP on TCP, and write lmtp:inet:127.0.0.1:24"
        raise BadTransport(f'"{text}" is a socket in the file system, and no role may open one', advice)
    rest = rest.removeprefix("inet:")
    match = _WITH_PORT.fullmatch(rest)
    host, port = (match.group(1), _PORTS.get(match.group(2).lower(), match.group(2))) if match else (rest, "24")
    return _checked(_smtp_hop(host if host.startswith("[") else f"[{host}]", port).replace("smtp://", "lmtp://", 1))


def _error(transport: str, text: str) -> str:
    try:
        reply = parse_error(text or ("4.3.0 try again later" if transport == "retry" else "5.0.0 mail not accepted"))
    except BadError as error:
        raise BadTransport(str(error.args[0]), 'write "error:5.1.2 text"') from None
    code = {553: 550}.get(reply.code, reply.code)
    return canonical_error(type(reply)(code, reply.detail, reply.text))


def _checked(text: str, problem: str = "") -> str:
    try:
        return canonical(parse_next_hop(text))
    except NextHopError as error:
        if problem:
            raise BadTransport(problem, 'write "error:5.1.2 text"') from None
        raise BadTransport(error.problem, error.advice) from None
