"""What all pools of one engine have in common: settings, and counts over the connections to all next hops.

Bookkeeping and the limit over all; what happens on the connections to one next hop is `pool.py`. Invariant: never more slots are taken than
`delivery.max_connections`; a pool that wants one and gets none is stirred when one is free.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from gatepost.config.schema import Delivery
from gatepost.delivery.demands import Demands
from gatepost.delivery.logins import Logins
from gatepost.delivery.tlsresults import TlsResults
from gatepost.net.smtp_out import SmtpOut, build_timeouts
from gatepost.smtp.client import ClientSettings, Tls

if TYPE_CHECKING:
    from gatepost.delivery.pool import NextHopPool


class Shared:
    """What all pools of one engine have in common."""

    def __init__(
        self,
        config: Delivery,
        helo_name: str,
        event: Callable[..., None],
        clock: Callable[[], float],
        rng: random.Random,
        handshake_timeout_s: float = 30.0,
        results: TlsResults | None = None,
    ) -> None:
        self.config = config
        self.event = event
        self.clock = clock
        self.rng = rng
        self.timeouts = build_timeouts(config, handshake_timeout_s)
        self.settings = {
            (lmtp, tls): ClientSettings(helo_name, lmtp=lmtp, tls=tls) for lmtp in (False, True) for tls in Tls
        }
        self.results = results or TlsResults(lambda rows: None, lambda delay_s, call: call())
        self.clear: dict[tuple[str, int], float] = {}  # hosts whose TLS failed, until when STARTTLS is not tried
        self.connections: set[SmtpOut] = set()  # with a TCP connection, until it is closed
        self.idle: dict[SmtpOut, float] = {}  # oldest first
        self.slots = 0  # connections open or being opened
        self.suspects: dict[tuple[str, int], float] = {}
        self.starved: dict[NextHopPool, None] = {}  # pools that wait for a slot
        self.tasks: set[asyncio.Task[None]] = set()
        self.demands: Demands | None = None  # of the access table
        self.logins: Logins = {}  # for hosts that the operator has named
        self.opened = 0
        self.draining = False

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """A task for something rare: opening a connection, resolving a next hop."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "delivery task failed", "exception": task.exception(), "task": task}
            )

    def take_slot(self, pool: NextHopPool) -> bool:
        """Whether one more connection may be opened; closes an idle one of another pool if that helps."""
        if self.slots < self.config.max_connections:
            self.slots += 1
            return True
        self.starved[pool] = None
        for connection in self.idle:
            connection.note.pool.drop_idle(connection)
            break
        return False

    def free_slot(self) -> None:
        """A connection is gone: the pool that waits longest may open one."""
        self.slots -= 1
        while self.starved and self.slots < self.config.max_connections:
            pool = next(iter(self.starved))
            del self.starved[pool]
            pool.stir()
