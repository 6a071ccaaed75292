"""`next_hops` of a source: which next hops its answers may name, and whether one does.

A pattern is a next hop as it is written anywhere (`smtp://10.0.0.5:25`, `pool:inside`, `maildir:/srv/mail/{domain}/{local}`), `mx` for the MX
hosts of the recipient's own domain, or one with a `*` in place of the host or of its first labels: `smtp://*.inside.example:25`, `lmtp://*:24`,
`mx:*`. Nothing in the middle of a label: `smtp://10.0.0.*` would be a name of anybody's as well. What refuses, drops or holds mail
(`error:`, `discard:`, `hold:` in front) goes nowhere by itself, and needs no pattern. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from gatepost.config.nexthop import NextHop, NextHopError, canonical, parse_next_hop

MX = "mx"
_ANY = "*"
_STANDS_IN = "x"
_NOWHERE = ("error", "discard", "hold")
_EXAMPLES = '"smtp://10.0.0.5:25", "smtp://*.inside.example:25" or "mx"'


def parse_hop_pattern(text: str) -> str:
    """The canonical pattern; raises NextHopError."""
    text = text.strip()
    if _ANY not in text:
        hops = parse_next_hop(text)
        if hops[0].kind in _NOWHERE:
            raise NextHopError(f'"{text}" goes nowhere, and may always be answered', "remove it here")
        if len(hops) > 1:
            raise NextHopError(f'"{text}" is more than one', "write each by itself")
        return canonical(hops)
    hop = _with_name(text) if "," not in text else None
    host = hop.host if hop is not None and hop.kind in ("smtp", "lmtp", "mx") else ""
    if hop is None or text.count(_ANY) != 1 or (host != _STANDS_IN and not host.startswith(_STANDS_IN + ".")):
        raise NextHopError(
            f'"{text}" has its * elsewhere than in place of whole labels', f"write one such as {_EXAMPLES}"
        )
    pattern = _ANY + host.removeprefix(_STANDS_IN)
    return f"mx:{pattern}" if hop.kind == "mx" else f"{hop.kind}://{pattern}:{hop.port}"


def _with_name(text: str) -> NextHop:
    """The next hop with a name in place of the *, so that the rest is checked as anywhere."""
    try:
        return parse_next_hop(text.replace(_ANY, _STANDS_IN, 1))[0]
    except NextHopError as error:
        said = [part.replace(f"//{_STANDS_IN}", f"//{_ANY}") for part in (error.problem, error.advice)]
        raise NextHopError(*said) from None


def permits(patterns: Sequence[str], text: str, domain: str) -> bool:
    """Whether canonical patterns let mail for a domain go to a next hop. No patterns: to any that is one."""
    if text in patterns:
        return True
    try:
        hops = parse_next_hop(text)
    except NextHopError:
        return False
    if canonical(hops) != text:
        return False
    if hops[0].kind == "hold":
        hops = hops[1:]
    return not patterns or all(
        hop.kind in _NOWHERE or any(_fits(pattern, hop, domain) for pattern in patterns) for hop in hops
    )


def _fits(pattern: str, hop: NextHop, domain: str) -> bool:
    if _ANY not in pattern:
        return canonical(hop) in ((MX, f"mx:{domain}") if pattern == MX else (pattern,))
    kind, _, rest = pattern.partition(":")
    if kind != hop.kind:
        return False
    host, _, port = rest.removeprefix("//").partition(":")
    return hop.port == int(port or 0) and hop.host.endswith(host.removeprefix(_ANY)) and hop.host != ""
