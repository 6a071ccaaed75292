"""One worker thread for the slow calls of a role, in order; results come back on the loop."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any


class Worker:
    """`call` runs `work` in the thread, then `done(result)` or `failed(error)` on the loop."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._queue: queue.SimpleQueue[tuple[Callable[[], Any], Callable[[Any], None], Callable[[Exception], None]]] = (
            queue.SimpleQueue()
        )

    def start(self) -> None:
        """Start the thread; after the lock-in, so that its filter covers it."""
        threading.Thread(target=self._run, name="worker", daemon=True).start()

    def call(self, work: Callable[[], Any], done: Callable[[Any], None], failed: Callable[[Exception], None]) -> None:
        self._queue.put((work, done, failed))

    def _run(self) -> None:
        while True:
            work, done, failed = self._queue.get()
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - whatever it is, the loop is told: it decides and logs
                self._loop.call_soon_threadsafe(failed, error)
            else:
                self._loop.call_soon_threadsafe(done, result)
