"""A transport of asyncio that goes nowhere."""

from __future__ import annotations


class NotingTransport:
    """Notes what was written, and that it was closed."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close
