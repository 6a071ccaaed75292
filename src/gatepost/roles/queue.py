"""The queue role: the only one that has the spool. Takes over what receivers made durable, hands out attempts, settles outcomes.

It parses nothing of a message but the header it returns in a DSN. Decisions about when and how much are `queue/scheduler.py`'s,
durability is the spool's; here they are joined to the links. Slow calls of the spool run in one worker thread.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from gatepost.config.encoded import decode_config
from gatepost.config.nexthop import DISCARD
from gatepost.config.schema import Config
from gatepost.events import EventLog
from gatepost.ipc import messages as m
from gatepost.ipc.wire import Channel
from gatepost.model import NextHopTrouble
from gatepost.queue import backoff
from gatepost.queue.deadlines import begins_at, expires_at
from gatepost.queue.scheduler import Item, Scheduler
from gatepost.roles.claims import Handler, checked
from gatepost.roles.committing import Commits
from gatepost.roles.hands import Hands, Job, outcomes_of
from gatepost.roles.ids import NOTICES, IdMaker
from gatepost.roles.keeping import Keeping
from gatepost.roles.nexthops import NextHops
from gatepost.roles.notices import Notices
from gatepost.roles.operator import answer_operator
from gatepost.roles.remembering import Remembering
from gatepost.roles.settling import drop, log_outcomes, tell_held
from gatepost.roles.skeleton import Peer, Role
from gatepost.roles.tlsreports import TlsReports
from gatepost.roles.worker import Worker
from gatepost.spool.embedded import JournalSpool
from gatepost.spool.entry import Entry
from gatepost.spool.errors import AlreadyGone, MessageDamaged, SpoolError
from gatepost.spool.factring import FactRing
from gatepost.spool.layout import close_anyway

TICK_S = 1.0
MAX_OUTSTANDING = 2000  # attempts with all deliverers
DEFER_BATCH = 100  # with two fsyncs for each; what waits behind it (a commit, a new segment) waits that long
RETRY_S = 0.25
RETRY_UNREADABLE_S = 5.0  # its file cannot be opened or read at the moment
# stages at which the next hop had not seen it
NOT_THE_MESSAGES_FAULT = frozenset({"connect", "greeting", "helo", "auth", "mx"})


class Queue(Role):
    """See the module."""

    def __init__(self, start: m.Start, config: Config, descriptors: list[int], log: EventLog, loop: Any) -> None:
        super().__init__(start, config, descriptors, log, loop)
        self.rng = random.Random()
        self.spool = JournalSpool(".", config=config.queue)
        self.next_hops = NextHops(self, int(start.extra.get("generation", "1")), config)
        self.facts = FactRing(".", config.facts.keep_bytes, config.facts.keep_days)
        self.scheduler = Scheduler(config.queue, config.delivery, self.rng)
        self.deadlines = backoff.Deadlines()
        self.hands = Hands(self)
        self.remembering: Remembering = Remembering(self)
        self.notices = Notices(self, IdMaker(0, NOTICES))
        self.worker = Worker(loop)
        self.keeping: Keeping = Keeping(self)
        self.reports: TlsReports = TlsReports(self)
        self.owners: dict[Peer, str] = {}
        self.commits = Commits(self)
        self._dispatch_scheduled = False
        self._wake: Any = None
        self._wake_at_s = float("inf")
        self._deferring = False
        self._health: tuple[bool, str] = (True, "")
        self._files_trouble = ""  # why the last files for a receiver could not be made
        self._is_draining = False
        self.counts = {"attempts": 0, "delivered": 0, "deferred": 0, "failed": 0}

    # --- start ------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Recover the spool; receivers that died while there was no queue are settled at once."""
        recovery = self.spool.recover()
        self.worker.start()
        self.keeping.begin()
        self.remembering.begin()
        self.reports.begin()
        self.event(
            "recovered",
            messages=recovery.live,
            recipients=sum(entry.pending for entry in self.spool.entries.values()),
            deferred=recovery.deferred,
            damaged=len(recovery.damage),
            seconds=round(recovery.seconds, 3),
        )
        self.spool.damage[:0] = recovery.damage
        self.report_damage()
        for entry in list(self.spool.entries.values()):  # some are finished by it
            self.enter(entry)
        for key in recovery.unreported:
            if silent := self.spool.entries.get(key):
                self.notices.bounce_unreported(silent)
        living = set(self.start.extra.get("receivers", "").split())
        for owner in recovery.owners:
            if owner not in living:
                self.owner_gone(owner)
        self.loop.call_later(TICK_S, self._tick)

    def report_damage(self) -> None:
        """Tell what the spool found damaged since the last call, and where it keeps the octets."""
        with self.spool.lock:
            reports, self.spool.damage = self.spool.damage, []
        for report in reports:
            self.event("damaged", file=report.where, reason=report.reason, kept_as=report.kept_as, id=report.message_id)

    def enter(self, entry: Entry) -> None:
        """Put an entry's waiting recipients into the scheduler, one item for each next hop."""
        if entry.held or not entry.pending:
            if not entry.pending and not entry.unreported():
                self.finish(entry)
            elif entry.held:
                tell_held(self, entry)
            return
        envelope = entry.envelope
        if DISCARD in [recipient.next_hop for recipient in envelope.recipients]:
            drop(self, entry)
            if not entry.pending:
                self.finish(entry)
                return
        due_s = max(entry.next_due_s, envelope.release_s)
        add, rank = self.scheduler.add, envelope.priority
        if len(envelope.recipients) == 1:
            add(entry.id, envelope.recipients[0].next_hop, due_s, 0, rank)
        else:
            for next_hop in {envelope.recipients[i].next_hop for i in entry.waiting()}:
                add(entry.id, next_hop, due_s, 0, rank)
        self.deadlines.set(entry.id, self.notices.next_deadline_s(entry, envelope))

    # --- links ------------------------------------------------------------------------------------------------------

    def on_link(self, channel: Channel) -> None:
        role = channel.peer[0]
        if role == "receiver":
            self.next_hops.joined(channel.peer)
            self.owners.pop(channel.peer, None)  # until it says what it holds: files of now would be taken for old ones
            channel.post(m.SpoolHealth(*self._health))
        elif role in ("deliverer", "maildir"):
            if role == "deliverer":
                self.remembering.joined(channel)
            self.hands.joined(channel)
            self.dispatch_soon()
        elif role == "resolver":
            self.keeping.linked(channel)

    def on_link_lost(self, peer: Peer) -> None:
        if peer[0] in ("deliverer", "maildir"):
            self.hands.left(peer)
            self.dispatch_soon()

    def on_supervisor(self, message: m.Message, descriptors: list[int]) -> None:
        if type(message) is m.PeerGone and message.role == "receiver":
            name, gone = f"receiver/{message.instance}/{message.generation}", self.next_hops.gone
            self.owner_gone(f"{name}/{message.pid}", partial(gone, message.instance, message.generation))
        elif type(message) is m.OldGeneration:
            self.next_hops.add_older(message)
        elif type(message) is m.Reconfigure:
            self.config = decode_config(message.config)
            self.next_hops.begin(message.generation, self.config)
            self.scheduler.reconfigure(self.config.queue, self.config.delivery)
            self.spool.reconfigure(self.config.queue)
            self.facts.reconfigure(self.config.facts.keep_bytes, self.config.facts.keep_days)
            self.notices.reconfigure()
            self.keeping.reconfigure()
            self.remembering.reconfigure()
            close_anyway(self.log.replace(descriptors[0]))

    def handle(self, channel: Channel, message: m.Message, descriptors: list[int]) -> None:
        _HANDLERS[type(message)](self, channel, message)

    def _on_holding(self, channel: Channel, message: m.Holding) -> None:
        self.owners[channel.peer] = message.owner

        def failed(error: Exception) -> None:
            self.on_trouble(error)
            channel.lost()  # it comes again, and with it the next try: until then it must not get new files

        # What it had from before it has given up.
        self.worker.call(lambda: self.spool.owner_gone(message.owner), self._take_over, failed)

    def _on_need_segment(self, channel: Channel, message: m.NeedSegment) -> None:
        owner = self.owners.get(channel.peer)
        if owner is None:
            return  # it asks again behind its Holding

        def opened(result: tuple[int, int]) -> None:
            channel.post(m.SegmentOpened(result[0]), [result[1]])
            close_anyway(result[1])

        self._make_files(channel, lambda: self.spool.new_segment(owner), opened)

    def _on_need_body_files(self, channel: Channel, message: m.NeedBodyFiles) -> None:
        owner = self.owners.get(channel.peer)
        if owner is None:
            return

        def opened(result: list[tuple[int, int]]) -> None:
            channel.post(m.BodyFilesOpened([number for number, _ in result]), [descriptor for _, descriptor in result])
            for _, descriptor in result:
                close_anyway(descriptor)

        count = max(1, min(message.count, 100))
        self._make_files(channel, lambda: self.spool.new_body_files(count, owner), opened)

    def _make_files(self, channel: Channel, make: Callable[[], Any], give: Callable[[Any], None]) -> None:
        """Have files made for a receiver. While the disk refuses no mail is accepted, and it is tried again and again."""

        def made(result: Any) -> None:
            give(result)
            if self._files_trouble:
                self._files_trouble = ""
                self._check_health()

        def refused(error: Exception) -> None:
            if channel.is_open:
                self._files_trouble = str(error)
                self.loop.call_later(RETRY_S, self._make_files, channel, make, give)
            self.on_trouble(error)

        if channel.is_open:
            self.worker.call(make, made, refused)

    def _on_sealed(self, channel: Channel, message: m.SegmentSealed) -> None:
        self._take_over(self.spool.seal(message.segment, message.length_bytes))

    def _on_accepted(self, channel: Channel, message: m.Accepted) -> None:
        try:
            entries = self.spool.take(message, self.owners.get(channel.peer))
        except SpoolError as error:  # a receiver that claims what it cannot have written is broken, or broken into
            self.event("error", where="queue", id=message.envelope.id, reason=str(error))
            channel.lost()
            return
        self._take_over(entries)

    def owner_gone(self, owner: str, then: Callable[[], None] | None = None) -> None:
        """Read what a receiver acknowledged and could not tell any more; it is dead. Tried until the disk lets it, then `then`."""

        def failed(error: Exception) -> None:
            self.on_trouble(error)
            self.loop.call_later(TICK_S, self.owner_gone, owner, then)

        self.worker.call(lambda: self.spool.owner_gone(owner), partial(self._take_over, then=then), failed)

    def _take_over(self, entries: list[Entry], then: Callable[[], None] | None = None) -> None:
        for entry in entries:
            self.enter(entry)
        if entries:
            self.commit_soon()
            self.dispatch_soon()
        if then is not None:
            then()

    def on_trouble(self, error: Exception) -> None:
        """The disk refused: say it, and look whether mail may still be taken."""
        self.event("error", where="spool", reason=str(error))
        self._check_health()

    # --- attempts ---------------------------------------------------------------------------------------------------

    def dispatch_soon(self) -> None:
        if not self._dispatch_scheduled:
            self._dispatch_scheduled = True
            self.loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._dispatch_scheduled = False
        if self._is_draining:
            return
        now_s = time.time()
        for item in self.scheduler.next_batch(now_s, MAX_OUTSTANDING - self.scheduler.active):
            self._attempt(item, now_s)
        self._set_wake(now_s)

    def _set_wake(self, now_s: float) -> None:
        wake_at_s = self.scheduler.wake_at()
        if wake_at_s is None or self.scheduler.active >= MAX_OUTSTANDING or wake_at_s >= self._wake_at_s:
            return
        if self._wake is not None:
            self._wake.cancel()
        self._wake_at_s = wake_at_s
        self._wake = self.loop.call_later(max(0.0, wake_at_s - now_s), self._woken)

    def _woken(self) -> None:
        self._wake, self._wake_at_s = None, float("inf")
        self._dispatch()

    def _attempt(self, item: Item, now_s: float) -> None:
        entry = self.spool.entries.get(item.key)
        if entry is None or entry.held:
            self.scheduler.finished(item.key, item.next_hop, None, None, now_s)
            return
        envelope = entry.envelope
        if envelope.release_s > now_s:  # RFC 4865: also where the operator says "now"
            self.scheduler.finished(item.key, item.next_hop, None, envelope.release_s, now_s)
            return
        recipients = [i for i in entry.waiting() if envelope.recipients[i].next_hop == item.next_hop]
        if not recipients:
            self.scheduler.finished(item.key, item.next_hop, None, None, now_s)
            return
        channel = self.hands.choose(item.next_hop)
        if channel is None:
            retry_at_s = now_s + self.hands.absent_s(item.next_hop)
            self.scheduler.finished(item.key, item.next_hop, None, retry_at_s, now_s)
            return
        try:
            source = self.spool.source(entry)
        except MessageDamaged as error:
            self.scheduler.finished(item.key, item.next_hop, None, None, now_s)
            self.notices.fail_damaged(entry, str(error))
            return
        except (AlreadyGone, SpoolError) as error:
            self.event("error", where="spool", id=item.key, reason=str(error))
            self.scheduler.finished(item.key, item.next_hop, None, now_s + RETRY_UNREADABLE_S, now_s)
            return
        self.hands.give(channel, Job(entry, item, recipients), source, envelope)

    def _on_attempt_done(self, channel: Channel, message: m.AttemptDone) -> None:
        job = self.hands.take_back(channel, message.job)
        if job is None:
            return  # it was given up with an older link
        entry, item = job.entry, job.item
        now_s = time.time()
        self.counts["attempts"] += 1
        envelope = entry.envelope
        retry_at_s = None
        outcomes = outcomes_of(job, message.outcomes)
        is_overdue = now_s >= expires_at(entry.begun_s, envelope, self.config.queue)
        if not is_overdue and (any(o.result == 2 for o in outcomes) or len(outcomes) < len(job.recipients)):
            if message.trouble and all(o.stage in NOT_THE_MESSAGES_FAULT for o in outcomes):
                retry_at_s = now_s  # the back-off of its next hop holds it
            else:
                begun_s = begins_at(entry.begun_s, envelope)
                retry_at_s = backoff.retry_at(begun_s, entry.attempts + 1, now_s, self.config.queue, self.rng)
        reason = outcomes[0].text if outcomes and message.trouble else ""
        if envelope.deliver_by or any(o.result == 1 and envelope.recipients[o.recipient].notify & 2 for o in outcomes):
            self.notices.report_success(entry, envelope, item.next_hop, outcomes)  # before it is on record as delivered
        try:
            self.spool.record(entry, outcomes, retry_at_s or 0.0)
        except AlreadyGone:
            retry_at_s = None
        self.scheduler.finished(item.key, item.next_hop, NextHopTrouble(message.trouble), retry_at_s, now_s, reason)
        log_outcomes(self, entry, envelope, item.next_hop, outcomes, retry_at_s, now_s)
        if any(o.result == 3 for o in outcomes):
            self.notices.bounce_unreported(entry)
        elif not entry.pending:
            self.finish(entry)
        if is_overdue and self.spool.entries.get(entry.id) is entry and entry.pending:
            self.notices.deadline(entry, now_s)  # it came while this attempt was under way, which was the last
        self.commit_soon()
        self.dispatch_soon()

    def finish(self, entry: Entry) -> None:
        """Every recipient is settled and told of: forget the message."""
        if self.spool.entries.get(entry.id) is entry and not entry.pending and not entry.unreported():
            self.deadlines.remove(entry.id)
            self.spool.finish(entry)
            self.commit_soon()
            self.hands.forget(self.spool.closed_sources())

    def unschedule(self, entry: Entry) -> None:
        """Take an entry's items out of the scheduler."""
        for next_hop in {r.next_hop for r in entry.envelope.recipients}:
            self.scheduler.remove(entry.id, next_hop)

    # --- durability -------------------------------------------------------------------------------------------------

    def commit_soon(self, then: Any = None) -> None:
        """Have the journal synced before long; `then` is called when that is done."""
        self.commits.soon(then)

    def committed(self) -> None:
        """The journal was synced: trouble may be over."""
        if self._health[1]:
            self._check_health()

    # --- once a second ----------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self.loop.call_later(TICK_S, self._tick)
        self._check_health()
        if self._health[1]:
            self.commit_soon()  # also a line that was refused outside of a commit is tried again
        self.report_damage()
        now_s = time.time()
        for key in self.deadlines.pop_due(now_s):
            if entry := self.spool.entries.get(key):
                self.notices.deadline(entry, now_s)
        self._defer_old()
        self.hands.forget(self.spool.closed_sources())
        self.dispatch_soon()

    @property
    def health(self) -> tuple[bool, str]:
        """Whether mail is taken, and why not."""
        return self._health

    def _check_health(self) -> None:
        reason = self.spool.health().reason or self._files_trouble
        if (not reason, reason) != self._health:
            self._health = (not reason, reason)
            self.event("queue_health", accepting=not reason, reason=reason)
            for channel in self.peers("receiver"):
                channel.post(m.SpoolHealth(*self._health))

    def _defer_old(self) -> None:
        """Move what has waited for some minutes out of the segments, a batch at a time."""
        if self._deferring or not (batch := self.spool.to_defer(DEFER_BATCH)):
            return
        self._deferring = True

        def moved(damaged: list[Entry]) -> None:
            self._deferring = False
            for entry in damaged:
                entry.verified = False
                with contextlib.suppress(SpoolError):
                    self.spool.source(entry)  # looks at it again, and puts its octets aside
                self.notices.fail_damaged(entry, "the stored content has not its checksum any more")
            self.commit_soon()
            if len(batch) == DEFER_BATCH:
                self._defer_old()

        def failed(error: Exception) -> None:
            self._deferring = False
            self.on_trouble(error)

        self.worker.call(lambda: self.spool.defer_to_file(batch), moved, failed)

    # --- operator and end -------------------------------------------------------------------------------------------

    def answer(self, what: str, arguments: dict[str, Any]) -> Any:
        return answer_operator(self, what, arguments)

    def drain(self, limit_s: float, end_sessions: bool) -> None:
        """Hand out nothing more, wait for what is under way and for the last words of the receivers, make the journal durable, go."""
        self._is_draining = True
        deadline_s = self.loop.time() + limit_s

        def check() -> None:
            # Receivers have ended before; the link of one is lost when all that it said is read.
            has_heard_all = self.hands.is_idle and not self.peers("receiver")
            if has_heard_all or self.loop.time() > deadline_s:
                self.notices.store_rest()
                self.keeping.close()
                self.remembering.flush()
                self.reports.close()
                self.worker.call(self.spool.close, lambda _: self.exit(), lambda _: self.exit(1))
            else:
                self.loop.call_later(0.02, check)

        check()


_HANDLERS: dict[type[m.Message], Handler] = {
    m.Holding: checked(Queue._on_holding),
    m.Facts: lambda queue, channel, message: queue.facts.append(message.records, time.time()),
    m.NeedSegment: Queue._on_need_segment,
    m.NeedBodyFiles: Queue._on_need_body_files,
    m.SegmentSealed: checked(Queue._on_sealed),
    m.BodyFileUnused: checked(lambda queue, channel, message: queue.spool.body_unused(message.number)),
    m.Accepted: checked(Queue._on_accepted),
    m.AttemptDone: Queue._on_attempt_done,
    m.StsKept: lambda queue, channel, message: queue.keeping.take(message),
    m.RecipientsKept: lambda queue, channel, message: queue.keeping.take_recipients(message),
    m.TlsVerified: lambda queue, channel, message: queue.remembering.verified(channel, message),
    m.TlsResults: lambda queue, channel, message: queue.reports.take(message),
    m.LookupDone: lambda queue, channel, message: queue.reports.answered(channel, message),
    m.PostDone: lambda queue, channel, message: queue.reports.answered(channel, message),
}
