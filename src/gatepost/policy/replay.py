"""Decides recorded facts again under another configuration, and says what would change.

Pure: records in, changes out. Compared are verdicts that the policy gave: what was put off then (4xx: a table was down, a rate was
exceeded) was not decided, and is counted apart. Hashed local parts are turned back into the recipients that the new configuration
lists; one that is not listed stays unknown, which is what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from gatepost.config.listening import groups_of_user
from gatepost.config.schema import Config
from gatepost.model import Address
from gatepost.policy.engine import Engine, Facts
from gatepost.policy.record import HASH_MARK, ROUTED_MARK, FactRecord, RecordedRecipient, hash_local
from gatepost.policy.verdict import Verdict
from gatepost.routing.answers import Answers, NotAsked

MAX_EXAMPLES = 5


class Change(msgspec.Struct):
    """What would become of recipients like these: the same change for the same reason."""

    kind: str  # "newly refused", "newly accepted", "re-routed"
    before: str
    after: str
    count: int = 0
    examples: list[str] = []  # session, client, paths


class Difference(msgspec.Struct):
    """All changes of a replay."""

    transactions: int = 0
    recipients: int = 0
    undecided: int = 0
    unknown: int = 0
    changes: list[Change] = []

    def lines(self) -> list[str]:
        """For people."""
        head = f"{self.recipients} recipients in {self.transactions} mail transactions decided again"
        if self.undecided:
            head += f"; {self.undecided} were put off (4xx) and are not compared"
        if self.unknown:
            head += f"; {self.unknown} need tables that could not be asked, and are not compared"
        if not self.changes:
            return [head, "nothing would change"]
        lines = [head]
        for change in self.changes:
            lines.append(f"{change.kind}: {change.count}")
            lines += [f"    was: {change.before}", f"    would be: {change.after}"]
            lines += [f"      {example}" for example in change.examples]
        return lines


class Replay:
    """Decisions under one configuration. `key` is that of hashed addresses, empty if there is none."""

    def __init__(self, config: Config, key: bytes = b"", answers: Answers | None = None) -> None:
        """`answers` gives facts from elsewhere at once, or says that they cannot be had."""
        self.answers = NotAsked() if answers is None else answers
        self._engine = Engine(config, answers=self.answers)
        self._names = {
            hash_local(local, key): local
            for domain in (config.domains.values() if key else ())
            for local in domain.recipients or ()
        }

    def facts_of(self, record: FactRecord) -> Facts:
        """The facts of a record, as the engine of this configuration wants them."""
        facts = self._engine.facts_of(record.client, record.local, record.session)
        facts.helo, facts.reverse_path = record.helo, record.reverse_path
        facts.identity, facts.certificate = record.identity, record.certificate
        facts.size_bytes, facts.now_s = record.size_bytes, record.time_s
        if record.identity:
            self._engine.recall(facts, record.identity, groups_of_user)
        return facts

    def address_of(self, recipient: RecordedRecipient) -> Address:
        """The address of a record."""
        local, at, domain = recipient.address.rpartition("@")
        if not at:
            local, domain = domain, ""
        if local.startswith(ROUTED_MARK):
            local = f"{local}%"
        elif local.startswith(HASH_MARK):
            local = self._names.get(local, local)
        return Address(f"{local}{at}{domain}", local, domain.lower())

    def decide(self, record: FactRecord, recipient: RecordedRecipient) -> Verdict:
        """The verdict under the new configuration."""
        return self._engine.decide_rcpt(self.facts_of(record), self.address_of(recipient))

    def compare(self, records: Iterable[FactRecord]) -> Difference:
        """Every recipient of every record."""
        difference = Difference()
        found: dict[tuple[str, str, str], Change] = {}
        for record in records:
            if not record.has_mail:
                continue
            difference.transactions += 1
            for recipient in record.recipients:
                difference.recipients += 1
                if 400 <= recipient.code < 500:
                    difference.undecided += 1
                    continue
                self.answers.why = ""
                verdict = self.decide(record, recipient)
                if self.answers.why:
                    difference.unknown += 1
                    continue
                kind = _kind(recipient, verdict)
                if not kind:
                    continue
                before, after = _before(recipient), _after(verdict)
                change = found.get((kind, before, after))
                if change is None:
                    change = found[kind, before, after] = Change(kind, before, after, 0, [])
                change.count += 1
                if len(change.examples) < MAX_EXAMPLES:
                    change.examples.append(_example(record, recipient))
        difference.changes = sorted(found.values(), key=lambda change: (change.kind, -change.count))
        return difference


def records_since(records: Iterable[FactRecord], since_s: float) -> Iterator[FactRecord]:
    """Only those that are not older."""
    return (record for record in records if record.time_s >= since_s)


def _kind(recipient: RecordedRecipient, verdict: Verdict) -> str:
    if recipient.code:
        return "newly accepted" if verdict.accepted else ""
    if not verdict.accepted:
        return "newly refused"
    next_hop = verdict.route.next_hop if verdict.route is not None else ""
    return "re-routed" if next_hop != recipient.next_hop else ""


def _before(recipient: RecordedRecipient) -> str:
    if recipient.code:
        return f"{recipient.code} {recipient.code // 100}.{recipient.detail} {recipient.text}".rstrip()
    return f"accepted ({recipient.permit}), by way of {recipient.next_hop}"


def _after(verdict: Verdict) -> str:
    if verdict.code:
        return f"{verdict.code} {verdict.status} {verdict.text}"
    return f"accepted ({verdict.permit}), by way of {verdict.route.next_hop if verdict.route is not None else ''}"


def _example(record: FactRecord, recipient: RecordedRecipient) -> str:
    return f"{record.session} {record.client} <{record.reverse_path}> -> <{recipient.address}>"
