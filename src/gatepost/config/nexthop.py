"""The one syntax for where mail goes next, and its canonical form.

`smtp://HOST[:PORT]`, `lmtp://HOST:PORT`, `mx` (the domain is filled in when a message is routed: `mx:example.net`), and
`maildir:/PATH[/{domain}/{local}]`, `pool:NAME`, and what is no place: `discard:` drops the message, `error:CODE D.S.N TEXT` refuses the
recipient, and `hold:` in front of a next hop keeps the message until the operator releases it. Several smtp or lmtp hosts joined by
"," are tried in that order. The canonical text is the name of the next hop everywhere: in envelopes, in the scheduler, in events.
Pipes and sockets in the file system do not exist here: no role may run a program or open a path.
"""

from __future__ import annotations

import functools
import ipaddress
import re

import msgspec

from gatepost.config.errorreply import BadError, canonical_error, parse_error
from gatepost.config.values import InvalidValue, parse_address, parse_domain, parse_port, split_host_port

_EXAMPLES = '"smtp://10.0.0.5:25", "lmtp://127.0.0.1:24", "mx" or "maildir:/srv/mail/{domain}/{local}"'
DISCARD = "discard:"
ERROR = "error:"
HOLD = "hold:"
POOL = "pool:"
ALONE = ("mx", "maildir", "discard", "pool", "error", "hold")  # kinds that are not joined with others
_PROGRAMS = (
    "unix", "file", "pipe", "mbox", "local", "prog", "procmail", "maildrop", "cyrus", "mailman", "command", "exec",
)  # fmt: skip
_PLACEHOLDERS = ("{domain}", "{local}")
_POOL_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class NextHopError(InvalidValue):
    """A next hop that cannot be used; says what to write instead."""


class NextHop(msgspec.Struct, frozen=True):
    """One place to deliver to.

        `kind` is "smtp", "lmtp", "mx", "maildir", "pool", "discard", "error" or "hold". `host` is a lower-case A-label name or an IP address without brackets; for
        "mx" it is the domain whose MX hosts are meant ("" in a configuration: that of the recipient), or an address literal in
        brackets; for "pool" its name. `port` is 0 for all but "smtp" and "lmtp". `path` is that of a Maildir, possibly with `{domain}` and
    `{local}`, or the canonical text of an error. "hold" stands in front of those that it holds mail for, or alone.
    """

    kind: str
    host: str
    port: int
    path: str


@functools.lru_cache(maxsize=8192)
def parse_next_hop(text: str) -> tuple[NextHop, ...]:
    """The next hops that `text` names, first choice first; raises NextHopError."""
    if _CONTROL.search(text):
        raise NextHopError("the next hop holds a control character", f"write one like {_EXAMPLES}")
    start = text[:6].lower()
    if start == ERROR:
        return (_error(text),)
    if start[:5] == HOLD:
        rest = text[5:].strip()
        held = parse_next_hop(rest) if rest else ()
        if held and held[0].kind in ("hold", "error", "discard"):
            raise NextHopError(f'"{text}" holds nothing that goes anywhere', 'write "hold:" and a next hop')
        return (NextHop("hold", "", 0, ""), *held)
    parts = [part.strip() for part in text.split(",")]
    if "" in parts:
        raise NextHopError(
            "the next hop is empty" if len(parts) == 1 else f'"{text}" has an empty part', "write one like " + _EXAMPLES
        )
    hops = []
    for part in parts:
        hop = _parse_one(part)
        if hop not in hops:
            hops.append(hop)
    if len(hops) > 1:
        for hop in hops:
            if hop.kind in ALONE:
                advice = "join only smtp:// and lmtp:// hosts, or write it alone"
                raise NextHopError(f'"{hop.kind}" cannot be combined with other next hops', advice)
    return tuple(hops)


def parse_next_hops(texts: list[str], *, needs_place: bool = False) -> list[str]:
    """The canonical next hops of a list in a configuration; raises NextHopError.

    `needs_place`: mail that is held must be given somewhere to go, since nothing else says it.
    """
    alone = next((text for text in texts if text.lower().startswith((ERROR, HOLD))), "")
    if alone and len(texts) > 1:
        advice = (
            'write it alone; several hosts that mail is held for are joined: "hold:smtp://a.example,smtp://b.example"'
        )
        raise NextHopError(f'"{alone}" cannot be combined with other next hops', advice)
    hops = parse_next_hop(",".join(texts))
    if hops[0].kind == "hold":
        if needs_place and len(hops) == 1:
            raise NextHopError('"hold:" does not say where the mail goes in the end', 'write "hold:smtp://HOST:PORT"')
        return [canonical(hops)]
    return [canonical(hop) for hop in hops]


def split_hold(text: str) -> tuple[bool, str]:
    """Whether a canonical next hop holds mail, and where that goes when it is released ("" where that is not said)."""
    return (True, text[len(HOLD) :]) if text.startswith(HOLD) else (False, text)


def canonical(hops: NextHop | tuple[NextHop, ...]) -> str:
    """The one text for these next hops; `parse_next_hop(canonical(x)) == x`."""
    if isinstance(hops, NextHop):
        return _canonical_one(hops)
    if hops[0].kind == "hold":
        return HOLD + canonical(hops[1:]) if len(hops) > 1 else HOLD
    return ",".join(_canonical_one(hop) for hop in hops)


def _canonical_one(hop: NextHop) -> str:
    if hop.kind == "mx":
        return f"mx:{hop.host}" if hop.host else "mx"
    if hop.kind == "maildir":
        return f"maildir:{hop.path}"
    if hop.kind == "discard":
        return DISCARD
    if hop.kind == "pool":
        return POOL + hop.host
    if hop.kind == "error":
        return hop.path
    if hop.kind == "hold":
        return HOLD
    host = f"[{hop.host}]" if ":" in hop.host else hop.host
    return f"{hop.kind}://{host}:{hop.port}"


def _parse_one(text: str) -> NextHop:
    kind, colon, rest = text.partition(":")
    kind = kind.lower()
    try:
        if text == DISCARD:
            return NextHop("discard", "", 0, "")
        if kind == "mx":
            return NextHop("mx", _mx_domain(rest) if colon else "", 0, "")
        if kind == "pool":
            return NextHop("pool", parse_pool_name(rest), 0, "")
        if kind == "maildir":
            return NextHop("maildir", "", 0, _maildir_path(text, rest))
        if kind in ("smtp", "lmtp"):
            return _host_and_port(text, kind, rest)
    except NextHopError:
        raise
    except InvalidValue as error:
        raise NextHopError(error.problem, error.advice) from None
    raise _unknown(text, kind)


def _unknown(text: str, kind: str) -> NextHopError:
    if kind in _PROGRAMS or text.startswith(("|", "/")):
        return _no_paths(text)
    if kind in ("smtps", "lmtps"):
        return NextHopError(
            f'"{text}" asks for TLS from the first byte, which is not available yet', "write smtp://HOST:PORT"
        )
    if kind in ("http", "https", "relay", "esmtp", "tcp", "dns"):
        return NextHopError(f'"{kind}" is not a kind of next hop', f"write one like {_EXAMPLES}")
    if "/" not in text and "@" not in text:
        return NextHopError(f'"{text}" does not say how to deliver', f'write "smtp://{text}"')
    return NextHopError(f'"{text}" is not a next hop', f"write one like {_EXAMPLES}")


def _error(text: str) -> NextHop:
    try:
        reply = parse_error(text[len(ERROR) :])
    except BadError as error:
        raise NextHopError(str(error.args[0]), 'write "error:550 5.1.1 text"') from None
    if reply.code == 553:  # sendmail's for a text without a code; 550 says the same of any recipient
        reply = type(reply)(550, reply.detail, reply.text)
    return NextHop("error", "", 0, canonical_error(reply))


def parse_pool_name(text: str) -> str:
    """The name of a pool; raises NextHopError."""
    name = text.strip().lower()
    if not _POOL_NAME.fullmatch(name):
        raise NextHopError(f'"{text}" is not the name of a pool', "write letters, digits and hyphens: pool:inside")
    return name


def _no_paths(text: str) -> NextHopError:
    problem = f'"{text}" needs a role that opens paths or runs programs, and none may'
    return NextHopError(problem, 'let the other side listen for LMTP on TCP and write "lmtp://127.0.0.1:24"')


def _host_and_port(text: str, kind: str, rest: str) -> NextHop:
    if rest.startswith(("unix:", "//unix:", "///")) or (rest.startswith("/") and not rest.startswith("//")):
        raise _no_paths(text)
    if not rest.startswith("//"):
        raise NextHopError(f'"{text}" lacks the two slashes', f'write "{kind}://{rest or "HOST:PORT"}"')
    authority = rest[2:].removesuffix("/")
    if "@" in authority:
        raise NextHopError(f'"{kind}://..." holds a user name or password', "write only the host and port")
    if "/" in authority or "?" in authority or "#" in authority:
        raise NextHopError(f'"{text}" has something behind the port', f'write only "{kind}://HOST:PORT"')
    host, port_text = split_host_port(authority, text)
    host = _host(text, host)
    if kind == "lmtp" and not port_text:
        shown = f"[{host}]" if ":" in host else host
        raise NextHopError(
            f'"{text}" has no port, and LMTP has no default', f'write "lmtp://{shown}:24" or the port of your server'
        )
    return NextHop(kind, host, parse_port(port_text, text) if port_text else 25, "")


def _host(text: str, host: str) -> str:
    if not host:
        raise NextHopError(f'"{text}" names no host', f"write one like {_EXAMPLES}")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return parse_domain(host)
    if address.is_unspecified or address.is_multicast:
        raise NextHopError(f'"{host}" is not the address of a host', "write the address of the mail server")
    return str(parse_address(host))


def _mx_domain(rest: str) -> str:
    if rest.startswith("["):  # address literal, RFC 5321 4.1.3: no lookup, that host itself
        inner = rest[1:-1] if rest.endswith("]") else ""
        tagged = inner[:5].lower() == "ipv6:"
        address = parse_address(inner[5:] if tagged else inner)
        if tagged != (address.version == 6):
            raise NextHopError(f'"{rest}" is not an address literal', 'write "[192.0.2.1]" or "[IPv6:2001:db8::1]"')
        return f"[IPv6:{address}]" if tagged else f"[{address}]"
    if rest.startswith("//"):
        raise NextHopError('"mx" takes no slashes', f'write "mx:{rest[2:]}", or "mx" for the MX hosts of the recipient')
    return parse_domain(rest)


def _maildir_path(text: str, path: str) -> str:
    path = "/" + path.lstrip("/") if path.startswith("//") else path
    if not path.startswith("/"):
        raise NextHopError(f'"{text}" is not an absolute path', 'write "maildir:/srv/mail/{domain}/{local}"')
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts:
        raise NextHopError(f'"{text}" is the root directory', 'write "maildir:/srv/mail/{domain}/{local}"')
    for part in parts:
        if part == "..":
            raise NextHopError(f'"{text}" holds ".."', "write the path without it")
        if ("{" in part or "}" in part) and part not in _PLACEHOLDERS:
            raise NextHopError(
                f'"{part}" is not a placeholder', "use {domain} and {local}, each as a whole part of the path"
            )
    first = next((index for index, part in enumerate(parts) if part in _PLACEHOLDERS), len(parts))
    if first == 0:
        raise NextHopError(f'"{text}" has no fixed directory', 'write "maildir:/srv/mail/{domain}/{local}"')
    if any(part not in _PLACEHOLDERS for part in parts[first:]):
        raise NextHopError(f'"{text}" has a fixed part behind a placeholder', "put {domain} and {local} at the end")
    return "/" + "/".join(parts)
