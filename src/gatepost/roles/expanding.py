"""An address that stands for several, as a receiver takes it: the recipients of the envelope, and what is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatepost.model import Address, Recipient
from gatepost.net.smtp_in import SmtpIn
from gatepost.net.transaction_in import Transaction
from gatepost.routing.route import Expansion
from gatepost.smtp.reply import Reply

if TYPE_CHECKING:
    from gatepost.roles.receiver import Receiver

TOO_MANY = Reply(452, "5.3", "Too many recipients in one mail transaction, send the rest in another one")
MAX_TOLD = 20


def recipients_of(receiver: Receiver, connection: SmtpIn, address: Address, expansion: Expansion) -> list[Recipient]:
    """The recipients; a list's owner becomes their reverse-path, unless the message has the null one."""
    has_sender = bool(connection.facts.reverse_path)
    receiver.event(
        "expanded",
        session=connection.session_id,
        recipient=address.text,
        count=len(expansion.routes),
        chain="; ".join(expansion.chain[:MAX_TOLD]),
        skipped="; ".join(expansion.skipped[:MAX_TOLD]),
    )
    return [
        Recipient(route.address, route.domain, route.next_hop, reverse_path=route.reverse_path if has_sender else "")
        for route in expansion.routes
    ]


def add_recipients(transaction: Transaction, recipients: list[Recipient], most: int) -> Reply | None:
    """Take them into a transaction, each once; None, or the reply that says that there is no room for them."""
    seen = transaction.seen
    if seen is None:
        seen = transaction.seen = {recipient.address for recipient in transaction.recipients}
    new = [recipient for recipient in recipients if recipient.address not in seen]
    if len(transaction.recipients) + len(new) > most:
        return TOO_MANY
    seen.update(recipient.address for recipient in new)
    transaction.recipients.extend(new)
    return None
