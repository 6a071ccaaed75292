"""Clients that guess recipients: counted, slowed down, sent away, and kept away for a while.

Of one receiver, by client (IPv4 address, IPv6 /64), over an hour and all its sessions, and never for a client with a right of its own. From a
quarter of `smtp.max_unknown_recipients` on, each RCPT of the client waits, the longer the more it has guessed, known recipients too, so
that a delay says nothing; above it each unknown one is 421, which ends the session, and for `smtp.unknown_recipient_ban_s` so is each new
connection at an edge port. Submission ports stay open: users who will log in may stand behind the same address.
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
        self._longest_s = limits.unknown_recipient_delay_s
        self._ban_s = limits.unknown_recipient_ban_s
        self._loop = loop
        self._event = event
        self._rates = ClientRates(MAX_CLIENTS, HOUR_S)
        # client -> until when, guesses; empty: a RCPT costs this look and no more
        self.slow: dict[str, tuple[float, int]] = {}
        self.banned: dict[str, tuple[float, int]] = {}  # the same for its connections
        self._told: dict[str, tuple[float, int]] = {}
        self.counts = {"recipients_unknown": 0, "recipients_cut_off": 0, "guessers_told": 0, "guessers_kept_away": 0}

    def delay(self, connection: SmtpIn) -> None:
        """Have the decision about a recipient wait, if this client is to be slowed down: raises NeedsAnswer, once for each."""
        if connection.wait is None and self._longest_s:
            guesses = self._find(self.slow, connection.address)
            if guesses:
                part = min(1.0, guesses / max(1, self._most))
                raise NeedsAnswer([Question(f"{DELAY}{self._longest_s * part:.2f}", connection.session_id)])

    def note(self, connection: SmtpIn, reply: Reply) -> Reply:
        """An unknown recipient was asked for; the reply, or the one that ends the session."""
        self.counts["recipients_unknown"] += 1
        if not self._most or connection.facts.client_permit is not None:
            return reply
        address = connection.address
        count = self._rates.enter(address, self._loop.time())
        if count >= self._slow_from:
            self._put(self.slow, address, HOUR_S, count)
        if count <= self._most:
            return reply
        self.counts["recipients_cut_off"] += 1
        if self._ban_s:
            self._put(self.banned, address, self._ban_s, count)
        if not self._find(self._told, address):
            self._put(self._told, address, HOUR_S, count)
            self.counts["guessers_told"] += 1
            self._event("recipients_guessed", session=connection.session_id, address=address, unknown=count)
        return TOO_MANY_UNKNOWN

    def refusal(self, connection: SmtpIn) -> Reply | None:
        """What a new connection of a client gets that was sent away a while ago."""
        if not self.banned or connection.port.kind != "edge" or connection.facts.client_permit is not None:
            return None
        if not self._find(self.banned, connection.address):
            return None
        self.counts["guessers_kept_away"] += 1
        return TOO_MANY_UNKNOWN

    def stats(self) -> dict[str, int]:
        """Counters since the start, and how many clients are slowed down and kept away now."""
        now_s = self._loop.time()
        slow, banned = (sum(until_s > now_s for until_s, _ in where.values()) for where in (self.slow, self.banned))
        return self.counts | {"guessers_slowed_now": slow, "guessers_banned_now": banned}

    def _put(self, where: dict[str, tuple[float, int]], address: str, for_s: float, count: int) -> None:
        key = client_key(address)
        where.pop(key, None)
        where[key] = self._loop.time() + for_s, count
        if len(where) > MAX_CLIENTS:
            del where[next(iter(where))]

    def _find(self, where: dict[str, tuple[float, int]], address: str) -> int:
        """How many guesses stand there for a client; 0: it is not there."""
        if not where:
            return 0
        key = client_key(address)
        entry = where.get(key)
        if entry is None:
            return 0
        if entry[0] > self._loop.time():
            return entry[1]
        del where[key]
        return 0
