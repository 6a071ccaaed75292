"""The signals that the supervisor obeys, as bytes in a pipe that its selector watches."""

from __future__ import annotations

import os
import signal


def catch_signals() -> int:
    """The reading end: each byte is the number of a signal."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return reading
