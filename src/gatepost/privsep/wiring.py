"""Makes the socket pair between two roles and hands each its end."""

from __future__ import annotations

import socket

from gatepost.ipc.messages import Link
from gatepost.privsep.child import Child

BUFFER_BYTES = 1024 * 1024  # asked for; the kernel gives at most net.core.wmem_max


def make_link(one: Child, other: Child) -> None:
    """Connect two roles; a link they had before is replaced."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for child, peer, end in ((one, other, ends[0]), (other, one, ends[1])):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        child.send(Link(*peer.key), [end.fileno()])
    for end in ends:
        end.close()
