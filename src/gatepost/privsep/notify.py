"""Tells the service manager how the gateway is: ready, reloading, stopping, alive (sd_notify(3), in Python alone).

One datagram for each state to the socket that NOTIFY_SOCKET names, a path or (first character "@") an abstract name. Without
NOTIFY_SOCKET every method does nothing. A service manager that does not read is waited for a second at most, and not at all for a
ping; that it is not there is no error: mail goes on. The variables are taken out of the environment, so that no role inherits them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_WAIT_S = 1.0
_PINGS_PER_PERIOD = 3  # sd_watchdog_enabled(3) advises two; a third leaves room for a late one


class Notifier:
    """Where to tell it; `watchdog_period_s` is how often `alive` has to be called, None if nobody watches."""

    def __init__(self, address: str | None, watchdog_period_s: float | None = None) -> None:
        self.watchdog_period_s = watchdog_period_s
        self._sock: socket.socket | None = None
        if not address or address[0] not in "/@":  # vsock and the like: not for us
            self.watchdog_period_s = None
            return
        self._address = "\0" + address[1:] if address[0] == "@" else address
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._sock.settimeout(_WAIT_S)

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Notifier:
        """Take what the service manager put into the environment of this process, and take it out of there."""
        address, period, pid = (environment.pop(name, None) for name in _VARIABLES)
        is_watched = (
            period is not None and period.isdecimal() and int(period) > 0 and pid in (None, "", str(os.getpid()))
        )
        return cls(address, int(period or 0) / 1_000_000 / _PINGS_PER_PERIOD if is_watched else None)

    def ready(self, status: str) -> None:
        """It serves; `systemctl start` returns. Also the end of a reload."""
        self._tell("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._tell(f"STATUS={text}")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        # The time is what Type=notify-reload (systemd 253) asks for; older ones pass over it.
        self._tell(
            "RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=Taking the configuration anew"
        )

    def stopping(self) -> None:
        """It drains and will end."""
        self._tell("STOPPING=1", "STATUS=Finishing what is under way")

    def alive(self) -> None:
        """To be called every `watchdog_period_s`, and only if all is well."""
        if self._sock is not None:
            self._sock.settimeout(0)
            self._tell("WATCHDOG=1")
            self._sock.settimeout(_WAIT_S)

    def close(self) -> None:
        """Nothing is told any more."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _tell(self, *assignments: str) -> None:
        if self._sock is None:
            return
        lines = (line.replace("\n", " ") for line in assignments)  # a line break would be an assignment of its own
        with contextlib.suppress(OSError):
            self._sock.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
