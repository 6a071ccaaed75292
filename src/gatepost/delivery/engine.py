"""The delivery engine: attempts in, outcomes out. It ties next hops to pools, and owns the one sweep over all time-outs.

`submit` is synchronous and cheap: on a kept connection a message costs no task, no future and no timer. What happens on
the connections is `pool.py`; where to connect is `resolve.py`; what a reply means is `attempt.py`.

Invariants: every attempt that was submitted is done exactly once, also if the engine is closed; no file is opened and no
name resolved here.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

from gatepost.config.nexthop import POOL
from gatepost.config.schema import Config
from gatepost.delivery.balance import Balance, Member, Prober
from gatepost.delivery.demands import Demands
from gatepost.delivery.logins import Logins
from gatepost.delivery.mx import RouteFailure
from gatepost.delivery.pool import NextHopPool
from gatepost.delivery.resolve import Found, TargetResolver
from gatepost.delivery.securing import Lookup, Securing
from gatepost.delivery.shared import Shared
from gatepost.delivery.tlspolicy import Policy, StsLookup, TlsPolicies
from gatepost.delivery.tlsresults import TlsResults
from gatepost.delivery.tlsshow import show_destination
from gatepost.delivery.work import Job, Read, Work
from gatepost.ipc.messages import Attempt, AttemptDone
from gatepost.model import NextHopTrouble, Outcome, Result, by_sender
from gatepost.net.smtp_out import QUIT_TIMEOUT_S
from gatepost.net.turns import READ_S

_SWEEP_S = 1.0
_STOPPED = RouteFailure(Result.DEFERRED, "4.3.2", "delivery was stopped", NextHopTrouble.NONE)


class DeliveryEngine:
    """SMTP and LMTP delivery of one deliverer.

    `read(source, offset, count)` gives content and raises OSError; `done` gets one AttemptDone for each attempt;
    `event(name, **fields)` is told of connections; `remembered(domain)` says how a domain was verified before, `verified(domain, how)`
    is told that it was. `own_addresses` holds "address" or "address:port" of ourselves.
    """

    def __init__(
        self,
        config: Config,
        *,
        own_addresses: frozenset[str],
        lookup: Lookup,
        read: Read,
        done: Callable[[AttemptDone], None],
        event: Callable[..., None],
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        tls: TlsPolicies | None = None,
        logins: Logins | None = None,
        sts: StsLookup | None = None,
        remembered: Callable[[str], str] = lambda domain: "",
        verified: Callable[[str, str], None] = lambda domain, how: None,
        results: TlsResults | None = None,
        demands: Demands | None = None,
    ) -> None:
        delivery = config.delivery
        self._config = delivery
        self._read = read
        self._done = done
        self._event = event
        self._clock = clock
        helo_name = delivery.helo_name or config.hostname
        self._tls = tls or TlsPolicies(config, {})
        self._securing = Securing(lookup, self._tls, sts=sts, remembered=remembered, event=event)
        self._resolver = TargetResolver(config, own_addresses, lookup, self._securing)
        self._lookup = lookup
        self._dns = config.dns
        self.verified = verified
        timeout_s = config.tls.handshake_timeout_s
        self._shared = Shared(delivery, helo_name, event, clock, rng or random.Random(), timeout_s, results)
        self._shared.logins = logins or {}
        self._demands = self._shared.demands = demands
        self._is_uniform = self._tls.is_uniform and (self._demands is None or not self._demands.has_recipients)
        self._helo_name = helo_name
        self._balances = {name: Balance(name, pool, self, event, clock) for name, pool in config.pools.items()}
        self._pools: dict[str, NextHopPool] = {}
        self._jobs = 0
        self._closed = False
        self._done_count = 0
        self._drained: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        shortest = min(delivery.connect_timeout_s, delivery.keep_idle_s, *self._shared.timeouts)
        self._sweep_s = max(0.01, min(_SWEEP_S, shortest / 4))

    def submit(self, attempt: Attempt) -> None:
        """Start an attempt; its end is reported to `done`, rarely before this returns."""
        self._begin_sweep()
        job = Job(attempt, self._read, self._clock())
        self._jobs += 1
        if not attempt.recipients:
            self.complete(job)
        elif attempt.next_hop.startswith(POOL):
            self._submit_balanced(job, attempt)
        elif self._is_uniform and not attempt.envelope.tls_optional:
            self._submit_to(self._tls.general, job, attempt.recipients)
        else:
            for policy, indices in self._by_policy(attempt.next_hop, attempt, attempt.recipients):
                self._submit_to(policy, job, indices)

    def probe(self, attempt: Attempt) -> None:
        """Ask a next hop whether recipients exist (`callahead.py`), by connections that carry no mail."""
        self._begin_sweep()
        job = Job(attempt, self._read, self._clock())
        self._jobs += 1
        policy = self._tls.of(attempt.next_hop, attempt.envelope.recipients[0].domain)
        pool = self._pool(f"probe {attempt.next_hop}", attempt.next_hop, policy)
        pool.limit = attempt.limit
        pool.submit(Work(job, attempt.recipients))

    def _begin_sweep(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(self._sweep_s, self._on_tick)

    def _submit_balanced(self, job: Job, attempt: Attempt) -> None:
        """Each transaction goes to the member of the pool whose turn it is."""
        name = attempt.next_hop.removeprefix(POOL)
        balance = self._balances.get(name)
        if balance is None:  # of a configuration before this one
            self.record(Work(job, attempt.recipients), _no_pool(name, attempt.recipients), NextHopTrouble.NONE)
            return
        most = self._config.max_recipients_per_transaction
        for indices in by_sender(attempt.envelope, attempt.recipients):
            for start in range(0, len(indices), most):
                balance.place(Work(job, indices[start : start + most]))

    def submit_to_member(self, member: Member, work: Work) -> None:
        """A transaction for the connections to a member of a pool; where the policies of its recipients differ, several."""
        attempt = work.job.attempt
        for policy, indices in self._by_policy(member.name, attempt, work.indices):
            pool = self._pool(f"{attempt.next_hop} {member.name}", member.name, policy)
            pool.member = member
            pool.limit = max(1, min(attempt.limit, self._config.max_connections_per_next_hop))
            pool.submit(work if len(indices) == len(work.indices) else work.again(indices))

    def record(self, work: Work, outcomes: list[Outcome], trouble: NextHopTrouble) -> None:
        """A transaction of a pool ends without a connection."""
        job = work.job
        job.trouble = max(job.trouble, trouble)
        job.outcomes = job.outcomes + outcomes
        job.missing -= len(outcomes)
        if job.missing == 0:
            self.complete(job)

    def _by_policy(self, next_hop: str, attempt: Attempt, indices: list[int]) -> list[tuple[Policy, list[int]]]:
        """Recipients whose mail must travel otherwise go by other connections."""
        is_relaxed = attempt.envelope.tls_optional and not attempt.envelope.requiretls  # RFC 8689 4.1
        if self._is_uniform:
            general = self._tls.general
            return [(self._tls.relaxed(general) if is_relaxed else general, indices)]
        groups: dict[str, tuple[Policy, list[int]]] = {}
        recipients = attempt.envelope.recipients
        for index in indices:
            policy = self._tls.of(next_hop, recipients[index].domain)
            if is_relaxed:
                policy = self._tls.relaxed(policy)
            if self._demands is not None:
                policy = self._demands.of_recipient(policy, recipients[index].address)
            groups.setdefault(policy.key, (policy, []))[1].append(index)
        return list(groups.values())

    def _submit_to(self, policy: Policy, job: Job, indices: list[int]) -> None:
        attempt = job.attempt
        name = attempt.next_hop
        pool = self._pool(name, name, policy)
        pool.limit = max(1, min(attempt.limit, self._config.max_connections_per_next_hop))
        if len(indices) == 1:
            pool.submit(Work(job, indices))
            return
        most = self._config.max_recipients_per_transaction
        for group in by_sender(attempt.envelope, indices):
            for start in range(0, len(group), most):
                pool.submit(Work(job, group[start : start + most]))

    def _pool(self, key: str, name: str, policy: Policy) -> NextHopPool:
        key += policy.key
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = NextHopPool(name, self._shared, self, policy)
            if self._closed:
                pool.stop(_STOPPED)
        return pool

    def begin(self) -> None:
        """Probe the members of pools that ask for it; in the loop."""
        plain = Policy("none", self._tls.unverified)
        for balance in self._balances.values():
            if balance.settings.probe_interval_s > 0:
                prober = Prober(balance, self._shared, lambda name: self.resolve(name, plain), self._helo_name)
                self._shared.spawn(prober.run())

    def renew(self) -> None:
        """What was found out about hosts does not hold any more: every next hop is resolved anew before its next connection."""
        for pool in self._pools.values():
            pool.renew()

    def forget_waiting(self) -> None:
        """Who gave these attempts is gone: those that no connection has begun are done, deferred; the others go on."""
        for pool in list(self._pools.values()):
            pool.fail_waiting(_STOPPED)

    async def drain(self) -> None:
        """Wait until all attempts are done, then close all connections in good order."""
        self._shared.draining = True
        if self._jobs:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
        for connection in list(self._shared.idle):
            connection.note.pool.drop_idle(connection)
        end = self._clock() + QUIT_TIMEOUT_S
        while self._shared.connections and self._clock() < end:
            await asyncio.sleep(0.01)
        self.close()

    def close(self) -> None:
        """Give everything up at once: what is under way is deferred, or reported as uncertain."""
        self._shared.draining = self._closed = True
        for pool in list(self._pools.values()):
            pool.stop(_STOPPED)
        for connection in list(self._shared.connections):
            connection.abort("lost", _STOPPED.text)
        for task in list(self._shared.tasks):
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stats(self) -> dict[str, int]:
        """Figures of the moment, and counters since the start."""
        shared = self._shared
        return {
            "next_hops": len(self._pools),
            "attempts": self._jobs,
            "waiting": sum(pool.waiting for pool in self._pools.values()),
            "connections": len(shared.connections),
            "idle": len(shared.idle),
            "opened": shared.opened,
            "done": self._done_count,
        }

    async def show(self, domain: str, next_hop: str) -> dict[str, Any]:
        """What would be used towards a domain at a next hop, and why."""
        balance = self._balances.get(next_hop.removeprefix(POOL)) if next_hop.startswith(POOL) else None
        names = [member.next_hop for member in balance.settings.members] if balance is not None else [next_hop]
        policy = self._tls.of(next_hop, domain)
        way = self._resolver, self._securing, self._lookup, self._dns, self._demands
        parts = [await show_destination(domain, name, policy, *way) for name in names]
        hosts = [host for part in parts for host in part["hosts"]]
        return parts[0] | {"next_hop": next_hop, "hosts": hosts}

    # --- what pools need (Services) ----------------------------------------------------------------------------------

    async def resolve(self, name: str, policy: Policy) -> Found | RouteFailure:
        """The targets of a next hop; whatever goes wrong defers."""
        try:
            return await self._resolver.resolve(name, policy)
        except Exception as error:  # noqa: BLE001 - the one broad catch of this task
            self._event("internal_error", what="resolve", next_hop=name, error=repr(error))
            return RouteFailure(Result.DEFERRED, "4.3.0", "the next hop cannot be resolved", NextHopTrouble.DOWN)

    def complete(self, job: Job) -> None:
        """All recipients have an outcome."""
        self._jobs -= 1
        self._done_count += 1
        seconds = self._clock() - job.started_s
        self._done(AttemptDone(job.attempt.job, job.trouble, job.outcomes, job.reused, seconds))
        if self._drained is not None and not self._jobs and not self._drained.done():
            self._drained.set_result(None)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _on_tick(self) -> None:
        """A reply that has come and was not read yet is none that is late."""
        self._timer = asyncio.get_running_loop().call_later(READ_S, self._sweep)

    def _sweep(self) -> None:
        """Deadlines, idle connections, pools that wait, memory of the past: all on one coarse timer."""
        self._timer = None
        shared = self._shared
        now = self._clock()
        for connection in list(shared.connections):
            connection.check(now)
        oldest = now - self._config.keep_idle_s
        for connection, since_s in list(shared.idle.items()):
            if since_s > oldest:
                break
            if connection in shared.idle:
                connection.note.pool.drop_idle(connection)
        for name, pool in list(self._pools.items()):
            if pool.waiting:
                pool.stir()
            elif pool.is_empty:
                del self._pools[name]
        for key in [key for key, until_s in shared.suspects.items() if until_s <= now]:
            del shared.suspects[key]
        for key in [key for key, until_s in shared.clear.items() if until_s <= now]:
            del shared.clear[key]
        if self._pools or shared.connections:
            self._begin_sweep()


def _no_pool(name: str, indices: list[int]) -> list[Outcome]:
    text = f"there is no pool {name} in the configuration any more"
    return [Outcome(index, Result.DEFERRED, "mx", 0, "4.3.5", text) for index in indices]
