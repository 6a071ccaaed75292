"""The body files of a receiver: opened by the queue, kept in stock, given to messages that are large.

A part of the receiver role, which has the state: files in stock, connections that wait for one, whether the queue has been asked. What is
written to a file is `net/smtp_in.py`'s business.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from gatepost.ipc import messages as m
from gatepost.ipc.wire import Channel
from gatepost.net.smtp_in import LOW_MEMORY_SPILL_BYTES, SmtpIn
from gatepost.smtp.reply import Reply
from gatepost.spool.layout import close_anyway

if TYPE_CHECKING:
    from gatepost.config.schema import Smtp

BODY_FILES_KEPT = 8


class BodyFiles:
    """See the module."""

    limits: Smtp
    loop: Any
    held_bytes: int
    _health: Reply | None
    _queue: Channel | None
    _body_files: deque[tuple[int, int]]
    _body_waiters: deque[SmtpIn]
    _body_asked: int

    def spill_bytes(self) -> int:
        """From which size on a message goes to a body file now."""
        return self.limits.body_file_bytes if self.held_bytes < self.limits.memory_bytes else LOW_MEMORY_SPILL_BYTES

    def take_body_file(self, connection: SmtpIn) -> tuple[int, int] | None:
        """A body file, or None: it comes later by `give_body_file`."""
        if not self._body_files:
            if self._health is not None:
                self.loop.call_soon(connection.deny_body_file, self._health)
                return None
            self._body_waiters.append(connection)
            self._ask_body_files()
            return None
        pair = self._body_files.popleft()
        if len(self._body_files) < BODY_FILES_KEPT // 2:
            self._ask_body_files()
        return pair

    def _ask_body_files(self) -> None:
        wanted = BODY_FILES_KEPT + min(len(self._body_waiters), 64) - len(self._body_files)
        if wanted > 0 and not self._body_asked and self._queue is not None:
            self._body_asked = wanted
            self._queue.post(m.NeedBodyFiles(wanted))

    def _offer_body_file(self, number: int, descriptor: int) -> None:
        while self._body_waiters:
            connection = self._body_waiters.popleft()
            if connection.transaction is not None and connection.transaction.body_file < 0:
                connection.give_body_file(number, descriptor)
                return
        self._body_files.append((number, descriptor))

    def release_body_file(self, number: int, descriptor: int) -> None:
        """The transaction was given up: the queue removes the file."""
        close_anyway(descriptor)
        if self._queue is not None:
            self._queue.post(m.BodyFileUnused(number))
