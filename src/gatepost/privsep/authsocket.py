"""Connections to Dovecot's authentication socket, made by the supervisor for receivers, which can neither connect nor open.

Nothing is read or written here. A receiver that was broken into can ask for connections to this one socket and to nothing else, and for
few: each is its own for good.
"""

from __future__ import annotations

import os
import socket
import time

from gatepost.config.schema import Config
from gatepost.ipc.messages import AuthSocket
from gatepost.privsep.child import Child

UNIX = "unix:"
MAX_AT_ONCE = 10  # connections for one receiver, which needs one, and another when that is lost
ANOTHER_S = 10.0  # one more after so long


def give_auth_socket(config: Config, child: Child) -> None:
    """Answer NeedAuthSocket: a descriptor, or the reason why there is none."""
    if config.auth.dovecot is None:  # an old generation asks
        child.send(AuthSocket("no longer in the configuration"))
        return
    if not may_have_another(child, time.monotonic()):
        child.send(AuthSocket(f"{config.auth.dovecot}: a new connection was asked for too often"))
        return
    try:
        sock = connect(config.auth.dovecot)
    except OSError as error:
        child.send(AuthSocket(f"{config.auth.dovecot}: {os.strerror(error.errno or 0)}"))
        return
    child.send(AuthSocket(), [sock.fileno()])
    sock.close()


def may_have_another(child: Child, now_s: float) -> bool:
    """Count a connection for this receiver, if it may have one."""
    count, at_s = child.auth_sockets
    count = max(0.0, count - (now_s - at_s) / ANOTHER_S)
    if count + 1.0 > MAX_AT_ONCE:
        return False
    child.auth_sockets = count + 1.0, now_s
    return True


def connect(name: str) -> socket.socket:
    """Begin a connection; never waits. Raises OSError."""
    if name.startswith(UNIX):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        address: str | tuple[str, int] = name.removeprefix(UNIX)
    else:
        host, _, port = name.removeprefix("inet:").rpartition(":")
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        address = (host.strip("[]"), int(port))
    try:
        sock.connect(address)
    except BlockingIOError:
        if name.startswith(UNIX):  # its queue is full
            sock.close()
            raise
    except OSError:
        sock.close()
        raise
    return sock
