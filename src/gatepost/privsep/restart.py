"""When a role that died is started again: at once the first times, then with a growing delay."""

from __future__ import annotations

import os
import signal

FIRST_DELAY_S = 0.05
MAX_DELAY_S = 10.0
FREE_RESTARTS = 5  # within the window, before the delay grows
WINDOW_S = 60.0
HOPELESS_DEATHS = 5  # before the gateway was ever ready: give up instead of trying for ever


class Restarts:
    """Remembers deaths per role instance."""

    def __init__(self) -> None:
        self._deaths: dict[str, list[float]] = {}

    def delay_s(self, name: str, now_s: float) -> float:
        """Note a death; returns how long to wait before the next start."""
        deaths = [at for at in self._deaths.get(name, []) if now_s - at < WINDOW_S]
        deaths.append(now_s)
        self._deaths[name] = deaths
        excess = max(0, len(deaths) - FREE_RESTARTS)
        return min(MAX_DELAY_S, FIRST_DELAY_S * 2.0**excess)

    def is_hopeless(self, name: str) -> bool:
        return len(self._deaths.get(name, ())) >= HOPELESS_DEATHS


def explain_status(status: int) -> str:
    """A wait status in words; SIGSYS is named for what it is."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGSYS:
            return "killed by its syscall filter (SIGSYS): it tried what its role may not do"
        return f"killed by {signal.Signals(number).name}"
    return f"exit status {os.WEXITSTATUS(status)}"
