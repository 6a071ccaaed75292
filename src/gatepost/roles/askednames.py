"""What a command asks the resolver about names of clients: several questions of one kind, one answer. Nothing else of DNS is told to commands."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from gatepost.ipc.messages import LookupDone
from gatepost.net.dns import StubResolver

KINDS = ("PTR", "A", "AAAA")
Answered = Callable[[list[str | None], str, list[list[str]]], None]


def look_up_names(resolver: StubResolver, kind: str, names: list[str], answered: Answered) -> None:
    """Call `answered` with the status of each name, why one could not be had, and the records of each."""
    if kind not in KINDS or not names:
        answered([None] * len(names), f"no question of the kind {kind[:10]} is answered here", [[] for _ in names])
        return
    done: dict[int, LookupDone] = {}

    def one(number: int, found: LookupDone) -> None:
        done[number] = found
        if len(done) == len(names):
            parts = [done[index] for index in range(len(names))]
            failed = next((part.reason or "no answer" for part in parts if part.status == "tempfail"), "")
            answered([part.status for part in parts], failed, [list(part.records) for part in parts])

    for number, name in enumerate(names):
        resolver.submit(kind, name, partial(one, number))
