"""Clients that guess recipients: counted, slowed down, sent away.

Of one receiver, by client (IPv4 address, IPv6 /64), over an hour, and never for a client with a right of its own. From a quarter of
`smtp.max_unknown_recipients` on, each RCPT of the client waits `smtp.unknown_recipient_delay_s`, known recipients too, so that a
delay says nothing; above it each unknown one is 421, which ends the session. Connections are not refused: users who will log in may
stand behind the same address.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gatepost.config.schema import Smtp
from gatepost.model import NeedsAnswer, Question
from gatepost.roles.asking import DELAY
from gatepost.roles.clientrates import ClientRates
from gatepost.roles.clients import client_key
from gatepost.smtp.reply import Reply

if TYPE_CHECKING:
    from gatepost.net.smtp_in import SmtpIn

HOUR_S = 3600.0
MAX_CLIENTS = 20_000
TOO_MANY_UNKNOWN = Reply(
    421, "7.0", "Too many unknown recipients from your address; correct your list and try again later"
)


class Harvest:
    """See the module; `event` is told once an hour of a client that is over the limit."""

    def __init__(self, limits: Smtp, loop: Any, event: Callable[..., None]) -> None:
        self._most = limits.max_unknown_recipients
        self._slow_from = max(1, self._most // 4)
        self._delay = f"{DELAY}{limits.unknown_recipient_delay_s}" if limits.unknown_recipient_delay_s else ""
        self._loop = loop
        self._event = event
        self._rates = ClientRates(MAX_CLIENTS, HOUR_S)
        self.slow: dict[str, float] = {}  # client -> until when; where it is empty a RCPT costs this look and no more
        self._told: dict[str, float] = {}

    def delay(self, connection: SmtpIn) -> None:
        """Have the decision about a recipient wait, if this client is to be slowed down: raises NeedsAnswer, once for each."""
        if connection.wait is None and self._is_in(self.slow, connection.address) and self._delay:
            raise NeedsAnswer([Question(self._delay, connection.session_id)])

    def note(self, connection: SmtpIn, reply: Reply) -> Reply:
        """An unknown recipient was asked for; the reply, or the one that ends the session."""
        if not self._most or connection.facts.client_permit is not None:
            return reply
        address = connection.address
        now_s = self._loop.time()
        count = self._rates.enter(address, now_s)
        if count >= self._slow_from:
            self._put(self.slow, address, now_s)
        if count <= self._most:
            return reply
        if not self._is_in(self._told, address):
            self._put(self._told, address, now_s)
            self._event("recipients_guessed", session=connection.session_id, address=address, unknown=count)
        return TOO_MANY_UNKNOWN

    def _put(self, where: dict[str, float], address: str, now_s: float) -> None:
        key = client_key(address)
        where.pop(key, None)
        where[key] = now_s + HOUR_S
        if len(where) > MAX_CLIENTS:
            del where[next(iter(where))]

    def _is_in(self, where: dict[str, float], address: str) -> bool:
        key = client_key(address)
        until_s = where.get(key)
        if until_s is None:
            return False
        if until_s > self._loop.time():
            return True
        del where[key]
        return False
