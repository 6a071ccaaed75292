"""One incoming SMTP connection: asyncio.Protocol around the sans-IO `ServerSession`.

Bytes in, events out, each event decided at once by the host (the receiver role), replies of a pipelined group in one write. What is
per connection is kept small, because ten thousand idle ones are ordinary: there is no timer per connection (the host sweeps
`deadline_s` once a second) and no transaction object before MAIL.

Not here: the rules of SMTP (`smtp/server.py`), the decisions and limits over all connections (`roles/receiver.py`).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gatepost.model import Address, NeedsAnswer, Recipient
from gatepost.net.message_in import begin_text, deny_body_file, give_body_file, give_up_transaction, take_body
from gatepost.net.tls import TlsFacts, TlsLayer
from gatepost.net.transaction_in import Transaction
from gatepost.smtp.events import (
    AuthEnd,
    AuthQuestion,
    Body,
    Data,
    Forwarded,
    Hello,
    Introduced,
    Mail,
    Quit,
    Rcpt,
    Reset,
    StartTls,
    Violation,
)
from gatepost.smtp.parameters import ORDINARY
from gatepost.smtp.reply import SESSION_ERROR, SHUTTING_DOWN, TIMEOUT, Reply
from gatepost.smtp.server import ServerSession
from gatepost.smtp.transaction import Waiting

if TYPE_CHECKING:
    from gatepost.roles.asking import Wait
    from gatepost.roles.localclients import LocalPeer
    from gatepost.roles.ports import Port
    from gatepost.roles.receiver import Receiver

LOW_MEMORY_SPILL_BYTES = 16 * 1024  # a message over this goes to a body file while the memory budget is used up
PAUSE_BUFFERED_BYTES = 256 * 1024  # of input that the session cannot take yet
LINGER_S = 10.0  # a client that does not read its last reply is cut off after this


class SmtpIn(asyncio.Protocol):
    """A connection of a client."""

    __slots__ = (
        "address", "bytes_in", "deadline_s", "facts", "helo", "host", "introducer", "is_ending", "is_paused", "is_unread",
        "local_address", "local_peer", "messages", "opened_s", "port", "seen_progress", "session", "session_id", "tls", "transaction",
        "transport", "wait",
    )  # fmt: skip

    def __init__(self, host: Receiver, port: Port) -> None:
        self.host = host
        self.port = port
        self.tls: TlsFacts | None = None
        self.transport: Any = None
        self.session: ServerSession = None  # type: ignore[assignment]  # made in connection_made
        self.address = ""
        self.local_address = ""
        self.local_peer: LocalPeer | None = None  # by a Unix socket
        self.introducer = ""  # the host that said by XCLIENT who the client is
        self.session_id = ""
        self.helo = ""
        self.facts: Any = None
        self.transaction: Transaction | None = None
        self.wait: Wait | None = None  # a decision that waits for facts
        self.deadline_s = 0.0
        self.opened_s = 0.0
        self.seen_progress = 0
        self.bytes_in = 0
        self.messages = 0
        self.is_paused = False
        self.is_unread = False
        self.is_ending = False

    give_body_file = give_body_file
    deny_body_file = deny_body_file

    # --- asyncio ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        peer = transport.get_extra_info("peername")
        if not peer:  # gone before it was accepted
            transport.abort()
            return
        self.introduce(transport, peer[0], peer[1], transport.get_extra_info("sockname")[0])

    def introduce(self, transport: Any, address: str, port: int, local_address: str) -> None:
        """Begin with a client of this address, which may not be the one that the connection comes from."""
        self.transport = transport
        self.address = address
        self.local_address = local_address
        self.opened_s = self.host.loop.time()
        self.host.opened(self, port)

    def data_received(self, data: bytes) -> None:
        self.bytes_in += len(data)
        self.session.feed(data)
        self.advance()

    def eof_received(self) -> bool:
        return False  # close

    def connection_lost(self, error: Exception | None) -> None:
        transaction = self.transaction
        if transaction is not None and (not transaction.is_committing or transaction.header_hold is not None):
            give_up_transaction(self)
        if self.address:
            self.host.closed(
                self, "lost" if not self.is_ending and self.session and not self.session.closing else "end"
            )

    def pause_writing(self) -> None:
        """The client does not read: do not read either."""
        self.is_unread = True
        self.pause()

    def resume_writing(self) -> None:
        self.is_unread = False
        self.resume()

    # --- driving the session ----------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Decide every event that is there, then write all replies at once.

        A decision that waits for facts leaves its event unanswered, and the session gives out no other meanwhile.
        """
        session = self.session
        next_event = session.next_event
        try:
            while (event := next_event()) is not None:
                try:
                    _DECIDE[type(event)](self, event)
                except NeedsAnswer as needed:
                    self.host.asking.wait(self, functools.partial(_DECIDE[type(event)], self, event), needed)
        except Exception as error:  # noqa: BLE001 - the one broad catch of a session
            self._break_off(error)
            return
        if self.is_ending and self.transaction is None and not session.closing:
            session.shut_down()
        out = session.take_output()
        if out:
            self.transport.write(out)
        if session.closing:
            self.is_ending = True
            self.deadline_s = self.host.loop.time() + LINGER_S
            self.transport.close()
            return
        transaction = self.transaction
        if self.wait is not None or (transaction is not None and transaction.is_committing):
            if session.buffered_bytes > PAUSE_BUFFERED_BYTES:
                self.pause()
        elif self.is_paused:
            self.resume()

    def _break_off(self, error: Exception) -> None:
        """A mistake of ours: it is told, the client tries again, and the other sessions go on."""
        self.host.loop.call_exception_handler({"message": f"session {self.session_id}", "exception": error})
        self.transport.write(self.session.take_output() + SESSION_ERROR.wire())
        self.is_ending = True
        self.deadline_s = self.host.loop.time() + LINGER_S
        self.transport.close()

    def pause(self) -> None:
        """Read no more until `resume`."""
        if not self.is_paused and not self.transport.is_closing():
            self.is_paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on, if nothing is left that it was paused for."""
        transaction = self.transaction
        is_waiting = self.is_unread or self.wait is not None or (transaction is not None and transaction.body_file < 0)
        if self.is_paused and not is_waiting and not self.transport.is_closing():
            self.is_paused = False
            self.transport.resume_reading()

    def greet(self, reply: Reply | None = None) -> None:
        """Send the greeting, or the reply that refuses the connection."""
        if not self.transport.is_closing():
            self.session.greet(reply)
            self.advance()

    def end(self) -> None:
        """End the session at the next chance, with 421 4.3.2."""
        self.is_ending = True
        if self.transaction is None and not self.transport.is_closing():
            self.advance()

    def check_deadline(self, now_s: float) -> None:
        """Called by the host's sweep: time-outs and the minimum rate.

        Time runs from the sweep that saw the last progress, so that a command costs no look at the clock.
        """
        transaction = self.transaction
        if self.is_ending or self.transport.is_closing():
            if now_s > self.deadline_s and (transaction is None or not transaction.is_committing):
                self.transport.abort()
            return
        if self.wait is not None or (transaction is not None and transaction.is_committing):
            return
        progress = self.session.progress + (transaction.body_bytes if transaction is not None else 0)
        if progress != self.seen_progress:
            self.seen_progress = progress
            self.deadline_s = now_s + self.host.timeouts[self.session.waiting]
        elif now_s > self.deadline_s:
            self._time_out(self._late_part())
            return
        if transaction is not None and transaction.begun_s:
            limits = self.host.limits
            elapsed_s = now_s - transaction.begun_s
            if elapsed_s > limits.message_timeout_s:
                self._time_out("message took too long")
            elif elapsed_s > limits.rate_window_s and transaction.body_bytes < elapsed_s * limits.min_rate_bytes_s:
                self._time_out("slower than the minimum rate")

    def _late_part(self) -> str:
        if self.tls is None and isinstance(self.transport, TlsLayer):
            return "no TLS in time"
        return "no command in time" if self.transaction is None else "no data in time"

    def _time_out(self, why: str) -> None:
        self.host.event("violation", session=self.session_id, address=self.address, kind="timeout", detail=why)
        self._leave(TIMEOUT)

    def cut_off(self) -> None:
        """The time in which sessions may end is over: 421 and the end, unless what came is being made durable."""
        is_busy = self.wait is not None or (self.transaction is not None and self.transaction.is_committing)
        if not self.transport.is_closing() and not is_busy:
            self._leave(SHUTTING_DOWN)

    def _leave(self, reply: Reply) -> None:
        self.session.shut_down(reply)
        give_up_transaction(self)
        out = self.session.take_output()
        if out:
            self.transport.write(out)
        self.is_ending = True
        self.deadline_s = self.host.loop.time() + LINGER_S
        self.transport.close()

    # --- TLS --------------------------------------------------------------------------------------------------------

    def begin_tls(self) -> None:
        """From now on the transport is a layer over the one of before."""
        securing = self.host.securing
        self.deadline_s = self.host.loop.time() + securing.handshake_timeout_s
        self.transport = securing.new_layer(self)
        self.transport.begin()

    def tls_begun(self, facts: TlsFacts) -> None:
        """The handshake is done: nothing of before is believed."""
        self.tls = facts
        self.helo = ""
        self.host.securing.begun(self, self.transport, facts)
        if self.session.waiting is Waiting.GREETING:  # TLS from the first octet
            self.host.greet(self)

    def tls_failed(self, reason: str) -> None:
        """No TLS, and no way back to clear text."""
        self.is_ending = True
        self.deadline_s = self.host.loop.time() + LINGER_S
        self.host.securing.failed(self, reason)

    def _on_starttls(self, event: StartTls) -> None:
        session = self.session
        session.answer(self.host.securing.decide_starttls(self))
        if session.waiting is Waiting.TLS:
            self.transport.write(session.take_output())
            self.begin_tls()

    # --- events of the session --------------------------------------------------------------------------------------

    def _on_hello(self, event: Hello) -> None:
        self.helo = event.name
        self.session.answer(self.host.decide_hello(self, event))

    def _on_mail(self, event: Mail) -> None:
        reply = self.host.decide_mail(self, event)
        if reply is None or reply.is_positive:
            path = event.reverse_path
            self.transaction = Transaction(path.text if path is not None else "", event.body, event.smtputf8)
            if not ORDINARY.issuperset(event.parameters):
                self.transaction.asked = event.parameters
            if self.host.rewriting is not None:
                reply = self.host.rewriting.begin_mail(self, path) or reply
        self.session.answer(reply)

    def _on_rcpt(self, event: Rcpt) -> None:
        transaction: Transaction = self.transaction  # type: ignore[assignment]  # the session lets no RCPT through without
        address: Address = event.forward_path
        verdict = self.host.decide_rcpt(self, address)
        if isinstance(verdict, Reply):
            self.session.answer(verdict)
            return
        recipient, permit = verdict
        if not isinstance(recipient, Recipient):  # the address stands for several
            self._add_several(transaction, recipient, permit, event)
            return
        if event.parameters:
            self.host.note_recipient(recipient, event.parameters)
        if transaction.recipients:
            if transaction.seen is None:
                transaction.seen = {r.address for r in transaction.recipients}
            if recipient.address in transaction.seen:
                self.session.answer()  # named twice: delivered once
                return
            transaction.seen.add(recipient.address)
        transaction.recipients.append(recipient)
        transaction.permit = permit
        self.session.answer()

    def _add_several(self, transaction: Transaction, recipients: list[Recipient], permit: str, event: Rcpt) -> None:
        if event.parameters:
            for recipient in recipients:
                self.host.note_recipient(recipient, event.parameters)
        reply = self.host.add_recipients(transaction, recipients)
        if reply is None:
            transaction.permit = permit
        self.session.answer(reply)

    def _on_data(self, event: Data) -> None:
        transaction = self.transaction
        reply = self.host.decide_data(self)
        if reply is None and transaction is not None:
            begin_text(self, transaction)
        self.session.answer(reply)

    def _on_auth_question(self, event: AuthQuestion) -> None:
        self.host.submitting.authenticator.answer(self, event)

    def _on_auth_end(self, event: AuthEnd) -> None:
        self.host.submitting.authenticator.end(self, event)

    def _on_introduced(self, event: Introduced) -> None:
        self.session.answer(self.host.introducing.decide(self, event))

    def _on_forwarded(self, event: Forwarded) -> None:
        self.host.introducing.note(self, event)

    def _on_reset(self, event: Reset) -> None:
        give_up_transaction(self)

    def _on_quit(self, event: Quit) -> None:
        self.is_ending = True

    def _on_violation(self, event: Violation) -> None:
        self.host.violation(self, event)


_DECIDE: dict[type, Callable[[SmtpIn, Any], None]] = {
    AuthEnd: SmtpIn._on_auth_end,
    AuthQuestion: SmtpIn._on_auth_question,
    Forwarded: SmtpIn._on_forwarded,
    Hello: SmtpIn._on_hello,
    Introduced: SmtpIn._on_introduced,
    Mail: SmtpIn._on_mail,
    Rcpt: SmtpIn._on_rcpt,
    Data: SmtpIn._on_data,
    Body: take_body,
    Reset: SmtpIn._on_reset,
    Quit: SmtpIn._on_quit,
    StartTls: SmtpIn._on_starttls,
    Violation: SmtpIn._on_violation,
}
