"""What clients ask for by parameters of MAIL and RCPT, beyond what every message has: checked here, and written into the envelope.

Of one receiver. The session has refused what is malformed or belongs to an extension that is off; here is what depends on who asks, on
limits of the configuration and on the clock. A message without such parameters never comes here.
"""

from __future__ import annotations

import time
from typing import Any

from gatepost.config.schema import Smtp
from gatepost.model import Envelope, Recipient
from gatepost.smtp.extensions import LATEST
from gatepost.smtp.reply import Reply, constant
from gatepost.smtp.settings import ServerSettings

TOO_LONG = constant(501, "5.4", "This server does not keep messages for so long; see EHLO")  # RFC 4865 4


def build_hello(settings: ServerSettings, now_s: float) -> Reply | None:
    """The reply to EHLO where it has a time in it; None where it has none."""
    if not settings.future_release:
        return None
    latest = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s + settings.max_hold_s))
    return Reply(250, "", settings.offer.lines.replace(LATEST, latest))


def decide_mail(asked: dict[str, Any], limits: Smtp, now_s: float, *, is_trusted: bool) -> Reply | None:
    """The reply to MAIL if it is not the standard one; puts what is granted in the place of what was asked."""
    until_s = asked.get("HOLDUNTIL", 0) or now_s + asked.get("HOLDFOR", 0)
    if until_s > now_s + limits.max_hold_s:
        return TOO_LONG
    priority = asked.get("MT-PRIORITY", 0)
    if not is_trusted and priority > limits.stranger_priority:
        priority = asked["MT-PRIORITY"] = limits.stranger_priority
        return Reply(250, "3.6", f"{priority} is the new priority assigned to the message")  # RFC 6710 4.1
    return None


def add_priority(trace: bytes, asked: dict[str, Any]) -> bytes:
    """The Received field with the priority, as an additional clause (RFC 6710 7)."""
    if "MT-PRIORITY" not in asked:
        return trace
    head, semicolon, date = trace.rpartition(b";")
    return b"%b\r\n\tPRIORITY %d%b%b" % (head, asked["MT-PRIORITY"], semicolon, date)


def note_mail(envelope: Envelope, asked: dict[str, Any]) -> None:
    """Put what MAIL asked for into the envelope; times count from its reception."""
    envelope.requiretls = "REQUIRETLS" in asked
    envelope.ret = asked.get("RET", "")
    envelope.envelope_id = asked.get("ENVID", "")
    envelope.priority = asked.get("MT-PRIORITY", 0)
    if "HOLDFOR" in asked or "HOLDUNTIL" in asked:
        until_s = asked.get("HOLDUNTIL", 0) or envelope.received_s + asked.get("HOLDFOR", 0)
        envelope.release_s = float(until_s)
    if "BY" in asked:
        seconds, _, envelope.deliver_by = str(asked["BY"]).partition(";")
        envelope.deliver_by_s = envelope.received_s + int(seconds)


def note_recipient(recipient: Recipient, asked: dict[str, Any]) -> None:
    """Put what RCPT asked for into the recipient."""
    recipient.notify = asked.get("NOTIFY", 0)
    recipient.original = asked.get("ORCPT", "")
