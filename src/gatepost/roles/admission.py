"""Whether a client may have a connection, and when it is greeted.

Counts of connections and their rates, the tables that set them for a client, the checks of the phase CONNECT, the delay of the
greeting. Not here: what a session may do (`smtp/settings.py`), TLS (`securing.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gatepost.config.schema import Smtp
from gatepost.net.turns import READ_S
from gatepost.policy.engine import Engine, Facts, Phase
from gatepost.roles.asking import Asking
from gatepost.roles.clientrates import ClientRates
from gatepost.roles.clients import ClientCounts
from gatepost.roles.harvest import Harvest
from gatepost.smtp.reply import SHUTTING_DOWN, Reply

if TYPE_CHECKING:
    from gatepost.net.smtp_in import SmtpIn

_TOO_MANY = Reply(421, "3.2", "Too many connections, try again later")
_TOO_MANY_YOURS = Reply(421, "7.0", "Too many connections from your address, close some and try again")
_TOO_FAST = Reply(421, "7.0", "Too many connections from your address within a minute, try again later")


class Admission:
    """Of one receiver."""

    def __init__(
        self, limits: Smtp, engine: Engine, asking: Asking, harvest: Harvest, loop: Any, event: Callable[..., None]
    ) -> None:
        self._harvest = harvest
        self._limits = limits
        self._engine = engine
        self._asking = asking
        self._loop = loop
        self._event = event
        self._judges = engine.has_checks(Phase.CONNECT)
        self._clients = ClientCounts()
        self._rates = ClientRates()
        self.is_ending = False

    def enter(self, connection: SmtpIn, port: int) -> None:
        """A new connection: count it, then greet it, begin TLS or turn it away; at once, or when its facts are there."""
        refusal = self.count(connection)
        if refusal is None and self._judges:
            self._asking.run(connection, functools.partial(self._judge, connection, port))
        else:
            self._go_on(connection, port, refusal)

    def count(self, connection: SmtpIn) -> Reply | None:
        """One more connection of a client; the reply of a limit that refuses it."""
        address = connection.address
        refusal = self._limit(address, self._clients.enter(address))
        if refusal is None and self._harvest.banned:
            refusal = self._harvest.refusal(connection)
        if self._clients.total > self._limits.max_connections:
            return _TOO_MANY
        return SHUTTING_DOWN if self.is_ending else refusal

    def leave(self, address: str) -> None:
        """A connection has ended."""
        self._clients.leave(address)

    def _limit(self, address: str, yours: int) -> Reply | None:
        """Whether this client may have one more connection; tables of the configuration may say otherwise for it."""
        most = self._limits.max_connections_per_client
        if self._engine.access:
            limit = self._engine.access.limit
            rate = limit("clientrate", address)
            if rate and self._rates.enter(address, self._loop.time()) > rate:
                return _TOO_FAST
            allowed = limit("clientconn", address)
            most = most if allowed is None else allowed or self._limits.max_connections
        return _TOO_MANY_YOURS if yours > most else None

    def judge(self, facts: Facts) -> Reply | None:
        """What the checks of the phase CONNECT say; raises NeedsAnswer."""
        verdict = self._engine.decide(Phase.CONNECT, facts)
        if not verdict.code:
            return None
        # RFC 5321 3.1; 421: it may pass
        reply = Reply(554 if verdict.code >= 500 else 421, verdict.detail, verdict.text)
        facts.refused = ("connect", f"{reply.code} {reply.status} {reply.text}")
        return reply

    def _judge(self, connection: SmtpIn, port: int) -> None:
        refusal = self.judge(connection.facts)
        if connection.wait is None:
            self._go_on(connection, port, refusal)
        else:  # not before this decision is done with
            self._loop.call_soon(self._go_on, connection, port, refusal)

    def _go_on(self, connection: SmtpIn, port: int, refusal: Reply | None) -> None:
        if connection.transport.is_closing():  # gone while its facts were asked for
            return
        if refusal is not None:
            self._event(
                "connection_refused",
                address=connection.address,
                cause=refusal.text,
                code=refusal.code,
                status=refusal.status,
                text=refusal.text,
            )
            if connection.port.is_implicit:  # a handshake is more than it shall have
                connection.transport.abort()
            else:
                connection.greet(refusal)
            return
        self._event("connect", session=connection.session_id, address=connection.address, port=port)
        if connection.port.is_implicit:
            connection.begin_tls()
        else:
            self.greet(connection)

    def greet(self, connection: SmtpIn) -> None:
        """Now, or after the delay that strangers get."""
        if self._engine.access:
            pause_ms = self._engine.access.limit("greetpause", connection.address, connection.facts.client_names or ())
            if pause_ms is not None:
                if pause_ms:
                    self._greet_after(pause_ms / 1000, connection)
                else:
                    connection.greet()
                return
        if self._limits.greeting_delay_s > 0 and connection.facts.client_permit is None:
            self._greet_after(self._limits.greeting_delay_s, connection)
        else:
            connection.greet()

    def _greet_after(self, delay_s: float, connection: SmtpIn) -> None:
        """Who talked in that time is found out even where this process slept through it: what came is read once more before."""
        self._loop.call_later(delay_s, self._loop.call_later, READ_S, connection.greet)
