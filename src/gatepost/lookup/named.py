"""TLS to an address for a name: libraries that are given an address verify the certificate for the name all the same.

Names are looked up by the stub resolver, since a locked-in role has no resolv.conf; what connects for us gets numbers.
"""

from __future__ import annotations

import ssl
from typing import Any


class NamedContext(ssl.SSLContext):
    """A client context for one server: whatever name a library gives, `name` is asked for and verified."""

    name: str

    def wrap_bio(self, incoming: Any, outgoing: Any, server_side: bool = False, **rest: Any) -> Any:
        return super().wrap_bio(incoming, outgoing, server_side, **{**rest, "server_hostname": self.name})

    def wrap_socket(self, sock: Any, server_side: bool = False, **rest: Any) -> Any:
        return super().wrap_socket(sock, server_side, **{**rest, "server_hostname": self.name})


def new_named_context(name: str, authorities: str) -> NamedContext:
    """Authorities are PEM; raises ssl.SSLError."""
    context = NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.name = name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=authorities)
    return context
