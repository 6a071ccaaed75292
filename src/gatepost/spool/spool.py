"""The contract of a spool, and the table of everything that may lie on disk.

A spool keeps every accepted message until each of its recipients is settled, through any kill, crash, full disk or power cut.
It decides nothing: when to try, what to bounce and whom to tell is the queue's business. `embedded.py` is the spool of one
machine; another implementation passes tests/spool/contract.

Errors (`errors.py`): SpoolFull and SpoolUnhealthy are temporary, AlreadyGone means too late, MessageDamaged means bounce.
Threads: the queue's loop calls everything except what is marked "slow", which runs in one worker thread at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from gatepost.config import schema
from gatepost.ipc.messages import Accepted
from gatepost.model import Envelope, Outcome
from gatepost.spool.entry import Entry, State


class DamageReport(msgspec.Struct, frozen=True):
    """Bytes that recovery could not use: where they were, why, and the file in damaged/ that keeps them (or empty)."""

    where: str
    reason: str
    kept_as: str = ""
    message_id: str = ""  # if it is known which message they were


class Recovery(msgspec.Struct):
    """What recovery found.

    `owners` are those who had a segment or body files open: each must either go on as it was (its process lives) or be
    reported with `owner_gone`. `unreported` are entries with recipients that failed or expired without a DSN yet: the
    queue owes the DSN.
    """

    live: int = 0
    from_segments: int = 0
    deferred: int = 0
    never_told: int = 0  # acknowledged, found behind what the journal knew
    torn_tails: int = 0
    damage: list[DamageReport] = []
    owners: list[str] = []
    unreported: list[str] = []
    journal_files: int = 0
    journal_lines: int = 0
    seconds: float = 0.0


class Health(msgspec.Struct, frozen=True):
    """Whether mail may be accepted; `reason` is for the log and empty if it may."""

    accepting: bool
    reason: str = ""


class Source(NamedTuple):
    """Where the content of an entry can be read: `number` names the descriptor towards a deliverer, and is never reused."""

    number: int
    fd: int
    content_offset: int
    content_bytes: int


class Spool(Protocol):
    """A durable queue of messages. See the module's docstring for errors and threads."""

    entries: dict[str, Entry]

    def recover(self) -> Recovery:
        """Slow, once, before anything else: make `entries` what they were. SpoolRefused if another queue has the spool."""

    def new_segment(self, owner: str) -> tuple[int, int]:
        """Slow. A new empty segment: number, and a descriptor for appending that the caller passes on and closes.

        Its name is durable. `owner` is the process that will append, the same text at each call of it.
        """

    def new_body_files(self, count: int, owner: str = "") -> list[tuple[int, int]]:
        """Slow. New empty body files, as number and descriptor; the caller closes them. Their names are durable."""

    def body_unused(self, number: int) -> None:
        """The owner will not use this body file."""

    def seal(self, number: int, length: int) -> list[Entry]:
        """The owner appends no more; what it acknowledged lies below `length`. Returns entries it never told of: normally none."""

    def owner_gone(self, owner: str) -> list[Entry]:
        """Slow. The owner is dead: returns the entries in its segments that it had not told of yet, and seals them."""

    def take(self, accepted: Accepted) -> list[Entry]:
        """A receiver says that a message is durable. Returns the new entries.

        Normally one; none if it is known already; several if earlier ones were never told (a gap before `offset`).
        """

    def store(
        self, envelope: Envelope, content: list[bytes], about: Entry | None = None, recipients: Sequence[int] = ()
    ) -> Entry:
        """Spool a message of the gateway's own (a DSN). Durable after `commit`. SpoolFull, SpoolError: it is not stored.

        With `about`, those recipients of that entry count as reported from the same moment on.
        """

    def mark_reported(self, entry: Entry, recipients: Sequence[int]) -> None:
        """These recipients failed or expired and nobody is to be told: no DSN is owed for them."""

    def reconfigure(self, config: schema.Queue) -> None:
        """Go on with other limits."""

    def source(self, entry: Entry) -> Source:
        """Where the content is to be read. The descriptor stays the spool's; duplicate it to keep it.

        AlreadyGone; MessageDamaged: fail its recipients with 5.3.0, do not deliver it.
        """

    def closed_sources(self) -> list[int]:
        """Numbers of sources that were closed since the last call: tell deliverers, the spool will not name them again."""

    def record(self, entry: Entry, outcomes: Sequence[Outcome], next_due_s: float) -> None:
        """Log the outcomes of one attempt and when the entry is due next. AlreadyGone."""

    def settle(self, entry: Entry, recipients: Iterable[int], state: State) -> None:
        """End pending recipients without an attempt: EXPIRED, DISCARDED, FAILED or REMOVED."""

    def finish(self, entry: Entry) -> None:
        """Every recipient is settled, and reported where it must be: forget the message. ValueError if one is pending."""

    def mark_delay_notified(self, entry: Entry) -> None:
        """The sender was told of the delay: once is enough."""

    def to_defer(self, limit: int) -> list[Entry]:
        """Entries that lie in a segment for longer than the configuration allows, oldest first."""

    def defer_to_file(self, entries: Sequence[Entry]) -> list[Entry]:
        """Slow. Move a batch from segments to files of their own. Returns the damaged ones: fail their recipients with 5.3.0."""

    def hold(self, entry: Entry) -> None:
        """The operator stops delivery of it."""

    def release(self, entry: Entry, next_due_s: float) -> None:
        """The operator lets it go on, and it is due at `next_due_s`."""

    def retry(self, entry: Entry, next_due_s: float) -> None:
        """The operator wants it tried, at `next_due_s` if not before. Written by the next commit."""

    def remove(self, entry: Entry) -> None:
        """The operator removes the message: pending recipients become REMOVED, nobody is told."""

    def commit(self) -> None:
        """Slow, any thread. Everything recorded before this call is durable when it returns. SpoolFull, SpoolUnhealthy: it is not."""

    def ledger(self) -> dict[str, int]:
        """Counts in recipients since the spool was made.

        `accepted = delivered + bounced + expired + discarded + queued`, where `accepted` is counted when a message is taken,
        `queued` by looking at the entries. `discarded` includes `removed_by_operator`. `messages_*` count messages.
        """

    def health(self) -> Health:
        """Whether mail may be accepted now. Cheap: looks at the disk once a second at most."""

    def close(self) -> None:
        """Commit and let the spool go."""
