"""One role process as the supervisor sees it: how it is started, what it said of itself, how it is stopped.

fork+exec of a fresh interpreter (`posix_spawn`): a role shares no memory with the supervisor, so that nothing read by root
(keys, other roles' secrets) is inherited by accident. Descriptor 3 is its control channel; everything else comes over it.
"""

from __future__ import annotations

import contextlib
import enum
import os
import selectors
import signal
import socket
import sys
from collections.abc import Sequence

from gatepost.ipc.messages import Message
from gatepost.ipc.wire import LinkClosed, PacketReader, WireError, close_all, send_blocking
from gatepost.privsep.kernel import Records

CONTROL_DESCRIPTOR = 3
SEND_TIMEOUT_S = 30.0  # a role reads its first message only when its interpreter has started
# one that is up and does not read its few control messages must not stop the supervisor: it is killed
READY_TIMEOUT_S = 1.0
# of a role to the supervisor, which ends one that says more; commands of an administrator are a few
MAX_MESSAGES_S = 500
LISTENING = ("receiver", "control")  # roles that accept connections
_ENVIRONMENT_KEPT = ("PATH", "LANG", "LC_ALL", "TZ")
# OpenSSL's own default authorities: none. A role trusts what the supervisor hands to it; a library that loads the system's when it is
# imported, as aiohttp does, would only have them in memory.
_NO_TRUST = {"SSL_CERT_FILE": "/dev/null", "SSL_CERT_DIR": "/dev/null"}


def role_environment() -> dict[str, str]:
    """The environment of a role."""
    return {key: os.environ[key] for key in _ENVIRONMENT_KEPT if key in os.environ} | _NO_TRUST


class State(enum.Enum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


class Child:
    """A role process; `key` is (role, instance, generation)."""

    def __init__(self, role: str, instance: int, generation: int) -> None:
        self.role = role
        self.instance = instance
        self.generation = generation
        self.state = State.STARTING
        self.is_serving = role != "receiver"  # it says when it listens
        self.has_closed = role not in LISTENING  # and, when it drains, that it does no more
        self.rights = ""
        self.tries = b"[]"
        self.pid = 0
        self.started_s = 0.0
        self.missed = 0  # ticks of pulse.py since it was pinged and has not answered
        self.kill_at_s: float | None = None
        self.reader: PacketReader | None = None
        self.records: Records | None = None
        self.auth_sockets = (0.0, 0.0)  # given to it of late, and when that was counted (`authsocket.py`)
        self._heard = (0, 0)  # second, messages in it
        self._sock: socket.socket | None = None

    @property
    def key(self) -> tuple[str, int, int]:
        return self.role, self.instance, self.generation

    @property
    def name(self) -> str:
        return f"{self.role}/{self.instance}"

    @property
    def fields(self) -> dict[str, object]:
        """How events name it."""
        return {"name": self.role, "number": self.instance, "generation": self.generation, "pid": self.pid}

    def spawn(self, now_s: float) -> None:
        """Start the process; raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-m", "gatepost.roles", self.role, str(self.instance)],
                role_environment(),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), CONTROL_DESCRIPTOR),
                ],
                setsigmask=[],
                setsigdef=[signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE],
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        # It does not lock itself in before Start is sent. Where its records cannot be opened they are looked for when they are read.
        with contextlib.suppress(OSError):
            self.records = Records(self.pid)
        ours.settimeout(SEND_TIMEOUT_S)
        self._sock = ours
        self.reader = PacketReader(ours)
        self.started_s = now_s

    def fileno(self) -> int:
        return self._sock.fileno() if self._sock is not None else -1

    @property
    def has_more(self) -> bool:
        """Whether something that it said has not been read yet."""
        with selectors.DefaultSelector() as waiting:
            waiting.register(self.fileno(), selectors.EVENT_READ)
            return bool(waiting.select(0))

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> bool:
        """Send, or say that the role is gone (its end is noticed elsewhere)."""
        if self._sock is None:
            return False
        try:
            self._sock.settimeout(SEND_TIMEOUT_S if self.state is State.STARTING else READY_TIMEOUT_S)
            send_blocking(self._sock, message, descriptors)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            return False
        except (LinkClosed, OSError):
            return False
        return True

    def read(self, now_s: float) -> Sequence[Message]:
        """What it says. Raises LinkClosed, OSError, and WireError also for more than a role in order ever says."""
        if self.reader is None:
            raise LinkClosed
        batch, descriptors = self.reader.read()
        close_all(descriptors)  # no role has any to give to the supervisor
        second, before = self._heard
        self._heard = int(now_s), len(batch) + (before if second == int(now_s) else 0)
        if self._heard[1] > MAX_MESSAGES_S:
            raise WireError(f"more than {MAX_MESSAGES_S} messages in a second")
        return batch

    def signal(self, number: int) -> None:
        if self.pid and self.state is not State.GONE:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def close(self) -> None:
        """Close its control channel; it may live on for a moment."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def reaped(self) -> None:
        """It has ended: its process id may be another's from now on."""
        self.close()
        if self.records is not None:
            self.records.close()
            self.records = None
        self.state = State.GONE
