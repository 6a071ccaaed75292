"""The ground of a server session: its input, its replies, its errors, its end. The verbs are in `server.py`.

Not a session by itself. It keeps the octets that came in and were not looked at, joins replies for one write, counts
errors, and sees to it that whoever accepted a transaction hears of its end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gatepost.smtp import reply as replies
from gatepost.smtp.data import Content, find_fault
from gatepost.smtp.events import Event, Hello, Reset, StartTls, Violation, excerpt
from gatepost.smtp.reply import RENDERED, Reply
from gatepost.smtp.settings import ServerSettings
from gatepost.smtp.transaction import Chunk, State, Transaction, Waiting

TLS_RECORD = b"\x16\x03"  # how a TLS client begins
GREETING, HELLO, READY, MAIL, RCPT, DATA, BDAT, CHUNK, CLOSED, AUTH, PLAIN, SECURING = (int(state) for state in State)

if TYPE_CHECKING:
    from gatepost.smtp.auth import Attempt
    from gatepost.smtp.sasl.mechanism import Security
    from gatepost.smtp.server import ServerSession

    Pending = Callable[[ServerSession, Reply | None], None] | Callable[["Conversation", Reply | None], None] | Hello


class Conversation:
    """State and common acts of a ServerSession; what the owner calls has no underscore."""

    __slots__ = (
        "_at",
        "_attempt",
        "_chunk",
        "_commands",
        "_errors",
        "_events",
        "_farewell",
        "_idle",
        "_input",
        "_long_line",
        "_output",
        "_pending",
        "_state",
        "_transaction",
        "_transactions",
        "auth_failures",
        "auth_tries",
        "closing",
        "esmtp",
        "helo",
        "security",
        "session_id",
        "settings",
        "user",
    )

    def __init__(self, settings: ServerSettings, session_id: str) -> None:
        self.settings = settings
        self.session_id = session_id
        self.helo = ""
        self.esmtp = False
        self.user = ""  # who it is, by AUTH
        self.security: Security | None = None  # what the TLS layer knows
        self.closing = False  # write what take_output gives, then close
        self._state = GREETING
        self._input: bytes | bytearray = b""
        self._at = 0  # what lies before this in _input is done with
        self._output: list[bytes] | None = None
        self._events: list[Event] | None = None  # to be given out before anything is parsed
        self._pending: Pending | None = None
        self._farewell: Reply | None = None  # close with this after the answer
        self._transaction: Transaction | None = None
        self._chunk: Chunk | None = None
        self._long_line: str | None = None  # a line is too long, its begin dropped: the fault in that, or ""
        self._commands = 0
        self._idle = 0
        self._errors = 0
        self._transactions = 0
        self._attempt: Attempt | None = None  # an authentication exchange
        self.auth_tries = 0
        self.auth_failures = 0

    def feed(self, data: bytes) -> None:
        """Take what the client sent; `next_event` looks at it."""
        if self.closing:
            return
        kept = self._input
        if not kept:
            self._input = data
        else:
            if type(kept) is bytearray:
                del kept[: self._at]
            else:
                kept = bytearray(kept[self._at :])
            kept += data
            self._input = kept
            self._at = 0
        if self._pending is not None and len(self._input) > 2 * self.settings.max_buffered_bytes:
            self._later(self._violate("limit", replies.TOO_MUCH_INPUT, b"", close=True))

    def take_output(self) -> bytes:
        """The replies since the last call, in one piece to be written at once."""
        output = self._output
        if output is None:
            return b""
        self._output = None
        return output[0] if len(output) == 1 else b"".join(output)

    def timeout(self, reply: Reply = replies.TIMEOUT) -> None:
        """The client was too slow: 421, then close; if an event waits for an answer, after that."""
        self.shut_down(reply)

    def shut_down(self, reply: Reply = replies.SHUTTING_DOWN) -> None:
        """The service ends: 421, then close; if an event waits for an answer, after that."""
        if self._pending is not None:
            self._farewell = reply
        elif not self.closing:
            self._end(reply)

    @property
    def waiting(self) -> Waiting:
        """What is waited for."""
        if self._state & (GREETING | SECURING):
            return Waiting.GREETING if self._state == GREETING else Waiting.TLS
        return Waiting.DATA if self._state & (DATA | CHUNK) else Waiting.COMMAND

    @property
    def state(self) -> State:
        """Where the session is."""
        return State(self._state)

    @property
    def progress(self) -> int:
        """Grows with every command that is whole: while it stands still, the client's time runs."""
        return self._commands

    @property
    def buffered_bytes(self) -> int:
        """Octets that were fed and not looked at yet: the owner stops reading above `settings.max_buffered_bytes`."""
        return len(self._input) - self._at

    # --- facts of the message, until its last Body event is answered ------------------------------------------------

    @property
    def body_bytes(self) -> int:
        """Octets of the message so far."""
        return self._content.body_bytes

    @property
    def has_8bit(self) -> bool:
        """Whether an octet over 127 came."""
        return self._content.has_8bit

    @property
    def header_8bit(self) -> bool:
        """Whether one came in the header."""
        return self._content.header_8bit

    @property
    def needs_stuffing(self) -> bool:
        """Whether a line begins with a dot."""
        return self._content.needs_stuffing

    @property
    def tls_optional(self) -> bool:
        """Whether the header says "TLS-Required: No" (RFC 8689)."""
        return self._content.tls_optional

    @property
    def received_hops(self) -> int:
        """How many Received fields the header has."""
        return self._content.received_hops

    @property
    def long_line(self) -> bool:
        """Whether a line is longer than `settings.max_line_bytes`."""
        return self._content.long_line

    @property
    def _content(self) -> Content:
        transaction = self._transaction
        if transaction is None or transaction.content is None:
            raise RuntimeError("no message is under way")
        return transaction.content

    def _line_limit(self, line: bytes) -> int:
        """How long this command line may be; RFC 4954 4 gives AUTH more than the others."""
        settings = self.settings
        return (
            settings.max_auth_bytes
            if settings.mechanisms and line[:5].upper() == b"AUTH "
            else settings.max_command_bytes
        )

    def _consume(self, end: int) -> None:
        if end == len(self._input):
            self._input = b""
            self._at = 0
        else:
            self._at = end

    def _keep_partial_line(self) -> Event | None:
        """No line end yet: wait for it; drop what is too long already, for a long line is one line."""
        partial = bytes(self._input[self._at :])
        if not self._commands and partial.startswith(TLS_RECORD):
            return self._violate("tls", replies.NOT_SMTP, partial, close=True)
        if len(partial) > self._line_limit(partial) or (self._long_line is not None and len(partial) > 1):
            keep = 1 if partial[-1:] == b"\r" else 0
            fault = find_fault(partial[: len(partial) - keep])
            self._long_line = self._long_line or (fault[0] if fault is not None else "")
            self._consume(len(self._input) - keep)
        return None

    # --- replies and the end ----------------------------------------------------------------------------------------

    def _put(self, reply: Reply) -> None:
        """Queue a reply; a negative one carries the session id, by which the log has the cause."""
        wire = RENDERED.get(reply) or reply.wire()
        if reply.code >= 400 and self.session_id:
            wire = b"%s (%s)\r\n" % (wire[:-2], self.session_id.encode("ascii", "replace"))
        if self._output is None:
            self._output = [wire]
        else:
            self._output.append(wire)

    def _write(self, wire: bytes) -> None:
        if self._output is None:
            self._output = [wire]
        else:
            self._output.append(wire)

    def _next_queued(self) -> Event | None:
        if self._events is None:
            return None
        event = self._events.pop(0)
        self._events = self._events or None
        return event

    def _later(self, event: Event) -> None:
        if self._events is None:
            self._events = [event]
        else:
            self._events.append(event)

    def _violate(self, kind: str, reply: Reply, octets: bytes, *, close: bool = False) -> Violation:
        """Refuse what the client sent, for the session's own reasons, and count it."""
        self._put(reply)
        if self.auth_tries and not self.user and octets[:4].upper() != b"AUTH":
            octets = b""  # it may be a password, of a client that went on although AUTH was refused
        event = Violation(kind, reply, excerpt(octets))
        if close:
            self._close()
        else:
            self._count_error()
        return event

    def _refuse(self, reply: Reply, *, is_error: bool = True) -> None:
        """Queue a negative answer of the owner."""
        self._put(reply)
        if reply.code in (421, 521):
            self._close()
        elif is_error and reply.code >= 500:
            self._count_error()

    def _count_error(self) -> None:
        self._errors += 1
        if self._errors >= self.settings.max_errors:
            self._put(replies.TOO_MANY_ERRORS)
            self._later(Violation("limit", replies.TOO_MANY_ERRORS, ""))
            self._close()

    def _give_up(self) -> bool:
        """Drop the transaction; whether the owner had accepted it, and so is owed a Reset."""
        self._transaction = None
        if self._state & (HELLO | READY | CLOSED | PLAIN):
            return False
        self._state = READY
        return True

    # --- TLS (RFC 3207) ---------------------------------------------------------------------------------------------

    def _starttls(self, line: bytes) -> Event | None:
        settings = self.settings
        if settings.is_secured:
            return self._violate("sequence", replies.TLS_ALREADY, line)
        if self.user:  # what is known would have to be forgotten again (RFC 3207 4.2)
            return self._violate("sequence", replies.TLS_BEFORE_AUTH, line)
        if b"STARTTLS" in settings.offer.missing_verbs:
            return self._violate("disabled", replies.NOT_IMPLEMENTED, line)
        if self._input:
            return self._violate("starttls-injection", replies.INJECTION, bytes(self._input), close=True)
        self._pending = Conversation._answer_starttls
        return StartTls()

    def _answer_starttls(self, reply: Reply | None) -> None:
        if reply is not None:
            self._refuse(reply, is_error=False)
        elif self._input:
            self._later(self._violate("starttls-injection", replies.INJECTION, bytes(self._input), close=True))
        else:
            self._state = SECURING
            self._put(replies.TLS_READY)

    def secured(self, settings: ServerSettings) -> None:
        """TLS has begun: whatever was learned before is forgotten (RFC 3207 4.2); `settings` hold inside."""
        self.settings = settings
        self.helo = ""
        self.user = ""
        self.esmtp = False
        self._input = b""
        self._at = 0
        if self._state != GREETING:  # TLS from the first octet: the greeting comes now
            self._state = HELLO

    def _end(self, reply: Reply) -> None:
        self._put(reply)
        self._close()

    def _close(self) -> None:
        if self._transaction is not None and not self._state & (HELLO | READY):
            self._later(Reset())
        self.closing = True
        self._state = CLOSED
        self._input = b""
        self._at = 0
        self._pending = self._farewell = self._transaction = self._chunk = self._attempt = None
