"""The text of a message on a connection: held in memory or written to a body file, its header looked at, and the end of it.

Part of `SmtpIn`, which has the state; here is what happens between the reply 354 and the answer to the last octet. What is
written is not durable before the host says so (`roles/groupcommit.py`).
"""

from __future__ import annotations

import contextlib
import functools
import os
from typing import TYPE_CHECKING, Any
from zlib import crc32

from gatepost.model import Envelope, NeedsAnswer
from gatepost.net.headerhold import HeaderHold
from gatepost.net.tls import TlsFacts
from gatepost.net.transaction_in import Transaction
from gatepost.smtp.events import Body
from gatepost.smtp.reply import Reply
from gatepost.smtp.server import ServerSession

if TYPE_CHECKING:
    from gatepost.roles.ports import Port
    from gatepost.roles.receiver import Receiver

PAUSE_HELD_BYTES = 256 * 1024  # of a message whose header waits for answers; what was read already comes on top
BINARY = "BINARYMIME"  # such content could hold anything, so it never lies in a segment among records


class MessageIn:
    """What a connection does with the text of messages."""

    __slots__ = ()

    if TYPE_CHECKING:
        host: Receiver
        session: ServerSession
        session_id: str
        port: Port
        facts: Any
        address: str
        helo: str
        tls: TlsFacts | None
        transport: Any
        transaction: Transaction | None
        messages: int
        is_unread: bool

        def advance(self) -> None: ...
        def _pause(self) -> None: ...
        def _resume(self) -> None: ...

    def _begin_text(self, transaction: Transaction) -> None:
        host = self.host
        transaction.begun_s = host.loop.time()
        transaction.id = host.new_id()
        recipients = transaction.recipients
        tls = self.tls
        protocol = "SMTP"
        if self.session.esmtp:  # RFC 3848, RFC 6531 4.3
            protocol = "UTF8SMTP" if transaction.smtputf8 else "ESMTP"
            if self.session.settings.lmtp:
                protocol = "UTF8LMTP" if transaction.smtputf8 else "LMTP"
            if tls is not None:
                protocol += "S"
            if self.session.user:
                protocol += "A"
        helo, address = self.helo, self.address
        if host.rewriting is not None:
            helo, address = host.rewriting.begin_text(self, transaction)  # type: ignore[arg-type]
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
        if self.session.user or (self.facts.identity and not self.port.is_local):  # the second by XCLIENT
            transaction.header = bytearray()

    def _on_body(self, event: Body) -> None:
        transaction = self.transaction
        if transaction is None:  # refused at DATA and swallowed
            return
        content = event.content
        if transaction.header is not None:
            self._check_header(transaction, transaction.header, event)
        if transaction.header_hold is not None:
            content = self._hold_back(transaction, transaction.header_hold, event)
        self._take(transaction, content)
        if event.last:
            if transaction.body_file < 0 or transaction.header_hold is not None:
                transaction.is_committing = True  # goes on in give_body_file, or in _go_on_with_header
            else:
                self._commit(transaction)

    def _take(self, transaction: Transaction, content: bytes) -> None:
        """Keep some of the text, in memory or in the body file."""
        size = len(content)
        if size:
            transaction.body_bytes += size
            self.host.held_bytes += size
            if transaction.failure is None or transaction.body_descriptor >= 0:
                transaction.chunks.append(content)
            if transaction.body_descriptor >= 0:
                self._write_out(transaction)
            elif transaction.body_bytes > self.host.spill_bytes() or transaction.body_type == BINARY:
                self._open_body_file(transaction)

    def _hold_back(self, transaction: Transaction, hold: HeaderHold, event: Body) -> bytes:
        """What goes on of a message whose header is to be rewritten: nothing until that is whole, counted all the same."""
        transaction.body_bytes += len(event.content)
        self.host.held_bytes += len(event.content)
        is_whole = hold.feed(event.content, event.last)
        if hold.is_waiting:
            if hold.held_bytes > PAUSE_HELD_BYTES:  # not before: one that does not read does not see a client go
                self._pause()
            return b""
        if not is_whole:
            return b""
        try:
            return self._release(transaction, hold)
        except NeedsAnswer as needed:
            hold.is_waiting = True
            self.host.asking.wait(self, functools.partial(self._go_on_with_header, transaction, hold), needed)  # type: ignore[arg-type]
            return b""

    def _release(self, transaction: Transaction, hold: HeaderHold) -> bytes:
        """What was held back, with its header rewritten; raises NeedsAnswer."""
        content = hold.rewritten()
        transaction.header_hold = None
        transaction.body_bytes -= hold.held_bytes
        self.host.held_bytes -= hold.held_bytes
        return content

    def _go_on_with_header(self, transaction: Transaction, hold: HeaderHold) -> None:
        """What the rewriting of a header lacked is there; raises NeedsAnswer for more."""
        if self.transaction is not transaction:
            return
        self._take(transaction, self._release(transaction, hold))
        if transaction.is_committing and transaction.body_file >= 0:
            self.host.loop.call_soon(self._commit, transaction)  # not before this decision is done with

    def _check_header(self, transaction: Transaction, header: bytearray, event: Body) -> None:
        """The header of an authenticated user's message, once it is whole: its From and Sender must be his."""
        looked_at = max(0, len(header) - 3)
        header += event.content
        end = 0 if header[:2] == b"\r\n" else header.find(b"\r\n\r\n", looked_at)
        if end < 0 and not event.last:
            return
        transaction.header = None
        reply = self.host.submitting.decide_header(self, bytes(header if end < 0 else header[:end]))
        if reply is not None:
            self.host.refuse(self, reply, "DATA", id=transaction.id, cause="identity")
            transaction.failure = transaction.failure or reply

    def _open_body_file(self, transaction: Transaction) -> None:
        if transaction.body_file < 0 or transaction.failure is not None:
            return
        opened = self.host.take_body_file(self)
        if opened is None:
            transaction.body_file = -1  # asked for; read no more until it comes
            self._pause()
            return
        self.give_body_file(*opened, go_on=False)

    def give_body_file(self, number: int, descriptor: int, *, go_on: bool = True) -> None:
        """The body file that this transaction waits for."""
        transaction = self.transaction
        if transaction is None or (go_on and transaction.body_file >= 0):
            self.host.release_body_file(number, descriptor)
            return
        transaction.body_file, transaction.body_descriptor = number, descriptor
        transaction.chunks.insert(0, transaction.trace)
        self.host.held_bytes += len(transaction.trace)
        self._write_out(transaction)
        if go_on:
            if transaction.is_committing:
                self._commit(transaction)
            else:
                self._resume()

    def deny_body_file(self, reply: Reply) -> None:
        """None comes: what is left of the message is read and forgotten, and `reply` answers its end."""
        transaction = self.transaction
        if transaction is None or transaction.body_file >= 0:
            return
        transaction.body_file = 0
        transaction.failure = reply
        transaction.chunks = []
        if transaction.is_committing:
            self._commit(transaction)
        else:
            self._resume()

    def _write_out(self, transaction: Transaction) -> None:
        chunks, transaction.chunks = transaction.chunks, []
        total = 0
        crc = transaction.body_crc
        for chunk in chunks:
            crc = crc32(chunk, crc)
            total += len(chunk)
        transaction.body_crc = crc
        self.host.held_bytes -= total
        if transaction.failure is not None:
            return
        try:
            written = os.writev(transaction.body_descriptor, chunks)
            while written < total:
                rest = b"".join(chunks)[written:]
                written += os.write(transaction.body_descriptor, rest)
        except OSError as error:
            transaction.failure = self.host.write_failed(error)

    def _commit(self, transaction: Transaction) -> None:
        transaction.is_committing = True
        if transaction.failure is not None:
            self._answer_end(transaction, transaction.failure)
            return
        session = self.session
        envelope = Envelope(
            transaction.id,
            self.session_id,
            transaction.reverse_path,
            transaction.recipients,
            self.host.now_s(),
            self.address,
            self.helo,
            transaction.permit,
            transaction.body_type,
            transaction.smtputf8,
            session.has_8bit,
            session.needs_stuffing,
            hold=transaction.hold,
        )
        if self.host.limits.tls_required_field and session.tls_optional:
            envelope.tls_optional = True
        if transaction.smtputf8 and not session.header_8bit:
            envelope.ascii_header = True
        if transaction.bounce_to:
            envelope.bounce_to = transaction.bounce_to
        if transaction.asked is not None:
            self.host.note_mail(envelope, transaction.asked)
        self.host.commit(transaction, envelope, lambda reply: self._answer_end(transaction, reply))

    def _answer_end(self, transaction: Transaction, reply: Reply | None) -> None:
        """The message is durable (None), or `reply` says why it was not taken."""
        host = self.host
        if transaction.body_descriptor < 0:
            host.held_bytes -= transaction.body_bytes
        elif reply is None:
            with contextlib.suppress(OSError):  # all of it is durable
                os.close(transaction.body_descriptor)
        else:
            host.release_body_file(transaction.body_file, transaction.body_descriptor)
        self.transaction = None
        if reply is None:
            self.messages += 1
            host.accepted(self, transaction)
            reply = Reply(250, "0.0", f"Queued as {transaction.id}")
        if not self.transport.is_closing():
            self.session.answer(reply)
            self.advance()

    def _give_up_transaction(self) -> None:
        transaction, self.transaction = self.transaction, None
        if transaction is None or (
            transaction.is_committing and transaction.body_file >= 0 and transaction.header_hold is None
        ):
            return
        if transaction.header_hold is not None and transaction.header_hold.is_waiting:
            self.host.asking.forget(self)  # type: ignore[arg-type]
        if transaction.body_descriptor >= 0:
            self.host.release_body_file(transaction.body_file, transaction.body_descriptor)
        else:
            self.host.held_bytes -= transaction.body_bytes
        transaction.chunks = []
