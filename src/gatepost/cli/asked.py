"""Facts from elsewhere for a command: tables are asked through the running gateway, which has the connections and the passwords.

Each key is asked once. What the gateway does not know, or cannot have, or while none runs, is a fact that cannot be had, with the
reason; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence

from gatepost.cli.ask import NotRunning, ask
from gatepost.config.schema import Config
from gatepost.model import Question
from gatepost.policy.record import HASH_MARK
from gatepost.routing.answers import Answer, Answers
from gatepost.routing.table import TableUnavailable

MAX_KEPT = 200_000


class AskedAnswers(Answers):
    """Of one command; `config` says where the gateway listens."""

    __slots__ = ("_config", "_hashed", "_is_away", "_kept", "_notes")

    def __init__(self, config: Config, *, hashed: bool = False) -> None:
        """`hashed`: addresses may be recorded as hashes, which no table knows."""
        super().__init__()
        self._hashed = hashed
        self._config = config
        self._kept: dict[Question, Answer] = {}
        self._is_away = ""
        self._notes: dict[Question, str] = {}  # where an answer came from, if not from the source itself

    def need_answers(self, source: str, keys: Sequence[str]) -> list[Answer]:
        """Raises TableUnavailable, never NeedsAnswer."""
        if self._hashed and any(key.startswith(HASH_MARK) for key in keys):
            self.why = f"{source}: the address was recorded as a hash"
            raise TableUnavailable(self.why)
        wanted = [Question(source, key) for key in keys]
        missing = [question for question in wanted if question not in self._kept]
        if missing:
            self._ask(source, missing)
        found = [self._kept[question] for question in wanted]
        for question, answer in zip(wanted, found, strict=True):
            self.said.append(_said(question, answer, self._notes.get(question, "")))
        for answer in found:
            if answer.failed:
                self.why = f"{source}: {answer.failed}"
                raise TableUnavailable(self.why)
        return found

    def _ask(self, source: str, questions: list[Question]) -> None:
        values: list[str | None] = [None] * len(questions)
        records: list[list[str]] = [[]] * len(questions)
        failed = self._is_away
        if not failed:
            try:
                answer = ask(self._config, "lookup", table=source, keys=[question.key for question in questions])
            except (NotRunning, OSError) as error:
                failed = self._is_away = str(error)
            else:
                failed = str(answer.get("failed") or answer.get("error") or "")
                values = answer.get("values") or values
                records = answer.get("records") or records
                notes = answer.get("notes") or {}
                self._notes.update(
                    {question: str(notes[question.key]) for question in questions if question.key in notes}
                )
        if len(self._kept) > MAX_KEPT:
            self._kept.clear()
        for question, value, found in zip(questions, values, records, strict=True):
            self._kept[question] = Answer(value, failed, tuple(found))


def _said(question: Question, answer: Answer, note: str) -> str:
    """For people."""
    if answer.failed:
        return f"{question.source}: {answer.failed}"
    if answer.records:
        return f"{question.source} about {question.key}: {', '.join(answer.records)}"
    found = "not there" if answer.value is None else f"there ({answer.value})" if answer.value else "there"
    return f"{question.source} about {question.key}: {found}" + (f"; {note}" if note else "")
