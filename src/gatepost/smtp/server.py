"""The server side of an SMTP session, without I/O (RFC 5321, 1870, 2034, 2920, 3030, 6152, 6531).

Octets of the client go in by `feed`, events come out of `next_event`, the owner decides by `answer`, and replies come out
of `take_output`, those of a pipelined group in one piece. The session knows syntax, order and limits; it knows nothing of
policy, sockets or time. No input raises. An idle session is this object, its id and the client's name, nothing more.

Invariants: at most one event is unanswered, and nothing is parsed meanwhile; a transaction that the owner accepted ends
with exactly one of `Body(last=True)` and `Reset`; after a forbidden octet nothing of the client is believed any more.
Which verb is legal when is the table VERBS, at the end; AUTH is in `auth.py`, the text of a message in `messagetext.py`,
XCLIENT in `introduction.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gatepost.smtp import reply as replies
from gatepost.smtp.command import parse_bdat, parse_hello, parse_mail, parse_rcpt
from gatepost.smtp.conversation import (
    AUTH,
    BDAT,
    CHUNK,
    DATA,
    GREETING,
    HELLO,
    MAIL,
    PLAIN,
    RCPT,
    READY,
    SECURING,
    TLS_RECORD,
)
from gatepost.smtp.data import find_fault
from gatepost.smtp.events import Body, Data, Event, Hello, Mail, Quit, Rcpt, Reset, Violation, excerpt
from gatepost.smtp.introduction import Introduction
from gatepost.smtp.parameters import ORDINARY, check_mail, check_rcpt
from gatepost.smtp.reply import Reply
from gatepost.smtp.settings import ServerSettings
from gatepost.smtp.transaction import Chunk, Refusal, State, Transaction, Waiting

__all__ = [
    "Body", "Data", "Event", "Hello", "Mail", "Quit", "Rcpt", "Reply", "Reset", "ServerSession", "ServerSettings",
    "State", "Violation", "Waiting",
]  # fmt: skip

TAKES_TEXT = GREETING | DATA | CHUNK | AUTH | SECURING  # whatever comes is not a command line
ANY = HELLO | READY | MAIL | RCPT | BDAT
ALWAYS = ANY | PLAIN

ENDS_VERB = (b" ", b"")

ENDS_GROUP = 1  # nothing may follow before the reply, whatever was announced (RFC 2920 3.1)
ONE_BY_ONE = 2  # nothing may follow before the reply unless PIPELINING was announced
IDLE = 4  # does not bring a message nearer
BARE = 8  # takes no argument

_KINDS = {"3.4": "size", "5.4": "parameter", "1.7": "path", "1.3": "path", "6.7": "path", "5.2": "syntax"}


class ServerSession(Introduction):
    """One client, from the greeting to the end; the module says how it is used."""

    __slots__ = ()

    # --- what the owner calls ---------------------------------------------------------------------------------------

    def greet(self, reply: Reply | None = None) -> None:
        """Say 220, or refuse the client with `reply` and close."""
        if self._state != GREETING:
            return
        if reply is not None and not reply.is_positive:
            self._end(reply)
        elif self._input and self.settings.refuse_early_talkers:
            self._later(self._early_talker())
        else:
            self._write(reply.wire() if reply is not None else self.settings.greeting)
            self._state = HELLO

    def next_event(self) -> Event | None:
        """The next event; None if more input is needed, or an event is unanswered."""
        if self._events is not None:
            return self._next_queued()
        if self._pending is not None:
            return None
        while self._input or self._state == CHUNK:
            if self._state & TAKES_TEXT:
                event = self._read_content()
                if event is not None or self._state & TAKES_TEXT:
                    return event
                continue
            data = self._input
            end = data.find(b"\n", self._at) + 1
            if not end:
                return self._keep_partial_line()
            line = bytes(data[self._at : end])
            if end == len(data):
                self._input = b""
                self._at = 0
            else:
                self._at = end
            if (
                line.find(b"\r") != len(line) - 2
                or b"\0" in line
                or len(line) > self.settings.max_command_bytes
                or self._long_line is not None
            ):
                event = self._unusual_line(line)
            else:
                event = self._command(line[:-2])
            if event is not None:
                return event
        return None

    def answer(self, reply: Reply | None = None) -> None:
        """Answer the event that waits; None is the standard positive reply. A late answer to a closed session is void."""
        pending = self._pending
        if pending is None:
            if self.closing:
                return
            raise RuntimeError("no event waits for an answer")
        self._pending = None
        if type(pending) is Hello:
            self._answer_hello(pending, reply)
        else:
            pending(self, reply)  # type: ignore[operator]
        if self._farewell is not None and not self.closing:
            self._end(self._farewell)

    # --- lines ------------------------------------------------------------------------------------------------------

    def _unusual_line(self, line: bytes) -> Event | None:
        """A line that is too long, or has a CR, LF or NUL that it must not have."""
        if not self._commands and line.startswith(TLS_RECORD):
            return self._violate("tls", replies.NOT_SMTP, line, close=True)
        is_long = self._long_line is not None or len(line) > self._line_limit(line)
        found = find_fault(line)
        fault = self._long_line or (found[0] if found is not None else "")
        self._long_line = None
        if fault == "bare-lf" and self.settings.repair:
            line = line[:-1] + b"\r\n"
            fault = ""
        if fault:
            return self._violate(fault, replies.BARE_IN_COMMAND, line, close=True)
        if is_long:
            self._commands += 1
            return self._violate("line-too-long", replies.LINE_TOO_LONG, line)
        return self._command(line[:-2])

    def _command(self, line: bytes) -> Event | None:
        """Find the row of the verb, check what the row says, and let its handler go on."""
        self._commands += 1
        settings = self.settings
        if self._commands > settings.max_commands:
            return self._violate("limit", replies.TOO_MANY_COMMANDS, line, close=True)
        row = VERBS.get(line[:4].upper())
        if row is None or (not row.is_verb_of(line) if row.is_unusual else line[4:5] not in ENDS_VERB):
            return self._unknown(line)
        flags = row.flags
        if self._input and flags & (ENDS_GROUP if self.esmtp and settings.pipelining else ENDS_GROUP | ONE_BY_ONE):
            return self._violate("pipelining", replies.BAD_PIPELINING, line, close=True)
        if not row.states & self._state:
            reply = row.elsewhere[self._state]
            if settings.lmtp and reply is replies.NO_RECIPIENTS:
                reply = replies.NO_RECIPIENTS_LMTP
            return self._violate("sequence", reply, line)
        if flags & BARE and line[row.length :].strip(b" "):
            return self._violate("syntax", replies.BAD_ARGUMENT, line)
        if flags & IDLE:
            self._idle += 1
            if self._idle > settings.max_idle_commands:
                return self._violate("limit", replies.TOO_MANY_IDLE_COMMANDS, line, close=True)
        return row.handler(self, line)

    # --- handlers of verbs, and what follows their answers ----------------------------------------------------------

    def _hello(self, line: bytes) -> Event | None:
        if (line[:1] in b"Ll") is not self.settings.lmtp:
            return self._unknown(line)
        name = parse_hello(line)
        if isinstance(name, Reply):
            return self._violate("syntax", name, line)
        event = Hello(name, line[:1] in b"EeLl")
        self._pending = event
        if self._give_up():
            # RFC 5321 4.1.4: EHLO in the middle is also a RSET; its event comes first
            self._later(event)
            return Reset()
        return event

    def _answer_hello(self, hello: Hello, reply: Reply | None) -> None:
        if reply is not None and not reply.is_positive:
            self._refuse(reply)
            return
        self.helo = hello.name
        self.esmtp = hello.extended
        settings = self.settings
        self._state = PLAIN if settings.require_tls and not settings.is_secured else READY
        if reply is not None:
            self._put(reply)
        else:
            self._write(settings.offer.ehlo if hello.extended else settings.hello)

    def _mail(self, line: bytes) -> Event | None:
        settings = self.settings
        if self._transactions >= settings.max_transactions:
            return self._violate("limit", replies.TOO_MANY_TRANSACTIONS, line, close=True)
        command = parse_mail(line, settings.offer.mail if self.esmtp else {}, settings.max_message_bytes)
        if isinstance(command, Reply):
            return self._violate(_KINDS[command.detail], command, line)
        parameters = command.parameters
        if not ORDINARY.issuperset(parameters):
            refusal = check_mail(parameters)
            if refusal is not None:
                return self._violate("parameter", refusal, line)
        smtputf8 = "SMTPUTF8" in parameters
        self._transaction = Transaction(smtputf8, parameters.get("BODY") == "BINARYMIME")
        self._pending = ServerSession._answer_mail
        if not parameters:
            return Mail(command.path, 0, "7BIT", False, parameters)
        size_bytes, body = parameters.get("SIZE", 0), parameters.get("BODY", "7BIT")
        return Mail(command.path, size_bytes, body, smtputf8, parameters)  # type: ignore[arg-type]

    def _answer_mail(self, reply: Reply | None) -> None:
        if reply is None or reply.is_positive:
            self._transactions += 1
            self._state = MAIL
            self._put(reply or replies.MAIL_OK)
        else:
            self._transaction = None
            self._refuse(reply)

    def _rcpt(self, line: bytes) -> Event | None:
        settings = self.settings
        transaction = self._transaction
        assert transaction is not None  # the table sees to that
        if transaction.accepted >= settings.max_recipients:
            self._put(replies.TOO_MANY_RECIPIENTS)  # not an error: the client sends the rest in the next message
            return Violation("recipients", replies.TOO_MANY_RECIPIENTS, excerpt(line))
        command = parse_rcpt(
            line,
            settings.offer.rcpt if self.esmtp else {},
            settings.max_message_bytes,
            smtputf8=transaction.smtputf8,
        )
        if isinstance(command, Reply):
            return self._violate(_KINDS[command.detail], command, line)
        if command.parameters:
            refusal = check_rcpt(command.parameters, smtputf8=transaction.smtputf8)
            if refusal is not None:
                return self._violate("parameter", refusal, line)
        self._pending = ServerSession._answer_rcpt
        return Rcpt(command.path, command.parameters)  # type: ignore[arg-type]

    def _answer_rcpt(self, reply: Reply | None) -> None:
        transaction = self._transaction
        assert transaction is not None
        if reply is None or reply.is_positive:
            transaction.accepted += 1
            self._state = RCPT
            self._idle = 0
            self._put(reply or replies.RCPT_OK)
        else:
            # A list with a few dead members is no attack: refusals are errors only where they outnumber the accepted.
            transaction.refused += 1
            self._refuse(reply, is_error=transaction.refused > transaction.accepted)

    def _data(self, line: bytes) -> Event | None:
        if self._transaction.is_binary:  # type: ignore[union-attr]
            return self._violate("sequence", replies.BINARY_BY_BDAT, line)
        self._begin_content()
        self._pending = ServerSession._answer_data
        return Data()

    def _answer_data(self, reply: Reply | None) -> None:
        if reply is not None and not reply.is_positive:
            self._refuse(reply)
            if self._give_up():
                self._later(Reset())
        elif self._input:
            self._later(self._violate("pipelining", replies.BAD_PIPELINING, bytes(self._input), close=True))
        else:
            self._state = DATA
            self._put(replies.START_DATA)

    def _bdat(self, line: bytes) -> Event | None:
        parsed = parse_bdat(line)
        settings = self.settings
        state = self._state
        if isinstance(parsed, Reply):
            return self._violate("syntax", parsed, line, close=True)  # where the chunk ends is not known
        size_bytes, last = parsed
        if size_bytes > settings.max_message_bytes + settings.max_swallowed_bytes:
            return self._violate("size", replies.MESSAGE_TOO_LARGE, line, close=True)
        refusal: Refusal | None = None
        if b"BDAT" in settings.offer.missing_verbs:
            refusal = "disabled", replies.NOT_IMPLEMENTED
        elif not state & (RCPT | BDAT):
            refusal = "sequence", replies.NO_RECIPIENTS if state == MAIL else replies.BDAT_SEQUENCE
        elif size_bytes + (self.body_bytes if state == BDAT else 0) > settings.max_message_bytes:
            refusal = "size", replies.MESSAGE_TOO_LARGE
        self._chunk = Chunk(size_bytes, last, state if refusal is not None else BDAT, refusal)
        self._state = CHUNK
        if refusal is None and state == RCPT:
            self._begin_content()
            self._pending = ServerSession._answer_bdat
            return Data()
        return None

    def _answer_bdat(self, reply: Reply | None) -> None:
        assert self._chunk is not None
        if reply is not None and not reply.is_positive:
            self._chunk.refusal = "", reply

    def _reset(self, line: bytes) -> Event | None:
        self._put(replies.OK)
        return Reset() if self._give_up() else None

    def _quit(self, line: bytes) -> Event | None:
        had_transaction = self._give_up()
        self._put(replies.GOODBYE)
        self._close()
        if had_transaction:
            self._later(Quit())
            return Reset()
        return Quit()

    def _noop(self, line: bytes) -> Event | None:
        self._put(replies.OK)
        return None

    def _help(self, line: bytes) -> Event | None:
        self._put(replies.HELP)
        return None

    def _verify(self, line: bytes) -> Event | None:
        if not line[5:].strip(b" "):
            return self._violate("syntax", replies.BAD_VRFY, line)
        self._put(replies.VRFY)
        return None

    def _not_implemented(self, line: bytes) -> Event | None:
        return self._violate("disabled", replies.NOT_IMPLEMENTED, line)

    def _no_etrn(self, line: bytes) -> Event | None:
        """RFC 1985: whoever may connect could have the queue run, as often as he likes."""
        return self._violate("disabled", replies.NO_ETRN, line)

    def _other_protocol(self, line: bytes) -> Event | None:
        return self._violate("http", replies.NOT_SMTP, line, close=True)

    def _foreign_proxy(self, line: bytes) -> Event | None:
        """Whoever sends this speaks for somebody else. Going on would give that client the rights of the proxy's address."""
        return self._violate("proxy", replies.NO_PROXY, line, close=True)

    def _unknown(self, line: bytes) -> Event:
        if self._commands == 1 and line.startswith(TLS_RECORD):
            return self._violate("tls", replies.NOT_SMTP, line, close=True)
        return self._violate("unknown", replies.UNKNOWN_COMMAND, line)


class Verb(msgspec.Struct, frozen=True):
    """A row of the table: the states in which a verb is legal, the replies elsewhere, flags, handler."""

    name: bytes
    states: int
    flags: int
    handler: Callable[[ServerSession, bytes], Event | None]
    elsewhere: dict[int, Reply]
    length: int
    is_unusual: bool  # the name is not just the four octets by which the row is found

    def is_verb_of(self, line: bytes) -> bool:
        """Whether the line begins with this verb, all of it."""
        return line[: self.length].upper() == self.name and line[self.length : self.length + 1] in ENDS_VERB


_ELSEWHERE = {
    HELLO: replies.HELLO_FIRST,
    READY: replies.MAIL_FIRST,
    MAIL: replies.NESTED_MAIL,
    RCPT: replies.NESTED_MAIL,
    BDAT: replies.BDAT_UNDER_WAY,
    PLAIN: replies.TLS_FIRST,
}
_SESSION = ServerSession
_ROWS = (
    (b"EHLO", ALWAYS, ENDS_GROUP | IDLE, _SESSION._hello),
    (b"HELO", ALWAYS, ENDS_GROUP | IDLE, _SESSION._hello),
    (b"LHLO", ALWAYS, ENDS_GROUP | IDLE, _SESSION._hello),  # RFC 2033 4.1: instead of the two, never beside them
    (b"MAIL", READY, ONE_BY_ONE, _SESSION._mail),
    (b"RCPT", MAIL | RCPT, ONE_BY_ONE, _SESSION._rcpt),
    (b"DATA", RCPT, ENDS_GROUP | BARE, _SESSION._data),
    (b"BDAT", ALWAYS, 0, _SESSION._bdat),
    (b"RSET", ANY, ONE_BY_ONE | BARE | IDLE, _SESSION._reset),
    (b"NOOP", ALWAYS, ONE_BY_ONE | IDLE, _SESSION._noop),
    (b"QUIT", ALWAYS, BARE, _SESSION._quit),
    (b"HELP", ANY, ONE_BY_ONE | IDLE, _SESSION._help),
    (b"VRFY", ANY, ONE_BY_ONE | IDLE, _SESSION._verify),
    (b"EXPN", ANY, ONE_BY_ONE | IDLE, _SESSION._not_implemented),
    (b"ETRN", ANY, ONE_BY_ONE | IDLE, _SESSION._no_etrn),
    (b"STARTTLS", HELLO | READY | PLAIN, BARE | IDLE, _SESSION._starttls),
    (b"AUTH", READY | PLAIN, ENDS_GROUP | IDLE, _SESSION._auth),
    (b"XCLIENT", HELLO | READY, ENDS_GROUP | IDLE, _SESSION._xclient),
    (b"XFORWARD", HELLO | READY, ONE_BY_ONE | IDLE, _SESSION._xforward),
    (b"PROXY", ALWAYS, 0, _SESSION._foreign_proxy),
    # A browser that was talked into posting mail here, or a scanner
    *(
        (name, ALWAYS, 0, _SESSION._other_protocol)
        for name in (b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT")
    ),
)
VERBS: dict[bytes, Verb] = {
    (name + b" ")[:4]: Verb(
        name,
        states,
        flags,
        handler,
        _ELSEWHERE | {MAIL: replies.NO_RECIPIENTS} if name == b"DATA" else _ELSEWHERE,
        len(name),
        len(name) != 4,
    )
    for name, states, flags, handler in _ROWS
}
