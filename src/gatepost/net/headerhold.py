"""Holds the beginning of a message back until its header is whole, so that it can be changed in one place.

Octets in, octets out; what is done with them is the caller's `rewrite`. Bounded by `smtp.max_header_bytes`, over which the session gives the
message up. Only made for a message whose header may change.
"""

from __future__ import annotations

from collections.abc import Callable


class HeaderHold:
    """Of one message. `held_bytes` counts what was fed before the header was whole."""

    __slots__ = ("_blocks", "_rewrite", "_tail", "held_bytes")

    def __init__(self, rewrite: Callable[[bytes], bytes]) -> None:
        self._rewrite = rewrite
        self._blocks: list[bytes] = []
        self._tail = b"\r\n"
        self.held_bytes = 0

    def feed(self, content: bytes, last: bool) -> bytes | None:
        """The message so far, its header changed, once that is whole or the message is; None: not yet."""
        window = self._tail + content
        self._blocks.append(content)
        if not last and b"\r\n\r\n" not in window:
            self._tail = window[-3:]
            self.held_bytes += len(content)
            return None
        return self._rewrite(b"".join(self._blocks))
