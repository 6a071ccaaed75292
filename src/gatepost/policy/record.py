"""Recorded facts: what was known when a mail transaction was decided, and how. No content, no header.

One record for each mail transaction, and one for a session that had none. The form is msgpack arrays: fields are only ever
appended. With a key, local parts are written as keyed hashes: equal ones stay equal, and a configured recipient can be found
again (`gatepost replay`), but nobody can be read from the file without the key.
"""

from __future__ import annotations

import hashlib

import msgspec

from gatepost.model import TlsPeer
from gatepost.policy.relay import is_routed_local

MAX_RECIPIENTS = 100  # recorded of a transaction
MAX_TEXT = 320
FORM = 3  # of the records written now
FORM_WITH_TLS = 2
HASH_MARK = "h-"
ROUTED_MARK = "h%"  # of a local part that asks for a route: that is decided by its form, which a hash would hide


class RecordedRecipient(msgspec.Struct, array_like=True, gc=False):
    """A forward-path, and what was answered to it; `code` 0: it was taken."""

    address: str
    code: int = 0
    detail: str = ""
    text: str = ""
    check: str = ""
    next_hop: str = ""
    permit: str = ""
    forward_path: str = ""  # as which it was taken; empty: as given


class FactRecord(msgspec.Struct, array_like=True, gc=False):
    """One mail transaction, or (without recipients and reverse-path) one session."""

    session: str
    id: str  # of the message; empty: none was accepted
    time_s: float
    client: str
    local: str = ""  # address of ours it connected to
    helo: str = ""
    identity: str = ""
    certificate: str = ""
    reverse_path: str = ""
    recipients: list[RecordedRecipient] = []
    more: int = 0  # recipients that are not recorded
    size_bytes: int = 0
    fault: str = ""  # the last reply that refused something other than a recipient
    has_mail: bool = False  # a reverse-path was given
    refused: str = ""  # the phase that the policy refused: "connect", "mail"
    rewritten_path: str = ""  # what the reverse-path became; "srs:DOMAIN" by SRS; empty: as given
    form: int = 0  # 1: what paths became is recorded; 2: and TLS; 3: and names
    tls: TlsPeer | None = None
    names: tuple[str, ...] | None = None  # of the client, by DNS; None: nobody asked
    by_lmtp: bool = False  # of a user of this host, who has no right by being one there


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[FactRecord])


def encode_records(records: list[FactRecord]) -> bytes:
    """A batch as it is stored."""
    return _encoder.encode(records)


def decode_records(data: bytes) -> list[FactRecord]:
    """What `encode_records` encoded; raises msgspec.MsgspecError."""
    return _decoder.decode(data)


def hash_local(local: str, key: bytes) -> str:
    """The keyed hash that stands for a local part."""
    plain = local.lower()
    mark = ROUTED_MARK if is_routed_local(local) else HASH_MARK
    return mark + hashlib.blake2b(plain.encode("utf-8", "replace"), key=key, digest_size=10).hexdigest()


def hash_address(address: str, key: bytes) -> str:
    """An address with its local part hashed; postmaster stays, since it is a role and decides."""
    local, at, domain = address.rpartition("@")
    if not at:
        local, domain = domain, ""
    if not local or local.lower() == "postmaster":
        return address
    return f"{hash_local(local, key)}{at}{domain}"
