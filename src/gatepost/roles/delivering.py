"""What the delivering roles have in common: attempts and descriptors in, outcomes out.

They take attempts from the queue and read the content from descriptors they were given. Neither can open a file of the spool; the one
that talks to the network cannot open any file, the one that writes Maildirs cannot talk to the network.
"""

from __future__ import annotations

import os
from typing import Any

from gatepost.config.schema import Config
from gatepost.events import EventLog
from gatepost.ipc import messages as m
from gatepost.ipc.wire import Channel
from gatepost.roles.skeleton import Peer, Role
from gatepost.spool.layout import close_anyway

NEXT_LINK = 1 << 48  # no queue gives out so many jobs, or sources


class Sources:
    """The descriptors that messages are read from; one that is gone is closed when its last attempt has ended."""

    def __init__(self) -> None:
        self._descriptors: dict[int, int] = {}
        self._uses: dict[int, int] = {}
        self._gone: set[int] = set()

    def share(self, source: int, descriptor: int) -> None:
        old = self._descriptors.get(source)
        if old is not None:
            close_anyway(old)
        self._descriptors[source] = descriptor
        self._gone.discard(source)

    def use(self, source: int) -> None:
        self._uses[source] = self._uses.get(source, 0) + 1

    def unuse(self, source: int) -> None:
        left = self._uses[source] - 1
        if left:
            self._uses[source] = left
            return
        del self._uses[source]
        if source in self._gone:
            self._close(source)

    def gone(self, source: int) -> None:
        if source in self._uses:
            self._gone.add(source)
        else:
            self._close(source)

    def all_gone(self) -> None:
        """Whoever shared them is gone."""
        for source in list(self._descriptors):
            self.gone(source)

    def _close(self, source: int) -> None:
        self._gone.discard(source)
        descriptor = self._descriptors.pop(source, None)
        if descriptor is not None:
            close_anyway(descriptor)

    def read(self, source: int, offset: int, size: int) -> bytes:
        """Exactly `size` bytes, or OSError."""
        data = os.pread(self._descriptors[source], size, offset)
        while len(data) < size:
            more = os.pread(self._descriptors[source], size - len(data), offset + len(data))
            if not more:
                raise OSError("content ends early")
            data += more
        return data


class Delivering(Role):
    """What both have in common: attempts in, outcomes out.

    A queue that comes back counts jobs and sources from the beginning. So both get the number of the link in their upper bits: an
    attempt of the queue before reads from its own descriptors to the end, and its outcome is told to nobody.
    """

    def __init__(self, start: m.Start, config: Config, descriptors: list[int], log: EventLog, loop: Any) -> None:
        super().__init__(start, config, descriptors, log, loop)
        self.sources = Sources()
        self.engine: Any = None
        self._queue: Channel | None = None
        self._link = 0
        self._sources_of: dict[int, int] = {}

    def on_link(self, channel: Channel) -> None:
        if channel.peer[0] == "queue":
            self._queue = channel
            self._link += NEXT_LINK

    def on_link_lost(self, peer: Peer) -> None:
        """What no connection has begun yet would arrive twice: the next queue gives it out again."""
        if peer[0] == "queue":
            self._queue = None
            self.sources.all_gone()
            self.engine.forget_waiting()

    def handle(self, channel: Channel, message: m.Message, descriptors: list[int]) -> None:
        if type(message) is m.Attempt:
            message.job += self._link
            message.source += self._link
            self._sources_of[message.job] = message.source
            self.sources.use(message.source)
            self.engine.submit(message)
        elif type(message) is m.SourceShared:
            self.sources.share(self._link + message.source, descriptors[0])
        elif type(message) is m.SourceGone:
            self.sources.gone(self._link + message.source)
        elif type(message) is m.LookupDone:
            self.looked_up(message)

    def looked_up(self, message: m.LookupDone) -> None:
        """An answer of the resolver."""

    def attempt_done(self, message: m.AttemptDone) -> None:
        self.sources.unuse(self._sources_of.pop(message.job))
        message.job -= self._link
        if self._queue is not None and message.job > 0:
            self._queue.post(message)

    def read(self, source: int, offset: int, size: int) -> bytes:
        return self.sources.read(source, offset, size)

    def drain(self, limit_s: float, end_sessions: bool) -> None:
        self.loop.call_later(limit_s, self.exit)
        self.loop.create_task(self._drain())

    async def _drain(self) -> None:
        await self.engine.drain()
        self.leave()

    def answer(self, what: str, arguments: dict[str, Any]) -> Any:
        return self.engine.stats() if what == "stats" else super().answer(what, arguments)
