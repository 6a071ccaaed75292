"""TLS to an address for a name: libraries that are given an address verify the certificate for the name all the same.

Names are looked up by the stub resolver, since a locked-in role has no resolv.conf; what connects for us gets numbers.
"""

from __future__ import annotations

import socket
import ssl


class NamedContext(ssl.SSLContext):
    """A client context for one server: whatever name a library gives, `name` is asked for and verified."""

    name: str

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return super().wrap_bio(incoming, outgoing, server_side, self.name, session)

    def wrap_socket(
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        return super().wrap_socket(sock, server_side, do_handshake_on_connect, suppress_ragged_eofs, self.name, session)


def new_named_context(name: str, authorities: str) -> NamedContext:
    """Authorities are PEM; raises ssl.SSLError."""
    context = NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.name = name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=authorities)
    return context
