"""The queue's part of the downgrade memory: deliverers tell which domains they verified, all of them are told, the file is kept.

A deliverer has no files and may die; the queue has the spool. What is new is on disk within WRITE_DELAY_S, written by the worker thread;
a crash before loses what the next verified delivery brings back. Only the operator who has domains forgotten waits for the disk.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from gatepost.ipc import messages as m
from gatepost.ipc.wire import Channel
from gatepost.roles.settling import timestamp
from gatepost.roles.writtenlater import WrittenLater, refused
from gatepost.spool.tlsmemory import TlsMemory

if TYPE_CHECKING:
    from gatepost.roles.queue import Queue

WRITE_DELAY_S = 1.0
WHAT = "tls memory"
ROWS_PER_MESSAGE = 1000


class Remembering:
    """See the module; one of the queue role."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        tls = queue.config.tls
        self.memory = TlsMemory(".", tls.remember_s, tls.max_remembered)
        self._later = WrittenLater(
            queue, WHAT, self.memory.encoded, lambda data: self.memory.write(data), WRITE_DELAY_S
        )
        self.flush = self._later.flush

    def begin(self) -> None:
        """Read the file."""
        if reason := self.memory.load(time.time()):
            self._queue.event("error", where=WHAT, reason=reason)

    def reconfigure(self) -> None:
        """After a reload."""
        tls = self._queue.config.tls
        self.memory.reconfigure(tls.remember_s, tls.max_remembered)
        self._tell_gone(self.memory.expire(time.time()))

    def joined(self, channel: Channel) -> None:
        """A deliverer is told everything, before it gets any mail."""
        rows = [_row(*row) for row in self.memory.rows()]
        for start in range(0, len(rows), ROWS_PER_MESSAGE):
            channel.post(m.TlsRemembered(dict(rows[start : start + ROWS_PER_MESSAGE])))

    def verified(self, channel: Channel, message: m.TlsVerified) -> None:
        """A deliverer has sent to a domain by verified TLS."""
        now_s = time.time()
        if (
            message.how not in ("dane", "sts")
            or not is_name(message.domain)
            or not self.memory.note(message.domain, message.how, now_s)
        ):
            return
        rows = dict([_row(message.domain, message.how, now_s)])
        for deliverer in self._queue.peers("deliverer"):
            deliverer.post(m.TlsRemembered(rows))
        self._tell_gone(self.memory.expire(now_s))
        self._later.write_soon()

    async def forget(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`gatepost tls forget`: these domains may go in clear again; answered when the file says so too."""
        domains = [domain for domain in arguments.get("domains") or [] if self.memory.forget(str(domain))]
        self._tell_gone(domains)
        for domain in domains:
            self._queue.event("tls_forgotten", domain=domain)
        if domains and (trouble := await self._later.write_now()):
            return {"error": f"{', '.join(domains)}: {refused(trouble)}"}
        return {"forgotten": domains}

    def listed(self) -> list[dict[str, str]]:
        """What is remembered, the domain seen last at the end."""
        return [{"domain": domain, "by": how, "last": timestamp(last_s)} for domain, how, last_s in self.memory.rows()]

    def _tell_gone(self, domains: list[str]) -> None:
        if domains:
            for deliverer in self._queue.peers("deliverer"):
                deliverer.post(m.TlsForgotten(domains))


def is_name(text: str) -> bool:
    """Whether it can be a domain: it is printed, and comes from a role that talks to strangers."""
    return text.isascii() and text.isprintable() and " " not in text


def _row(domain: str, how: str, last_s: float) -> tuple[str, str]:
    name = {"dane": "DANE", "sts": "MTA-STS"}[how] if how in ("dane", "sts") else how
    return domain, f"{domain} was verified by {name} on {timestamp(last_s)[:10]}"
