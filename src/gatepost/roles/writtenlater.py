"""A small file of the queue role that is written as a whole, by the worker thread, a while after what it holds has changed.

No mail depends on it: a crash before loses the last changes, and a disk that refuses is told and tried again. Who must know that the
disk has it, such as an operator who has something forgotten, waits with `write_now`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gatepost.roles.queue import Queue

RETRY_S = 5.0  # when the disk has refused


class WrittenLater:
    """`encoded` gives the octets, in the loop; `write` puts them on disk, in the worker thread, or raises. `what` names it in events."""

    def __init__(
        self, queue: Queue, what: str, encoded: Callable[[], bytes], write: Callable[[bytes], None], delay_s: float
    ) -> None:
        self._queue = queue
        self._what = what
        self._encoded = encoded
        self._write_out = write
        self._delay_s = delay_s
        self._is_due = False

    def write_soon(self) -> None:
        """It has changed."""
        if not self._is_due:
            self._is_due = True
            self._queue.loop.call_later(self._delay_s, self.flush)

    def flush(self) -> None:
        """Write it if it is due; at the latest before the end."""
        if self._is_due:
            self._write(lambda trouble: None)

    async def write_now(self) -> str:
        """Empty when the disk has it as it is now, else why not: then it is tried until the disk takes it."""
        answer: asyncio.Future[str] = self._queue.loop.create_future()
        self._write(answer.set_result)
        return await answer

    def _write(self, answer: Callable[[str], None]) -> None:
        self._is_due = False
        data = self._encoded()

        def failed(error: Exception) -> None:
            self._queue.event("error", where=self._what, reason=str(error))
            self._is_due = True
            self._queue.loop.call_later(RETRY_S, self.flush)
            answer(str(error))

        def done(_: Any) -> None:
            answer("")

        self._queue.worker.call(lambda: self._write_out(data), done, failed)


def refused(trouble: str) -> str:
    """What an operator is told whose forgetting did not reach the disk, as `write_now` said."""
    return (
        f"forgotten, but the disk refuses to keep that ({trouble}): a restart would undo it. "
        "It is tried until the disk takes it"
    )
