"""A receiver's questions about tokens, which the resolver role asks the authorization server (`introspector.py`).

An answer that does not come (no resolver, a new one, too late, a server that is away) is neither yes nor no: the client hears 454.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from gatepost.ipc import messages as m
from gatepost.ipc.wire import Channel

SPARE_S = 5.0  # behind the resolver's own limit
MAX_UNDER_WAY = 1000

Told = Callable[[str | None], None]
"""Called with the user, "" for a token that is not good, None if nobody could say."""


class TokenQuestions:
    """Of one receiver. `event` tells the log; `timeout_s` is that of the resolver."""

    def __init__(self, loop: Any, *, timeout_s: float, event: Callable[..., None]) -> None:
        self._loop = loop
        self._limit_s = timeout_s + SPARE_S
        self._event = event
        self._resolver: Channel | None = None
        self._numbers = count(1)
        self._waiting: dict[int, tuple[Told, Any]] = {}

    def ask(self, token: str, told: Told) -> None:
        """Whose token this is; `told` hears it later, never within this call."""
        if self._resolver is None or len(self._waiting) >= MAX_UNDER_WAY:
            self._event(
                "auth_away",
                reason="too many tokens are being asked about" if self._resolver else "the resolver is away",
            )
            self._loop.call_soon(told, None)
            return
        number = next(self._numbers)
        self._waiting[number] = told, self._loop.call_later(self._limit_s, self._end, number, None, "no answer in time")
        self._resolver.post(m.Introspect(number, token))

    def answered(self, message: m.Introspected) -> None:
        """An answer of the resolver."""
        self._end(message.query, None if message.failed else message.user, message.failed)

    def linked(self, channel: Channel) -> None:
        """A resolver is there, or another one: what the one before did not answer nobody will."""
        self.unlinked()
        self._resolver = channel

    def unlinked(self) -> None:
        self._resolver = None
        for number in list(self._waiting):
            self._end(number, None, "the resolver is away")

    def _end(self, number: int, user: str | None, failed: str) -> None:
        told, timer = self._waiting.pop(number, (None, None))
        if told is None or timer is None:
            return
        timer.cancel()
        if user is None:
            self._event("auth_away", reason=failed)
        told(user)
