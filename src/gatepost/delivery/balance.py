"""`pool:NAME`: which member of a pool gets a mail transaction, and which members are left out because they are down.

The best priority that has a living member counts, and within it transactions are spread by weight, smoothly and by counting: no
chance is in it. A member that cannot be reached is left out; when its time has come one transaction tries it again, and
with `probe_interval_s` a connection with EHLO and QUIT does so without mail. A transaction that a member could not take goes to the next.
Connections are not made here (`pool.py` of each member does), and no name is resolved.

Invariants: a transaction is given to each member at most once; it ends with outcomes exactly once; if no member can be reached,
it is deferred with one reason that names them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from gatepost.config.schema import Pool
from gatepost.delivery.attempt import MAX_TEXT, Verdict
from gatepost.delivery.mx import RouteFailure, Target
from gatepost.delivery.resolve import Found
from gatepost.delivery.work import Work
from gatepost.model import NextHopTrouble, Outcome, Result
from gatepost.net.smtp_out import SmtpOut
from gatepost.smtp.client import ClientSettings, Tls, Transaction

if TYPE_CHECKING:
    from gatepost.delivery.shared import Shared

MOST_DOUBLINGS = 4  # of retry_s
UNREACHED = frozenset({"connect", "mx"})  # stages at which a member had said nothing


class Member:
    """One member and what is known of it."""

    __slots__ = ("balance", "down_until_s", "failures", "name", "priority", "reason", "share", "weight")

    def __init__(self, balance: Balance, name: str, weight: int, priority: int) -> None:
        self.balance = balance
        self.name = name  # canonical next hop
        self.weight = weight
        self.priority = priority
        self.share = 0  # of the turn; the largest is next
        self.failures = 0  # in a row; 0: it is up
        self.down_until_s = 0.0
        self.reason = ""

    # --- what the connections to it report --------------------------------------------------------------------------

    def worked(self) -> None:
        """It was reached."""
        if self.failures:
            self.failures = 0
            self.reason = ""
            self.balance.event("pool_member", pool=self.balance.name, member=self.name, state="up", reason="")

    def failed(self, reason: str) -> None:
        """It could not be reached."""
        self.reason = reason
        delay_s = self.balance.settings.retry_s * 2 ** min(self.failures, MOST_DOUBLINGS)
        self.down_until_s = self.balance.clock() + delay_s
        self.failures += 1
        if self.failures == 1:
            self.balance.event("pool_member", pool=self.balance.name, member=self.name, state="down", reason=reason)

    def has_others(self, work: Work) -> bool:
        """Whether another member may take this transaction."""
        return len(work.members) < len(self.balance.members)

    def hand_on(self, work: Work) -> None:
        """Give a transaction that this one could not take to another; `work.fallback` is what it gets if there is none."""
        self.balance.place(work)


class Places(Protocol):
    """What a balance needs of the engine."""

    def submit_to_member(self, member: Member, work: Work) -> None:
        """Queue the transaction for the connections to a member."""

    def record(self, work: Work, outcomes: list[Outcome], trouble: NextHopTrouble) -> None:
        """A transaction ends with these outcomes."""


class Balance:
    """The members of one pool."""

    def __init__(
        self, name: str, settings: Pool, places: Places, event: Callable[..., None], clock: Callable[[], float]
    ) -> None:
        self.name = name
        self.settings = settings
        self.event = event
        self.clock = clock
        self._places = places
        self.members = [Member(self, row.next_hop, row.weight, row.priority) for row in settings.members]

    def place(self, work: Work) -> None:
        """Give a transaction to the member whose turn it is."""
        member = self.choose(work.members)
        if member is None:
            self._give_up(work)
            return
        work.members = (*work.members, member.name)
        work.tried = ()
        self._places.submit_to_member(member, work)

    def choose(self, given: tuple[str, ...] = ()) -> Member | None:
        """Whose turn it is; `given` are the members that had the transaction already."""
        left = [member for member in self.members if member.name not in given]
        now_s = self.clock()
        for member in left:
            if member.failures and member.down_until_s <= now_s:
                member.down_until_s = now_s + self.settings.retry_s  # one transaction finds out
                return member
        living = [member for member in left if not member.failures]
        if not living:
            # All are down. Whoever comes first tries one all the same: the queue lets few come (its back-off of the pool).
            return min(left, key=lambda member: member.down_until_s) if left and not given else None
        best = min(member.priority for member in living)
        turn = [member for member in living if member.priority == best]
        for member in turn:
            member.share += member.weight
        chosen = max(turn, key=lambda member: member.share)
        chosen.share -= sum(member.weight for member in turn)
        return chosen

    def _give_up(self, work: Work) -> None:
        """No member is left: what the last one said, or, if none was reached, one reason for all."""
        fallback = work.fallback
        if fallback and any(outcome.stage not in UNREACHED for outcome in fallback):
            trouble = (
                NextHopTrouble.NONE if any(not member.failures for member in self.members) else NextHopTrouble.DOWN
            )
            self._places.record(work, fallback, trouble)
            return
        reasons = "; ".join(f"{member.name}: {member.reason}" for member in self.members if member.reason)
        text = f"no member of the pool {self.name} can be reached ({reasons})"[:MAX_TEXT]
        verdict = Verdict(True, Result.DEFERRED, NextHopTrouble.DOWN, "connect", 0, "4.4.1", text)
        self._places.record(work, [verdict.outcome(index, "") for index in work.indices], verdict.trouble)


class Prober:
    """Asks the members of one pool now and then whether they are there: connect, EHLO, QUIT."""

    def __init__(
        self,
        balance: Balance,
        shared: Shared,
        resolve: Callable[[str], Awaitable[Found | RouteFailure]],
        helo_name: str,
    ) -> None:
        self._balance = balance
        self._shared = shared
        self._resolve = resolve
        self._helo_name = helo_name

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(self._balance.settings.probe_interval_s)
            await asyncio.gather(*(self._probe(member) for member in self._balance.members))

    async def _probe(self, member: Member) -> None:
        found = await self._resolve(member.name)
        if isinstance(found, RouteFailure):
            member.failed(found.text)
            return
        reason = ""
        for target in found[0]:
            reason = await self._ask(target)
            if not reason:
                member.worked()
                return
        member.failed(reason)

    async def _ask(self, target: Target) -> str:
        """What is wrong with a host; empty: it greets and answers EHLO."""
        shared = self._shared
        visit = _Visit()
        settings = ClientSettings(self._helo_name, lmtp=target.lmtp, tls=Tls.NEVER)
        connection = SmtpOut(visit, settings, shared.timeouts, shared.clock, target)
        limit_s = shared.config.connect_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: connection, target.address, target.port)
                return await visit.end
        except TimeoutError:
            return f"no answer within {limit_s:g} s"
        except OSError as error:
            return f"cannot connect: {error.strerror or error}"
        finally:
            connection.abandon()


class _Visit:
    """The owner of a connection that carries no mail."""

    def __init__(self) -> None:
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def next_transaction(self, connection: SmtpOut) -> Transaction | None:
        return None

    def ready(self, connection: SmtpOut) -> None:
        """Greeting and EHLO went well; `idle` follows."""

    def idle(self, connection: SmtpOut) -> None:
        connection.quit()

    def closed(self, connection: SmtpOut) -> None:
        failure = connection.session.failure
        if not self.end.done():
            self.end.set_result("" if failure is None else failure.text or "the session ended early")

    def finished(self, connection: SmtpOut, transaction: Transaction) -> None:
        """There are none."""
