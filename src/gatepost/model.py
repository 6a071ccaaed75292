"""The nouns that every layer shares: addresses, envelopes, routes, outcomes.

Plain values without behaviour that does I/O. Structs are `array_like`, so that their msgpack form is compact and
stable: fields are only ever appended, always with a default (the spool on disk outlives a version).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

# The bits of Recipient.notify (RFC 3461 4.1); 0 is "not given", and means FAILURE and DELAY.
NOTIFY_NEVER = 1
NOTIFY_SUCCESS = 2
NOTIFY_FAILURE = 4
NOTIFY_DELAY = 8


class Address(msgspec.Struct, frozen=True, gc=False):
    """A mailbox of a path (RFC 5321 4.1.2), as parsed once in `smtp/command.py`.

    `text` is what stands between the angle brackets on the wire, without a source route; it is sent on unchanged.
    `local` is the local part as written (quotes kept). `domain` is lower case, A-labels, no trailing dot; an address
    literal keeps its brackets (`[192.0.2.1]`, `[IPv6:...]`); it is empty for `<Postmaster>` without a domain.
    """

    text: str
    local: str
    domain: str


class Recipient(msgspec.Struct, array_like=True, gc=False):
    """One forward-path of an envelope, and where it is to go."""

    address: str  # forward-path mailbox, the `text` of its Address
    domain: str  # lower case, A-labels
    # canonical next-hop name, see routing/nexthop.py: "smtp://10.0.0.5:25", "mx:example.net", "maildir:/v"
    next_hop: str
    notify: int = 0  # DSN NOTIFY bits (RFC 3461); 0 = not given
    original: str = ""  # DSN ORCPT as received; empty = not given
    reverse_path: str = ""  # in place of the envelope's: the owner of the list that led here; empty: the envelope's


class Envelope(msgspec.Struct, array_like=True, gc=False):
    """A mail transaction as accepted; what the spool stores in front of the message."""

    id: str  # message id of ours (not Message-ID), ASCII letters and digits, also in the 250 reply and every event
    session_id: str
    reverse_path: str  # mailbox text; empty for the null reverse-path
    recipients: list[Recipient]
    received_s: float  # wall clock, seconds since the epoch
    peer_address: str  # IP address text of the client; "local" for what the gateway itself made (DSN)
    helo: str
    permit: str  # the right under which it was accepted: "recipient-domain", "network 10.0.0.0/8", "dsn"
    body_type: str = "7BIT"  # "7BIT", "8BITMIME" or "BINARYMIME", as declared in MAIL
    smtputf8: bool = False
    has_8bit: bool = False  # the content holds a byte over 127 (observed, whatever was declared)
    # a line of the content begins with a dot, as its writer saw it; who sends it looks himself
    needs_stuffing: bool = False
    envelope_id: str = ""  # DSN ENVID
    ret: str = ""  # DSN RET: "", "FULL" or "HDRS"
    requiretls: bool = False  # RFC 8689: only to hosts of verified names inside TLS that promise the same
    tls_optional: bool = False  # "TLS-Required: No": what the other side publishes of TLS is not to hold it up
    priority: int = 0  # RFC 6710: -9 to 9
    release_s: float = 0.0  # RFC 4865: not before this time, seconds since the epoch; 0: at once
    deliver_by_s: float = 0.0  # RFC 2852: by this time, seconds since the epoch
    deliver_by: str = ""  # RFC 2852: "R" return it then, "N" tell the sender then; "T" behind it: tell of each relay
    hold: str = ""  # why the message is held until the operator releases it; empty: it is not
    bounce_to: str = ""  # whom our own notices go to, where the reverse-path is one that stands for his (SRS)
    # known of a message with `smtputf8`: its header needs none, so hosts without it get it too
    ascii_header: bool = False


def by_sender(envelope: Envelope, indices: list[int]) -> list[list[int]]:
    """Recipients by the reverse-path that their transaction has: that of the envelope, or the owner of a list."""
    recipients = envelope.recipients
    if len(indices) == 1 or not any(recipients[index].reverse_path for index in indices):
        return [indices]
    groups: dict[str, list[int]] = {}
    for index in indices:
        groups.setdefault(recipients[index].reverse_path, []).append(index)
    return list(groups.values())


class TlsPeer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The other side of a TLS session; its names only if its certificate was verified."""

    bits: int  # of the cipher; -1: not known, in a record of before this was recorded
    has_certificate: bool = False
    is_verified: bool = False
    common_name: str = ""
    subject: str = ""  # "/C=DE/O=Example/CN=mx.example.net"
    issuer: str = ""
    names: tuple[str, ...] = ()  # DNS names, lower case


class Result(enum.IntEnum):
    """What became of one recipient in one delivery attempt. The numbers are written to the journal: never reuse one."""

    DELIVERED = 1
    DEFERRED = 2
    FAILED = 3


class Outcome(msgspec.Struct, array_like=True, gc=False):
    """The result of one attempt for one recipient.

    `stage` says where it ended: "connect", "greeting", "helo", "auth", "mail", "rcpt", "data", "body", "mx", "maildir", "policy".
    `code` is the SMTP reply code (0 if there was no reply), `status` the enhanced code "5.1.1" (never empty),
    `text` the reply verbatim (lines joined by "\\n", controls removed, at most 1,000 characters) or our own words.
    `host` is "name[address]:port" of the host that answered, or empty.
    """

    recipient: int  # index into Envelope.recipients
    result: Result
    stage: str
    code: int
    status: str
    text: str
    host: str = ""
    dsn_passed: bool = False  # delivered to a host that got what the sender asked of DSN: it tells of success


class NextHopTrouble(enum.IntEnum):
    """Whether an attempt says something of the next hop itself, which decides back-off of the whole next hop."""

    NONE = 0  # the next hop works, whatever it said of this message
    BUSY = 1  # it answers, and wants fewer connections (421, 4xx in greeting, connection limit)
    DOWN = 2  # no connection, time-out, lost connection, DNS temporary failure


class Question(NamedTuple):
    """A fact that is asked for: `source` is the name of a table, "ldap:people", or "dns:TXT" and the like."""

    source: str
    key: str


class NeedsAnswer(Exception):
    """A decision cannot go on without the answers to these `questions`; see routing/answers.py.

    Those of a group are about one thing, the forms of one address, and are answered together; groups fail each by itself.
    """

    def __init__(self, *groups: Sequence[Question]) -> None:
        self.groups = groups
        self.questions = list(dict.fromkeys(question for group in groups for question in group))
        super().__init__(f"{len(self.questions)} facts are not there")


class ScramVerifier(msgspec.Struct, frozen=True, gc=False):
    """What is kept of a password for SCRAM (RFC 5802 3), and checks a password too. `algorithm` as hashlib names it."""

    algorithm: str
    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        return f"ScramVerifier({self.algorithm}, {self.iterations})"


class TlsSeen(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How some connections to an MX host went, as a TLS report tells it (RFC 8460 4). Kept on disk: fields are only ever appended."""

    domain: str  # of the recipients
    policy_type: str  # "sts", "tlsa" or "no-policy-found"
    policy_domain: str  # of which the policy is: that of the recipients, or the base domain of TLSA records
    policy_strings: tuple[str, ...]
    mx_host: str
    receiving_ip: str
    sending_ip: str
    result: str  # empty: TLS as the policy wants it; else a type of RFC 8460 4.3
    reason: str  # in words, empty for a success
    count: int = 1
