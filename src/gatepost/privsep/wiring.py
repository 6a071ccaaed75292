"""The socket pairs between roles: who has one with whom, and a new one when it is lost.

Each link has a serial number. A role that says it lost one means that number, and is believed only if it is the newest of
the two: an end that was replaced is lost as well, and must not replace its successor.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from itertools import count

from gatepost.ipc.messages import Link, LinkLost
from gatepost.privsep.child import Child, State
from gatepost.privsep.plan import are_wired

BUFFER_BYTES = 1024 * 1024  # asked for; the kernel gives at most net.core.wmem_max
RELINK_DELAY_S = 0.05  # a peer that died is reaped meanwhile

Key = tuple[str, int, int]


class Wiring:
    """Links between `children`; `after(delay_s, call)` is the supervisor's timer."""

    def __init__(self, children: Mapping[Key, Child], after: Callable[[float, Callable[[], None]], None]) -> None:
        self._children = children
        self._after = after
        self._serials = count(1)
        self._newest: dict[frozenset[Key], int] = {}

    def link_all(self, child: Child, newest_generation: int) -> None:
        """Link a role to every peer that is ready, draining ones too: what they still do may need it."""
        for other in list(self._children.values()):
            if other is not child and other.generation <= newest_generation and are_wired(child.key, other.key):
                self._link(child, other)

    def link_generation(self, generation: int) -> None:
        """Link a new generation, when all of it is ready: each pair once."""
        children = list(self._children.values())
        for at, one in enumerate(children):
            for other in children[at + 1 :]:
                if generation in (one.generation, other.generation) and are_wired(one.key, other.key):
                    self._link(one, other)

    def lost(self, child: Child, message: LinkLost) -> None:
        """A role lost a link to a peer that may still live."""
        pair = frozenset((child.key, (message.role, message.instance, message.generation)))
        if self._newest.get(pair) == message.serial:
            self._after(RELINK_DELAY_S, lambda: self._link_again(pair, message.serial))

    def forget(self, child: Child) -> None:
        """It has ended."""
        for pair in [pair for pair in self._newest if child.key in pair]:
            del self._newest[pair]

    def _link_again(self, pair: frozenset[Key], serial: int) -> None:
        ends = [self._children[key] for key in pair if key in self._children]
        if len(ends) == 2 and self._newest.get(pair) == serial:
            self._link(*ends)

    def _link(self, one: Child, other: Child) -> None:
        """Connect two roles; a link they had before is replaced."""
        if not all(child.state in (State.READY, State.DRAINING) and child.fileno() >= 0 for child in (one, other)):
            return
        serial = self._newest[frozenset((one.key, other.key))] = next(self._serials)
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for child, peer, end in ((one, other, ends[0]), (other, one, ends[1])):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
            child.send(Link(*peer.key, serial), [end.fileno()])
        for end in ends:
            end.close()
