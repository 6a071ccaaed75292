"""The deadlines of a message, with what its sender asked of them (RFC 2852, RFC 4865). Pure.

The life of a message begins with its release, and anew when the operator lets a held one go: `received_s` is then that time. A message
that has to arrive by a time (mode "R") expires then; one whose sender wants to hear of it (mode "N") is late then.
"""

from __future__ import annotations

from gatepost.config import schema
from gatepost.model import Envelope
from gatepost.queue import backoff


def begins_at(received_s: float, envelope: Envelope) -> float:
    """When the queue begins to deliver it."""
    return max(received_s, envelope.release_s)


def expires_at(received_s: float, envelope: Envelope, config: schema.Queue) -> float:
    """When it is given up."""
    at_s = backoff.expires_at(max(received_s, envelope.release_s), envelope.reverse_path, config)
    return min(at_s, envelope.deliver_by_s) if envelope.deliver_by.startswith("R") else at_s


def delay_notice_at(received_s: float, envelope: Envelope, config: schema.Queue) -> float | None:
    """When the sender is told that it is late; None: never."""
    at_s = backoff.delay_notice_at(max(received_s, envelope.release_s), envelope.reverse_path, config)
    if envelope.deliver_by.startswith("N") and envelope.reverse_path and envelope.deliver_by_s > received_s:
        return envelope.deliver_by_s if at_s is None else min(at_s, envelope.deliver_by_s)
    return at_s
