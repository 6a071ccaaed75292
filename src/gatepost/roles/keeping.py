"""What the queue role keeps on disk for roles that have none: MTA-STS policies (decision 0010) and the snapshot of recipients of the resolver.

The records are octets to it. They are written a little after they came, and at the end; a crash loses the last seconds, which costs a
fetch, or a question. Nothing of mail depends on them, so a disk that refuses is told and tried again. Only an operator who has recipients
forgotten waits for the disk: what comes back would answer for people who are gone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gatepost.ipc import messages as m
from gatepost.ipc.wire import Channel
from gatepost.roles.writtenlater import WrittenLater, refused
from gatepost.spool.errors import SpoolError
from gatepost.spool.keptfile import KeptFile

if TYPE_CHECKING:
    from gatepost.roles.queue import Queue

POLICIES = "policies"
MAX_POLICIES_BYTES = 16 * 1024 * 1024
RECIPIENTS = "known"
RECIPIENTS_DIRECTORY = "recipients"
MAX_RECIPIENTS_BYTES = 64 * 1024 * 1024
WRITE_DELAY_S = 5.0
WRITE_RECIPIENTS_DELAY_S = 30.0
WHAT = "kept files"
RESTORED_AT_ONCE = 500


class _Kept:
    """Such a file, and when it is written."""

    def __init__(self, queue: Queue, file: KeptFile, delay_s: float) -> None:
        self.file = file
        self._queue = queue
        self._later = WrittenLater(queue, WHAT, file.encoded, lambda data: file.write(data), delay_s)
        self.write_now = self._later.write_now
        self.flush = self._later.flush

    def load(self) -> None:
        try:
            self.file.load()
        except (SpoolError, ValueError) as error:
            self._queue.event("error", where=WHAT, reason=str(error))

    def write_soon(self) -> None:
        if self.file.is_changed:
            self._later.write_soon()


class Keeping:
    """The queue's kept files."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        config = queue.config
        policies = KeptFile(".", POLICIES, config.tls.sts.max_policies, MAX_POLICIES_BYTES)
        known = KeptFile(".", RECIPIENTS, config.snapshot.max_entries, MAX_RECIPIENTS_BYTES, RECIPIENTS_DIRECTORY)
        self._policies = _Kept(queue, policies, WRITE_DELAY_S)
        self._recipients = _Kept(queue, known, WRITE_RECIPIENTS_DELAY_S)
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
            found = dict(known[start : start + RESTORED_AT_ONCE])
            channel.post(m.RecipientsRestored(found, start + RESTORED_AT_ONCE >= len(known)))

    def take(self, message: m.StsKept) -> None:
        """A policy that is new, or to be forgotten."""
        if not self._policies.file.put(message.domain, message.record):
            self._queue.event("error", where=WHAT, reason="no room for one more MTA-STS policy")
        self._policies.write_soon()

    def take_recipients(self, message: m.RecipientsKept) -> None:
        """Recipients that were found, or are to be forgotten: these first, since they make room."""
        for name, record in sorted(message.records.items(), key=lambda item: bool(item[1])):
            if not self._recipients.file.put(name, record) and not self._is_full_told:
                self._is_full_told = True
                self._queue.event("error", where=WHAT, reason="no room for one more recipient in the snapshot")
        self._recipients.write_soon()

    async def keep_now(self) -> dict[str, str]:
        """What the resolver has said so far of recipients is on disk behind this, or `error` says why not.

        It said it before control was told to ask, so it is in the socket already; other sockets are read in the same turn.
        """
        await asyncio.sleep(0)
        if trouble := await self._recipients.write_now():
            return {"error": refused(trouble)}
        return {}

    def close(self) -> None:
        """The end is near: what is not written yet is."""
        self._policies.flush()
        self._recipients.flush()
