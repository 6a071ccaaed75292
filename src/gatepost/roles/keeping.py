"""What the queue role keeps on disk for roles that have none: MTA-STS policies of the resolver (decision 0013).

The records are octets to it. They are written a little after they came, and at the end; a crash loses the last seconds, which costs a
fetch. Nothing of mail depends on them, so a disk that refuses is told and tried again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatepost.ipc import messages as m
from gatepost.ipc.wire import Channel
from gatepost.spool.errors import SpoolError
from gatepost.spool.keptfile import KeptFile

if TYPE_CHECKING:
    from gatepost.roles.queue import Queue

POLICIES = "policies"
MAX_POLICIES_BYTES = 16 * 1024 * 1024
WRITE_EVERY_S = 5.0
RESTORED_AT_ONCE = 500


class Keeping:
    """The queue's kept files."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._policies = KeptFile(".", POLICIES, queue.config.tls.sts.max_policies, MAX_POLICIES_BYTES)
        self._scheduled = False

    def begin(self) -> None:
        """Read what is there."""
        try:
            self._policies.load()
        except (SpoolError, ValueError) as error:
            self._queue.event("error", where="kept files", reason=str(error))

    def reconfigure(self) -> None:
        self._policies.max_records = self._queue.config.tls.sts.max_policies

    def linked(self, channel: Channel) -> None:
        """A resolver is there: it gets back what was kept."""
        records = list(self._policies.records.values())
        for start in range(0, len(records) or 1, RESTORED_AT_ONCE):
            part = records[start : start + RESTORED_AT_ONCE]
            channel.post(m.StsRestored(part, start + RESTORED_AT_ONCE >= len(records)))

    def take(self, message: m.StsKept) -> None:
        """A policy that is new, or to be forgotten."""
        if not self._policies.put(message.domain, message.record):
            self._queue.event("error", where="kept files", reason="no room for one more MTA-STS policy")
        if self._policies.is_changed and not self._scheduled:
            self._scheduled = True
            self._queue.loop.call_later(WRITE_EVERY_S, self._write)

    def _write(self) -> None:
        self._scheduled = False
        data = self._policies.encoded()

        def failed(error: Exception) -> None:
            self._queue.event("error", where="kept files", reason=str(error))
            self._policies.is_changed = self._scheduled = True
            self._queue.loop.call_later(WRITE_EVERY_S, self._write)

        self._queue.worker.call(lambda: self._policies.write(data), lambda _: None, failed)

    def close(self) -> None:
        """The end is near: what is not written yet is."""
        if self._policies.is_changed:
            data = self._policies.encoded()
            self._queue.worker.call(lambda: self._policies.write(data), lambda _: None, lambda _: None)
