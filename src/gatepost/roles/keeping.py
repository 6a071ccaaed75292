"""What the queue role keeps on disk for roles that have none: MTA-STS policies (decision 0010) and the snapshot of recipients of the resolver.

The records are octets to it. They are written a little after they came, and at the end; a crash loses the last seconds, which costs a
fetch, or a question. Nothing of mail depends on them, so a disk that refuses is told and tried again. Only an operator who has recipients
forgotten waits for the disk: what comes back would answer for people who are gone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gatepost.ipc import messages as m
from gatepost.ipc.wire import Channel
from gatepost.spool.errors import SpoolError
from gatepost.spool.keptfile import KeptFile

if TYPE_CHECKING:
    from gatepost.roles.queue import Queue

POLICIES = "policies"
MAX_POLICIES_BYTES = 16 * 1024 * 1024
RECIPIENTS = "known"
RECIPIENTS_DIRECTORY = "recipients"
MAX_RECIPIENTS_BYTES = 64 * 1024 * 1024
WRITE_EVERY_S = 5.0
WRITE_RECIPIENTS_EVERY_S = 30.0
RESTORED_AT_ONCE = 500


class _Written:
    """A kept file that is written a while after it has changed."""

    def __init__(self, queue: Queue, file: KeptFile, every_s: float) -> None:
        self.file = file
        self._queue = queue
        self._every_s = every_s
        self._scheduled = False

    def load(self) -> None:
        try:
            self.file.load()
        except (SpoolError, ValueError) as error:
            self._queue.event("error", where="kept files", reason=str(error))

    def write_soon(self) -> None:
        if self.file.is_changed and not self._scheduled:
            self._scheduled = True
            self._queue.loop.call_later(self._every_s, self._write)

    def _write(self, written: asyncio.Future[str] | None = None) -> None:
        self._scheduled = False
        data = self.file.encoded()

        def done(_: Any) -> None:
            if written is not None:
                written.set_result("")

        def failed(error: Exception) -> None:
            self._queue.event("error", where="kept files", reason=str(error))
            self.file.is_changed = self._scheduled = True
            self._queue.loop.call_later(self._every_s, self._write)
            if written is not None:
                written.set_result(str(error))

        self._queue.worker.call(lambda: self.file.write(data), done, failed)

    async def write_now(self) -> str:
        """Empty when the file on disk is as the records are now, else why it is not."""
        written: asyncio.Future[str] = self._queue.loop.create_future()
        self._write(written)
        return await written

    def close(self) -> None:
        if self.file.is_changed:
            data = self.file.encoded()
            self._queue.worker.call(lambda: self.file.write(data), lambda _: None, lambda _: None)


class Keeping:
    """The queue's kept files."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        config = queue.config
        policies = KeptFile(".", POLICIES, config.tls.sts.max_policies, MAX_POLICIES_BYTES)
        known = KeptFile(".", RECIPIENTS, config.snapshot.max_entries, MAX_RECIPIENTS_BYTES, RECIPIENTS_DIRECTORY)
        self._policies = _Written(queue, policies, WRITE_EVERY_S)
        self._recipients = _Written(queue, known, WRITE_RECIPIENTS_EVERY_S)
        self._is_full_told = False

    def begin(self) -> None:
        """Read what is there."""
        self._policies.load()
        self._recipients.load()

    def reconfigure(self) -> None:
        self._policies.file.max_records = self._queue.config.tls.sts.max_policies
        self._recipients.file.max_records = self._queue.config.snapshot.max_entries

    def linked(self, channel: Channel) -> None:
        """A resolver is there: it gets back what was kept."""
        records = list(self._policies.file.records.values())
        for start in range(0, len(records) or 1, RESTORED_AT_ONCE):
            part = records[start : start + RESTORED_AT_ONCE]
            channel.post(m.StsRestored(part, start + RESTORED_AT_ONCE >= len(records)))
        known = list(self._recipients.file.records.items())
        for start in range(0, len(known) or 1, RESTORED_AT_ONCE):
            part = dict(known[start : start + RESTORED_AT_ONCE])
            channel.post(m.RecipientsRestored(part, start + RESTORED_AT_ONCE >= len(known)))

    def take(self, message: m.StsKept) -> None:
        """A policy that is new, or to be forgotten."""
        if not self._policies.file.put(message.domain, message.record):
            self._queue.event("error", where="kept files", reason="no room for one more MTA-STS policy")
        self._policies.write_soon()

    def take_recipients(self, message: m.RecipientsKept) -> None:
        """Recipients that were found, or are to be forgotten: these first, since they make room."""
        for name, record in sorted(message.records.items(), key=lambda item: bool(item[1])):
            if not self._recipients.file.put(name, record) and not self._is_full_told:
                self._is_full_told = True
                self._queue.event("error", where="kept files", reason="no room for one more recipient in the snapshot")
        self._recipients.write_soon()

    async def keep_now(self) -> dict[str, str]:
        """What the resolver has said so far of recipients is on disk behind this, or `error` says why not.

        It said it before control was told to ask, so it is in the socket already; other sockets are read in the same turn.
        """
        await asyncio.sleep(0)
        if trouble := await self._recipients.write_now():
            what = f"forgotten, but the disk refuses to keep that ({trouble})"
            return {"error": f"{what}: a restart would undo it. It is tried until the disk takes it"}
        return {}

    def close(self) -> None:
        """The end is near: what is not written yet is."""
        self._policies.close()
        self._recipients.close()
