"""Failed, expired and late recipients: DSNs are built, routed and spooled like any message, deadlines are kept.

A DSN is durable before the message it is about is forgotten. What happens between is seen at recovery: the spool reports which
failed recipients were in no DSN yet.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from gatepost.config.nexthop import POOL
from gatepost.config.schema import Domain
from gatepost.config.sources import source_of
from gatepost.mail.header import TraceBuilder, split_header
from gatepost.model import Address, Envelope, Outcome, Recipient, Result, by_sender
from gatepost.queue import deadlines
from gatepost.queue.bounce import build_dsn, is_success_told, suppressed_by
from gatepost.roles.ids import IdMaker
from gatepost.roles.unspooled import MAX_SUCCESSES, Unspooled
from gatepost.routing.route import Refusal, Route
from gatepost.routing.router import Router
from gatepost.spool.entry import Entry, State
from gatepost.spool.errors import SpoolError

if TYPE_CHECKING:
    from gatepost.roles.queue import Queue

FINAL = ("lmtp:", "maildir:")  # next hops that are the last
HEADER_READ_BYTES = 64 * 1024
FULL_RETURN_BYTES = 50 * 1024
_USES = ("routes", "virtual", "aliases")
AGAIN_S = 60.0  # a deadline that cannot be dealt with now (an attempt is under way, the spool is full) comes again


class Notices:
    """The queue role's dealings with senders."""

    def __init__(self, queue: Queue, new_id: IdMaker) -> None:
        self._queue = queue
        self._new_id = new_id
        self.now_s = time.time
        self._unspooled = Unspooled(queue.loop.call_later)
        self.reconfigure()

    def reconfigure(self) -> None:
        config = self._queue.config
        domains = {name: _without_tables(domain) for name, domain in config.domains.items()}
        in_files = {
            use: [name for name in getattr(config, use) if source_of(name, config.sources) is None] for use in _USES
        }
        known = msgspec.structs.replace(config, domains=domains, sender_routes=[], **in_files)
        plain = msgspec.structs.replace(config, domains=domains, sender_routes=[], **{use: [] for use in _USES})
        self._routers = [Router(one) for one in (config, known, plain)]
        self._trace = TraceBuilder(self._queue.config.hostname)

    def route(self, address: Address) -> Route | Refusal:
        """Where mail of our own to an address goes."""
        # a table that the queue cannot ask: as those in files say, and at last by the domain
        for router in self._routers:
            found = router.resolve(address)
            if not isinstance(found, Refusal) or found.code >= 500:
                break
        return found

    def enter_when_durable(self, notice: Entry) -> None:
        """Have mail of our own delivered from the next commit on, unless the operator removes it before."""
        queue = self._queue

        def enter() -> None:
            if queue.spool.entries.get(notice.id) is notice:
                queue.enter(notice)

        queue.commit_soon(enter)

    # --- deadlines --------------------------------------------------------------------------------------------------

    def next_deadline_s(self, entry: Entry, envelope: Envelope) -> float:
        """When the sender is to be told next, or the message expires."""
        config = self._queue.config.queue
        expires_s = deadlines.expires_at(entry.begun_s, envelope, config)
        if not entry.delay_notified:
            notice_s = deadlines.delay_notice_at(entry.begun_s, envelope, config)
            if notice_s is not None:
                return min(notice_s, expires_s)
        return expires_s

    def deadline(self, entry: Entry, now_s: float) -> None:
        """A deadline has come: a delay notice is due, or the message expires."""
        queue = self._queue
        envelope = entry.envelope
        if entry.held:
            return  # it does not age; its release sets the next
        if now_s >= deadlines.expires_at(entry.begun_s, envelope, queue.config.queue):
            self._expire(entry, envelope, now_s)
            return
        is_due = not entry.delay_notified and entry.pending
        if is_due and not self._notify_delay(entry, envelope, now_s):
            queue.deadlines.set(entry.id, now_s + AGAIN_S)
            return
        queue.deadlines.set(entry.id, self.next_deadline_s(entry, envelope))

    def _expire(self, entry: Entry, envelope: Envelope, now_s: float) -> None:
        queue = self._queue
        under_way = queue.hands.is_under_way(entry)
        expired = [index for index in entry.waiting() if index not in under_way]
        if under_way:
            queue.deadlines.set(entry.id, now_s + AGAIN_S)
        if not expired:
            return
        queue.spool.settle(entry, expired, State.EXPIRED)
        for next_hop in {envelope.recipients[index].next_hop for index in expired}:
            queue.scheduler.remove(entry.id, next_hop)
        for index in expired:
            last = entry.last_of(index)
            queue.event(
                "expired",
                id=entry.id,
                session=envelope.session_id,
                recipient=envelope.recipients[index].address,
                reverse_path=envelope.reverse_path,
                status=last.status if last else "4.4.7",
                text=last.text if last else "",
                attempts=entry.attempts,
                delay_s=round(now_s - entry.received_s, 3),
            )
        self.bounce_unreported(entry)

    def _notify_delay(self, entry: Entry, envelope: Envelope, now_s: float) -> bool:
        """False: it could not be spooled now."""
        queue = self._queue
        rows = []
        for index in entry.waiting():
            outcome = entry.last_of(index)
            if outcome is None:  # never attempted: its next hop is down
                reason = queue.scheduler.reason(envelope.recipients[index].next_hop) or "its next hop does not answer"
                outcome = Outcome(index, Result.DEFERRED, "connect", 0, "4.4.1", reason)
            if not suppressed_by("delayed", envelope, envelope.recipients[index]):
                rows.append((envelope.recipients[index], outcome))
        for group in _by_owner(rows):
            try:
                notice = self._spool_dsn("delayed", entry, envelope, group, (), now_s)
            except SpoolError as error:
                queue.event("error", where="dsn", id=entry.id, reason=str(error))
                return False
            if notice is not None:
                delay_s = round(now_s - entry.received_s)
                queue.event("delay_notice", id=entry.id, recipients=len(group), dsn=notice.id, delay_s=delay_s)
                self.enter_when_durable(notice)
        queue.spool.mark_delay_notified(entry)
        return True

    # --- success ----------------------------------------------------------------------------------------------------

    def report_success(self, entry: Entry, envelope: Envelope, next_hop: str, outcomes: Sequence[Outcome]) -> None:
        """Tell a sender who asked for it that the message has arrived, or has gone where nobody will tell (RFC 3461 5.2.2).

        Called before the outcomes are recorded, which are durable only behind the notice: after a crash between the two the message
        is delivered, and told of, once more.
        """
        queue = self._queue
        if next_hop.startswith(POOL):
            pool = queue.config.pools.get(next_hop.removeprefix(POOL))
            next_hop = pool.members[0].next_hop if pool is not None and pool.members else ""
        kind = "delivered" if next_hop.startswith(FINAL) else "relayed"
        rows = []
        for outcome in outcomes:
            recipient = envelope.recipients[outcome.recipient]
            if outcome.result is not Result.DELIVERED or not is_success_told(kind, envelope, recipient, outcome):
                continue
            if outcome.stage == "maildir":  # where the file lies is nobody's business
                outcome = Outcome(
                    outcome.recipient, outcome.result, "maildir", 0, outcome.status, "stored in the mailbox"
                )
            rows.append((recipient, outcome))
        for group in _by_owner(rows):
            notice = self._build_dsn(kind, entry, envelope, group, self.now_s())
            if (
                notice is not None
                and not self._store_success(kind, entry, notice, len(group))
                and len(self._unspooled) < MAX_SUCCESSES
            ):
                again = partial(self._store_success, kind, entry, notice, len(group))
                self._unspooled.add(notice[0].id, again)  # no room for it: the message has arrived all the same

    def _store_success(self, kind: str, entry: Entry, notice: tuple[Envelope, list[bytes]], rows: int) -> bool:
        try:
            stored = self._store_dsn(kind, entry, notice, rows, ())
        except SpoolError as error:
            self._queue.event("error", where="dsn", id=entry.id, reason=str(error))
            return False
        self.enter_when_durable(stored)
        return True

    @property
    def waiting(self) -> int:
        """Notices that the disk had no room for yet; those of success are nowhere else."""
        return len(self._unspooled)

    def store_rest(self) -> None:
        """The role ends: what waits for room gets its last chance."""
        if left := self._unspooled.try_all():
            reason = f"{left} notices found no room before the end; those of success are lost"
            self._queue.event("error", where="dsn", reason=reason)

    # --- failures ---------------------------------------------------------------------------------------------------

    def fail_damaged(self, entry: Entry, reason: str) -> None:
        """The content is not what was stored: nobody may get it, and the sender is told."""
        queue = self._queue
        if queue.spool.entries.get(entry.id) is not entry:
            return  # it was settled while its content was looked at
        pending = list(entry.waiting())
        outcomes = [
            Outcome(index, Result.FAILED, "spool", 0, "5.3.0", f"message damaged: {reason}") for index in pending
        ]
        queue.spool.record(entry, outcomes, 0.0)
        queue.unschedule(entry)
        queue.report_damage()
        self.bounce_unreported(entry)

    def bounce_unreported(self, entry: Entry) -> None:
        """Spool the DSN about the recipients that failed or expired and are in none yet; then the message may go."""
        if not self._bounce(entry):
            self._unspooled.add(entry.id, lambda: self._bounce(entry))

    def _bounce(self, entry: Entry) -> bool:
        """False: there is no room for it now. The message stays until there is."""
        queue = self._queue
        if queue.spool.entries.get(entry.id) is not entry:
            return True
        envelope = entry.envelope
        now_s = self.now_s()
        for state, kind in ((State.FAILED, "failed"), (State.EXPIRED, "expired")):
            indices = [index for index in entry.unreported() if entry.states[index] == state]
            if not indices:
                continue
            told = []
            silent = []
            for index in indices:
                recipient = envelope.recipients[index]
                why = suppressed_by(kind, envelope, recipient)
                if why:
                    silent.append(index)
                    queue.event("dsn_suppressed", id=entry.id, kind=kind, recipient=recipient.address, cause=why)
                else:
                    told.append(index)
            if silent:
                queue.spool.mark_reported(entry, silent)
            for group in by_sender(envelope, told) if told else ():  # the owner of a list is told of its members
                rows = [(envelope.recipients[index], self._outcome(entry, index)) for index in group]
                try:
                    notice = self._spool_dsn(kind, entry, envelope, rows, group, now_s)
                except SpoolError as error:
                    queue.event("error", where="dsn", id=entry.id, reason=str(error))
                    return False
                if notice is not None:
                    self.enter_when_durable(notice)
        queue.commit_soon(lambda: queue.finish(entry))
        queue.dispatch_soon()
        return True

    def _outcome(self, entry: Entry, index: int) -> Outcome:
        last = entry.last_of(index)
        return last or Outcome(index, Result.FAILED, "queue", 0, "5.4.7", "delivery time expired")

    def _spool_dsn(
        self,
        kind: str,
        entry: Entry,
        envelope: Envelope,
        rows: list[tuple[Recipient, Outcome]],
        about: tuple[int, ...] | list[int],
        now_s: float,
    ) -> Entry | None:
        """Spool the DSN; None if there is nobody to tell. Raises SpoolError if it cannot be stored now."""
        notice = self._build_dsn(kind, entry, envelope, rows, now_s)
        if notice is not None:
            return self._store_dsn(kind, entry, notice, len(rows), about)
        if about:
            self._queue.spool.mark_reported(entry, list(about))
        return None

    def _build_dsn(
        self, kind: str, entry: Entry, envelope: Envelope, rows: list[tuple[Recipient, Outcome]], now_s: float
    ) -> tuple[Envelope, list[bytes]] | None:
        """Its envelope with its route, and its content; None if there is nobody to tell."""
        queue = self._queue
        owner = rows[0][0].reverse_path
        if owner:
            envelope = msgspec.structs.replace(envelope, reverse_path=owner, bounce_to="")
        header, content = self._original(entry, envelope)
        dsn_envelope, chunks = build_dsn(
            kind,
            envelope,
            rows,
            hostname=queue.config.hostname,
            original_header=header,
            original_content=content,
            now_s=now_s,
            message_id=self._new_id(),
            retry_until_s=deadlines.expires_at(entry.begun_s, envelope, queue.config.queue),
        )
        recipient = dsn_envelope.recipients[0]
        route = self.route(Address(recipient.address, recipient.address.rpartition("@")[0], recipient.domain))
        if isinstance(route, Refusal):
            # The sender's own address is of ours and does not exist: nobody to tell.
            queue.event("dsn_suppressed", id=entry.id, kind=kind, recipient=recipient.address, cause=route.text)
            return None
        lead(dsn_envelope, route)
        return dsn_envelope, chunks

    def _store_dsn(
        self,
        kind: str,
        entry: Entry,
        built: tuple[Envelope, list[bytes]],
        rows: int,
        about: tuple[int, ...] | list[int],
    ) -> Entry:
        queue = self._queue
        envelope, chunks = built
        is_awaited = about or kind != "delayed"  # the line that says it is settled waits for the notice
        notice = queue.spool.store(envelope, chunks, entry if is_awaited else None, about)
        queue.event(
            "dsn_created",
            id=notice.id,
            about=entry.id,
            kind=kind,
            recipient=envelope.recipients[0].address,
            recipients=rows,
            bytes=sum(len(chunk) for chunk in chunks),
        )
        return notice

    def _original(self, entry: Entry, envelope: Envelope) -> tuple[bytes, bytes | None]:
        """The header of the message, and all of it if the sender wants it back and it is small."""
        try:
            source = self._queue.spool.source(entry)
            count = source.content_bytes if source.content_bytes <= FULL_RETURN_BYTES else HEADER_READ_BYTES
            content = os.pread(source.fd, min(count, source.content_bytes), source.content_offset)
        except (SpoolError, OSError):
            return b"", None
        header, _ = split_header(content)
        return header, content if len(content) == source.content_bytes else None


def lead(envelope: Envelope, route: Route) -> None:
    """Put the route of the one recipient into an envelope of ours: it may stand for others, and be held."""
    recipient = envelope.recipients[0]
    recipient.next_hop, recipient.address = route.next_hop, route.address or recipient.address
    envelope.hold = route.hold
    if route.expansion is not None:
        envelope.recipients = [
            Recipient(one.address, one.domain, one.next_hop, recipient.notify) for one in route.expansion.routes
        ]


def _without_tables(domain: Domain) -> Domain:
    """A domain of ours, everybody in which exists as far as tables would have to tell."""
    asks = any(":" in entry for entry in domain.recipients or ())
    return msgspec.structs.replace(domain, recipients=None) if asks else domain


def _by_owner(rows: list[tuple[Recipient, Outcome]]) -> list[list[tuple[Recipient, Outcome]]]:
    """What goes into one DSN: recipients with the same reverse-path."""
    groups: dict[str, list[tuple[Recipient, Outcome]]] = {}
    for row in rows:
        groups.setdefault(row[0].reverse_path, []).append(row)
    return list(groups.values())
