"""An outgoing connection: asyncio.Protocol on one side, `smtp.client.ClientSession` on the other.

It moves bytes, keeps the deadline of the step under way, and tells its owner what became of the session. It chooses
no host, keeps no queue, and judges no reply.

Invariants: one write for each step of the protocol; no task, no timer and no future of its own (the owner sweeps over
`check`); `closed` is reported exactly once, before the transactions that ended with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import ssl
from collections.abc import Callable
from typing import Any, Protocol, cast

from gatepost.config.schema import Delivery
from gatepost.net.tls import TlsFacts, TlsLayer
from gatepost.net.tlscontext import end_point_of_der
from gatepost.smtp.client import ClientSession, ClientSettings, State, Transaction
from gatepost.smtp.sasl.client import Login

QUIT_TIMEOUT_S = 5.0
_JOIN_BYTES = 64 * 1024
_REPORT_AT = frozenset((State.FREE, State.CLOSED))


class Plan(Protocol):
    """How TLS is done on one connection (`delivery/tlspolicy.py` makes them)."""

    @property
    def context(self) -> ssl.SSLContext:
        """For the handshake; it verifies or does not."""

    @property
    def server_name(self) -> str | None:
        """What to ask for, and to verify if the context does."""

    @property
    def is_verified(self) -> bool:
        """Whether the host is certainly the one that is meant, once the handshake and `check` went well."""

    def check(self, layer: TlsLayer) -> str:
        """What is wrong with the peer of a finished handshake; empty: nothing."""


class Owner(Protocol):
    """Who opened the connection."""

    def next_transaction(self, connection: SmtpOut) -> Transaction | None:
        """A transaction to go on with, if there is one; called synchronously by the session."""

    def ready(self, connection: SmtpOut) -> None:
        """Greeting and EHLO went well."""

    def idle(self, connection: SmtpOut) -> None:
        """Nothing to do: keep it, `wake` it later, or `quit` it."""

    def closed(self, connection: SmtpOut) -> None:
        """The connection is gone; `connection.session.failure` is set if it never got ready."""

    def finished(self, connection: SmtpOut, transaction: Transaction) -> None:
        """A transaction ended, one way or the other."""


def build_timeouts(config: Delivery, handshake_timeout_s: float = 30.0) -> tuple[float, ...]:
    """The time-outs of a session in seconds, by State (RFC 5321 4.5.3.2)."""
    by_state = dict.fromkeys(State, config.command_timeout_s)
    by_state[State.GREETING] = config.greeting_timeout_s
    by_state[State.CONTENT] = config.data_block_timeout_s
    by_state[State.END] = config.data_end_timeout_s
    by_state[State.TLS] = handshake_timeout_s
    by_state[State.FREE] = by_state[State.CLOSED] = math.inf
    by_state[State.QUIT] = QUIT_TIMEOUT_S
    return tuple(by_state[state] for state in State)


class SmtpOut(asyncio.Protocol):
    """See the module. `target` is whatever the owner uses to name the host; `messages` is for the owner to count."""

    __slots__ = (
        "_clock", "_is_closed", "_is_ready", "_owner", "_paused", "_timeouts", "_transport", "deadline", "local_address", "messages",
        "note", "plan", "session", "target", "tls",
    )  # fmt: skip

    def __init__(
        self,
        owner: Owner,
        settings: ClientSettings,
        timeouts: tuple[float, ...],
        clock: Callable[[], float],
        target: Any,
        note: Any = None,
        plan: Plan | None = None,
        login: Login | None = None,
    ) -> None:
        self._owner = owner
        self._timeouts = timeouts
        self._clock = clock
        self._transport: asyncio.Transport | TlsLayer | None = None
        self._paused = False
        self._is_ready = False
        self._is_closed = False
        self.session = ClientSession(settings, self._supply, login)
        self.target = target
        self.note = note
        self.plan = plan  # how TLS is done, for settings that ask for it
        self.tls: TlsFacts | None = None
        self.messages = 0
        self.local_address = ""  # ours, once there is a connection
        self.deadline = math.inf

    def _supply(self) -> Transaction | None:
        return self._owner.next_transaction(self)

    # --- asyncio -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The TCP connection stands; the greeting is awaited."""
        self._transport = cast("asyncio.Transport", transport)  # that of uvloop is none by inheritance
        if self._is_closed:
            self._transport.abort()
            return
        self.deadline = self._clock() + self._timeouts[State.GREETING]
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError):  # the peer may have reset it already
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.local_address = sock.getsockname()[0]

    def data_received(self, data: bytes) -> None:
        """Replies, or parts of them: only a complete one moves the deadline."""
        if self.session.receive(data):
            self._proceed()

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone, or we closed."""
        if not self._is_closed:
            self.session.close("lost", str(exc) if exc is not None else "the host closed the connection")
            self._proceed()
        self._transport = None

    def pause_writing(self) -> None:
        """The write buffer is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """There is room again: the next block of content."""
        self._paused = False
        self._proceed()

    # --- what the owner calls ----------------------------------------------------------------------------------------

    def wake(self) -> None:
        """There may be a transaction: pull it."""
        self.session.wake()
        self._proceed()

    def quit(self) -> None:
        """QUIT, wait a little for the reply, close. Only for an idle connection."""
        self.session.quit()
        self._proceed()

    def abort(self, kind: str, text: str) -> None:
        """Give the connection up at once."""
        self.session.close(kind, text)
        self._proceed()

    def abandon(self) -> bool:
        """Forget a connection that did not come up in time: nothing more is reported. False if `closed` has been."""
        if self._is_closed:
            return False
        self._is_closed = True
        if self._transport is not None:
            self._transport.abort()
        return True

    def check(self, now: float) -> None:
        """Called now and then: gives up if the deadline has passed."""
        if now >= self.deadline:
            state = self.session.state
            step = "QUIT" if state is State.QUIT else state.name.lower()
            self.abort("timeout", f"no progress for {self._timeouts[state]:g} s ({step})")

    # --- TLS ---------------------------------------------------------------------------------------------------------

    def _begin_tls(self) -> None:
        """From now on the transport is a layer over the one of before."""
        plan, transport = self.plan, self._transport
        if plan is None or transport is None or isinstance(transport, TlsLayer):
            return  # lost meanwhile, or under way
        try:
            layer = TlsLayer(plan.context, self, transport, is_server=False, server_name=plan.server_name)
        except ValueError as error:  # a host name that cannot stand in a ClientHello
            self.tls_failed(str(error))
            return
        self._transport = layer
        layer.begin()

    def tls_begun(self, facts: TlsFacts) -> None:
        """The handshake is done; whether the host is the one that is meant is looked at here."""
        problem = self.plan.check(cast("TlsLayer", self._transport)) if self.plan is not None else ""
        if problem:
            self.session.close("tls", problem)
        else:
            self.tls = facts
            self.session.is_verified = self.plan is not None and self.plan.is_verified
            binding = b""
            if self.session.login is not None:
                certificate = cast("TlsLayer", self._transport).peer_certificate()
                binding = end_point_of_der(certificate) if certificate else b""
            self.session.secured(binding)
        self._proceed()

    def tls_failed(self, reason: str) -> None:
        """No TLS on this connection; nothing is ever sent on it in clear again."""
        if not self._is_closed:
            self.session.close("tls", f"TLS failed: {reason}")
            self._proceed()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _proceed(self) -> None:
        if self._is_closed:
            return
        session = self.session
        transport = self._transport
        while not self._paused:
            pieces = session.take_output()
            if not pieces:
                break
            if transport is not None:
                _write(transport, pieces)
        state = session.state
        self.deadline = self._clock() + self._timeouts[state]
        if not self._is_ready:
            if State.FREE <= state < State.QUIT:
                self._is_ready = True
                self._owner.ready(self)
            elif state is State.TLS:
                self._begin_tls()
                return
        finished = session.take_finished()
        if state in _REPORT_AT:
            if state is State.CLOSED:
                self._is_closed = True
                if transport is not None:
                    transport.abort()
                self._owner.closed(self)
            else:
                self._owner.idle(self)
        for transaction in finished:
            self._owner.finished(self, transaction)


def _write(transport: asyncio.Transport | TlsLayer, pieces: list[bytes]) -> None:
    if len(pieces) == 1:
        transport.write(pieces[0])
    elif sum(map(len, pieces)) <= _JOIN_BYTES:
        transport.write(b"".join(pieces))
    else:
        transport.writelines(pieces)
