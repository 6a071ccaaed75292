"""A name server that knows no name (NXDOMAIN, RFC 2308), for the servers that ask.

It makes the bench independent of the machine's resolver: an answer comes at once, and no question leaves the machine.
Its CPU time is counted for no server.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import threading

ADDRESS = "127.0.0.42"


@functools.cache
def start_name_server() -> str:
    """Start it once in this process, as a thread that ends with it; its address."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((ADDRESS, 53))
    threading.Thread(target=answer_queries, args=(sock,), daemon=True).start()
    return ADDRESS


def answer_queries(sock: socket.socket) -> None:
    """Echo each question, marked as an answer without records; an EDNS record of the question is cut off."""
    while True:
        query, client = sock.recvfrom(2048)
        if len(query) > 16:
            end = query.index(b"\0", 12) + 5
            header = query[:2] + b"\x85\x83" + query[4:6] + b"\0\0\0\0\0\0"
            with contextlib.suppress(OSError):
                sock.sendto(header + query[12:end], client)
