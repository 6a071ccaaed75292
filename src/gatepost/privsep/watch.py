"""The supervisor's look at its own children, again and again: the first when they serve, then every `processes.recheck_s`.

What changed since the start, by a bug, a kernel, or whoever broke in, shows as differences from the table of roles. Each new one is an event
and is counted; the last result stands in `gatepost status`. Reads /proc (`attest.py`) and nothing that a peer wrote; a failure of
the look itself is told as a difference and never ends the supervisor.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from gatepost.config.schema import Config
from gatepost.privsep.attest import ENDED, LOCKED_STATES, attest
from gatepost.privsep.kernel import Records


class Watch:
    """Remembers what was found last."""

    def __init__(self) -> None:
        self.checks = 0
        self.found = 0  # differences, each counted once for as long as it lasts
        self.checked_at_s = 0.0
        self.seconds = 0.0
        self.processes = 0
        self.differences: list[str] = []
        self.unread: list[str] = []  # what only root could have read, so that it was not compared
        self._seen: set[int] = set()  # processes that were locked in when they were looked at last
        self._known: set[tuple[int, str]] = set()

    def look(
        self,
        config: Config,
        processes: Iterable[Mapping[str, Any]],
        records: Mapping[int, Records] = MappingProxyType({}),
    ) -> list[dict[str, Any]]:
        """Compare; returns the fields of an event for each process with a difference that is new."""
        begun_s = time.monotonic()
        rows = list(processes)
        self._seen = {row["pid"] for row in rows if row.get("state") in LOCKED_STATES}
        new: list[dict[str, Any]] = []
        known: set[tuple[int, str]] = set()
        self.differences = []
        try:
            reports = attest(config, rows, records)
        # whatever /proc holds, the supervisor goes on
        except (OSError, LookupError, ValueError, StopIteration) as error:
            reports = []
            self.differences = [f"the check itself failed: {type(error).__name__}: {error}"]
            if (0, self.differences[0]) not in self._known:
                new.append({"name": "supervisor", "number": 0, "differences": self.differences})
            known.add((0, self.differences[0]))
        for report in reports:
            found = {(report.pid, text) for text in report.differences if text != ENDED}
            fresh = sorted(text for pid, text in found if (pid, text) not in self._known)
            known |= found
            self.differences += [f"{report.role}/{report.instance}: {text}" for _, text in sorted(found)]
            if fresh:
                fields = {"name": report.role, "number": report.instance, "generation": report.generation}
                new.append(fields | {"pid": report.pid, "differences": fresh})
        self.unread = sorted({item for report in reports if report.kernel for item in report.kernel.unreadable})
        self.found += len(known - self._known)
        self._known = known
        self.checks += 1
        self.processes = len(rows)
        self.checked_at_s = time.time()
        self.seconds = time.monotonic() - begun_s
        return new

    def has_seen(self, pids: Iterable[int]) -> bool:
        """Whether the last look was at all of these, locked in."""
        return self._seen.issuperset(pids)

    def counters(self) -> dict[str, int]:
        """For `gatepost stats` and whoever collects them."""
        return {
            "privs_checks": self.checks,
            "privs_differences": len(self.differences),
            "privs_differences_ever": self.found,
        }

    def last(self) -> dict[str, Any]:
        """The last result, for `gatepost status`."""
        return {
            "checks": self.checks,
            "checked_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.checked_at_s)) if self.checks else None,
            "processes": self.processes,
            "seconds": round(self.seconds, 4),
            "as_declared": not self.differences if self.checks else None,
            "differences": self.differences,
            "differences_ever": self.found,
            "not_compared": self.unread,
        }
