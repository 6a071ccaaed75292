"""The decisions of a receiver that wait for facts: who waits for what, the questions under way, the limits.

A decision that meets a fact which is not there raises NeedsAnswer (`routing/answers.py`). Its questions go to the resolver
role, several of one table in one message, each only once however many wait for it; when the last answer has come the decision is
run again. One that is run too often, or waits too long, is run a last time with what there is, and what is missing counts as an
answer that cannot be had: 451, never a refusal and never a permit. A session in which nothing waits costs nothing here.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

from gatepost.config.callahead import call_ahead_tables
from gatepost.config.schema import Config
from gatepost.config.sources import KINDS
from gatepost.ipc import messages as m
from gatepost.ipc.wire import Channel
from gatepost.model import NeedsAnswer, Question
from gatepost.routing.answers import Answer, Answers
from gatepost.routing.shrinking import Shrinkage

if TYPE_CHECKING:
    from gatepost.net.smtp_in import SmtpIn

WAIT_LIMIT_S = 40.0  # of one decision, all its steps together; a client waits 300 s (RFC 5321 4.5.3.2.3)
MAX_STEPS = 16
CONFIRMED_S = 86400.0
MAX_KEYS = 64  # of one message
MAX_UNDER_WAY = 20_000  # questions of one receiver
DNS = "dns:"
DELAY = "delay:"  # no fact: the decision is made after so many seconds


Lifetimes = dict[str, tuple[float, float, float]]


def lifetimes_of(config: Config) -> Lifetimes:
    """How long answers of each table are kept: found, not found, found and standing in for one that cannot be had."""
    ahead = config.call_ahead
    return {
        f"{KINDS[one.type]}:{name}": (one.found_s, one.missing_s, one.stale_s) for name, one in config.sources.items()
    } | dict.fromkeys(call_ahead_tables(config), (ahead.found_s, ahead.missing_s, ahead.stale_s))


def shrinkages_of(config: Config) -> dict[str, Shrinkage]:
    """How much of each table may vanish."""
    most = {f"{KINDS[one.type]}:{name}": one.max_vanished for name, one in config.sources.items()}
    most |= dict.fromkeys(call_ahead_tables(config), config.call_ahead.max_vanished)
    return {table: Shrinkage(part) for table, part in most.items() if part < 1.0}


class Wait:
    """A decision that waits; it is in the `wait` of its connection until it has been made."""

    __slots__ = ("connection", "decide", "given", "is_last", "missing", "steps", "timer")

    def __init__(self, connection: SmtpIn, decide: Callable[[], None]) -> None:
        self.connection = connection
        self.decide = decide
        self.given: dict[Question, Answer] = {}
        self.missing: set[Question] = set()
        self.steps = 0
        self.is_last = False
        self.timer: Any = None


class Asking:
    """Of one receiver. `lifetimes` says how long an answer of a table is kept."""

    def __init__(
        self,
        loop: Any,
        answers: Answers,
        lifetimes: Lifetimes,
        shrinkages: dict[str, Shrinkage] | None = None,
        event: Callable[..., None] = lambda name, **fields: None,
    ) -> None:
        self._shrinkages = shrinkages or {}
        self._confirmed: set[str] = set()  # tables that are believed, whatever they deny
        self._event = event
        self.answers = answers
        self._loop = loop
        self._lifetimes = lifetimes
        self._resolver: Channel | None = None
        self._numbers = count(1)
        self._waiting: dict[Question, list[Wait]] = {}
        self._under_way: dict[int, m.TableLookup | m.Lookup] = {}
        self.counts = {"waits": 0, "questions": 0, "given_up": 0, "stale": 0}

    # --- the resolver role ------------------------------------------------------------------------------------------

    def linked(self, channel: Channel) -> None:
        """A resolver is there (again): what its predecessor did not answer is asked again."""
        self._resolver = channel
        for question in self._under_way.values():
            channel.post(question)

    def unlinked(self) -> None:
        self._resolver = None

    def answered(self, message: m.TableLookupDone | m.LookupDone) -> None:
        """An answer of the resolver."""
        asked = self._under_way.pop(message.query, None)
        if type(asked) is m.TableLookup and type(message) is m.TableLookupDone:
            found_s, missing_s, stale_s = self._lifetimes.get(asked.table, (0.0, 0.0, 0.0))
            values = message.values if not message.failed else [None] * len(asked.keys)
            for key, value in zip(asked.keys, values, strict=True):
                ttl_s = missing_s if value is None else found_s
                self._take(Question(asked.table, key), Answer(value, message.failed), ttl_s, stale_s)
        elif type(asked) is m.Lookup and type(message) is m.LookupDone:
            failed = (message.reason or "no answer") if message.status == "tempfail" else ""
            answer = Answer(message.status, failed, tuple(message.records))
            self._take(Question(DNS + asked.kind, asked.name), answer, message.ttl_s)

    def _take(self, question: Question, answer: Answer, ttl_s: float, stale_s: float = 0.0) -> None:
        stale = self.answers.stale(question)
        if stale is not None and (answer.failed or not self._is_believed(question.source, answer)):
            self.counts["stale"] += 1
            answer = stale
        else:
            self.answers.keep(question, answer, ttl_s, stale_s)
        for wait in self._waiting.pop(question, ()):
            wait.given[question] = answer
            wait.missing.discard(question)
            if not wait.missing:
                self._decide(wait)

    def confirm(self, tables: list[str]) -> list[str]:
        """What these tables deny is believed for a day; empty: all that are doubted. Returns which."""
        done = [name for name, one in self._shrinkages.items() if name in tables or (not tables and one.is_doubted)]
        for name in done:
            self._shrinkages[name].reset()
            self._confirmed.add(name)
            self._loop.call_later(CONFIRMED_S, self._confirmed.discard, name)
        return done

    def _is_believed(self, table: str, answer: Answer) -> bool:
        """Whether an answer about a key that had been found counts."""
        shrinkage = self._shrinkages.get(table)
        if shrinkage is None or table in self._confirmed:
            return True
        was_doubted = shrinkage.is_doubted
        is_believed = shrinkage.believes(answer.value is not None)
        if shrinkage.is_doubted and not was_doubted:
            self._event("source_shrinks", table=table, vanished=shrinkage.vanished, asked=shrinkage.asked)
        return is_believed

    def _ask(self, questions: list[Question]) -> None:
        tables: dict[str, list[str]] = {}
        for source, key in questions:
            self.counts["questions"] += 1
            if source.startswith(DELAY):
                seconds = float(source.removeprefix(DELAY))
                self._loop.call_later(seconds, self._take, Question(source, key), Answer(""), 0.0)
            elif source.startswith(DNS):
                self._post(m.Lookup(next(self._numbers), source.removeprefix(DNS), key))
            else:
                tables.setdefault(source, []).append(key)
        for table, keys in tables.items():
            for start in range(0, len(keys), MAX_KEYS):
                self._post(m.TableLookup(next(self._numbers), table, keys[start : start + MAX_KEYS]))

    def _post(self, question: m.TableLookup | m.Lookup) -> None:
        if len(self._under_way) >= MAX_UNDER_WAY:
            self._under_way[question.query] = question
            self._loop.call_soon(self.answered, _refusal_of(question))
            return
        self._under_way[question.query] = question
        if self._resolver is not None:
            self._resolver.post(question)

    # --- decisions --------------------------------------------------------------------------------------------------

    def run(self, connection: SmtpIn, decide: Callable[[], None]) -> None:
        """Run a decision; it is made now, or when its facts are there."""
        try:
            decide()
        except NeedsAnswer as needed:
            self.wait(connection, decide, needed)

    def wait(self, connection: SmtpIn, decide: Callable[[], None], needed: NeedsAnswer) -> None:
        """A decision has asked for facts: run it again when they are there."""
        wait = connection.wait
        if wait is None:
            wait = connection.wait = Wait(connection, decide)
            wait.timer = self._loop.call_later(WAIT_LIMIT_S, self._give_up, wait)
            self.counts["waits"] += 1
        wait.steps += 1
        if wait.steps > MAX_STEPS:
            self._loop.call_soon(self._give_up, wait)
            return
        for group in needed.groups:
            new = []
            for question in group:
                if question in wait.missing:
                    continue
                wait.missing.add(question)
                waiting = self._waiting.get(question)
                if waiting is None:
                    self._waiting[question] = [wait]
                    new.append(question)
                else:
                    waiting.append(wait)
            self._ask(new)

    def _give_up(self, wait: Wait) -> None:
        if wait.connection.wait is wait:
            self.counts["given_up"] += 1
            self._leave(wait)
            wait.is_last = True
            self._decide(wait)

    def _decide(self, wait: Wait) -> None:
        connection = wait.connection
        if connection.wait is not wait:
            return
        if connection.session.closing or connection.transport.is_closing():
            self.forget(connection)
            return
        self.answers.give(wait.given, wait.is_last)
        try:
            wait.decide()
        except NeedsAnswer as needed:
            self.wait(connection, wait.decide, needed)
            return
        except Exception:
            connection.transport.abort()  # a mistake of ours: the client tries again
            raise
        finally:
            self.answers.give(None)
        self.forget(connection)
        connection.advance()

    def forget(self, connection: SmtpIn) -> None:
        """The decision was made, or nobody waits for it any more."""
        wait, connection.wait = connection.wait, None
        if wait is not None:
            wait.timer.cancel()
            self._leave(wait)

    def _leave(self, wait: Wait) -> None:
        """Wait for nothing any more; what is under way goes on for whoever else asks, and for the cache."""
        for question in wait.missing:
            waiting = self._waiting.get(question)
            if waiting is not None and wait in waiting:
                waiting.remove(wait)
                if not waiting:
                    del self._waiting[question]
        wait.missing.clear()


def _refusal_of(question: m.TableLookup | m.Lookup) -> m.TableLookupDone | m.LookupDone:
    """The answer to one question too many."""
    if type(question) is m.TableLookup:
        return m.TableLookupDone(question.query, [], "too many questions are under way")
    return m.LookupDone(question.query, "tempfail", [], 0, False, "too many questions are under way")
