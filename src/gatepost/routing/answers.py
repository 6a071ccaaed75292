"""Facts that come from elsewhere, as a decision sees them: an answer that is there, or NeedsAnswer.

A decision runs to its end at once and is given everything it looks at. Where a fact is not there, `Answers.need` raises
NeedsAnswer with the questions. Whoever runs decisions (`roles/asking.py` in a receiver) has them asked, leaves the event of the
session unanswered meanwhile, and runs the decision again from its beginning. So a decision counts, writes and sends nothing
before it has all its facts, and the same questions come in the same order.

What could not be had is an answer as well: it raises TableUnavailable, which defers. It is never remembered beyond the decision
it was asked for; found and not found are, bounded in number and time. What was found stands in for a later answer that cannot be
had, up to a time of its own; that something was not there never does. Nothing here waits or asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from gatepost.model import NeedsAnswer, Question
from gatepost.routing.table import TableUnavailable

ANY = "\0"  # of Assumed: there is something, whatever it is
MAX_ANSWERS = 50_000  # of one receiver: about 20 MB
COUNTED_CHARACTERS = 256  # a longer value counts as several answers
MAX_KEY_CHARACTERS = 512  # no address that SMTP takes is longer


def is_askable(key: str) -> bool:
    """Whether any server could have it: text without controls, of a sensible length."""
    if not key or len(key) > MAX_KEY_CHARACTERS or any(ord(character) < 32 for character in key) or "\x7f" in key:
        return False
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


class Answer(msgspec.Struct, frozen=True, gc=False):
    """`value` None: there is no such key. `failed` is why there is no answer; empty if there is one."""

    value: str | None = None
    failed: str = ""
    records: tuple[str, ...] = ()  # of DNS; `value` is then "ok", "nodata" or "nxdomain"


class Answers:
    """What one receiver knows. A decision that waited sees, beside the cache, the answers that came for it."""

    __slots__ = ("_given", "_is_last", "_known", "_most", "_now_s", "_size", "said", "trouble", "why")

    def __init__(
        self,
        most: int = MAX_ANSWERS,
        now_s: Callable[[], float] = time.monotonic,
        trouble: Callable[[str, str], None] = lambda source, why: None,
    ) -> None:
        """`trouble` is told of a source that answers what nobody can use."""
        self.trouble = trouble
        self.said: list[str] = []  # for whoever explains: what was answered
        self.why = ""  # for whoever explains: the last reason for which a fact could not be had
        self._known: dict[Question, tuple[float, float, Answer]] = {}  # fresh until, of use until
        self._most = most
        self._size = 0  # of `_known`, in answers
        self._now_s = now_s
        self._given: Mapping[Question, Answer] = {}
        self._is_last = False

    def need(self, source: str, keys: Sequence[str]) -> list[str | None]:
        """The value of each key, None for one that is not there. Raises NeedsAnswer, and TableUnavailable."""
        return [answer.value for answer in self.need_answers(source, keys)]

    def need_answers(self, source: str, keys: Sequence[str]) -> list[Answer]:
        """The same as whole answers; what could not be had raises TableUnavailable."""
        found: list[Answer] = []
        missing: list[Question] = []
        for key in keys:
            question = Question(source, key)
            answer = self._given.get(question) or self._cached(question)
            if answer is None and self._is_last:
                answer = self.stale(question)
            if answer is None:
                missing.append(question)
            elif answer.failed:
                raise TableUnavailable(f"{source}: {answer.failed}")
            else:
                found.append(answer)
        if not missing:
            return found
        if self._is_last:
            raise TableUnavailable(f"{source}: no answer in time")
        raise NeedsAnswer(missing)

    def _cached(self, question: Question) -> Answer | None:
        entry = self._known.get(question)
        if entry is None:
            return None
        fresh_s, useful_s, answer = entry
        now_s = self._now_s()
        if fresh_s > now_s:
            return answer
        if useful_s <= now_s:
            self._forget(question)
        return None

    def _forget(self, question: Question) -> None:
        entry = self._known.pop(question, None)
        if entry is not None:
            self._size -= _size_of(entry[2])

    def stale(self, question: Question) -> Answer | None:
        """What was found when there was last an answer, if that may stand in for one that cannot be had."""
        entry = self._known.get(question)
        return entry[2] if entry is not None and entry[1] > self._now_s() and entry[2].value is not None else None

    def keep(self, question: Question, answer: Answer, ttl_s: float, stale_s: float = 0.0) -> None:
        """Remember an answer; the oldest goes when there are too many. `stale_s`: how long it may stand in for another."""
        useful_s = max(ttl_s, stale_s) if answer.value is not None else ttl_s
        if answer.failed or useful_s <= 0:
            if not answer.failed:
                self._forget(question)
            return
        known = self._known
        self._forget(question)
        now_s = self._now_s()
        known[question] = (now_s + ttl_s, now_s + useful_s, answer)
        self._size += _size_of(answer)
        while self._size > self._most and len(known) > 1:
            self._forget(next(iter(known)))

    def forget(self, names: Sequence[str]) -> int:
        """Forget all answers of these sources, or about these keys; returns how many."""
        gone = [question for question in self._known if question.source in names or question.key in names]
        for question in gone:
            self._forget(question)
        return len(gone)

    def give(self, given: Mapping[Question, Answer] | None, is_last: bool = False) -> None:
        """For the decision that is run next: the answers that came for it; with `is_last` it cannot ask again."""
        self._given = given or {}
        self._is_last = is_last

    def __len__(self) -> int:
        return len(self._known)


def _size_of(answer: Answer) -> int:
    return 1 + len(answer.value or "") // COUNTED_CHARACTERS


class Assumed(Answers):
    """For the relay proof: a table that is asked over the network may say anything, so every recipient exists."""

    __slots__ = ()

    def need_answers(self, source: str, keys: Sequence[str]) -> list[Answer]:
        """No other address, no other route, and that there is such a recipient."""
        return [Answer(ANY)] * len(keys)


class NotAsked(Answers):
    """Where nobody asks: every fact from elsewhere is one that cannot be had."""

    __slots__ = ("_why",)

    def __init__(self, why: str = "it is not asked here") -> None:
        super().__init__()
        self._why = why

    def need_answers(self, source: str, keys: Sequence[str]) -> list[Answer]:
        """Raises TableUnavailable."""
        self.why = f"{source}: {self._why}"
        raise TableUnavailable(self.why)
