"""What a receiver may say of files of the spool: only of those that it was given. In the queue role.

A receiver is known by its link, which the supervisor made: instance and generation. The name under which it holds files has them and its
process id, and it may have had other processes before. One that names another's segment or body file is broken, or broken into: its link
is given up, and nothing of the others' is sealed, removed or taken. Where the queue has heard its name, `take` of the spool compares that as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gatepost.ipc import messages as m
from gatepost.ipc.wire import Channel

if TYPE_CHECKING:
    from gatepost.roles.queue import Queue

Handler = Callable[["Queue", Channel, Any], None]


def checked(handler: Handler) -> Handler:
    """A handler of a receiver's messages that sees only what the receiver may say."""

    def handle(queue: Queue, channel: Channel, message: Any) -> None:
        holder = holder_of(queue.spool, message)
        if holder is None or is_named_by(holder, channel.peer):
            handler(queue, channel, message)
            return
        said = f"{'/'.join(map(str, channel.peer))} says {type(message).__name__} of what {holder} holds"
        queue.event("error", where="queue", reason=said)
        channel.lost()

    return handle


def holder_of(spool: Any, message: Any) -> str | None:
    """Whose file or name a message is about; None: nobody's."""
    match message:
        case m.Holding():
            return message.owner
        case m.BodyFileUnused():
            return spool.bodies.get(message.number)  # type: ignore[no-any-return]
        case m.SegmentSealed() | m.Accepted():
            state = spool.segments.get(message.segment)
            return None if state is None else state.owner
    return None


def is_named_by(name: str, peer: tuple[str, int, int]) -> bool:
    """Whether a holder is a process of the receiver at the other end of a link."""
    prefix = f"{peer[0]}/{peer[1]}/{peer[2]}/"
    return name.startswith(prefix) and name[len(prefix) :].isdecimal()
