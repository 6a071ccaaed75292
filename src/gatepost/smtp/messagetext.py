"""The text of a message in a server session: from the reply 354, or from a BDAT, to the answer to its end. Without I/O.

Dots, bare CR and LF, and what is counted of the text are `data.py`'s; the limits are `transaction.find_excess`. A message that is
refused before its end is read to the end (or, where that would be long, the connection closed), and answered once.
"""

from __future__ import annotations

from gatepost.smtp import reply as replies
from gatepost.smtp.auth import Authentication
from gatepost.smtp.conversation import AUTH, BDAT, CHUNK, DATA, READY, TLS_RECORD
from gatepost.smtp.data import Content
from gatepost.smtp.events import Body, Event, Reset, Violation
from gatepost.smtp.reply import Reply
from gatepost.smtp.transaction import Chunk, Refusal, find_excess


class MessageText(Authentication):
    """What DATA and BDAT bring."""

    __slots__ = ()

    def _begin_content(self) -> None:
        transaction, settings = self._transaction, self.settings
        assert transaction is not None
        transaction.content = Content(settings.max_line_bytes, repair=settings.repair, binary=transaction.is_binary)

    def _read_content(self) -> Event | None:
        if self._state == AUTH:
            return self._read_response()
        if self._state == DATA:
            return self._read_data()
        if self._state == CHUNK:
            return self._read_chunk()
        return self._early_talker() if self.settings.refuse_early_talkers else None

    def _early_talker(self) -> Violation:
        octets = bytes(self._input)
        if octets.startswith(TLS_RECORD):
            return self._violate("tls", replies.NOT_SMTP, octets, close=True)
        return self._violate("early-talker", replies.EARLY_TALKER, octets, close=True)

    def _read_data(self) -> Event | None:
        settings = self.settings
        transaction = self._transaction
        assert transaction is not None and transaction.content is not None
        content = transaction.content
        block = self._input
        if self._at or not isinstance(block, bytes):
            block = bytes(block[self._at :])
        octets, rest = content.feed(block)
        if rest < 0 or rest == len(block):
            self._input = b""
            self._at = 0
        else:
            self._input = block
            self._at = rest
        if content.fault is not None:
            self._put_for_others(replies.BARE_IN_MESSAGE)
            return self._violate(content.fault[0], replies.BARE_IN_MESSAGE, content.fault[1], close=True)
        excess = find_excess(content, settings)
        if excess is not None:
            if content.body_bytes > settings.max_message_bytes + settings.max_swallowed_bytes:
                self._put_for_others(replies.MESSAGE_TOO_LARGE)
                return self._violate("size", replies.MESSAGE_TOO_LARGE, b"", close=True)
            return self._refuse_message(excess) if rest >= 0 else None
        if rest >= 0:
            self._pending = MessageText._answer_body
            return Body(octets, True)
        return Body(octets, False) if octets else None

    def _read_chunk(self) -> Event | None:
        chunk = self._chunk
        assert chunk is not None
        take = min(chunk.left, len(self._input) - self._at)
        if not take and chunk.left:
            return None
        block = bytes(self._input[self._at : self._at + take])
        self._consume(self._at + take)
        chunk.left -= take
        done = not chunk.left
        octets = b""
        if chunk.refusal is None:
            content = self._content
            octets = content.feed_chunk(block, last=done and chunk.last)
            if content.fault is not None:
                return self._violate(content.fault[0], replies.BARE_IN_MESSAGE, content.fault[1], close=True)
            chunk.refusal = find_excess(content, self.settings)
        if chunk.refusal is not None:
            return self._end_refused_chunk(chunk) if done else None
        if not done:
            return Body(octets, False) if octets else None
        if chunk.last:
            self._pending = MessageText._answer_body
            return Body(octets, True)
        self._chunk = None
        self._state = BDAT
        self._put(Reply(250, "0.0", f"{chunk.size_bytes} octets received"))
        return Body(octets, False) if octets else None

    def _end_refused_chunk(self, chunk: Chunk) -> Event | None:
        """The octets were swallowed (RFC 3030 2): now the reply. The message, if there is one, is given up."""
        assert chunk.refusal is not None
        kind, reply = chunk.refusal
        self._chunk = None
        self._state = chunk.resume
        if kind and (chunk.resume == BDAT or kind == "size"):
            return self._refuse_message((kind, reply))
        if kind:
            return self._violate(kind, reply, b"")
        self._refuse(reply)
        if self._give_up():
            self._later(Reset())
        return self._next_queued()

    def _put_for_others(self, reply: Reply) -> None:
        """LMTP answers the end of a message once for each recipient (RFC 2033 4.2): all of these replies but the last."""
        if self.settings.lmtp and self._transaction is not None:
            for _ in range(self._transaction.accepted - 1):
                self._put(reply)

    def _refuse_message(self, refusal: Refusal) -> Event:
        self._put_for_others(refusal[1])
        self._give_up()
        self._later(Reset())
        return self._violate(refusal[0], refusal[1], b"")

    def _answer_body(self, reply: Reply | None) -> None:
        if self.settings.lmtp:
            # what was made durable is one message, so all are the same
            self._put_for_others(reply or replies.MESSAGE_OK)
        self._transaction = self._chunk = None
        self._state = READY
        self._idle = 0
        if reply is None or reply.is_positive:
            self._put(reply or replies.MESSAGE_OK)
        else:
            self._refuse(reply, is_error=False)
