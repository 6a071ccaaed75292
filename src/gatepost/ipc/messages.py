"""Every message that one role may send another.

Between two roles stands a SOCK_SEQPACKET pair; a packet is a msgpack array of these messages (`wire.py`), with file
descriptors beside it where a message says so. Each role declares in `privsep/roles.py` which of them it accepts from whom; any
other message is fatal to the receiver of it.
"""

from __future__ import annotations

import msgspec

from gatepost.model import Envelope, NextHopTrouble, Outcome, TlsSeen


class Message(msgspec.Struct, array_like=True, tag=True, gc=False):
    """Base of all messages; the tag is the class name."""


# --- supervisor and every role --------------------------------------------------------------------------------------


class Start(Message):
    """First message to a role: its instance, its configuration (msgpack of `config.schema.Config`), descriptors beside it.

    Descriptors: event log, then what the roles table names (listening sockets for a receiver; a root directory none).
    """

    role: str
    instance: int
    generation: int
    config: bytes
    root: str  # directory to chroot into; empty: no chroot
    uid: int  # -1: keep
    gid: int
    extra: dict[str, str] = {}


class Ready(Message):
    """A role has locked itself in; `rights` is the one line that names its rights, `tries` JSON of what it tried in vain."""

    rights: str
    tries: bytes = b"[]"


class Serving(Message):
    """A receiver accepts connections now."""


class DoorsClosed(Message):
    """A receiver, or control, that drains accepts no connection any more."""


class Fatal(Message):
    """A role cannot go on; it exits after this. `advice` is what the operator should do."""

    reason: str
    advice: str = ""


class Ping(Message):
    """The supervisor asks whether the role's event loop turns; the answer is Pong. Never two without an answer between."""


class Pong(Message):
    """It turns."""


class Link(Message):
    """One end of a new socket pair to a peer role (descriptor beside it). Replaces an older link to the same peer."""

    role: str
    instance: int
    generation: int
    serial: int = 0  # of all links ever made


class LinkLost(Message):
    """A role lost its link to a peer that may still live: the supervisor makes a new pair if it does."""

    role: str
    instance: int
    generation: int
    serial: int = 0  # of the link that was lost


class Drain(Message):
    """Take nothing new, finish what is under way, exit 0 within `limit_s`.

    With `end_sessions` a session ends at its next command (421); without, it may go on until the limit (reload).
    """

    limit_s: float
    end_sessions: bool = True


class PeerGone(Message):
    """A role has died or ended (to the queue): nobody writes any more to what it held."""

    role: str
    instance: int
    generation: int
    pid: int


class Reconfigure(Message):
    """To the queue only: go on with this configuration, that of a new generation (a new event log descriptor beside it)."""

    config: bytes
    generation: int


class OldGeneration(Message):
    """To a queue that was started again: the configuration of a generation before this one, whose receivers still end sessions."""

    generation: int
    config: bytes


class Reload(Message):
    """Control asks the supervisor to reload the configuration (`gatepost reload`)."""

    request: int


class ReloadDone(Message):
    """The supervisor's answer: empty `errors` if the new generation is ready."""

    request: int
    errors: list[str]


class NeedAuthSocket(Message):
    """A receiver wants a connection to Dovecot's authentication socket; the answer is AuthSocket."""


class AuthSocket(Message):
    """A connection that has begun (descriptor beside it), or why there is none."""

    reason: str = ""


# --- receiver and queue ---------------------------------------------------------------------------------------------


class NeedSegment(Message):
    """A receiver wants a segment to append to; the answer is SegmentOpened."""


class SegmentOpened(Message):
    """A new empty segment (descriptor beside it, write-only, append), its name already durable in its directory."""

    segment: int


class SegmentSealed(Message):
    """The receiver appends no more; everything it acknowledged lies below `length_bytes`."""

    segment: int
    length_bytes: int


class NeedBodyFiles(Message):
    """A receiver wants `count` body files for large messages."""

    count: int


class BodyFilesOpened(Message):
    """New empty body files (a descriptor each beside it, in order, read-write), names already durable."""

    numbers: list[int]


class BodyFileUnused(Message):
    """The receiver will not use this body file: the queue removes it."""

    number: int


class Holding(Message):
    """A receiver introduces itself on a new link, behind the SegmentSealed of whatever it had before.

    `owner` is its name in the spool, with its process id: unique among all that ever lived.
    """

    owner: str


class Accepted(Message):
    """A message is durable and was acknowledged. Offsets are those of its record in the segment."""

    segment: int
    offset: int
    end: int  # offset just behind the record
    envelope: Envelope
    content_offset: int  # of trace field and message; 0 with a body file
    content_bytes: int
    body_file: int = 0  # 0: the content lies in the segment


class Facts(Message):
    """A batch of recorded facts (policy/record.py) for the ring in the spool; lost if the queue is away."""

    records: bytes


class SpoolHealth(Message):
    """The queue tells receivers whether mail may be accepted; `reason` is for the log."""

    accepting: bool
    reason: str


# --- queue and deliverer --------------------------------------------------------------------------------------------


class SourceShared(Message):
    """A file with message contents, for reading (descriptor beside it). `source` is the queue's number for it."""

    source: int


class SourceGone(Message):
    """No more attempts will name this source: close it."""

    source: int


class Attempt(Message):
    """One attempt: this message, these of its recipients, all with the same next hop."""

    job: int
    source: int
    content_offset: int
    content_bytes: int
    next_hop: str
    limit: int  # connections to this next hop that may be open at once now
    envelope: Envelope
    recipients: list[int]  # indices into envelope.recipients


class AttemptDone(Message):
    """What came of an Attempt: an outcome for each of its recipients."""

    job: int
    trouble: NextHopTrouble
    outcomes: list[Outcome]
    reused: bool = False  # it went over a kept connection
    seconds: float = 0.0


class TlsVerified(Message):
    """A deliverer has sent to a domain by TLS that was verified: `how` is "dane" or "sts". For the queue to remember."""

    domain: str
    how: str


class TlsRemembered(Message):
    """The queue tells deliverers which domains were verified once: domain -> by what and when, in words."""

    domains: dict[str, str]


class TlsForgotten(Message):
    """These are remembered no more."""

    domains: list[str]


class TlsResults(Message):
    """A deliverer tells how connections to MX hosts went, for reports; lost if the queue is away."""

    rows: list[TlsSeen]


# --- resolver -------------------------------------------------------------------------------------------------------


STS = "STS"  # the kind of a Lookup for the MTA-STS policy of a domain


class Lookup(Message):
    """A DNS question. `kind` is "A", "AAAA", "MX", "PTR", "TXT", "TLSA" ...; `name` an A-label domain name."""

    query: int
    kind: str
    name: str


class LookupDone(Message):
    """The answer: `status` is "ok", "nodata", "nxdomain" or "tempfail"; records are presentation text, MX "10 mx.example".

    `secure` is the AD flag, and only ever true from a resolver that is trusted to validate. `canonical` is where the chain of CNAME
    records ended, empty if there was none.
    """

    query: int
    status: str
    records: list[str]
    ttl_s: int
    secure: bool = False
    reason: str = ""
    canonical: str = ""


class TableLookup(Message):
    """Keys that a table of the configuration, "ldap:people", is asked for."""

    query: int
    table: str
    keys: list[str]


class TableLookupDone(Message):
    """The value of each key in order, None for one that is not there; or `failed`: why there is no answer."""

    query: int
    values: list[str | None]
    failed: str = ""


class Introspect(Message):
    """A receiver to the resolver: whose is this token, by the word of the authorization server?"""

    query: int
    token: str


class Introspected(Message):
    """The answer: the user, "" for a token that is not good; or `failed`: why nobody could say."""

    query: int
    user: str
    failed: str = ""


class CallAhead(Message):
    """The resolver to a deliverer: does the next hop have this recipient of ours? `table` is as the configuration names it."""

    query: int
    table: str
    address: str


class CallAheadDone(Message):
    """`status`: "known", "unknown", or "deferred": there is no answer now; `text` is what the host said, or why it did not."""

    query: int
    status: str
    text: str
    takes_all: bool = False  # the host takes recipients that cannot exist as well


class Post(Message):
    """The queue to the resolver: send this TLS report to a web server."""

    query: int
    host: str
    port: int  # 0: the usual one
    path: str
    content_type: str
    body: bytes


class PostDone(Message):
    """What came of it: empty, or why it failed."""

    query: int
    failed: str


class StsKept(Message):
    """The resolver to the queue: keep this MTA-STS policy; an empty record: forget it."""

    domain: str
    record: bytes


class RecipientsKept(Message):
    """The resolver to the queue: records of its snapshot of recipients, by table and key; an empty one: forget it."""

    records: dict[str, bytes]


class RecipientsRestored(Message):
    """The queue to a new resolver: records that were kept. `is_all`: these were the last."""

    records: dict[str, bytes]
    is_all: bool = True


class StsRestored(Message):
    """The queue to a new resolver: policies that were kept. `is_all`: these were the last."""

    records: list[bytes]
    is_all: bool


# --- control and every role -----------------------------------------------------------------------------------------


class Ask(Message):
    """A question of the control role: `what` is a verb of the role ("ledger", "list", "show", "retry", "remove", "privs")."""

    request: int
    what: str
    arguments: dict[str, str | int | float | bool | list[str] | None] = {}


class Answer(Message):
    """One part of an answer; `more` says that others follow. `data` is JSON."""

    request: int
    data: bytes
    more: bool = False


Any = (
    Start
    | Ready
    | Serving
    | DoorsClosed
    | Fatal
    | Ping
    | Pong
    | Link
    | LinkLost
    | PeerGone
    | Drain
    | Reconfigure
    | OldGeneration
    | Reload
    | ReloadDone
    | NeedAuthSocket
    | AuthSocket
    | NeedSegment
    | SegmentOpened
    | SegmentSealed
    | NeedBodyFiles
    | BodyFilesOpened
    | BodyFileUnused
    | Holding
    | Accepted
    | Facts
    | SpoolHealth
    | SourceShared
    | SourceGone
    | Attempt
    | AttemptDone
    | TlsVerified
    | TlsRemembered
    | TlsForgotten
    | Lookup
    | LookupDone
    | Introspect
    | Introspected
    | TableLookup
    | TableLookupDone
    | CallAhead
    | CallAheadDone
    | TlsResults
    | Post
    | PostDone
    | StsKept
    | RecipientsKept
    | RecipientsRestored
    | StsRestored
    | Ask
    | Answer
)

WITH_DESCRIPTORS = frozenset({Start, Link, Reconfigure, AuthSocket, SegmentOpened, BodyFilesOpened, SourceShared})
"""Those that have descriptors beside them; on any other, descriptors are a breach of the protocol."""
