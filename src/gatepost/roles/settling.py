"""The events of an attempt's outcomes: one line for each recipient, with the remote reply verbatim."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gatepost.config.nexthop import DISCARD
from gatepost.model import Envelope, Outcome, Result
from gatepost.spool.entry import Entry, State

if TYPE_CHECKING:
    from gatepost.roles.queue import Queue

_EVENTS = {Result.DELIVERED: "delivered", Result.DEFERRED: "deferred", Result.FAILED: "bounced"}
_COUNTS = {Result.DELIVERED: "delivered", Result.DEFERRED: "deferred", Result.FAILED: "failed"}


def log_outcomes(
    queue: Queue,
    entry: Entry,
    envelope: Envelope,
    next_hop: str,
    outcomes: Sequence[Outcome],
    retry_at_s: float | None,
    now_s: float,
) -> None:
    """Write the events and count."""
    for outcome in outcomes:
        result = Result(outcome.result)
        queue.counts[_COUNTS[result]] += 1
        fields = {"retry_at": timestamp(retry_at_s)} if result is Result.DEFERRED and retry_at_s else {}
        queue.event(
            _EVENTS[result],
            id=entry.id,
            session=envelope.session_id,
            recipient=envelope.recipients[outcome.recipient].address,
            reverse_path=envelope.recipients[outcome.recipient].reverse_path or envelope.reverse_path,
            next_hop=next_hop,
            host=outcome.host,
            stage=outcome.stage,
            code=outcome.code,
            status=outcome.status,
            text=outcome.text,
            attempts=entry.attempts,
            delay_s=round(now_s - entry.received_s, 3),
            **fields,
        )


def drop(queue: Queue, entry: Entry) -> None:
    """Settle the recipients whose mail a rule drops; they were accepted, and the ledger has them as discarded."""
    recipients = entry.envelope.recipients
    dropped = [index for index in entry.waiting() if recipients[index].next_hop == DISCARD]
    if dropped:
        queue.spool.settle(entry, dropped, State.DISCARDED)
    for index in dropped:
        queue.event("discarded", id=entry.id, recipient=recipients[index].address, rule=entry.envelope.permit)


def tell_held(queue: Queue, entry: Entry) -> None:
    """A message that waits for the operator; told when it comes, and again at each start."""
    envelope = entry.envelope
    if entry.refused:
        queue.next_hops.tell(entry)
    elif envelope.hold:
        queue.event(
            "held", id=entry.id, session=envelope.session_id, reverse_path=envelope.reverse_path, reason=envelope.hold
        )


def timestamp(at_s: float) -> str:
    """RFC 3339 in UTC."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
