"""Decides recorded facts again under another configuration, and says what would change.

Pure: records in, changes out. Compared are the verdicts on connection, MAIL and each recipient, routes, and what paths become. What was put
off then (4xx) was not decided, and is counted apart; so is what hangs on a table asked over the network. Rates and the masquerade guard
are run again over the records, and told, but are no change: what they held before the first record is not known, and each receiver
counts for itself. Hashed local parts are turned back into the recipients that the new configuration lists; one that is not listed
stays unknown, which is what it is. No header is recorded: what becomes of one is not replayed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from gatepost.config.listening import groups_of_user
from gatepost.config.schema import Config, RelayCertificate
from gatepost.model import Address, TlsPeer
from gatepost.policy.engine import Engine, Facts, Phase
from gatepost.policy.masquerade import NAME as MASQUERADE
from gatepost.policy.masquerade import MasqueradeGuard, rests_on_address
from gatepost.policy.rates import NAME as RATE
from gatepost.policy.rates import RuleRates
from gatepost.policy.record import (
    FORM_WITH_TLS,
    HASH_MARK,
    ROUTED_MARK,
    FactRecord,
    RecordedRecipient,
    hash_address,
    hash_local,
)
from gatepost.policy.relay import ClientCertificate, is_certified
from gatepost.policy.rewriting import REVERSE_PATH, RewriteFailed
from gatepost.policy.verdict import Verdict
from gatepost.routing.answers import Answers, NotAsked
from gatepost.routing.table import TableUnavailable

MAX_EXAMPLES = 5
MAX_NOTES = 20
Found = tuple[str, str, str, str]  # kind, before, after, example


class Change(msgspec.Struct):
    """What would become of recipients like these: the same change for the same reason."""

    kind: str  # "newly refused", "newly accepted", "re-routed", "re-written"
    before: str
    after: str
    count: int = 0
    examples: list[str] = []  # session, client, paths


class Difference(msgspec.Struct):
    """All changes of a replay."""

    transactions: int = 0
    recipients: int = 0
    undecided: int = 0
    unknown: int = 0  # of a table, or a secret, that is not there for a replay
    changes: list[Change] = []
    notes: list[str] = []  # rates and guard

    def lines(self) -> list[str]:
        """For people."""
        head = f"{self.recipients} recipients in {self.transactions} mail transactions decided again"
        if self.undecided:
            head += f"; {self.undecided} were put off (4xx) and are not compared"
        if self.unknown:
            head += f"; {self.unknown} need tables that could not be asked, or secrets, and are not compared"
        lines = [head]
        for change in self.changes:
            lines.append(f"{change.kind}: {change.count}")
            lines += [f"    was: {change.before}", f"    would be: {change.after}"]
            lines += [f"      {example}" for example in change.examples]
        if not self.changes:
            lines.append("nothing would change")
        return lines + self.notes


class Replay:
    """Decisions under one configuration. `key` is that of hashed addresses, empty if there is none."""

    def __init__(self, config: Config, key: bytes = b"", answers: Answers | None = None) -> None:
        """`answers` gives facts from elsewhere at once, or says that they cannot be had."""
        self.answers = NotAsked() if answers is None else answers
        self._engine = Engine(config, answers=self.answers)
        self._certificates = config.relay.certificates
        self._key = key
        self._again = CountedAgain(config, self._engine)
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
        facts.tls = record.tls if record.form >= FORM_WITH_TLS else TlsPeer(-1)
        facts.client_names = record.names
        facts.size_bytes, facts.now_s = record.size_bytes, record.time_s
        if facts.client_permit is None and self._certificates:
            facts.client_permit = self._of_certificate(record)
        if record.identity:
            self._engine.recall(facts, record.identity, groups_of_user, relays=not record.by_lmtp)
        return facts

    def _of_certificate(self, record: FactRecord) -> ClientCertificate | None:
        """The right of its certificate, as far as it is recorded: the name that is shown, and the one that gave a right then."""
        names = [record.certificate] if record.certificate else []
        for recipient in record.recipients:
            text = recipient.permit.removeprefix("certificate ")
            if text != recipient.permit and text not in names:
                names.append(text)
        for row in self._certificates:
            for name in names:
                if _is_shown(row, name):
                    return ClientCertificate(name)
        return None

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
        difference = Difference(changes=[], notes=[])
        found: dict[tuple[str, str, str], Change] = {}
        for record in records:
            if record.has_mail:
                difference.transactions += 1
            for kind, before, after, example in self._changes_of(record, difference):
                change = found.get((kind, before, after))
                if change is None:
                    change = found[kind, before, after] = Change(kind, before, after, 0, [])
                change.count += 1
                if len(change.examples) < MAX_EXAMPLES:
                    change.examples.append(example)
        difference.changes = sorted(found.values(), key=lambda change: (change.kind, -change.count))
        difference.notes = self._again.lines()
        return difference

    def _changes_of(self, record: FactRecord, difference: Difference) -> Iterator[Found]:
        """What would be otherwise with one session or mail transaction, in its order."""
        session = f"{record.session} {record.client}"
        facts = self.facts_of(record)
        self.answers.why = ""
        connect = self._engine.decide(Phase.CONNECT, facts)
        if self._is_unknown(connect, record, difference):
            return
        if record.refused == "connect":
            if record.fault.startswith("4"):
                difference.undecided += 1
            elif not connect.code:
                yield (
                    "newly accepted",
                    f"connection: {record.fault}",
                    "connection accepted; what it brings is not known",
                    session,
                )
            return
        if not record.has_mail:
            return
        session += f" <{record.reverse_path}>"
        if connect.code:
            yield "newly refused", "connection accepted", f"connection: {_reply(connect)}", session
            return
        mail = self._engine.decide(Phase.MAIL, facts)
        if self._is_unknown(mail, record, difference):
            return
        if record.refused == "mail":
            if record.fault.startswith("4"):
                difference.undecided += 1
            elif not mail.code:
                yield "newly accepted", f"MAIL: {record.fault}", "MAIL accepted; its recipients are not known", session
            return
        if mail.code:
            yield "newly refused", "MAIL accepted", f"MAIL: {_reply(mail)}", session
            return
        taken: list[Verdict] = []
        for recipient in record.recipients:
            difference.recipients += 1
            if 400 <= recipient.code < 500:
                difference.undecided += 1
                self._again.note(recipient.check)
                continue
            if self._hangs_on_secret(recipient):
                difference.unknown += 1
                continue
            self.answers.why = ""
            verdict = self.decide(record, recipient)
            if self.answers.why or (verdict.code == 451 and verdict.check == "recipient"):
                difference.unknown += 1
                continue
            self._again.take(record, verdict)
            if verdict.accepted and not recipient.code:
                taken.append(verdict)
            example = f"{session} -> <{recipient.address}>"
            for kind, before, after in self._compared(record, recipient, verdict):
                yield kind, before, after, example
        if taken and record.form:
            yield from self._reverse_path(record, facts, taken, session)

    def _is_unknown(self, verdict: Verdict, record: FactRecord, difference: Difference) -> bool:
        """Whether it hangs on a fact that cannot be had now."""
        is_unknown = verdict.code == 451 and self.answers.why != ""
        if is_unknown:
            difference.unknown += len(record.recipients) or 1
        return is_unknown

    def _hangs_on_secret(self, recipient: RecordedRecipient) -> bool:
        """Whether it is a return address of ours, whose signature says what becomes of it, and which may be hashed here."""
        srs = self._engine.rewriting.srs if self._engine.rewriting is not None else None
        is_return = recipient.permit.startswith("srs ") or recipient.check == "srs"
        return is_return and srs is not None and recipient.address.lower().endswith(f"@{srs.domain}")

    def _compared(
        self, record: FactRecord, recipient: RecordedRecipient, verdict: Verdict
    ) -> Iterator[tuple[str, str, str]]:
        before, after = _before(recipient), _after(verdict)
        route = verdict.route
        if recipient.code:
            if verdict.accepted:
                yield "newly accepted", before, after
        elif not verdict.accepted or route is None:
            yield "newly refused", before, after
        else:
            if route.next_hop != recipient.next_hop:
                yield "re-routed", before, after
            was = recipient.forward_path or recipient.address
            would = self._as_recorded(route.address or recipient.address, recipient.address)
            if record.form and was.lower() != would.lower():
                how = (
                    " + ".join(change.rule for change in verdict.rewritten if not change.is_shadow)
                    or "virtual addresses"
                )
                yield (
                    "re-written",
                    f"forward-path <{was}>",
                    f"forward-path <{would}>" + (f" ({how})" if route.address else ""),
                )

    def _reverse_path(self, record: FactRecord, facts: Facts, taken: list[Verdict], session: str) -> Iterator[Found]:
        """What the reverse-path would become."""
        was, would, how = record.rewritten_path or record.reverse_path, record.reverse_path, ""
        rewriting = self._engine.rewriting
        local, _, domain = record.reverse_path.rpartition("@")
        if rewriting is not None and local:
            try:
                done = rewriting.path(REVERSE_PATH, facts, Address(record.reverse_path, local, domain.lower()))
            except RewriteFailed as error:
                yield "newly refused", "MAIL accepted", f"MAIL: 451 4.3.0 {error.args[0]}", session
                return
            except TableUnavailable:
                return
            would = self._as_recorded(done.address.text, record.reverse_path)
            how = " + ".join(change.rule for change in done.changes if not change.is_shadow)
            domains = [verdict.route.domain for verdict in taken if verdict.route is not None]
            if rewriting.is_forwarded(done.address.text, domains):
                assert rewriting.srs is not None
                would, how = f"srs:{rewriting.srs.domain}", "srs"
        if was.lower() != would.lower():
            yield (
                "re-written",
                f"reverse-path <{was}>",
                f"reverse-path <{would}>" + (f" ({how})" if how else ""),
                session,
            )

    def _as_recorded(self, text: str, given: str) -> str:
        """A path as it would have been recorded: hashed, if what it came from is."""
        if not self._key or not _is_hashed(given) or _is_hashed(text):
            return text
        return hash_address(text, self._key)


class CountedAgain:
    """The rates of rules and the masquerade guard over the records, in their order; as if there were one receiver, begun with the first."""

    def __init__(self, config: Config, engine: Engine) -> None:
        self._engine = engine
        self._rates = RuleRates(engine.rules.rules)
        self._guard = MasqueradeGuard(config.policy, frozenset(config.domains))
        self._modes = {name: config.policy.checks.get(name, "enforce") for name in (RATE, MASQUERADE)}
        self._then = {RATE: 0, MASQUERADE: 0}
        self._now: dict[tuple[str, str], int] = {}

    def note(self, check: str) -> None:
        """One recipient was put off by this check then."""
        if check in self._then:
            self._then[check] += 1

    def take(self, record: FactRecord, verdict: Verdict) -> None:
        """One recipient that would be accepted."""
        if verdict.route is None or verdict.route.ours or verdict.code:
            return
        rule, now_s, client = verdict.rule, record.time_s, record.client
        if rule and self._modes[RATE] != "off" and not self._rates.take(rule, now_s):
            self._count(RATE, f"rule {rule}")
        if self._modes[MASQUERADE] == "off" or not rests_on_address(verdict):
            return
        if rule and self._engine.rules.by_name[rule].expect_many:
            return
        if self._guard.is_suspended(client, now_s) or self._guard.observe(
            client, record.helo, record.reverse_path, now_s
        ):
            self._count(MASQUERADE, f"client {client}")

    def _count(self, check: str, what: str) -> None:
        self._now[check, what] = self._now.get((check, what), 0) + 1

    def lines(self) -> list[str]:
        """What came of it; nothing, if neither then nor now anything was put off."""
        shown = [
            f"not counted as a change: {check} would put off about {count} of these recipients ({what}"
            + (", in shadow)" if self._modes[check] == "shadow" else ")")
            for (check, what), count in sorted(self._now.items())[:MAX_NOTES]
        ]
        shown += [
            f"not compared: {check} put off {count} recipients then" for check, count in self._then.items() if count
        ]
        if shown:
            shown.append(
                "rates and the guard begin with the first record here, and know one receiver; limits of connections are not known"
            )
        return shown


def _is_shown(row: RelayCertificate, name: str) -> bool:
    """Whether a row of relay.certificates means this name or "sha256:FINGERPRINT"; what else it wants is not recorded."""
    fingerprint = name.removeprefix("sha256:")
    if fingerprint != name:
        return not row.names and fingerprint in row.fingerprints
    return any(is_certified(pattern, name) for pattern in row.names)


def _is_hashed(text: str) -> bool:
    return text.startswith((HASH_MARK, ROUTED_MARK))


def _reply(verdict: Verdict) -> str:
    return f"{verdict.code} {verdict.status} {verdict.text}"


def _before(recipient: RecordedRecipient) -> str:
    if recipient.code:
        return f"{recipient.code} {recipient.code // 100}.{recipient.detail} {recipient.text}".rstrip()
    return f"accepted ({recipient.permit}), by way of {recipient.next_hop}"


def _after(verdict: Verdict) -> str:
    if verdict.code:
        return _reply(verdict) + (f" ({verdict.cause})" if verdict.cause else "")
    return f"accepted ({verdict.permit}), by way of {verdict.route.next_hop if verdict.route is not None else ''}"
