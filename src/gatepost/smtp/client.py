"""The client side of SMTP (RFC 5321) and LMTP (RFC 2033), sans-IO: one session on one connection.

The driver gives it what arrived (`receive`), writes what it wants written (`take_output`) and collects the mail
transactions that ended (`take_finished`). Transactions are pulled from `supply` one after another. It makes no
decision on what a refusal means for a recipient: that is `delivery/attempt.py`.

Invariants: a transaction comes back exactly once, with all replies it got; a reply is never counted for another
command; the final dot is written only behind the whole content; after an error nothing more is written.
With PIPELINING (RFC 2920) MAIL, RCPT and DATA go out as one group, and the group of the next transaction goes out
behind the content of the one before. Whether a dot needs another is seen here, whatever was said of it. A content without final CRLF gets one: DATA cannot carry it otherwise. A binary content goes by
BDAT, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from gatepost.smtp.commandgroup import build_group
from gatepost.smtp.limits import Limits, parse_limits
from gatepost.smtp.login import LoginStep
from gatepost.smtp.outgoing import BLOCK_BYTES, PROBE, ClientSettings, Problem, State, Tls, Transaction
from gatepost.smtp.replyreader import RemoteReply, ReplyError, ReplyReader
from gatepost.smtp.sasl.client import Login, LoginFailed

__all__ = ["BLOCK_BYTES", "ClientSession", "ClientSettings", "Problem", "State", "Tls", "Transaction"]

CRLF = b"\r\n"
BEHIND_STARTTLS = "the host sent more behind its reply to STARTTLS, in clear"

_STAGES = (
    "greeting", "helo", "helo", "tls", "tls", "auth", "", "mail", "rcpt", "data", "body", "body", "body", "", "", "",
)  # fmt: skip


class ClientSession:
    """See the module. `failure` is set if the session ended before it was free for a first transaction."""

    __slots__ = (
        "_commands", "_current", "_finished", "_next", "_next_commands", "_offset", "_out", "_pipelining", "_reader",
        "_settings", "_supply", "_tail", "extensions", "failure", "is_secured", "is_verified", "limits", "login", "size_limit", "state",
    )  # fmt: skip

    def __init__(
        self, settings: ClientSettings, supply: Callable[[], Transaction | None], login: Login | None = None
    ) -> None:
        """With a `login` nothing is sent before the host has accepted it, and it is never sent in clear."""
        self.login = LoginStep(login) if login is not None else None
        self._settings = settings
        self._supply = supply
        self._reader = ReplyReader()
        self._out: list[bytes] = []
        self._finished: list[Transaction] = []
        self._current: Transaction | None = None
        self._commands = b""
        self._next: Transaction | None = None
        self._next_commands = b""
        self._offset = 0
        self._tail = CRLF
        self._pipelining = False
        self.extensions: dict[str, str] = {}
        self.limits: Limits | None = None  # RFC 9422: of the host; the supplier obeys them
        self.size_limit = 0
        self.is_secured = False
        self.is_verified = False  # the driver says so before `secured`: the host is the one that is meant
        self.state = State.GREETING
        self.failure: Problem | None = None

    # --- what the driver calls ---------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> bool:
        """Take what arrived; true if it completed at least one reply."""
        broken = None
        try:
            replies = self._reader.feed(data)
        except ReplyError as error:
            replies, broken = error.replies, error
        for reply in replies:
            if self._out:  # what it answers is not even sent: a server that counts differently from us
                self.close("protocol", f"reply to a command that was not sent: {reply.text}")
            _HANDLERS[self.state](self, reply)
        if broken is not None:
            self.close("protocol", str(broken))
            return True
        if self.state is State.TLS and not self._reader.is_empty:
            self.close("protocol", BEHIND_STARTTLS)
        return bool(replies)

    def secured(self, binding: bytes = b"") -> None:
        """TLS stands: what was learned before is forgotten, EHLO is sent again (RFC 3207 4.2)."""
        if self.state is State.TLS:
            if self.login is not None:
                self.login.binding, self.login.is_verified = binding, self.is_verified
            self.is_secured = True
            self.extensions = {}
            self.limits = None
            self.size_limit = 0
            self._send_hello()

    def take_output(self) -> list[bytes]:
        """What to write now, at most one block of content; empty if there is nothing until something arrives."""
        if self.state is State.CONTENT:
            try:
                self._add_block()
            except OSError as error:
                self._out = []
                self.close("read", f"the content cannot be read: {error.strerror or error}")
        out = self._out
        if out:
            self._out = []
        return out

    def take_finished(self) -> list[Transaction]:
        """The transactions that ended since the last call."""
        finished = self._finished
        if finished:
            self._finished = []
        return finished

    def wake(self) -> None:
        """There may be a transaction now: pull it, if the session is free."""
        if self.state is State.FREE:
            self._become_free()

    def quit(self) -> None:
        """End a free session in good order."""
        if self.state is State.FREE:
            self.state = State.QUIT
            self._out.append(b"QUIT\r\n")

    def close(self, kind: str, text: str, reply: RemoteReply | None = None) -> None:
        """The connection is lost or must be given up: whatever is under way ends with this problem."""
        if self.state is State.CLOSED:
            return
        stage = _STAGES[self.state]
        if self.state < State.FREE:
            self.failure = Problem(stage, kind, text, reply)
        if self._current is not None:
            self._current.problem = Problem(stage, kind, text, reply)
            self._finished.append(self._current)
        if self._next is not None:
            self._next.problem = Problem("mail", "lost", text)
            self._finished.append(self._next)
        self._current = self._next = None
        self._out = []
        self.state = State.CLOSED

    # --- greeting and EHLO -------------------------------------------------------------------------------------------

    def _on_greeting(self, reply: RemoteReply) -> None:
        if reply.code == 220:
            self._send_hello()
        else:
            self._refused_session(reply)

    def _send_hello(self) -> None:
        verb = "LHLO" if self._settings.lmtp else "EHLO"
        self._out.append(f"{verb} {self._settings.helo_name}\r\n".encode("ascii"))
        self.state = State.EHLO

    def _on_ehlo(self, reply: RemoteReply) -> None:
        if reply.code < 300:
            self._read_extensions(reply)
            if self._settings.tls is Tls.NEVER or self.is_secured:
                self._open()
            else:
                self._ask_for_tls()
        elif reply.code >= 500 and not self._settings.lmtp:  # RFC 5321 3.2: a server may know HELO only
            self._out.append(f"HELO {self._settings.helo_name}\r\n".encode("ascii"))
            self.state = State.HELO
        else:
            self._refused_session(reply)

    def _ask_for_tls(self) -> None:
        if "STARTTLS" in self.extensions:
            self._out.append(b"STARTTLS\r\n")
            self.state = State.STARTTLS
        else:
            self._go_on_in_clear("the host does not offer STARTTLS")

    def _on_starttls(self, reply: RemoteReply) -> None:
        if reply.code == 220:
            self.state = State.TLS
        elif reply.code == 421:
            self.close("reply", reply.text, reply)
        else:
            self._go_on_in_clear(f"the host refuses STARTTLS: {reply.text}")

    def _on_injected(self, reply: RemoteReply) -> None:
        """What came behind the reply to STARTTLS in clear may be anybody's."""
        self.close("protocol", BEHIND_STARTTLS)

    def _go_on_in_clear(self, why: str) -> None:
        if self._settings.tls is Tls.ALWAYS:
            self.state = State.STARTTLS
            self.close("unsecured", why)
        else:
            self._open()

    def _on_helo(self, reply: RemoteReply) -> None:
        if reply.code < 300 and self._settings.tls is Tls.ALWAYS and not self.is_secured:
            self._go_on_in_clear("the host knows HELO only")
        elif reply.code < 300:
            self._open()
        else:
            self._refused_session(reply)

    def _refused_session(self, reply: RemoteReply) -> None:
        if reply.code >= 400:
            self.close("reply", reply.text, reply)
        else:
            self.close("protocol", f"unexpected reply: {reply.text}")

    def _read_extensions(self, reply: RemoteReply) -> None:
        for line in reply.text.split("\n")[1:]:
            keyword, _, parameters = line[4:].strip().partition(" ")
            if keyword:
                self.extensions[keyword.upper()] = parameters.strip()
        self._pipelining = self._settings.pipelining and "PIPELINING" in self.extensions
        if "LIMITS" in self.extensions:
            self.limits = parse_limits(self.extensions["LIMITS"])
        size = self.extensions.get("SIZE", "")
        if size.isascii() and size.isdigit() and len(size) <= 20:  # RFC 1870 4
            self.size_limit = int(size)

    # --- AUTH --------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Ready for transactions, but for the login."""
        if self.login is None:
            self._become_free()
            return
        self.state = State.AUTH
        try:
            self._out.append(self.login.begin(self.extensions, is_secured=self.is_secured) + CRLF)
        except LoginFailed as error:
            self.close("auth", str(error))

    def _on_auth(self, reply: RemoteReply) -> None:
        login = self.login
        assert login is not None
        try:
            if reply.code == 334:
                self._out.append(login.answer(reply) + CRLF)
            elif reply.code < 300:
                login.end()
                self._become_free()
            else:
                self._refused_session(reply)
        except LoginFailed as error:
            self.close("auth", str(error))

    # --- transactions ------------------------------------------------------------------------------------------------

    def _become_free(self) -> None:
        self.state = State.FREE
        while (transaction := self._supply()) is not None:
            commands = self._build_commands(transaction)
            if commands:
                self._begin(transaction, commands)
                return

    def _begin(self, transaction: Transaction, commands: bytes) -> None:
        self._current = transaction
        self.state = State.MAIL
        if self._pipelining:
            self._out.append(commands)
        else:
            self._commands = commands
            self._send_command()

    def _send_command(self) -> None:
        line, _, self._commands = self._commands.partition(CRLF)
        self._out.append(line + CRLF)

    def _build_commands(self, transaction: Transaction) -> bytes:
        """The group MAIL, RCPT ..., DATA; empty if the server cannot take the message, which then is finished."""
        is_verified = self.is_secured and self.is_verified
        group = build_group(transaction, self.extensions, self.size_limit, self._settings.lmtp, is_verified)
        if type(group) is bytes:
            return group
        transaction.problem = cast("Problem", group)
        self._finished.append(transaction)
        return b""

    def _on_mail(self, reply: RemoteReply) -> None:
        transaction = self._current
        assert transaction is not None
        transaction.mail = reply
        if self._ends_session(reply):
            return
        if self._pipelining:
            self.state = State.RCPT
        elif reply.code < 300:
            self.state = State.RCPT
            self._send_command()
        else:
            self._finish()

    def _on_rcpt(self, reply: RemoteReply) -> None:
        transaction = self._current
        assert transaction is not None and transaction.mail is not None
        if self._ends_session(reply):
            return
        rcpts = transaction.rcpts
        if reply.code < 300 and transaction.mail.code < 300:
            transaction.accepted.append(len(rcpts))
        rcpts.append(reply)
        last = len(rcpts) == len(transaction.forward_paths)
        if last:
            self.state = State.DATA
            if transaction.body_type == "BINARYMIME":
                self._begin_chunk(transaction)
                return
            if transaction.body_type == PROBE:
                self._reset()
                return
        if self._pipelining:
            return
        if last and not transaction.accepted:
            self._reset()
        else:
            self._send_command()

    def _begin_chunk(self, transaction: Transaction) -> None:
        """The whole content as one chunk (RFC 3030 2), once somebody is to have it."""
        if not transaction.accepted:
            self._reset()
            return
        self._out.append(b"BDAT %d LAST\r\n" % transaction.size_bytes)
        self._offset = 0
        self.state = State.CONTENT

    def _on_data(self, reply: RemoteReply) -> None:
        transaction = self._current
        assert transaction is not None
        if reply.code >= 400:
            if not self._ends_session(reply):
                transaction.data = reply
                self._reset()
        elif reply.code < 300:
            self.close("protocol", f"unexpected reply to DATA: {reply.text}")
        elif transaction.accepted:
            transaction.data = reply
            self._offset = 0
            self._tail = CRLF
            self.state = State.CONTENT
        elif self._settings.lmtp:  # RFC 2033 4.2: it had to refuse, and how many replies follow is unclear
            self.close("protocol", "DATA accepted without a recipient")
        else:  # RFC 2920 3.1: a lone dot, whatever the answer
            transaction.data = reply
            self._out.append(b".\r\n")
            self.state = State.EMPTY_END

    def _on_content(self, reply: RemoteReply) -> None:
        """A reply before the end of the content: the server gives up. Its refusal counts, the connection does not."""
        if reply.code >= 400:
            self.close("reply", reply.text, reply)
        else:
            self.close("protocol", f"reply before the end of the message: {reply.text}")

    def _on_end(self, reply: RemoteReply) -> None:
        transaction = self._current
        assert transaction is not None
        if 300 <= reply.code < 400:
            self.close("protocol", f"unexpected reply to the message: {reply.text}")
            return
        ends = transaction.ends
        ends.append(reply)
        complete = not self._settings.lmtp or len(ends) == len(transaction.accepted)
        if reply.code == 421:
            if complete:
                self._finished.append(transaction)
                self._current = None
            self.close("reply", reply.text, reply)
        elif complete:
            self._finish()

    def _on_empty_end(self, reply: RemoteReply) -> None:
        self._finish()

    def _ends_session(self, reply: RemoteReply) -> bool:
        """RFC 5321 4.2.3: after 421 the server closes; a 3xx here is no SMTP."""
        if reply.code == 421:
            self.close("reply", reply.text, reply)
        elif 300 <= reply.code < 400:
            self.close("protocol", f"unexpected reply: {reply.text}")
        else:
            return False
        return True

    def _reset(self) -> None:
        """The transaction ended without end of data: the server may still hold its MAIL."""
        assert self._current is not None
        self._finished.append(self._current)
        self._current = None
        self.state = State.RSET
        self._out.append(b"RSET\r\n")

    def _on_rset(self, reply: RemoteReply) -> None:
        if reply.code < 300:
            self._become_free()
        else:
            self.close("protocol", f"RSET refused: {reply.text}")

    def _finish(self) -> None:
        assert self._current is not None
        self._finished.append(self._current)
        self._current = self._next
        if self._next is not None:
            self._next = None
            self.state = State.MAIL
        else:
            self._become_free()

    def _on_unasked(self, reply: RemoteReply) -> None:
        self.close("reply", reply.text, reply)

    def _on_quit(self, reply: RemoteReply) -> None:
        self.close("lost", "the session is over")

    def _on_closed(self, reply: RemoteReply) -> None:
        pass

    # --- content -----------------------------------------------------------------------------------------------------

    def _add_block(self) -> None:
        transaction = self._current
        assert transaction is not None
        left = transaction.size_bytes - self._offset
        if left:
            count = min(left, self._settings.block_bytes)
            block = transaction.read(self._offset, count)
            if len(block) != count:
                raise OSError("it is shorter than it was")
            self._offset += count
            self._out.append(block if transaction.body_type == "BINARYMIME" else self._stuff(block))
            self._tail = block[-2:] if count > 1 else self._tail[-1:] + block
        if left <= self._settings.block_bytes:
            if transaction.body_type != "BINARYMIME":
                self._out.append(b".\r\n" if self._tail == CRLF else b"\r\n.\r\n")
            transaction.dot_sent = True
            self.state = State.END
            if self._pipelining:
                self._take_next()

    def _stuff(self, block: bytes) -> bytes:
        """RFC 5321 4.5.2, with the end of a line and the dot perhaps in different blocks.

        Behind a bare CR or LF as well: no receiver in order takes one, but one that was broken into can write it, and what a lenient host takes
        for the end of the message would have the next message of somebody else read as it likes. `rfind` takes half the time of `in`.
        """
        if block[:1] == b"." and self._tail[-1:] in (b"\r", b"\n"):
            block = b"." + block
        if block.rfind(b"\n.") < 0 and block.rfind(b"\r.") < 0:
            return block
        return block.replace(b"\n.", b"\n..").replace(b"\r.", b"\r..")

    def _take_next(self) -> None:
        """RFC 2920 3.1: the next group may follow the content in the same write."""
        while (transaction := self._supply()) is not None:
            commands = self._build_commands(transaction)
            if commands:
                self._next = transaction
                self._out.append(commands)
                return


# By State. What the server says is the answer to what the state waits for.
_HANDLERS = (
    ClientSession._on_greeting,
    ClientSession._on_ehlo,
    ClientSession._on_helo,
    ClientSession._on_starttls,
    ClientSession._on_injected,
    ClientSession._on_auth,
    ClientSession._on_unasked,
    ClientSession._on_mail,
    ClientSession._on_rcpt,
    ClientSession._on_data,
    ClientSession._on_content,
    ClientSession._on_end,
    ClientSession._on_empty_end,
    ClientSession._on_rset,
    ClientSession._on_quit,
    ClientSession._on_closed,
)
