"""The text of a message on a connection: held in memory or written to a body file, its header looked at, and the end of it.

What a connection, `SmtpIn`, which has the state, does between the reply 354 and the answer to the last octet. What is written is
not durable before the host says so (`roles/groupcommit.py`).
"""

from __future__ import annotations

import contextlib
import functools
import os
from typing import TYPE_CHECKING
from zlib import crc32

from gatepost.model import Envelope, NeedsAnswer
from gatepost.net.headerhold import HeaderHold
from gatepost.net.transaction_in import Transaction
from gatepost.smtp.events import Body
from gatepost.smtp.reply import Reply

if TYPE_CHECKING:
    from gatepost.net.smtp_in import SmtpIn

PAUSE_HELD_BYTES = 256 * 1024  # of a message whose header waits for answers; what was read already comes on top
BINARY = "BINARYMIME"  # such content could hold anything, so it never lies in a segment among records


def begin_text(connection: SmtpIn, transaction: Transaction) -> None:
    """DATA is granted: the message gets its id and its Received field."""
    host = connection.host
    transaction.begun_s = host.loop.time()
    transaction.id = host.new_id()
    recipients = transaction.recipients
    tls = connection.tls
    protocol = "SMTP"
    if connection.session.esmtp:  # RFC 3848, RFC 6531 4.3
        protocol = "UTF8SMTP" if transaction.smtputf8 else "ESMTP"
        if connection.session.settings.lmtp:
            protocol = "UTF8LMTP" if transaction.smtputf8 else "LMTP"
        if tls is not None:
            protocol += "S"
        if connection.session.user:
            protocol += "A"
    helo, address = connection.helo, connection.address
    if host.rewriting is not None:
        helo, address = host.rewriting.begin_text(connection, transaction)
    transaction.trace = host.trace(
        helo,
        address,
        protocol,
        transaction.id,
        recipients[0].address if len(recipients) == 1 else None,
        host.now_s(),
        "" if tls is None else tls.comment,
    )
    if transaction.asked is not None:
        transaction.trace = host.add_priority(transaction.trace, transaction.asked)
    if connection.session.user or (connection.facts.identity and not connection.port.is_local):  # the second by XCLIENT
        transaction.header = bytearray()


def take_body(connection: SmtpIn, event: Body) -> None:
    """Some of the text; with the last of it the message is made durable."""
    transaction = connection.transaction
    if transaction is None:  # refused at DATA and swallowed
        return
    content = event.content
    if transaction.header is not None:
        _check_header(connection, transaction, transaction.header, event)
    if transaction.header_hold is not None:
        content = _hold_back(connection, transaction, transaction.header_hold, event)
    _take(connection, transaction, content)
    if event.last:
        if transaction.body_file < 0 or transaction.header_hold is not None:
            transaction.is_committing = True  # goes on in give_body_file, or in _go_on_with_header
        else:
            _commit(connection, transaction)


def _take(connection: SmtpIn, transaction: Transaction, content: bytes) -> None:
    """Keep some of the text, in memory or in the body file."""
    size = len(content)
    if size:
        transaction.body_bytes += size
        connection.host.held_bytes += size
        if transaction.failure is None or transaction.body_descriptor >= 0:
            transaction.chunks.append(content)
        if transaction.body_descriptor >= 0:
            _write_out(connection, transaction)
        elif transaction.body_bytes > connection.host.spill_bytes() or transaction.body_type == BINARY:
            _open_body_file(connection, transaction)


def _hold_back(connection: SmtpIn, transaction: Transaction, hold: HeaderHold, event: Body) -> bytes:
    """What goes on of a message whose header is to be rewritten: nothing until that is whole, counted all the same."""
    transaction.body_bytes += len(event.content)
    connection.host.held_bytes += len(event.content)
    is_whole = hold.feed(event.content, event.last)
    if hold.is_waiting:
        if hold.held_bytes > PAUSE_HELD_BYTES:  # not before: one that does not read does not see a client go
            connection.pause()
        return b""
    if not is_whole:
        return b""
    try:
        return _release(connection, transaction, hold)
    except NeedsAnswer as needed:
        hold.is_waiting = True
        connection.host.asking.wait(
            connection, functools.partial(_go_on_with_header, connection, transaction, hold), needed
        )
        return b""


def _release(connection: SmtpIn, transaction: Transaction, hold: HeaderHold) -> bytes:
    """What was held back, with its header rewritten; raises NeedsAnswer."""
    content = hold.rewritten()
    transaction.header_hold = None
    transaction.body_bytes -= hold.held_bytes
    connection.host.held_bytes -= hold.held_bytes
    return content


def _go_on_with_header(connection: SmtpIn, transaction: Transaction, hold: HeaderHold) -> None:
    """What the rewriting of a header lacked is there; raises NeedsAnswer for more."""
    if connection.transaction is not transaction:
        return
    _take(connection, transaction, _release(connection, transaction, hold))
    if transaction.is_committing and transaction.body_file >= 0:
        connection.host.loop.call_soon(_commit, connection, transaction)  # not before this decision is done with


def _check_header(connection: SmtpIn, transaction: Transaction, header: bytearray, event: Body) -> None:
    """The header of an authenticated user's message, once it is whole: its From and Sender must be his."""
    looked_at = max(0, len(header) - 3)
    header += event.content
    end = 0 if header[:2] == b"\r\n" else header.find(b"\r\n\r\n", looked_at)
    if end < 0 and not event.last:
        return
    transaction.header = None
    reply = connection.host.submitting.decide_header(connection, bytes(header if end < 0 else header[:end]))
    if reply is not None:
        connection.host.refuse(connection, reply, "DATA", id=transaction.id, cause="identity")
        transaction.failure = transaction.failure or reply


def _open_body_file(connection: SmtpIn, transaction: Transaction) -> None:
    if transaction.body_file < 0 or transaction.failure is not None:
        return
    opened = connection.host.take_body_file(connection)
    if opened is None:
        transaction.body_file = -1  # asked for; read no more until it comes
        connection.pause()
        return
    give_body_file(connection, *opened, go_on=False)


def give_body_file(connection: SmtpIn, number: int, descriptor: int, *, go_on: bool = True) -> None:
    """The body file that this transaction waits for."""
    transaction = connection.transaction
    if transaction is None or (go_on and transaction.body_file >= 0):
        connection.host.release_body_file(number, descriptor)
        return
    transaction.body_file, transaction.body_descriptor = number, descriptor
    transaction.chunks.insert(0, transaction.trace)
    connection.host.held_bytes += len(transaction.trace)
    _write_out(connection, transaction)
    if go_on:
        if transaction.is_committing:
            _commit(connection, transaction)
        else:
            connection.resume()


def deny_body_file(connection: SmtpIn, reply: Reply) -> None:
    """None comes: what is left of the message is read and forgotten, and `reply` answers its end."""
    transaction = connection.transaction
    if transaction is None or transaction.body_file >= 0:
        return
    transaction.body_file = 0
    transaction.failure = reply
    transaction.chunks = []
    if transaction.is_committing:
        _commit(connection, transaction)
    else:
        connection.resume()


def _write_out(connection: SmtpIn, transaction: Transaction) -> None:
    chunks, transaction.chunks = transaction.chunks, []
    total = 0
    crc = transaction.body_crc
    for chunk in chunks:
        crc = crc32(chunk, crc)
        total += len(chunk)
    transaction.body_crc = crc
    connection.host.held_bytes -= total
    if transaction.failure is not None:
        return
    try:
        written = os.writev(transaction.body_descriptor, chunks)
        while written < total:
            rest = b"".join(chunks)[written:]
            written += os.write(transaction.body_descriptor, rest)
    except OSError as error:
        transaction.failure = connection.host.write_failed(error)


def _commit(connection: SmtpIn, transaction: Transaction) -> None:
    transaction.is_committing = True
    if transaction.failure is not None:
        _answer_end(connection, transaction, transaction.failure)
        return
    session = connection.session
    envelope = Envelope(
        transaction.id,
        connection.session_id,
        transaction.reverse_path,
        transaction.recipients,
        connection.host.now_s(),
        connection.address,
        connection.helo,
        transaction.permit,
        transaction.body_type,
        transaction.smtputf8,
        session.has_8bit,
        session.needs_stuffing,
        hold=transaction.hold,
    )
    if connection.host.limits.tls_required_field and session.tls_optional:
        envelope.tls_optional = True
    if transaction.smtputf8 and not session.header_8bit:
        envelope.ascii_header = True
    if transaction.bounce_to:
        envelope.bounce_to = transaction.bounce_to
    if transaction.asked is not None:
        connection.host.note_mail(envelope, transaction.asked)
    connection.host.commit(transaction, envelope, lambda reply: _answer_end(connection, transaction, reply))


def _answer_end(connection: SmtpIn, transaction: Transaction, reply: Reply | None) -> None:
    """The message is durable (None), or `reply` says why it was not taken."""
    host = connection.host
    if transaction.body_descriptor < 0:
        host.held_bytes -= transaction.body_bytes
    elif reply is None:
        with contextlib.suppress(OSError):  # all of it is durable
            os.close(transaction.body_descriptor)
    else:
        host.release_body_file(transaction.body_file, transaction.body_descriptor)
    connection.transaction = None
    if reply is None:
        connection.messages += 1
        host.accepted(connection, transaction)
        reply = Reply(250, "0.0", f"Queued as {transaction.id}")
    if not connection.transport.is_closing():
        connection.session.answer(reply)
        connection.advance()


def give_up_transaction(connection: SmtpIn) -> None:
    """The message does not come, or is not wanted: let go of what it held. One that is being made durable ends by itself."""
    transaction, connection.transaction = connection.transaction, None
    if transaction is None or (
        transaction.is_committing and transaction.body_file >= 0 and transaction.header_hold is None
    ):
        return
    if transaction.header_hold is not None and transaction.header_hold.is_waiting:
        connection.host.asking.forget(connection)
    if transaction.body_descriptor >= 0:
        connection.host.release_body_file(transaction.body_file, transaction.body_descriptor)
    else:
        connection.host.held_bytes -= transaction.body_bytes
    transaction.chunks = []
