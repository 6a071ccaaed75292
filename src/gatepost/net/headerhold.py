"""Holds the beginning of a message back until its header is whole, so that it can be changed in one place.

Octets in, octets out; what is done with them is the caller's `rewrite`, which may raise NeedsAnswer: then what comes behind the header is
held back too, until `rewritten` is called again and has its facts. Bounded by `smtp.max_header_bytes`, over which the session gives the
message up, and, while facts are waited for, by what the connection had read before it stopped reading. Only made for a message whose header
may change.
"""

from __future__ import annotations

from collections.abc import Callable


class HeaderHold:
    """Of one message. `held_bytes` counts what was fed and has not been given out."""

    __slots__ = ("_blocks", "_rewrite", "_tail", "held_bytes", "is_waiting")

    def __init__(self, rewrite: Callable[[bytes], bytes]) -> None:
        self._rewrite = rewrite
        self._blocks: list[bytes] = []
        self._tail = b"\r\n"
        self.held_bytes = 0
        self.is_waiting = False  # the header is whole, and what is to become of it is not known yet

    def feed(self, content: bytes, last: bool) -> bool:
        """Take more of the message; whether its header is whole with it, or the message is."""
        window = self._tail + content
        self._blocks.append(content)
        self.held_bytes += len(content)
        if not last and b"\r\n\r\n" not in window:
            self._tail = window[-3:]
            return False
        return True

    def rewritten(self) -> bytes:
        """The message so far with its header changed; raises what `rewrite` raises, and may be called again."""
        self._blocks = [b"".join(self._blocks)]
        return self._rewrite(self._blocks[0])
