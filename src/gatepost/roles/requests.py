"""What clients ask for by parameters of MAIL and RCPT, beyond what every message has: checked here, and written into the envelope.

Of one receiver. The session has refused what is malformed or belongs to an extension that is off; here is what depends on who asks, on
limits of the configuration and on the clock. A message without such parameters never comes here.
"""

from __future__ import annotations

from gatepost.model import Envelope, Recipient
from gatepost.smtp.command import Parameters


def note_mail(envelope: Envelope, asked: Parameters) -> None:
    """Put what MAIL asked for into the envelope."""
    envelope.requiretls = "REQUIRETLS" in asked
    envelope.ret = asked.get("RET", "")  # type: ignore[assignment]
    envelope.envelope_id = asked.get("ENVID", "")  # type: ignore[assignment]


def note_recipient(recipient: Recipient, asked: Parameters) -> None:
    """Put what RCPT asked for into the recipient."""
    recipient.notify = asked.get("NOTIFY", 0)  # type: ignore[assignment]
    recipient.original = asked.get("ORCPT", "")  # type: ignore[assignment]
