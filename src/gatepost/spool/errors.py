"""What can go wrong in the spool, in the caller's terms.

A caller tells them apart by what it has to do next: try again later (SpoolFull), stop accepting (SpoolUnhealthy), forget the
message (AlreadyGone), bounce it (MessageDamaged), or not start at all (SpoolRefused). `SpoolError` is the base, and what a
single segment raises for an input/output error that is not a full disk.
"""

from __future__ import annotations


class SpoolError(Exception):
    """The operation did not take place; what was durable before still is."""


class SpoolFull(SpoolError):
    """No space, no inodes or over quota: temporary, nothing was stored."""


class SpoolUnhealthy(SpoolError):
    """The spool cannot promise durability now (a refused fsync, an input/output error): accept nothing."""


class AlreadyGone(SpoolError):
    """The entry is finished or unknown: whatever was to be done with it comes too late."""


class MessageDamaged(SpoolError):
    """The content no longer has the checksum it was stored with. It was put aside; it must not be delivered."""


class SpoolRefused(SpoolError):
    """The spool directory is not fit to start with. `advice` is what the operator types to mend it."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(f"{problem}; {advice}" if advice else problem)
        self.problem = problem
        self.advice = advice
