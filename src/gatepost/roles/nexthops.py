"""The next hops that receivers may name, in the queue role: those that a generation with living receivers can yield.

Behind a reload receivers of the generation before go on with their sessions for a while, and with its routes. What none of the living
generations can have meant was made up by a receiver that was broken into: the message was acknowledged, so it is kept, but held, until the
operator has looked at it. Mail that the queue knows already is not looked at again: it keeps its next hop whatever becomes of the configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatepost.config.encoded import decode_config
from gatepost.config.schema import Config
from gatepost.ipc import messages as m
from gatepost.model import Envelope
from gatepost.routing.permitted import PermittedHops
from gatepost.spool.entry import Entry

if TYPE_CHECKING:
    from gatepost.roles.queue import Queue


class NextHops:
    """`permits` is asked by the spool, in any thread, once for each message that a receiver has written."""

    def __init__(self, queue: Queue, generation: int, config: Config) -> None:
        self._queue = queue
        queue.spool.permits = self.permits
        self._generation = generation
        self._newest = PermittedHops(config)
        self._older: dict[int, PermittedHops] = {}  # replaced, never changed
        self._receivers: dict[int, set[int]] = {}  # instances by generation, those that may still have something to say
        # refused before older generations were known: a queue that has just been started
        self._early: list[str] | None = []

    def permits(self, envelope: Envelope) -> bool:
        """Whether a living generation can have sent every recipient where he is to go."""
        for recipient in envelope.recipients:
            if not self._newest.permits(recipient):
                if any(hops.permits(recipient) for hops in self._older.values()):
                    continue
                if self._early is not None:
                    self._early.append(envelope.id)
                return False
        return True

    def begin(self, generation: int, config: Config) -> None:
        """A new generation has taken over; what its predecessor yields is permitted while it has receivers."""
        self._older = self._older | {self._generation: self._newest}
        self._generation, self._newest = generation, PermittedHops(config)
        self._forget_idle()

    def add_older(self, message: m.OldGeneration) -> None:
        """A generation that was superseded before this queue was started: what was held for want of it goes on."""
        self._older = self._older | {message.generation: PermittedHops(decode_config(message.config))}
        spool = self._queue.spool
        for entry in [entry for key in self._early or () if (entry := spool.entries.get(key)) and entry.refused]:
            if self.permits(entry.envelope):
                spool.release(entry, entry.received_s)
                self._queue.enter(entry)

    def joined(self, peer: tuple[str, int, int]) -> None:
        """A receiver is linked: older generations, if there are any, were told of before."""
        self._receivers.setdefault(peer[2], set()).add(peer[1])
        if self._early is not None:
            self._early = None
            for entry in self._queue.spool.entries.values():
                if entry.refused:
                    self.tell(entry)

    def gone(self, instance: int, generation: int) -> None:
        """A receiver has ended, and everything that it left has been read."""
        self._receivers.get(generation, set()).discard(instance)
        self._forget_idle()

    def _forget_idle(self) -> None:
        self._older = {generation: hops for generation, hops in self._older.items() if self._receivers.get(generation)}

    def tell(self, entry: Entry) -> None:
        """That a message is held because of its next hop; when it comes, and again at each start, once that is certain."""
        if self._early is not None:
            return
        envelope = entry.envelope
        first = next((one for one in envelope.recipients if not self._newest.permits(one)), envelope.recipients[0])
        segment = self._queue.spool.segments.get(entry.segment)
        self._queue.event(
            "next_hop_refused",
            id=entry.id,
            session=envelope.session_id,
            address=envelope.peer_address,
            recipient=first.address,
            next_hop=first.next_hop,
            receiver=segment.owner if segment is not None else "",
        )
