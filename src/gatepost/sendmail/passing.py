"""`-bs`: SMTP on standard input and output, for programs and people who speak it to a command.

Callers write everything at once (`printf ... | sendmail -bs`) and end lines as they like, which sendmail and Postfix take; the gateway takes
neither. So the commands are paced here: one goes on when the one before is answered, with CRLF, and the gateway stays as strict as it
is towards everybody. Nothing is added: where the input ends in the middle of a message, no end mark is sent, and so no message.
"""

from __future__ import annotations

import os
import re
import select
import socket
import sys

from gatepost.sendmail.sysexits import EX_DATAERR, EX_OK, EX_OSERR, EX_TEMPFAIL, status_of

READ_BYTES = 65536
MAX_KEPT_BYTES = 65536  # of a line without an end
MAX_DIGITS = 18

_BARE_LF = re.compile(rb"(?<!\r)\n")
_END = re.compile(rb"(?m)^\.\r?\n").search  # ^: at the start and behind each LF
_BDAT = re.compile(rb"BDAT ([0-9]{1,%d})(?: LAST)?[ \t]*" % MAX_DIGITS, re.IGNORECASE).fullmatch
_LAST = re.compile(rb"([2-5][0-9][0-9])(?: |\Z)").match  # the last line of a reply


class Passing:
    """One conversation. `source` and `sink` are the descriptors of the caller, `sock` is that of the gateway."""

    def __init__(self, sock: socket.socket, source: int = 0, sink: int = 1) -> None:
        self._sock = sock
        self._source = source
        self._sink = sink
        self._buffer = b""  # of the caller
        self._heard = b""  # of the gateway: a line without its end
        self._codes: list[int] = []  # replies that are not asked for yet
        self._is_ended = False  # the caller has nothing more to say
        self._is_closed = False  # the gateway has not
        self._is_at_start = True  # of a line of the message

    def run(self) -> int:
        """Until either side ends; the exit status."""
        try:
            return self._converse()
        except BrokenPipeError:  # nobody hears the replies
            return EX_OSERR

    def _converse(self) -> int:
        greeting = self._hear()
        if not 200 <= greeting < 300:
            return status_of(greeting, "5.7.1") if greeting else EX_TEMPFAIL
        while (line := self._read_line()) is not None:
            chunk = _BDAT(line)
            self._say(line + b"\r\n")
            if chunk and not self._pass_octets(int(chunk[1])):
                return self._cut_short()
            code = self._hear()
            if code == 354:
                if not self._pass_text():
                    return self._cut_short()
                code = self._hear()
            if not code:
                return EX_TEMPFAIL  # closed without an answer
            if line.strip().upper() == b"QUIT":
                break
        self._end_saying()
        while self._hear():
            pass
        return EX_OK

    def _cut_short(self) -> int:
        if self._is_closed:
            return EX_TEMPFAIL  # it may have said why
        print("standard input ended in the middle of a message, which is not sent", file=sys.stderr)
        return EX_DATAERR

    # --- the caller -------------------------------------------------------------------------------------------------

    def _read_more(self) -> bool:
        """Wait for more of the caller's octets, passing on what the gateway says meanwhile; False if no more come."""
        while not self._is_ended and not self._is_closed:
            sources: list[int | socket.socket] = [self._source, self._sock]
            ready, _, _ = select.select(sources, [], [])
            if self._sock in ready:
                self._take()
            elif data := os.read(self._source, READ_BYTES):
                self._buffer += data
                return True
            else:
                self._is_ended = True
        return False

    def _read_line(self) -> bytes | None:
        """The next command without its line end; None if there is none. One that ends with the input has no end."""
        while b"\n" not in self._buffer:
            if len(self._buffer) > MAX_KEPT_BYTES:  # the gateway refuses the line, whatever is in it
                self._say(self._buffer)
                self._buffer = b""
            if not self._read_more():
                line, self._buffer = self._buffer, b""
                return None if self._is_closed or not line else line
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.removesuffix(b"\r")

    def _pass_octets(self, count: int) -> bool:
        """A chunk as it is; False if the input ends before."""
        while count:
            if not self._buffer and not self._read_more():
                return False
            part, self._buffer = self._buffer[:count], self._buffer[count:]
            count -= len(part)
            self._say(part)
        return True

    def _pass_text(self) -> bool:
        """A message up to its end mark, every line with CRLF; False if the input ends before."""
        self._is_at_start = True
        while True:
            ready = self._buffer.rfind(b"\n") + 1
            if ready:
                found = _END(self._buffer, 0 if self._is_at_start else self._buffer.index(b"\n") + 1, ready)
                end = found.end() if found else ready
                text, self._buffer = self._buffer[:end], self._buffer[end:]
                self._say(_BARE_LF.sub(b"\r\n", text))
                self._is_at_start = True
                if found:
                    return True
            elif len(self._buffer) > MAX_KEPT_BYTES:
                end = len(self._buffer) - self._buffer.endswith(b"\r")  # it may be half of a line end
                self._say(self._buffer[:end])
                self._buffer = self._buffer[end:]
                self._is_at_start = False
            elif not self._read_more():
                return False

    # --- the gateway ------------------------------------------------------------------------------------------------

    def _say(self, octets: bytes) -> None:
        try:
            self._sock.sendall(octets)
        except (BrokenPipeError, ConnectionResetError):
            pass  # what it said before it closed is yet to be read

    def _end_saying(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _hear(self) -> int:
        """The code of the next reply, which has been passed on by then; 0 if the gateway has closed."""
        while not self._codes and not self._is_closed:
            self._take()
        return self._codes.pop(0) if self._codes else 0

    def _take(self) -> None:
        """Pass on what the gateway says, and count whole replies."""
        try:
            data = self._sock.recv(READ_BYTES)
        except ConnectionResetError:
            data = b""
        self._is_closed = not data
        view = data
        while view:
            view = view[os.write(self._sink, view) :]
        *lines, self._heard = (self._heard + data).split(b"\r\n")
        self._codes += [int(found[1]) for line in lines if (found := _LAST(line))]
