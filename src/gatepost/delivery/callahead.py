"""Asking a next hop whether a recipient of ours exists: MAIL FROM:<>, RCPT, RSET, and what the answer means.

The engine has connections of its own for this, secured as mail would be. Only what the configuration names is asked, and only for domains
of ours: whoever gets the resolver to ask for more is told that there is nothing to ask. A refusal counts as "there is no such recipient" only
where it is about the recipient: at RCPT, permanent, and not about us (X.7.X), the sender, the commands or a full mailbox. All else defers.

Now and then a local part that nobody can have is asked beside a real one: a host that takes it says nothing with its yes (RFC 5321 3.3 lets
it refuse later). Invariants: each question is answered once; a next hop that does not answer is left alone for `retry_s`, but for one question.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from gatepost.config.callahead import place_to_ask
from gatepost.config.schema import Config
from gatepost.ipc.messages import Attempt, AttemptDone
from gatepost.model import Envelope, NextHopTrouble, Outcome, Recipient, Result
from gatepost.smtp.outgoing import PROBE

MAX_UNDER_WAY = 2000  # of all next hops
MAX_PLACES = 10_000  # next hop and domain, of which something is remembered
MAX_TEXT = 300
MAX_LOCAL = 64  # octets: RFC 5321 4.5.3.1.1
PROBE_LOCAL = "gatepost-probe-"
KNOWN, UNKNOWN, DEFERRED = "known", "unknown", "deferred"

Answered = Callable[[str, str, bool], None]  # status, text, whether the host takes every recipient

_PLAIN_LOCAL = re.compile(r"[^\x00-\x20\x7f()<>\[\]:;@\\,\"]+")
_DOMAIN = re.compile(r"[a-z0-9.-]{1,255}")
_NOT_ABOUT_IT = re.compile(r"5\.(7\.\d+|5\.\d+|1\.[78]|2\.2|3\.\d+|6\.\d+)")  # us, commands, the sender, a full mailbox
_CODES_NOT_ABOUT_IT = frozenset({500, 501, 502, 503, 504, 521, 530, 535, 538, 552, 555, 556})


class _Place:
    """A next hop, for one domain."""

    __slots__ = ("checked_s", "failure", "rests_until_s", "takes_all", "waiting")

    def __init__(self) -> None:
        self.waiting = 0
        self.rests_until_s = 0.0
        self.failure = ""
        self.checked_s = float("-inf")
        self.takes_all = False


class _Question:
    __slots__ = ("answered", "domain", "is_check", "key", "place", "timer")

    def __init__(self, key: str, domain: str, place: _Place, is_check: bool, answered: Answered) -> None:
        self.key = key
        self.domain = domain
        self.place = place
        self.is_check = is_check
        self.answered: Answered | None = answered
        self.timer: Any = None


class CallAheads:
    """Of one deliverer. `submit` takes an Attempt with a negative job, whose end comes back to `done`."""

    def __init__(
        self,
        config: Config,
        *,
        submit: Callable[[Attempt], None],
        call_later: Callable[[float, Callable[[], None]], Any],
        event: Callable[..., None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._settings = config.call_ahead
        self._submit = submit
        self._call_later = call_later
        self._event = event
        self._clock = clock
        self._numbers = count(1)
        self._under_way: dict[int, _Question] = {}
        self._places: dict[str, _Place] = {}
        self.counts = {"call_aheads": 0, "call_aheads_known": 0, "call_aheads_unknown": 0, "call_aheads_deferred": 0}

    def ask(self, table: str, address: str, answered: Answered) -> None:
        """Have a recipient asked for; `answered` is called once."""
        local, _, domain = address.rpartition("@")
        next_hop = place_to_ask(self._config, table, domain)
        path = forward_path(local, domain)
        if not next_hop or not path:
            answered(DEFERRED, f"{table} is not to be asked for this", False)
            return
        key = f"{next_hop} {domain}"
        place = self._places.get(key) or self._new_place(key)
        now_s = self._clock()
        if place.rests_until_s > now_s:
            answered(DEFERRED, place.failure, False)
            return
        if place.waiting >= self._settings.max_waiting or len(self._under_way) >= MAX_UNDER_WAY:
            answered(DEFERRED, f"{next_hop}: too many questions are under way", False)
            return
        if place.failure:  # one question finds out whether it answers again
            place.rests_until_s = now_s + self._settings.retry_s
        is_check = 0 < self._settings.check_s <= now_s - place.checked_s
        if is_check:
            place.checked_s = now_s
        self._start(next_hop, path, _Question(key, domain, place, is_check, answered))

    def _start(self, next_hop: str, path: str, question: _Question) -> None:
        self.counts["call_aheads"] += 1
        paths = [path]
        if question.is_check:
            paths.append(f"{PROBE_LOCAL}{secrets.token_hex(8)}@{question.domain}")
        number = -next(self._numbers)
        recipients = [Recipient(text, question.domain, next_hop) for text in paths]
        envelope = Envelope("", "", "", recipients, 0.0, "", "", "", PROBE, smtputf8=not path.isascii())
        self._under_way[number] = question
        question.place.waiting += 1
        question.timer = self._call_later(self._settings.timeout_s, lambda: self._late(next_hop, question))
        self._submit(
            Attempt(number, 0, 0, 0, next_hop, self._settings.max_connections, envelope, list(range(len(paths))))
        )

    def _late(self, next_hop: str, question: _Question) -> None:
        """It goes on by itself, but nobody waits for it any more."""
        reason = f"{next_hop}: no answer within {self._settings.timeout_s:g} s"
        self._rest(question.place, reason)
        self._answer(question, DEFERRED, reason, False)

    def done(self, message: AttemptDone) -> None:
        """What came of a question."""
        question = self._under_way.pop(message.job)
        question.timer.cancel()
        place = question.place
        place.waiting -= 1
        outcomes = {outcome.recipient: outcome for outcome in message.outcomes}
        outcome = outcomes[0]
        status, text = meaning_of(outcome)
        if status == DEFERRED and (outcome.stage != "rcpt" or message.trouble is NextHopTrouble.DOWN):
            self._rest(place, text)
        elif outcome.stage == "rcpt":
            place.failure, place.rests_until_s = "", 0.0
        if question.is_check:
            self._note_check(question, status, outcomes.get(1))
        self._answer(question, status, text, place.takes_all)

    def _note_check(self, question: _Question, status: str, other: Outcome | None) -> None:
        place = question.place
        if status != KNOWN or other is None:
            place.checked_s = float("-inf")  # says nothing: tried again with the next
            return
        takes_all = other.result is Result.DELIVERED
        if takes_all and not place.takes_all:
            next_hop = question.key.partition(" ")[0]
            self._event(
                "call_ahead_takes_all", next_hop=next_hop, domain=question.domain,
                advice="its yes says nothing: have it refuse unknown recipients at RCPT, or list the recipients here",
            )  # fmt: skip
        place.takes_all = takes_all

    def _rest(self, place: _Place, reason: str) -> None:
        if not place.failure:
            self._event("call_ahead_down", reason=reason)
        place.failure = reason
        place.rests_until_s = self._clock() + self._settings.retry_s

    def _answer(self, question: _Question, status: str, text: str, takes_all: bool) -> None:
        answered, question.answered = question.answered, None
        if answered is not None:
            self.counts[f"call_aheads_{status}"] += 1
            answered(status, text, takes_all)

    def _new_place(self, key: str) -> _Place:
        if len(self._places) >= MAX_PLACES:
            for old, place in list(self._places.items()):
                if not place.waiting:
                    del self._places[old]
                    break
        place = self._places[key] = _Place()
        return place

    def taking_all(self) -> list[str]:
        """The next hops, each with its domain, that take every recipient."""
        return [key for key, place in self._places.items() if place.takes_all]


def forward_path(local: str, domain: str) -> str:
    """The mailbox to ask for; a local part that needs quotes gets them. Empty: no command can say it."""
    if (
        not _DOMAIN.fullmatch(domain)
        or not 0 < len(local.encode("utf-8", "replace")) <= MAX_LOCAL
        or not local.isprintable()
    ):
        return ""
    if _PLAIN_LOCAL.fullmatch(local) and not local.startswith(".") and not local.endswith(".") and ".." not in local:
        return f"{local}@{domain}"
    quoted = local.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"@{domain}'


def meaning_of(outcome: Outcome) -> tuple[str, str]:
    """Known, unknown or deferred, and the words for it."""
    said = " ".join(outcome.text.split())[:MAX_TEXT]
    text = f"{outcome.host}: {said}" if outcome.host else said
    if outcome.result is Result.DELIVERED:
        return KNOWN, text
    if outcome.result is not Result.FAILED or outcome.stage != "rcpt" or not 500 <= outcome.code < 600:
        return DEFERRED, text
    if outcome.code in _CODES_NOT_ABOUT_IT or _NOT_ABOUT_IT.fullmatch(outcome.status):
        return DEFERRED, f"{text} (not about the recipient)"
    return UNKNOWN, text
