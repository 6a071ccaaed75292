"""Whether a client may have one more connection: counts, rates, and the checks of the phase CONNECT.

Of one receiver. Whoever was let in or turned away is counted until `leave`. Not here: what the receiver itself refuses while it ends.
"""

from __future__ import annotations

from collections.abc import Callable

from gatepost.config.schema import Smtp
from gatepost.policy.engine import Engine, Facts, Phase
from gatepost.roles.clientrates import ClientRates
from gatepost.roles.clients import ClientCounts
from gatepost.smtp.reply import Reply

_TOO_MANY = Reply(421, "3.2", "Too many connections, try again later")
_TOO_MANY_YOURS = Reply(421, "7.0", "Too many connections from your address, close some and try again")
_TOO_FAST = Reply(421, "7.0", "Too many connections from your address within a minute, try again later")


class Admission:
    """Counts of open connections, and the refusals that follow from them."""

    def __init__(self, limits: Smtp, engine: Engine, now_s: Callable[[], float]) -> None:
        self._limits = limits
        self._engine = engine
        self._now_s = now_s
        self._clients = ClientCounts()
        self._rates = ClientRates()
        self._judges = engine.has_checks(Phase.CONNECT)

    def enter(self, address: str, facts: Facts) -> Reply | None:
        """One more connection of this client; the reply that refuses it, or None."""
        yours = self._clients.enter(address)
        refusal = self._judge(address, facts, yours)
        return _TOO_MANY if self._clients.total > self._limits.max_connections else refusal

    def leave(self, address: str) -> None:
        """A connection that entered is gone."""
        self._clients.leave(address)

    def _judge(self, address: str, facts: Facts, yours: int) -> Reply | None:
        """Tables of the configuration may say otherwise for this client than the limits do."""
        most = self._limits.max_connections_per_client
        if self._engine.access:
            limit = self._engine.access.limit
            rate = limit("clientrate", address)
            if rate and self._rates.enter(address, self._now_s()) > rate:
                return _TOO_FAST
            allowed = limit("clientconn", address)
            most = most if allowed is None else allowed or self._limits.max_connections
        if yours > most:
            return _TOO_MANY_YOURS
        if self._judges:
            verdict = self._engine.decide(Phase.CONNECT, facts)
            if verdict.code:  # RFC 5321 3.1: 554 in place of the greeting; 421 for what may pass
                return Reply(554 if verdict.code >= 500 else 421, verdict.detail, verdict.text)
        return None
