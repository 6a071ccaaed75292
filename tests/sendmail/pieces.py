"""A piped SMTP session whose caller's octets come as they are cut."""

from __future__ import annotations

from gatepost.sendmail.passing import Passing


class Pieces(Passing):
    """What it says to the gateway is in `said`, what it has read and not used yet in `left`."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._buffer = b""
        self._pieces = pieces
        self._is_closed = False
        self.said = b""

    @property
    def left(self) -> bytes:
        return self._buffer

    def _read_more(self) -> bool:
        if self._pieces:
            self._buffer += self._pieces.pop(0)
            return True
        return False

    def _say(self, octets: bytes) -> None:
        self.said += octets
