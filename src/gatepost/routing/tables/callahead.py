"""The table "call-ahead:WHERE": a recipient exists if the next hop takes its RCPT.

It answers from `Answers`, as every table that is asked over the network; who asks is the deliverer role (`delivery/callahead.py`), by way
of the resolver. Only for recipients: it knows no addresses that stand for others.
"""

from __future__ import annotations

from typing import ClassVar

from gatepost.config.callahead import parse_call_ahead
from gatepost.routing.answers import Answers, is_askable


class CallAheadTable:
    """For recipients of our domains."""

    kind: ClassVar[str] = "call-ahead"
    is_path = False
    __slots__ = ("_answers", "name")

    def __init__(self, name: str, answers: Answers) -> None:
        self.name = parse_call_ahead(name)
        self._answers = answers

    def find_address(self, local: str, domain: str) -> str | None:
        """What the host answered to a recipient that exists, else None; raises NeedsAnswer and TableUnavailable."""
        return self.lookup(f"{local}@{domain}")

    def lookup(self, key: str) -> str | None:
        """The same for an address."""
        return self._answers.need(self.name, [key])[0] if is_askable(key) else None
