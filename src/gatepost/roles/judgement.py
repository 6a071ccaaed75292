"""How a receiver decides a recipient: the engine's verdict, the rates of rules, the masquerade guard; and what it records of it.

The engine is pure; what counts over sessions is here, and only for clients with a relay right. Records gather and go to the queue
in batches, which keeps them: facts explain decisions, and never hold up one.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gatepost.config.schema import Config
from gatepost.model import Address, TlsPeer
from gatepost.policy.engine import Engine, Facts, Mode
from gatepost.policy.masquerade import NAME as MASQUERADE
from gatepost.policy.masquerade import SUSPENDED, MasqueradeGuard, rests_on_address
from gatepost.policy.rates import NAME as RATE
from gatepost.policy.rates import TOO_MANY, RuleRates
from gatepost.policy.record import (
    FORM,
    MAX_RECIPIENTS,
    MAX_TEXT,
    FactRecord,
    RecordedRecipient,
    encode_records,
    hash_address,
)
from gatepost.policy.verdict import Verdict

BATCH = 64  # records; a batch goes to the queue when it is full, and once a second


class Judgement:
    """Of one receiver. `event` tells the log; `send` gets batches of records."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        *,
        event: Callable[..., None],
        send: Callable[[bytes], None],
        now_s: Callable[[], float],
        kind_of: Callable[[str], str] = lambda address: "",
        key: bytes = b"",
    ) -> None:
        self._engine = engine
        self._event = event
        self._send = send
        self._now_s = now_s
        self._key = key if config.facts.hash_addresses else b""
        self._records: list[FactRecord] = []
        self._is_recording = config.facts.keep_bytes > 0
        self._rates = RuleRates(engine.rules.rules, config.processes.receivers)
        self._rate_mode = Mode(config.policy.checks.get(RATE, "enforce"))
        self._guard_mode = Mode(config.policy.checks.get(MASQUERADE, "enforce"))
        self._guard = MasqueradeGuard(config.policy, frozenset(config.domains), kind_of)

    # --- decisions --------------------------------------------------------------------------------------------------

    def begin_mail(self, facts: Facts, reverse_path: str) -> None:
        """A new mail transaction."""
        if facts.record is not None:
            self.end_mail(facts)
        facts.reverse_path = reverse_path
        facts.rewritten_path = ""
        facts.refused = None
        facts.now_s = now_s = self._now_s()
        if self._is_recording:
            facts.record = FactRecord(facts.session_id, "", now_s, facts.client_address, has_mail=True)

    def decide_rcpt(self, facts: Facts, address: Address) -> Verdict:
        """The verdict on a recipient; shadow verdicts are told, and everything is recorded."""
        verdict = self._engine.decide_rcpt(facts, address)
        if not verdict.code and verdict.route is not None and not verdict.route.ours:
            verdict = self._limit(facts, verdict)
        if facts.shadows is not None:
            self._tell_shadows(facts, address)
        record = facts.record
        if record is not None:
            self._note(record, address, verdict)
        return verdict

    def _limit(self, facts: Facts, verdict: Verdict) -> Verdict:
        """What a right to relay is subject to."""
        now_s = self._now_s()
        rule = verdict.rule
        if rule and self._rate_mode is not Mode.OFF and not self._rates.take(rule, now_s):
            if self._rate_mode is Mode.ENFORCE:
                return TOO_MANY
            _shadow(facts, TOO_MANY)
        if self._guard_mode is Mode.OFF or not rests_on_address(verdict):
            return verdict
        if rule and self._engine.rules.by_name[rule].expect_many:
            return verdict
        guard, address = self._guard, facts.client_address
        if not guard.is_suspended(address, now_s):
            found = guard.observe(address, facts.helo, facts.reverse_path, now_s)
            if found is None:
                return verdict
            self._event(
                "trust_suspended",
                session=facts.session_id,
                address=address,
                mode=self._guard_mode.value,
                kind=found.kind,
                names=found.names,
                senders=found.senders,
                until=found.until_s,
                advice=found.advice,
            )
        if self._guard_mode is Mode.ENFORCE:
            return SUSPENDED
        _shadow(facts, SUSPENDED)
        return verdict

    def _tell_shadows(self, facts: Facts, address: Address) -> None:
        shadows, facts.shadows = facts.shadows, None
        for shadow in shadows or ():
            self._event(
                "shadow",
                session=facts.session_id,
                address=facts.client_address,
                check=shadow.check,
                rule=shadow.rule,
                reverse_path=facts.reverse_path,
                recipient=address.text,
                code=shadow.code,
                status=shadow.status,
                text=shadow.text,
                next_hop=shadow.route.next_hop if shadow.route is not None else "",
            )

    # --- records ----------------------------------------------------------------------------------------------------

    def _note(self, record: FactRecord, address: Address, verdict: Verdict) -> None:
        recipients = record.recipients
        if len(recipients) == MAX_RECIPIENTS:
            record.more += 1
            return
        text = self._path(address.text)
        route = verdict.route
        recipient = RecordedRecipient(
            text,
            verdict.code,
            verdict.detail,
            verdict.text,
            verdict.check,
            route.next_hop if route is not None else "",
            verdict.permit,
            self._path(route.address) if route is not None and route.address else "",
        )
        if recipients:
            recipients.append(recipient)
        else:
            record.recipients = [recipient]

    def _path(self, text: str) -> str:
        return hash_address(text, self._key) if self._key else text

    def note_fault(self, facts: Facts | None, text: str) -> None:
        """Something other than a recipient was refused."""
        if not self._is_recording or facts is None:
            return
        if facts.record is None:
            facts.record = FactRecord(facts.session_id, "", self._now_s(), facts.client_address)
        facts.record.fault = text[:MAX_TEXT]

    def end_mail(self, facts: Facts, message_id: str = "", size_bytes: int = 0) -> None:
        """A transaction has ended; without a message id nothing was accepted."""
        record = facts.record
        if record is None:
            return
        facts.record = None
        facts.is_recorded = True
        self._fill(record, facts)
        record.id = message_id
        record.size_bytes = size_bytes
        self._keep(record)

    def end_session(self, facts: Facts | None) -> None:
        """A connection has ended; one without any transaction gets a record of its own."""
        if not self._is_recording or facts is None:
            return
        if facts.record is None:
            if facts.is_recorded:
                return
            facts.record = FactRecord(facts.session_id, "", self._now_s(), facts.client_address)
        self.end_mail(facts)

    def _fill(self, record: FactRecord, facts: Facts) -> None:
        record.local = facts.local_address
        record.helo = facts.helo[:MAX_TEXT]
        record.names = facts.client_names
        record.identity = facts.identity
        record.certificate = facts.certificate
        record.by_lmtp = facts.by_lmtp
        record.tls = _without_addresses(facts.tls) if self._key else facts.tls
        if record.has_mail:
            record.reverse_path = self._path(facts.reverse_path)
            path = facts.rewritten_path
            record.rewritten_path = path if path.startswith("srs:") else self._path(path)
            record.form = FORM
        if facts.refused is not None:
            record.refused, record.fault = facts.refused[0], facts.refused[1][:MAX_TEXT]

    def _keep(self, record: FactRecord) -> None:
        self._records.append(record)
        if len(self._records) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Send what has gathered."""
        if self._records:
            records, self._records = self._records, []
            self._send(encode_records(records))


def _without_addresses(peer: TlsPeer | None) -> TlsPeer | None:
    """What may be recorded where addresses are hashed: no name of a certificate that holds one."""
    if peer is None or "@" not in peer.common_name + peer.subject:
        return peer
    return msgspec.structs.replace(peer, common_name="", subject="")


def _shadow(facts: Facts, verdict: Verdict) -> None:
    if facts.shadows is None:
        facts.shadows = []
    facts.shadows.append(verdict)
