"""What is under way: a job is one attempt of the queue, a work one mail transaction for some of its recipients.

Plain bookkeeping; who connects where is `pool.py`. Invariant: a job is done when each of its recipients has an outcome.
"""

from __future__ import annotations

from collections.abc import Callable

from gatepost.ipc.messages import Attempt
from gatepost.model import Envelope, NextHopTrouble, Outcome
from gatepost.smtp.asked import Asked
from gatepost.smtp.client import Transaction
from gatepost.smtp.limits import Limits

Read = Callable[[int, int, int], bytes]  # source, offset, count


def build_asked(envelope: Envelope, indices: list[int]) -> Asked | None:
    """What the sender asked for these recipients; None is nothing, as nearly always."""
    recipients = envelope.recipients
    notify = [recipients[index].notify for index in indices]
    originals = [recipients[index].original for index in indices]
    is_asked = envelope.ret or envelope.envelope_id or envelope.requiretls or envelope.priority or envelope.deliver_by
    if not is_asked and not any(notify) and not any(originals):
        return None
    return Asked(
        envelope.ret,
        envelope.envelope_id,
        notify,
        originals,
        requiretls=envelope.requiretls,
        priority=envelope.priority,
        deliver_by=envelope.deliver_by,
        deliver_by_s=envelope.deliver_by_s,
    )


class Job:
    """One attempt until all its recipients have an outcome."""

    __slots__ = ("attempt", "missing", "outcomes", "read", "reused", "started_s", "trouble")

    def __init__(self, attempt: Attempt, read: Read, started_s: float) -> None:
        self.attempt = attempt
        self.read = read
        self.started_s = started_s
        self.missing = len(attempt.recipients)
        self.outcomes: list[Outcome] = []
        self.trouble = NextHopTrouble.NONE
        self.reused = False


class Work(Transaction):
    """One mail transaction of a job.

    `indices` are its recipients in the envelope. `reused` says that it went over a kept connection, `retried` that it has
    already met a stale one. `tried` are the (address, port) where it failed, `fallback` the outcomes of that failure, `members`
    the members of a pool that had it.
    """

    __slots__ = ("fallback", "indices", "job", "members", "retried", "reused", "tried")

    def __init__(self, job: Job, indices: list[int]) -> None:
        attempt = job.attempt
        envelope = attempt.envelope
        recipients = envelope.recipients
        super().__init__(
            recipients[indices[0]].reverse_path or envelope.reverse_path,
            [recipients[index].address for index in indices],
            attempt.content_bytes,
            body_type=envelope.body_type,
            has_8bit=envelope.has_8bit,
            smtputf8=envelope.smtputf8,
            ascii_header=envelope.ascii_header,
        )
        self.asked = build_asked(envelope, indices)
        self.job = job
        self.indices = indices
        self.reused = False
        self.retried = False
        self.tried: tuple[tuple[str, int], ...] = ()
        self.fallback: list[Outcome] = []
        self.members: tuple[str, ...] = ()

    def read(self, offset: int, count: int) -> bytes:
        """A block of the content, from the descriptor of its source."""
        attempt = self.job.attempt
        return self.job.read(attempt.source, attempt.content_offset + offset, count)

    def again(self, indices: list[int] | None = None) -> Work:
        """A new transaction for the same recipients, or for some of them, with the same history."""
        work = Work(self.job, self.indices if indices is None else indices)
        work.retried = self.retried
        work.tried = self.tried
        work.fallback = self.fallback
        if indices is not None and work.fallback:
            work.fallback = [outcome for outcome in work.fallback if outcome.recipient in indices]
        work.members = self.members
        return work

    def split(self, limits: Limits) -> tuple[Work, Work | None]:
        """What a host with these limits takes at once, and the rest."""
        recipients = self.job.attempt.envelope.recipients
        count = limits.count_fitting([recipients[index].domain for index in self.indices])
        if count == len(self.indices):
            return self, None
        return self.again(self.indices[:count]), self.again(self.indices[count:])
