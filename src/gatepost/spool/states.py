"""The table of everything that may lie below the spool directory.

docs/queue.md prints it (a test compares them), fsck sorts every file into one row of it, and recovery does what its last two
columns say. A new kind of file begins with a row here.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class DiskState(NamedTuple):
    """One row: a name, what a file of that name is, who may make or move it, what a crash leaves of it, who cleans up."""

    name: str
    pattern: re.Pattern[str]
    what: str
    mover: str
    crash: str
    cleaner: str


STATES = (
    DiskState(
        "segments/N.seg",
        re.compile(r"segments/[0-9]{8,}\.seg"),
        "Records of messages, whole ones of many mail transactions. Open: one receiver appends, or the queue (DSNs and reports of our own). "
        "Sealed: nobody does any more.",
        "The queue makes it and syncs its name before the receiver gets the descriptor; only that receiver appends. Never renamed.",
        "Open, with a torn record at the end, which nobody acknowledged; or acknowledged records that the queue was not told of.",
        "Recovery takes in what the journal does not know. The queue removes it when it is sealed and no message in it is live, "
        "after the journal's commit.",
    ),
    DiskState(
        "bodies/N.body",
        re.compile(r"bodies/[0-9]{8,}\.body"),
        "Content of one message that is large, or binary (BINARYMIME) of any size; its record in a segment names it.",
        "The queue makes it and syncs its name; one receiver writes it, then the record. Moving to the deferred store is a "
        "second link, then removal of the first.",
        "Empty, written in part, or whole without a record: no message. Linked twice: the deferred one is used if the journal says so.",
        "Recovery and `owner_gone` remove what no message names and no living receiver holds; the queue removes it with its message.",
    ),
    DiskState(
        "deferred/XX/ID.eml",
        re.compile(r"deferred/[0-9a-f]{2}/[0-9A-Za-z]{1,64}\.eml"),
        "Content (trace field and message) of a message that waits.",
        "The queue writes it, syncs it and its directory, and only then logs that the message is here.",
        "Written, but the journal says that the message is in its segment still.",
        "Recovery removes it if the message is live elsewhere or finished; if nothing knows the message, it goes on from here. "
        "The queue removes it with its message, after the journal's commit.",
    ),
    DiskState(
        "deferred/XX/ID.json",
        re.compile(r"deferred/[0-9a-f]{2}/[0-9A-Za-z]{1,64}\.json"),
        "Envelope and history of the message beside it, as of the time it was moved; for people, and for the day the journal is lost.",
        "As ID.eml.",
        "As ID.eml; alone after a crash between the two removals.",
        "As ID.eml; alone it is removed.",
    ),
    DiskState(
        "journal/N.log",
        re.compile(r"journal/[0-9]{8,}\.log"),
        "Lines: what was taken, what became of it, where it lies. Begins with a snapshot, ends in reserved zeros.",
        "The queue. The next file takes the lines from the moment it exists; the older go when its snapshot is durable.",
        "A torn line at the end, holes in what was not synced, or a second file whose snapshot is not whole.",
        "Recovery replays the newest whole snapshot and all behind it, begins a new file and removes the others.",
    ),
    DiskState(
        "damaged/NAME",
        re.compile(r"damaged/[^/]+"),
        "Copy of bytes that could not be used: part of a segment (.bin), of a journal (.bin), or a message (.eml).",
        "Recovery, and the queue when the content of a message does not have its checksum.",
        "Nothing, or a copy in part.",
        "The operator, when they have looked at it.",
    ),
    DiskState(
        "facts/N.ring",
        re.compile(r"facts/[0-9]{8,}\.ring"),
        "Batches of recorded facts of sessions, for `gatepost why` and `gatepost replay`; no mail, and nothing depends on it.",
        "The queue, which appends what receivers tell it; never synced.",
        "A torn batch at the end, which a reader leaves out.",
        "The queue, when there are more than `facts.keep_bytes` or they are older than `facts.keep_days`.",
    ),
    DiskState(
        "tls/NAME",
        re.compile(r"tls/[a-z0-9-]+(\.new)?"),
        "MTA-STS policies of recipient domains (policies), results of TLS (results), and the domains that were verified by it "
        "(remembered), for the next start; no mail depends on them.",
        "The queue, which writes a new file beside it, syncs it and renames it.",
        "The file of before, perhaps with a NAME.new in part.",
        "The queue, when it writes the next one.",
    ),
    DiskState(
        "recipients/known",
        re.compile(r"recipients/known(\.new)?"),
        "The snapshot of recipients that tables over the network have found, for the next start; no mail depends on it.",
        "The queue, which writes a new file beside it, syncs it and renames it.",
        "The file of before, perhaps with a known.new in part.",
        "The queue, when it writes the next one.",
    ),
    DiskState(
        "lock",
        re.compile(r"lock"),
        "Empty; whoever holds its lock is the queue.",
        "`prepare_spool` makes it.",
        "The file without a lock: the kernel lets go of it with the process.",
        "Nobody: it stays.",
    ),
    DiskState(
        "run/NAME",
        re.compile(r"run/.*"),
        "Sockets of the running gateway, the last good lists of recipients (recipients.kept), the key of recorded facts; no part of the spool.",
        "The supervisor.",
        "A dead socket.",
        "The supervisor, at its next start.",
    ),
)


def find_state(path: str) -> DiskState | None:
    """The row of a path below the spool, or None for a file that has no place there."""
    return next((state for state in STATES if state.pattern.fullmatch(path)), None)


def build_table() -> str:
    """The table as docs/queue.md has it."""
    rows = [f"| `{state.name}` | {state.what} | {state.mover} | {state.crash} | {state.cleaner} |" for state in STATES]
    head = (
        "| on disk | what it is | who makes and moves it | what a crash leaves | who cleans up |",
        "|---|---|---|---|---|",
    )
    return "\n".join((*head, *rows)) + "\n"
