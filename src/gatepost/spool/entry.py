"""One message in the queue, as memory holds it.

There may be a million of them, so an entry is slots, small integers and shared strings. The envelope of a deferred message is
kept packed and decoded when it is asked for. Only the spool changes an entry (`spool.py`); others read it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

import msgspec

from gatepost.model import Envelope, Outcome, Result


class State(enum.IntEnum):
    """What became of one recipient. The numbers are written to the journal: never reuse one."""

    PENDING = 0
    DELIVERED = 1
    FAILED = 2  # bounced: refused for good
    EXPIRED = 3  # the lifetime ended first
    DISCARDED = 4  # by a rule
    REMOVED = 5  # by the operator


STATE_OF_RESULT = {
    Result.DELIVERED: State.DELIVERED,
    Result.DEFERRED: State.PENDING,
    Result.FAILED: State.FAILED,
}

# Where the content is; in `Entry.place`. Written to the journal.
NOWHERE = -1  # the journal names the message, but not yet its place
IN_SEGMENT = 0
IN_BODY_FILE = 1
IN_DEFERRED = 2

REFUSED = "its next hop is none that the configuration has for its recipient"

_decode = msgspec.msgpack.Decoder(Envelope).decode
_encode = msgspec.msgpack.Encoder().encode


class Entry:
    """A message that is not finished.

    `states` has a byte (State) for each recipient, `pending` counts those still PENDING. `last` holds the last outcomes, one
    for each recipient that had an attempt (equal ones are one object for many entries). `place` says where the content is: in a segment at `content_offset`, in body file `body_file` (its
    record, without content, is in the segment), or in a deferred file of directory `deferred_dir`.
    """

    __slots__ = (
        "_envelope",
        "attempts",
        "body_file",
        "content_bytes",
        "content_offset",
        "crc",
        "deferred_dir",
        "delay_notified",
        "epoch",
        "held",
        "id",
        "last",
        "next_due_s",
        "noticed",
        "offset",
        "pending",
        "place",
        "received_s",
        "refused",
        "released_s",
        "segment",
        "states",
        "verified",
    )

    def __init__(self, envelope: Envelope | bytes, id: str, received_s: float, recipients: int) -> None:
        self._envelope = envelope
        self.id = id
        self.received_s = received_s
        self.states = bytearray(recipients)
        self.pending = recipients
        self.last: tuple[Outcome, ...] = ()
        self.attempts = 0
        self.next_due_s = 0.0  # wall clock; 0: at once
        self.delay_notified = False
        self.released_s = 0.0  # when the operator last let a held message go; its life begins anew then
        self.held = type(envelope) is Envelope and envelope.hold != ""
        self.refused = False  # held because a receiver named a next hop that is not its to name; until it is released
        self.noticed = b""  # a byte for each recipient: 1 once a DSN about its end is spooled; empty: none yet
        self.place = IN_SEGMENT
        self.segment = 0
        self.offset = 0
        self.content_offset = 0
        self.content_bytes = 0
        self.body_file = 0
        self.deferred_dir = 0
        self.crc = -1  # of the content; -1: read it from the record
        self.verified = True  # False: compare with `crc` before the content is handed out
        self.epoch = 0  # of the journal snapshot that already holds it

    @property
    def envelope(self) -> Envelope:
        """The envelope; decoded anew each time for a deferred message."""
        value = self._envelope
        return _decode(value) if type(value) is bytes else value  # type: ignore[return-value]

    @property
    def packed_envelope(self) -> bytes:
        """The envelope as msgpack."""
        value = self._envelope
        return value if type(value) is bytes else _encode(value)

    @property
    def begun_s(self) -> float:
        """From when its life counts: what is released would else be given up at once, and never tried."""
        return max(self.received_s, self.released_s)

    def refuse(self) -> None:
        """Hold it: no configuration can have sent it where it is to go. The envelope says so too, for people, and should the line be lost."""
        self.held = self.refused = True
        if type(self._envelope) is Envelope:
            self._envelope.hold = REFUSED

    def take_from_envelope(self) -> None:
        """The line that says when it came and whether it is held was lost: what was to be held and has not been tried is.

        Without its time it would be given up at its first failure, as one that came in 1970.
        """
        envelope = self.envelope
        self.received_s = envelope.received_s
        if not self.attempts and not self.released_s and envelope.hold:
            self.held = True

    def pack(self) -> None:
        """Keep only the packed envelope: a third of the memory."""
        if type(self._envelope) is not bytes:
            self._envelope = _encode(self._envelope)

    def waiting(self) -> Iterator[int]:
        """Indices of the recipients that are still to be delivered."""
        return (index for index, state in enumerate(self.states) if state == State.PENDING)

    def last_of(self, recipient: int) -> Outcome | None:
        """The last outcome of one recipient."""
        return next((outcome for outcome in self.last if outcome.recipient == recipient), None)

    def unreported(self) -> list[int]:
        """Indices of the recipients that failed or expired and are in no DSN yet."""
        noticed = self.noticed
        return [
            index
            for index, state in enumerate(self.states)
            if (state == State.FAILED or state == State.EXPIRED) and not (noticed and noticed[index])
        ]

    def __repr__(self) -> str:
        return f"Entry({self.id}, {bytes(self.states).hex()}, place={self.place}, segment={self.segment}@{self.offset})"
