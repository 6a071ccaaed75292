"""The connections to one next hop, and the transactions that wait for them.

Transactions wait in one FIFO queue, connections pull from it: whoever is free takes the next one. A connection is opened
when more wait than connections are being opened, up to the limit. It does not resolve names (`resolve` is given) and
judges nothing (`attempt.py`).

Invariants: never more connections than the limit, QUIT included; every work that came in is finished exactly once; a
work that met a stale connection gets one fresh one, a work that another host may take is tried on each host once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol, cast

from gatepost.delivery.attempt import Verdict, is_stale, judge_problem, judge_transaction
from gatepost.delivery.balance import Member
from gatepost.delivery.mx import RouteFailure, Target, order
from gatepost.delivery.resolve import Found
from gatepost.delivery.shared import Shared
from gatepost.delivery.tlspolicy import Plan, Policy, explain_failure, plan
from gatepost.delivery.work import Job, Work
from gatepost.model import NextHopTrouble, Outcome, Result
from gatepost.net.smtp_out import SmtpOut
from gatepost.smtp.client import Problem, State, Tls, Transaction

CLEAR_S = 300.0  # a host whose TLS failed is sent clear text for this long, where the policy allows it
SUSPECT_S = 30.0  # a host that could not be reached comes last for this long
HOLD_S = 1.0  # after a failure to open one more connection beside living ones
MAX_TRIES = 10  # hosts tried for one connection


class Opening:
    """A connection that is being opened: the hosts left to try, and what the others said."""

    __slots__ = ("is_partial", "is_plain", "pool", "reserved", "targets", "verdicts", "was_kept")

    def __init__(self, pool: NextHopPool, targets: deque[Target], reserved: Work | None) -> None:
        self.pool = pool
        self.targets = targets
        self.reserved = reserved
        self.is_plain = reserved is None
        self.is_partial = reserved is not None and bool(reserved.tried)  # not all hosts of the next hop are in it
        self.verdicts: list[tuple[Verdict, str]] = []
        self.was_kept = False  # without anything to do, so that its host may have ended it


class Services(Protocol):
    """What a pool needs of its engine."""

    async def resolve(self, name: str, policy: Policy) -> Found | RouteFailure:
        """The targets of a next hop, for how many seconds they hold, and plans for hosts that need one of their own."""

    def complete(self, job: Job) -> None:
        """Every recipient of this job has an outcome."""

    @property
    def verified(self) -> Callable[[str, str], None]:
        """Is told that a domain was verified by what it publishes."""


class NextHopPool:
    """See the module; it is the `Owner` of its connections."""

    def __init__(self, name: str, shared: Shared, services: Services, policy: Policy) -> None:
        self.name = name
        self._policy = policy
        self._mx_domain = name.removeprefix("mx:") if name.startswith("mx:") else ""
        self._reported = "" if policy.is_relaxed else self._mx_domain
        self.limit = 1
        self._shared = shared
        self._services = services
        self._targets: list[Target] = []
        self._targets_until_s = 0.0
        self._plans: Mapping[str, Plan] = {}
        self._resolving = False
        self._queue: deque[Work] = deque()
        self._retries: deque[Work] = deque()  # each needs a connection of its own
        self._ready: set[SmtpOut] = set()
        self._free: list[SmtpOut] = []
        self._quitting: set[SmtpOut] = set()
        self._openings = 0
        self._plain_openings = 0  # those without a work of their own
        self._hold_until_s = 0.0
        self._pressure = NextHopTrouble.NONE
        self._stopped: Verdict | None = None
        self.member: Member | None = None  # of a pool of next hops, if these are the connections to one

    @property
    def is_empty(self) -> bool:
        """Nothing waits, nothing is open."""
        return not (self._queue or self._retries or self._ready or self._openings or self._resolving)

    @property
    def waiting(self) -> int:
        """Transactions without a connection."""
        return len(self._queue) + len(self._retries)

    def submit(self, work: Work) -> None:
        """Take one more transaction."""
        self._queue.append(work)
        self.stir()

    def stir(self) -> None:
        """Wake and open as many connections as there is work for."""
        shared = self._shared
        if self._stopped is not None:
            self._fail_waiting(self._stopped, "")
            return
        while self._queue and self._free:
            connection = self._free.pop()
            shared.idle.pop(connection, None)
            connection.wake()
        while (self._retries or len(self._queue) > self._plain_openings) and not self._is_full:
            now = shared.clock()
            if self._resolving or (self._ready and now < self._hold_until_s):
                return
            if now >= self._targets_until_s:
                self._resolving = True
                shared.spawn(self._resolve())
                return
            if not shared.take_slot(self):
                return
            reserved = self._retries.popleft() if self._retries else None
            opening = Opening(self, self._choose(reserved), reserved)
            self._openings += 1
            self._plain_openings += opening.is_plain
            self._open_next(opening)

    def drop_idle(self, connection: SmtpOut) -> None:
        """Close a kept connection."""
        self._shared.idle.pop(connection, None)
        if connection in self._free:
            self._free.remove(connection)
        self._quit(connection)

    def fail_waiting(self, failure: RouteFailure) -> None:
        """What waits for a connection fails; what is under way goes on."""
        self._fail_waiting(_route_verdict(failure), "")

    def renew(self) -> None:
        """Resolve anew before the next connection."""
        self._targets_until_s = 0.0

    def stop(self, failure: RouteFailure) -> None:
        """Nothing more is opened: what waits fails."""
        self._stopped = _route_verdict(failure)
        self.stir()

    @property
    def _is_full(self) -> bool:
        return len(self._ready) + self._openings >= self.limit

    def _is_due(self, connection: SmtpOut) -> bool:
        """Whether this connection is to end as soon as nothing is under way on it."""
        if connection.messages >= self._shared.config.max_messages_per_connection or len(self._ready) > self.limit:
            return True
        limits = connection.session.limits
        if limits is not None and 0 < limits.mailmax <= connection.messages:
            return True
        return bool(self._retries) and self._must_yield

    @property
    def _must_yield(self) -> bool:
        """A work that needs a fresh connection waits for the place of an old one."""
        return len(self._retries) > len(self._quitting) and self._is_full

    # --- opening -----------------------------------------------------------------------------------------------------

    async def _resolve(self) -> None:
        found = await self._services.resolve(self.name, self._policy)
        self._resolving = False
        if isinstance(found, RouteFailure):
            if self._ready:
                self._hold_until_s = self._shared.clock() + HOLD_S
                return
            self._fail_waiting(_route_verdict(found), "")
            return
        self._targets, valid_s, self._plans = found
        self._targets_until_s = self._shared.clock() + valid_s
        self.stir()

    def _choose(self, reserved: Work | None) -> deque[Target]:
        shared = self._shared
        tried = reserved.tried if reserved is not None else ()
        targets = [target for target in self._targets if (target.address, target.port) not in tried]
        targets = order(targets, shared.rng)
        if shared.suspects:
            now = shared.clock()
            targets.sort(key=lambda target: shared.suspects.get((target.address, target.port), 0.0) > now)
        return deque(targets[:MAX_TRIES])

    def _open_next(self, opening: Opening) -> None:
        if opening.targets and self._stopped is None:
            self._shared.spawn(self._connect(opening, opening.targets.popleft()))
        else:
            self._open_failed(opening)

    async def _connect(self, opening: Opening, target: Target) -> None:
        shared = self._shared
        connection: SmtpOut | None = None
        timeout_s = shared.config.connect_timeout_s
        is_suspect = True
        try:
            prepared = self._prepare(opening, target)
            if isinstance(prepared, SmtpOut):
                connection = prepared
                shared.connections.add(connection)
                async with asyncio.timeout(timeout_s):
                    # An IP address: no name is resolved here. The role may not open /etc/hosts.
                    await asyncio.get_running_loop().create_connection(lambda: prepared, target.address, target.port)
                return  # `ready` or `closed` will be called, or has been
            problem, is_suspect = prepared, False
        except TimeoutError:
            problem = Problem("connect", "timeout", f"no answer within {timeout_s:g} s")
        except OSError as error:
            problem = Problem("connect", "lost", f"cannot connect: {error.strerror or error}")
        except Exception as error:  # noqa: BLE001 - the one broad catch of this task: who waits for it gets an outcome
            shared.event("internal_error", what="connect", next_hop=self.name, error=repr(error))
            problem = Problem("connect", "protocol", "internal error")
        if connection is None or connection.abandon():
            if connection is not None:
                shared.connections.discard(connection)
            self._target_failed(opening, target, problem, is_suspect=is_suspect)

    def _prepare(self, opening: Opening, target: Target) -> SmtpOut | Problem:
        """A connection to a host, not opened yet, with what it is held to; or why there can be none."""
        shared = self._shared
        way = self._plans.get(target.name) or plan(self._policy, target.name, self._mx_domain)
        if shared.demands is not None:
            way = shared.demands.raised(self._policy, way, target.name, target.address)
        if way.problem is not None:
            shared.results.failed(self._reported, way, target, "", way.problem)
            return way.problem
        if way.dane is not None:
            way = way._replace(context=way.dane.context(way.context))
        elif way.trial is not None:
            way = way._replace(context=way.trial.context(way.context))
        tls = way.tls
        if tls is Tls.IF_OFFERED and shared.clear.get((target.address, target.port), 0.0) > shared.clock():
            tls = Tls.NEVER
        settings = shared.settings[target.lmtp, tls]
        # Only for hosts that the operator has named: what the DNS names gets no login.
        login = None if self._mx_domain or target.lmtp else shared.logins.get((target.name, target.port))
        return SmtpOut(self, settings, shared.timeouts, shared.clock, target, opening, way, login)

    def _target_failed(self, opening: Opening, target: Target, problem: Problem, *, is_suspect: bool = True) -> None:
        shared = self._shared
        opening.verdicts.append((judge_problem(problem), target.label))
        if is_suspect:
            shared.suspects[target.address, target.port] = shared.clock() + SUSPECT_S
        self._open_next(opening)

    def _open_failed(self, opening: Opening) -> None:
        """No host took the connection: the waiting fail with it, unless living connections still serve them."""
        self._openings -= 1
        self._plain_openings -= opening.is_plain
        verdict, host = _weigh(opening.verdicts)
        if opening.reserved is not None:
            self._give_up(opening.reserved, verdict, host)
        if opening.is_partial:
            self.stir()
        elif self._ready:
            self._hold_until_s = self._shared.clock() + HOLD_S
            self._pressure = NextHopTrouble.BUSY
        elif not self._openings:
            self._targets_until_s = 0.0
            if self.member is not None:
                self.member.failed(verdict.text)
            self._fail_waiting(verdict, host)
        self._shared.free_slot()

    def _fail_waiting(self, verdict: Verdict, host: str) -> None:
        waiting = [*self._retries, *self._queue]
        self._retries.clear()
        self._queue.clear()
        for work in waiting:
            self._give_up(work, verdict, host)

    # --- what connections report (Owner) -----------------------------------------------------------------------------

    def next_transaction(self, connection: SmtpOut) -> Work | None:
        """The next work for this connection; None sends it into `idle`, or keeps it from pipelining ahead."""
        opening: Opening = connection.note
        if opening.reserved is not None:
            work, opening.reserved = opening.reserved, None
        elif not self._queue or self._is_due(connection):
            return None
        elif connection.session.state is State.END and len(self._queue) <= self._plain_openings:
            return None  # it would wait behind another message, and a connection for it is on its way
        else:
            work = self._queue.popleft()
        limits = connection.session.limits
        if limits is not None and len(work.indices) > 1:
            work, rest = work.split(limits)
            if rest is not None:
                (self._retries if rest.tried else self._queue).appendleft(rest)
        work.reused = connection.messages > 0 or opening.was_kept
        connection.messages += 1
        return work

    def ready(self, connection: SmtpOut) -> None:
        """One more living connection."""
        shared = self._shared
        self._openings -= 1
        self._plain_openings -= connection.note.is_plain
        self._ready.add(connection)
        if self.member is not None:
            self.member.worked()
        shared.opened += 1
        target = connection.target
        if shared.suspects:
            shared.suspects.pop((target.address, target.port), None)
        shared.event("connect_out", host=target.label, next_hop=self.name, **self._told(connection))
        way = cast("Plan", connection.plan)
        if (target.address, target.port) not in shared.clear:  # one whose handshake failed was counted then
            shared.results.secured(self._reported, way, target, connection.local_address, connection.tls is not None)
        if way.is_published:
            self._services.verified(self._mx_domain or target.name, way.level)

    def _told(self, connection: SmtpOut) -> dict[str, object]:
        tls = connection.tls
        way = cast("Plan", connection.plan)
        fields: dict[str, object] = {"policy": way.level, "tls": ""}
        if tls is not None:
            fields.update(tls.event_fields, verified=way.is_verified)
        login = connection.session.login
        if login is not None:
            fields["login"] = login.mechanism
        return fields

    def _falls_back(self, connection: SmtpOut, failure: Problem) -> bool:
        """Tell of a handshake that failed; whether the host is tried again: in clear, once, where that is allowed, or for DANE-TA."""
        shared = self._shared
        target = connection.target
        way = cast("Plan", connection.plan)
        if way.dane is not None and way.dane.goes_on(way.context):
            return True
        if way.trial is not None and way.trial.goes_on(way.context, failure.text):
            return True
        shared.results.failed(self._reported, way, target, connection.local_address, failure)
        key = (target.address, target.port)
        goes_on = way.may_be_clear and shared.clear.get(key, 0.0) <= shared.clock()
        shared.event(
            "tls_out_failed",
            host=target.label,
            next_hop=self.name,
            policy=way.level,
            reason=failure.text,
            clear=goes_on,
        )
        if goes_on:
            shared.clear[key] = shared.clock() + CLEAR_S
        return goes_on

    def _tell_login_failed(self, connection: SmtpOut, failure: Problem) -> None:
        label, login = connection.target.label, connection.session.login
        self._shared.event(
            "auth_out_failed",
            host=label,
            next_hop=self.name,
            mechanism=login.mechanism if login is not None else "",
            reason=failure.text,
            advice="mail for it waits: check name and password in [[delivery.credentials]], and what the host offers",
        )

    def idle(self, connection: SmtpOut) -> None:
        """Keep it, or close it if its time is over or its place is needed."""
        shared = self._shared
        if connection in shared.idle:
            return
        if shared.draining or shared.starved or self._is_due(connection):
            self._quit(connection)
            return
        shared.idle[connection] = shared.clock()
        connection.note.was_kept = True
        self._free.append(connection)

    def closed(self, connection: SmtpOut) -> None:
        """A connection is gone, before it was ready or after."""
        shared = self._shared
        shared.connections.discard(connection)
        if connection not in self._ready:
            failure = connection.session.failure or Problem("greeting", "lost", "the session ended early")
            if failure.stage == "auth" and connection.session.login is not None:
                self._tell_login_failed(connection, failure)
            if failure.stage == "tls" and failure.kind != "reply" and self._falls_back(connection, failure):
                shared.spawn(self._connect(connection.note, connection.target))
            else:
                failure = explain_failure(cast("Plan", connection.plan), failure)
                self._target_failed(connection.note, connection.target, failure)
            return
        self._ready.discard(connection)
        self._quitting.discard(connection)
        if shared.idle.pop(connection, None) is not None:
            self._free.remove(connection)
        shared.event("disconnect_out", host=connection.target.label, next_hop=self.name, messages=connection.messages)
        shared.free_slot()
        self.stir()

    def finished(self, connection: SmtpOut, transaction: Transaction) -> None:
        """A transaction ended: outcomes, or another try."""
        work = cast("Work", transaction)  # connections of this pool get nothing else
        if work.problem is not None and work.reused and not work.retried and is_stale(work):
            fresh = work.again()
            fresh.retried = True
            self._retry(fresh)
            return
        target = connection.target
        tried = (*work.tried, (target.address, target.port))
        may_retry = len(self._targets) > 1 and any((t.address, t.port) not in tried for t in self._targets)
        goes_on = not may_retry and self.member is not None and self.member.has_others(work)
        judgement = judge_transaction(work, work.indices, target.label, may_retry=may_retry or goes_on)
        job = work.job
        if work.reused:
            job.reused = True
        if judgement.again:
            self._queue.appendleft(work.again([work.indices[position] for position in judgement.again]))
        if judgement.elsewhere:
            other = work.again([work.indices[position] for position, _ in judgement.elsewhere])
            other.tried = tried
            other.fallback = [outcome for _, outcome in judgement.elsewhere]
            if goes_on and self.member is not None:
                self.member.hand_on(other)
            else:
                self._retry(other)
        elif judgement.trouble:
            job.trouble = max(job.trouble, judgement.trouble)
        if work.asked is not None and work.asked.dsn_passed:
            for outcome in judgement.outcomes:
                outcome.dsn_passed = outcome.result == Result.DELIVERED
        self._record(job, judgement.outcomes)
        if judgement.again:
            self.stir()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _retry(self, work: Work) -> None:
        self._retries.append(work)
        if self._free and self._must_yield:
            self.drop_idle(self._free[0])
        self.stir()

    def _quit(self, connection: SmtpOut) -> None:
        self._quitting.add(connection)
        connection.quit()

    def _give_up(self, work: Work, verdict: Verdict, host: str) -> None:
        outcomes = work.fallback or [verdict.outcome(index, host) for index in work.indices]
        if self.member is not None and (verdict.elsewhere or verdict.trouble is NextHopTrouble.DOWN):
            work.fallback = outcomes
            self.member.hand_on(work)
            return
        work.job.trouble = max(work.job.trouble, verdict.trouble)
        self._record(work.job, outcomes)

    def _record(self, job: Job, outcomes: list[Outcome]) -> None:
        if not outcomes:
            return
        job.outcomes = job.outcomes + outcomes if job.outcomes else outcomes
        job.missing -= len(outcomes)
        if job.missing == 0:
            if self._pressure:
                job.trouble = max(job.trouble, self._pressure)
                self._pressure = NextHopTrouble.NONE
            self._services.complete(job)


def _route_verdict(failure: RouteFailure) -> Verdict:
    return Verdict(False, failure.result, failure.trouble, "mx", 0, failure.status, failure.text)


def _weigh(verdicts: list[tuple[Verdict, str]]) -> tuple[Verdict, str]:
    """Of several hosts that cannot be used, what counts: a refused login, the last that may be usable later, else the last."""
    for verdict, host in verdicts:
        if verdict.stage == "auth":  # what the operator has to mend, not that another address did not answer
            return verdict, host
    for verdict, host in reversed(verdicts):
        if verdict.result is Result.DEFERRED:
            return verdict, host
    if verdicts:
        return verdicts[-1]
    text = "no host of the next hop is left to try"
    return Verdict(False, Result.DEFERRED, NextHopTrouble.DOWN, "connect", 0, "4.4.1", text), ""
