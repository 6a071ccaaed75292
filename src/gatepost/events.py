"""The events: one JSON line for each thing that happens, from one table of names and fields.

`eventtable.py` is that table; an event or a field that is not in it is a bug (an error in tests, noted in production). A line is
self-contained: time, event, role, instance, then the fields. No text of a peer can forge a line or drive a terminal:
controls are escaped. Writing never holds up mail: what cannot be written is kept up to a limit, then counted as lost.
"""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from gatepost.eventtable import EVENTS
from gatepost.safeopen import open_regular

MAX_LINE_BYTES = 4096  # PIPE_BUF: what several processes write to one pipe is not mixed up to this
CUT_TO = (2400, 1200, 400)  # characters that the long texts of a longer line share: the most with which it fits
LONG_TEXT = 80  # characters; shorter texts are not cut
MAX_KEPT_BYTES = 1024 * 1024  # of lines that could not be written yet

_FIELDS = {name: frozenset(fields) for name, fields in EVENTS.items()}


class UnknownEvent(Exception):
    """An event or a field that the table does not have (only of a strict log)."""


class EventLog:
    """The event lines of one process: `event` for each, `flush` once per turn of its loop.

    `fd` is a file open for appending, a pipe, a terminal or a socket, blocking or not. `lost` counts lines dropped.
    """

    __slots__ = (
        "_bytes",
        "_clock",
        "_encode",
        "_fd",
        "_lines",
        "_middles",
        "_poll",
        "_reported",
        "_role",
        "_second",
        "_stamp",
        "_strict",
        "lost",
    )  # fmt: skip

    def __init__(
        self, fd: int, role: str, instance: int = 0, *, strict: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._role = f'"role":{msgspec.json.encode(role).decode()},"instance":{int(instance)}'.encode()
        self._strict = strict
        self._clock = clock
        self._encode = msgspec.json.Encoder().encode
        self._middles = {name: b'","event":"' + name.encode() + b'",' + self._role for name in EVENTS}
        self._lines: list[bytes] = []
        self._bytes = 0
        self._stamp = b""  # of this turn; empty: ask the clock
        self._second = (-1, b"")
        self.lost = 0
        self._reported = 0
        self._fd = -1
        self._poll: select.poll | None = None
        self.replace(fd)

    def replace(self, fd: int) -> int:
        """Write to `fd` from now on; returns the old one, for the caller to close."""
        old, self._fd = self._fd, fd
        self._poll = None
        if fd >= 0 and not stat.S_ISREG(os.fstat(fd).st_mode):
            # not epoll: a descriptor of its own, and one of ours may be open for writing only
            self._poll = select.poll()
            self._poll.register(fd, select.POLLOUT)
        return old

    def event(self, name: str, /, **fields: Any) -> None:
        """Note an event; the line is written by the next `flush`."""
        known = _FIELDS.get(name)
        if known is None or not known.issuperset(fields):
            self._unknown(name, fields)
            if known is None:
                return
        if self._bytes > MAX_KEPT_BYTES:
            self.lost += 1
            return
        line = self._line(name, fields)
        self._lines.append(line)
        self._bytes += len(line)

    def flush(self) -> None:
        """Write what is there, whole lines, as far as that does not block."""
        self._stamp = b""
        if not self._lines:
            return
        if self.lost != self._reported and self._bytes < MAX_KEPT_BYTES:
            count, self._reported = self.lost - self._reported, self.lost
            line = self._line("events_lost", {"count": count})
            self._lines.append(line)
            self._bytes += len(line)
        if self._poll is None:
            self._write(b"".join(self._lines), len(self._lines))
        else:
            self._write_in_pieces()

    def close(self) -> None:
        """Write what is there; the descriptor stays open, it is the caller's."""
        self.flush()
        self.lost += len(self._lines)
        self._lines.clear()
        self._bytes = 0

    # --- inside -----------------------------------------------------------------------------------------------------

    def _line(self, name: str, fields: dict[str, Any]) -> bytes:
        body = self._body(fields)
        line = b'{"time":"' + (self._stamp or self._new_stamp()) + self._middles[name] + body
        if len(line) > MAX_LINE_BYTES:
            begin = b'{"time":"' + self._stamp + self._middles[name]
            for most in CUT_TO:
                line = begin + self._body(_cut(fields, most))
                if len(line) <= MAX_LINE_BYTES:
                    return line
            line = begin + b',"cut":true}\n'
        return line

    def _body(self, fields: dict[str, Any]) -> bytes:
        if not fields:
            return b"}\n"
        try:
            body = self._encode(fields)
        except (TypeError, ValueError, RecursionError):  # a lone surrogate, or a type that has no JSON
            body = self._encode({key: _plain(value) for key, value in fields.items()})
        if not body.isascii() or b"\x7f" in body:
            body = _escape(body)
        return b"," + body[1:] + b"\n"

    def _new_stamp(self) -> bytes:
        now_s = self._clock()
        second, stamp = self._second
        if second != int(now_s):
            second = int(now_s)
            stamp = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.").encode()
            self._second = (second, stamp)
        self._stamp = stamp + b"%03dZ" % int((now_s - second) * 1000)
        return self._stamp

    def _unknown(self, name: str, fields: dict[str, Any]) -> None:
        strange = sorted(set(fields) - _FIELDS.get(name, frozenset()))
        if self._strict:
            raise UnknownEvent(f"event {name!r}, fields {strange}: not in gatepost.eventtable.EVENTS")
        line = self._line("event_unknown", {"name": name, "fields": strange})
        self._lines.append(line)
        self._bytes += len(line)

    def _write_in_pieces(self) -> None:
        """To a pipe, terminal or socket: pieces of at most MAX_LINE_BYTES, each only if there is place for it."""
        assert self._poll is not None
        while self._lines:
            size = count = 0
            for line in self._lines:
                if count and size + len(line) > MAX_LINE_BYTES:
                    break
                size += len(line)
                count += 1
            ready = self._poll.poll(0)
            if not ready or not ready[0][1] & select.POLLOUT or not self._write(b"".join(self._lines[:count]), count):
                return

    def _write(self, data: bytes, count: int) -> bool:
        """Write the first `count` lines with one call; whether all of it went out."""
        try:
            written = os.write(self._fd, data)
        except OSError:  # would block, disk full, nobody reads: kept until the limit
            return False
        if written == len(data):
            del self._lines[:count]
            self._bytes -= written
            return True
        rest = data[written:]
        self._lines[:count] = [rest]
        self._bytes -= written
        return False


def open_output(output: str) -> int:
    """A descriptor for `events.output`: "stderr" or a file path. The caller hands it to the roles; raises OSError."""
    if output != "stderr":
        descriptor = open_regular(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        os.set_blocking(descriptor, True)
        return descriptor
    mode = os.fstat(2).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        try:
            # A file description of our own, so that O_NONBLOCK does not change that of the shell or of our parent.
            return os.open("/proc/self/fd/2", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError:
            pass
    return os.dup(2)


def _cut(fields: dict[str, Any], most: int) -> dict[str, Any]:
    """The fields with long texts cut in their middle: of a traceback, the end tells most."""
    texts = {
        key: value if isinstance(value, str) else str(value)
        for key, value in fields.items()
        if isinstance(value, (str, list, tuple, dict, set))
    }
    long = {key: text for key, text in texts.items() if len(text) > LONG_TEXT}
    half = most // (2 * len(long) or 1)
    return fields | {key: f"{text[:half]} ... {text[-half:]}" for key, text in long.items()} | {"cut": True}


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value if isinstance(value, (int, float, bool, type(None))) else repr(value)


def _escape(body: bytes) -> bytes:
    """Everything that is not printable as \\uXXXX: controls of C1, DEL, bidirectional overrides, line separators."""
    text = body.decode()
    if text.isprintable():
        return body
    return "".join(
        each
        if each.isprintable()
        else each.encode("utf-16-be", "surrogatepass").hex(" ", 2).join(("\\u", "")).replace(" ", "\\u")
        for each in text
    ).encode()
