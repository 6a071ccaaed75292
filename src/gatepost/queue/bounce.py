"""The bounce: who is to be told of an outcome, and the DSN that tells it.

Pure. A message with the null reverse-path never begets a DSN (RFC 5321 6.1), so that no DSN ever begets another; what a sender
asked for with NOTIFY is honoured (RFC 3461 4.1). The format is that of `mail/dsn.py`.
"""

from __future__ import annotations

from datetime import UTC, datetime

import idna

from gatepost.mail import date, dsn
from gatepost.model import (
    NOTIFY_DELAY,
    NOTIFY_FAILURE,
    NOTIFY_NEVER,
    NOTIFY_SUCCESS,
    Envelope,
    Outcome,
    Recipient,
)

_ASKED = {
    "failed": NOTIFY_FAILURE,
    "expired": NOTIFY_FAILURE,
    "delayed": NOTIFY_DELAY,
    "delivered": NOTIFY_SUCCESS,
    "relayed": NOTIFY_SUCCESS,
}

Reported = list[tuple[Recipient, Outcome]]


def suppressed_by(kind: str, envelope: Envelope, recipient: Recipient) -> str:
    """Why no DSN is due for this recipient; empty if one is due."""
    if not envelope.reverse_path:
        return "null reverse-path"
    notify = recipient.notify or NOTIFY_FAILURE | NOTIFY_DELAY
    if notify & NOTIFY_NEVER:
        return "NOTIFY=NEVER"
    return "" if notify & _ASKED[kind] else "NOTIFY"


def is_success_told(kind: str, envelope: Envelope, recipient: Recipient, outcome: Outcome) -> bool:
    """Whether the sender is to be told by us that a recipient's mail was delivered or passed on.

    Who asked by DELIVERBY for a trace hears of every relay, whoever else tells of success (RFC 2852 4.1.4).
    """
    if kind == "relayed" and envelope.deliver_by.endswith("T"):
        return bool(envelope.reverse_path) and not recipient.notify & NOTIFY_NEVER
    return not outcome.dsn_passed and not suppressed_by(kind, envelope, recipient)


def build_dsn(
    kind: str,
    envelope: Envelope,
    outcomes: Reported,
    *,
    hostname: str,
    original_header: bytes,
    original_content: bytes | None,
    now_s: float,
    message_id: str,
    retry_until_s: float | None = None,
) -> tuple[Envelope, list[bytes]]:
    """The DSN of one kind for a message: its envelope, and its content in chunks to be joined.

    `kind` is "failed", "expired", "delayed", "delivered" or "relayed". `message_id` is the id (of ours) that the DSN gets.
    `original_header` is what `header.split_header` gave; `original_content` the whole message, if it is at hand, and is
    returned only if the sender asked for it. The one recipient has no next hop yet: the caller routes it. Raises ValueError for
    the null reverse-path.
    """
    to = envelope.bounce_to or envelope.reverse_path
    if not to:
        raise ValueError("no DSN for the null reverse-path")
    full = envelope.ret == "FULL" and kind in ("failed", "expired") and envelope.body_type != "BINARYMIME"
    full = full and not envelope.requiretls  # RFC 8689 5: as if RET=HDRS, and the DSN needs TLS as well
    # A DSN must arrive where 8BITMIME and SMTPUTF8 are not: it needs them only where the sender's own address does.
    utf8 = envelope.smtputf8 and not to.isascii()
    chunks = dsn.build_report(
        dsn.Report(
            kind=kind,
            id=message_id,
            about=envelope.id,
            hostname=hostname,
            to=to,
            envelope_id=envelope.envelope_id,
            arrival_s=envelope.received_s,
            now_s=now_s,
            rows=[
                dsn.Row(
                    recipient.address,
                    recipient.original,
                    _status(kind, envelope, outcome),
                    outcome.code,
                    outcome.text,
                    outcome.host,
                )
                for recipient, outcome in outcomes
            ],
            header=original_header,
            content=original_content if full else None,
            utf8=utf8,
            retry_until_s=retry_until_s,
            asked=_asked_fields(envelope),
            is_global=envelope.smtputf8,
        )
    )
    content = b"".join(chunks)
    has_8bit = not content.isascii()
    return (
        Envelope(
            id=message_id,
            session_id="",
            reverse_path="",
            recipients=[Recipient(to, _domain(to), "", NOTIFY_NEVER)],
            received_s=now_s,
            peer_address="local",
            helo=hostname,
            permit="dsn",
            body_type="8BITMIME" if has_8bit else "7BIT",
            smtputf8=utf8,
            has_8bit=has_8bit,
            needs_stuffing=content.startswith(b".") or b"\n." in content,
            requiretls=envelope.requiretls,
            priority=envelope.priority,  # RFC 6710 4.5
        ),
        chunks,
    )


def _status(kind: str, envelope: Envelope, outcome: Outcome) -> str:
    """The status of a recipient; of a message whose time is over it says what the sender had asked for."""
    if kind == "expired":
        if envelope.requiretls and outcome.status in ("4.7.4", "4.7.5"):  # it waited for a host that could be verified
            return "5.7.30"
        if envelope.deliver_by.startswith("R"):  # RFC 2852 4.1.3
            return "5.4.7"
    return outcome.status


def _asked_fields(envelope: Envelope) -> tuple[str, ...]:
    """Fields of the whole message that name what was asked of its time."""
    fields: tuple[str, ...] = ()
    if envelope.deliver_by:
        fields += (f"Deliver-By-Date: {date.build_date(envelope.deliver_by_s)}",)  # RFC 2852 5
    if envelope.release_s:
        until = datetime.fromtimestamp(envelope.release_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        fields += (f"Future-Release-Request: until;{until}",)  # RFC 4865 5
    return fields


def _domain(address: str) -> str:
    """The domain of a path that was parsed when it was accepted: lower case, A-labels."""
    domain = address.rpartition("@")[2] if "@" in address else ""
    if domain.isascii():
        return domain.lower()
    try:
        return idna.encode(domain, uts46=True).decode()
    except idna.IDNAError:
        return domain.lower()
