"""When the queue makes its outcome log durable: one sync for all that gathered, and who waits for it.

Outcomes wait up to COMMIT_DELAY_S for company: a power cut before repeats a delivery, never loses one. What was promised to a person waits
for nobody and is answered behind the sync. A sync that is refused is tried again until it succeeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gatepost.roles.queue import Queue

COMMIT_DELAY_S = 0.5  # outcomes may be this old before a power cut cannot undo them; undone means delivered once more
RETRY_S = 0.25
BUSY_S = 0.01  # until it is looked whether the sync under way has ended


class Commits:
    """Of one queue role."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._then: list[Callable[[], None]] = []
        self._waiting: list[asyncio.Future[str]] = []
        self._timer: Any = None
        self._is_under_way = False

    def soon(self, then: Callable[[], None] | None = None) -> None:
        """Have the log synced before long; `then` is called when that is done."""
        if then is not None:
            self._then.append(then)
        if self._timer is None:
            self._timer = self._queue.loop.call_later(0.0 if then is not None else COMMIT_DELAY_S, self._commit)

    async def durable(self) -> str:
        """Have it synced now; empty when all that was recorded before this call is durable, else why it is not yet."""
        loop = self._queue.loop
        future: asyncio.Future[str] = loop.create_future()
        self._waiting.append(future)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(0.0, self._commit)
        return await future

    def _commit(self) -> None:
        if self._is_under_way:
            self._timer = self._queue.loop.call_later(BUSY_S, self._commit)
            return
        self._timer = None
        self._is_under_way = True
        then, self._then = self._then, []
        waiting, self._waiting = self._waiting, []

        def done(_: None) -> None:
            self._is_under_way = False
            self._queue.committed()
            for call in then:
                call()
            _answer(waiting, "")

        def failed(error: Exception) -> None:
            self._is_under_way = False
            self._queue.on_trouble(error)
            # Nothing else may happen that would commit: while there is trouble no mail comes.
            self._queue.loop.call_later(RETRY_S, self.soon)
            self._then[:0] = then
            _answer(waiting, str(error) or type(error).__name__)

        self._queue.worker.call(self._queue.spool.commit, done, failed)


def _answer(waiting: list[asyncio.Future[str]], trouble: str) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(trouble)
