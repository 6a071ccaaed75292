"""Turns of the event loop: when one begins, timers run before sockets are read.

A process that got no turn for a while (a busy machine, one that was suspended) finds its timers due and what came meanwhile unread. Whoever
is about to find a peer late looks READ_S later, behind another turn: the peer may have been in time.
"""

from __future__ import annotations

READ_S = 0.001
