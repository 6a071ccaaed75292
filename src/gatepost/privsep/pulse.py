"""The pulse of the roles: the supervisor pings each of them, kills one that does not answer, and feeds the service manager's watchdog.

A role answers from its event loop, so that one that is stuck there (a bug, a call that never returns, a stop signal) is found, while its
exit status alone shows only one that died. Time is counted in ticks of the supervisor, not by the clock: after a pause of
the whole machine no role has missed more than one. Not here: the restart of what was killed (`supervisor.py`, `restart.py`).
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from typing import NamedTuple

from gatepost.events import EventLog
from gatepost.ipc.messages import Ping
from gatepost.privsep.child import Child, State
from gatepost.privsep.notify import Notifier

TICKS_PER_LIMIT = 3
IDLE_S = 60.0  # hang_limit_s = 0: how soon it is looked whether a reload has changed that
KILL_AFTER_S = 1.0  # behind SIGABRT, at which a role writes where it was stuck; one that is stopped cannot
WATCHDOG_RETRY_S = 0.5  # how soon it is looked again whether a role that died or hangs is back

Key = tuple[str, int, int]


class View(NamedTuple):
    """What the supervisor says of the moment; `expected` are the roles that must have a process now."""

    hang_limit_s: float
    expected: set[Key]
    log: EventLog


class Pulse:
    """`after(delay_s, call)` is the supervisor's timer."""

    def __init__(
        self,
        children: Mapping[Key, Child],
        notifier: Notifier,
        after: Callable[[float, Callable[[], None]], None],
        view: Callable[[], View],
    ) -> None:
        self._children = children
        self._notifier = notifier
        self._after = after
        self._view = view
        self.killed = 0

    def begin(self) -> None:
        """Everything serves: ping from now on."""
        self.tell_alive()
        self.tick()

    def tick(self) -> None:
        """Ping every role that has answered the last ping; kill one that has not for as long as the limit."""
        limit_s = self._view().hang_limit_s
        for child in self._children.values() if limit_s else ():
            if child.state is not State.READY:
                continue  # a start and an end have limits of their own
            if child.missed == TICKS_PER_LIMIT:
                self._kill(child, limit_s)
            elif child.missed == 0:
                child.send(Ping())
            child.missed += 1
        self._after(limit_s / TICKS_PER_LIMIT if limit_s else IDLE_S, self.tick)

    def answered(self, child: Child) -> None:
        """A role has answered."""
        child.missed = 0

    def _kill(self, child: Child, limit_s: float) -> None:
        self.killed += 1
        self._view().log.event("role_hung", **child.fields, why=f"its event loop has not answered for {limit_s:g} s")
        child.signal(signal.SIGABRT)
        self._after(KILL_AFTER_S, lambda: child.signal(signal.SIGKILL))

    def tell_alive(self) -> None:
        """Feed the watchdog if every role has a process that answers; while one does not, look again soon."""
        period_s = self._notifier.watchdog_period_s
        if period_s is None:
            return
        children = [self._children.get(key) for key in self._view().expected]
        is_well = all(child is not None and child.missed <= 1 for child in children)
        if is_well:
            self._notifier.alive()
        self._after(period_s if is_well else min(period_s, WATCHDOG_RETRY_S), self.tell_alive)
