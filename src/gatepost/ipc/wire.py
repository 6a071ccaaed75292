"""How messages travel between two roles: SOCK_SEQPACKET packets of msgpack, descriptors beside them.

A packet is one flag byte (last part, or more parts follow) and msgpack of an array of messages; an array that is larger than a packet
may be is cut into parts. All that is waiting goes with one send. A message that carries descriptors travels in a packet of its
own, so that there is never a doubt whose descriptors they are.

Not here: what the messages mean (`messages.py`), who may send which (`privsep/roles.py`). No asyncio: the supervisor uses the
plain functions, the roles a `Channel` on whatever loop they are given.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from gatepost.ipc import messages
from gatepost.ipc.messages import Message

PART_BYTES = 96 * 1024  # below half of Linux' default socket buffer (212,992), so that two packets fit
BATCH_MESSAGES = 200
MAX_ARRAY_BYTES = 16 * 1024 * 1024  # an envelope of 1,000 recipients of 320 octets is 0.4 MiB
MAX_BLOCKED_BYTES = 128 * 1024 * 1024  # for a peer that does not read: it is given up, and linked anew
MAX_DESCRIPTORS = 250  # SCM_MAX_FD is 253
_LAST = b"\x00"
_MORE = b"\x01"
_ANCILLARY_BYTES = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)

_PASSING = frozenset({errno.ENOBUFS, errno.ENOMEM})

_encode = msgspec.msgpack.Encoder().encode
_decode_any = msgspec.msgpack.Decoder(list[messages.Any]).decode


class WireError(Exception):
    """The peer broke the protocol, or sent a message that it may not send: fatal for the receiving role."""


class LinkClosed(Exception):
    """The peer is gone."""


def packets_of(batch: Sequence[Message]) -> Iterable[bytes]:
    """Cut the msgpack array of `batch` into packets."""
    payload = _encode(batch)
    if len(payload) <= PART_BYTES:
        yield _LAST + payload
        return
    for start in range(0, len(payload), PART_BYTES):
        last = start + PART_BYTES >= len(payload)
        yield (_LAST if last else _MORE) + payload[start : start + PART_BYTES]


def send_blocking(sock: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send one message with its descriptors; raises LinkClosed. For the supervisor and for a role's start."""
    try:
        for packet in packets_of([message]):
            if descriptors:
                socket.send_fds(sock, [packet], list(descriptors))
                descriptors = ()
            else:
                sock.send(packet)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise LinkClosed from error


class PacketReader:
    """Joins packets to messages; one for each socket."""

    __slots__ = ("_descriptors", "_parts", "_size", "_sock", "_space")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._parts: list[bytes] = []
        self._size = 0
        self._descriptors: list[int] = []
        self._space = _ANCILLARY_BYTES

    def read(self) -> tuple[Sequence[Message], list[int]]:
        """One recvmsg: the messages that are complete now, with descriptors. Raises LinkClosed, WireError, BlockingIOError."""
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(PART_BYTES + 1, self._space)
        except ConnectionResetError as error:
            raise LinkClosed from error
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
                self._descriptors.extend(received)
        if not data:
            self.forget()
            raise LinkClosed
        if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
            self.forget()
            raise WireError("packet cut off")
        if data[0] or self._parts:
            return self._join(data)
        try:
            batch = _decode_any(memoryview(data)[1:])
        except msgspec.MsgspecError as error:
            self.forget()
            raise WireError(f"not a message of this version: {error}") from error
        descriptors, self._descriptors = self._descriptors, []
        return batch, descriptors

    def _join(self, data: bytes) -> tuple[Sequence[Message], list[int]]:
        self._parts.append(data[1:])
        self._size += len(data)
        if self._size > MAX_ARRAY_BYTES:
            self.forget()
            raise WireError("message too large")
        if data[0]:
            return [], []
        payload = b"".join(self._parts)
        self._parts, self._size = [], 0
        try:
            batch = _decode_any(payload)
        except msgspec.MsgspecError as error:
            self.forget()
            raise WireError(f"not a message of this version: {error}") from error
        descriptors, self._descriptors = self._descriptors, []
        return batch, descriptors

    def forget(self) -> None:
        """Close descriptors that came for a message that will never be complete."""
        close_all(self._descriptors)
        self._descriptors = []
        self._parts, self._size = [], 0


class Channel:
    """A link to one peer on an event loop. `post` is cheap; what was posted in one loop iteration goes in one send."""

    __slots__ = (
        "_accepts",
        "_blocked",
        "_blocked_bytes",
        "_loop",
        "_on_lost",
        "_on_message",
        "_out",
        "_reader",
        "_scheduled",
        "_sock",
        "peer",
    )

    def __init__(
        self,
        sock: socket.socket,
        loop: Any,
        *,
        peer: tuple[str, int, int],
        accepts: frozenset[type[Message]],
        on_message: Callable[[Channel, Message, list[int]], None],
        on_lost: Callable[[Channel], None],
    ) -> None:
        sock.setblocking(False)
        self._sock: socket.socket | None = sock
        self._loop = loop
        self.peer = peer
        self._accepts = accepts
        self._on_message = on_message
        self._on_lost = on_lost
        self._out: list[tuple[Message, Sequence[int]]] = []
        self._scheduled = False
        self._blocked: list[tuple[bytes, list[int]]] = []
        self._blocked_bytes = 0
        self._reader = PacketReader(sock)
        loop.add_reader(sock.fileno(), self._readable)

    @property
    def is_open(self) -> bool:
        return self._sock is not None

    @property
    def waiting(self) -> int:
        """How many messages and packets have not been sent yet."""
        return len(self._out) + len(self._blocked)

    def post(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send soon. Descriptors are duplicated here and may be closed by the caller at once."""
        if self._sock is None:
            return
        self._out.append((message, [os.dup(d) for d in descriptors] if descriptors else ()))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send all that was posted, as far as the peer takes it."""
        self._scheduled = False
        if self._sock is None:
            return
        batch: list[Message] = []
        for message, descriptors in self._out:
            if descriptors:
                self._enqueue(batch, [])
                self._enqueue([message], list(descriptors))
                batch = []
            else:
                batch.append(message)
                if len(batch) == BATCH_MESSAGES:
                    self._enqueue(batch, [])
                    batch = []
        self._out.clear()
        self._enqueue(batch, [])

    def _enqueue(self, batch: list[Message], descriptors: list[int]) -> None:
        if not batch:
            return
        for packet in packets_of(batch):
            if self._blocked or not self._send(packet, descriptors):
                if not self._blocked and self._sock is not None:
                    self._loop.add_writer(self._sock.fileno(), self._writable)
                self._block(packet, descriptors)
            descriptors = []

    def _block(self, packet: bytes, descriptors: list[int]) -> None:
        """Keep for a peer that does not read now; one that never does is given up."""
        if self._sock is None:
            close_all(descriptors)
            return
        self._blocked.append((packet, descriptors))
        before, self._blocked_bytes = self._blocked_bytes, self._blocked_bytes + len(packet)
        if before <= MAX_BLOCKED_BYTES < self._blocked_bytes:
            self._loop.call_soon(self.lost)

    def _send(self, packet: bytes, descriptors: list[int]) -> bool:
        """True if it is off our hands."""
        if self._sock is None:
            close_all(descriptors)
            return True
        try:
            if descriptors:
                socket.send_fds(self._sock, [packet], descriptors)
            else:
                self._sock.send(packet)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            # ENOBUFS and ENOMEM pass; anything else means that the peer is gone.
            if error.errno in _PASSING:
                return False
            self._loop.call_soon(self.lost)
        close_all(descriptors)
        return True

    def _writable(self) -> None:
        while self._blocked:
            packet, descriptors = self._blocked[0]
            if not self._send(packet, descriptors):
                return
            self._blocked.pop(0)
            self._blocked_bytes -= len(packet)
        if self._sock is not None:
            self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        try:
            batch, descriptors = self._reader.read()
        except (BlockingIOError, InterruptedError):
            return
        except (LinkClosed, OSError) as error:
            if isinstance(error, OSError) and error.errno in _PASSING:
                return
            self.lost()
            return
        accepts = self._accepts
        if descriptors and (len(batch) != 1 or type(batch[0]) not in messages.WITH_DESCRIPTORS):
            close_all(descriptors)
            raise WireError(f"descriptors from {self.peer[0]} that belong to no message")
        for message in batch:
            if type(message) not in accepts:
                raise WireError(f"{type(message).__name__} from {self.peer[0]} is not expected")
            self._on_message(self, message, descriptors)

    def lost(self) -> None:
        """The peer is gone (or is to be given up): close, and tell the role once."""
        if self._sock is not None:
            self.close()
            self._on_lost(self)

    def close(self) -> None:
        """Close without telling anybody."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        self._loop.remove_reader(sock.fileno())
        if self._blocked:
            self._loop.remove_writer(sock.fileno())
        self._reader.forget()
        for _, descriptors in [*self._blocked, *self._out]:
            close_all(list(descriptors))
        self._blocked.clear()
        self._out.clear()
        sock.close()


def close_all(descriptors: list[int]) -> None:
    """Let go of descriptors. Linux frees one whatever close(2) answers, and a dying disk answers EIO: it says nothing of the peer."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
