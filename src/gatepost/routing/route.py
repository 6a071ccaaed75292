"""What the router answers: where an address leads, or why nowhere. Values."""

from __future__ import annotations

import msgspec


class Expansion(msgspec.Struct, frozen=True, gc=False):
    """The several addresses that one stands for, how they were found, and what was left out because it does not exist."""

    routes: tuple[Route, ...]
    chain: tuple[str, ...]
    skipped: tuple[str, ...] = ()


class Route(msgspec.Struct, frozen=True, gc=False):
    """Where an address leads.

    `next_hop` is canonical text (several joined by ","). `ours` says that the domain is one we accept mail for. `address` is
    the forward-path to put in place of the given one; empty: it stays as it is. `hold` is why the message is held, if it is.
    `is_tabled` says that a table of routes has named the next hop: the sender's does not count then. `reverse_path` is the owner of
    the list that led here. With an `expansion` the route is the first of several.
    """

    next_hop: str
    domain: str
    ours: bool
    address: str = ""
    hold: str = ""
    is_tabled: bool = False
    reverse_path: str = ""
    expansion: Expansion | None = None


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """Why an address leads nowhere: reply code, enhanced status without its class digit, text for the peer, cause for the log."""

    code: int
    detail: str
    text: str
    cause: str = ""
