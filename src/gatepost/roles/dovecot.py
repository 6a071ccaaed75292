"""Passwords checked by Dovecot, over its authentication socket: one connection of a receiver, made by the supervisor.

An answer that does not come (no connection, a lost one, 30 s) is neither yes nor no: the client hears 454. A connection that is lost is
asked for again, at once and then once a second while somebody wants to log in.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from gatepost.smtp.sasl.dovecot import DovecotConversation, DovecotError

ANSWER_LIMIT_S = 30.0
RECONNECT_S = 1.0

Told = Callable[[str | None], None]
"""Called with the user, "" for a refusal, None if nobody could say."""


class Dovecot(asyncio.Protocol):
    """`need_socket` asks the supervisor, `event` tells the log."""

    def __init__(self, loop: Any, *, need_socket: Callable[[], None], event: Callable[..., None], most: int) -> None:
        self._loop = loop
        self._need_socket = need_socket
        self._event = event
        self._most = most
        self._transport: Any = None
        self._conversation = DovecotConversation()
        self._waiting: dict[int, tuple[Told, Any]] = {}
        self._early: list[tuple[tuple[str, str], dict[str, Any], Told, Any]] = []  # asked before there was a connection
        self._asked_s = -RECONNECT_S
        self._is_connecting = False

    def check(self, name: str, password: str, told: Told, *, remote: str, local: str, is_secured: bool) -> None:
        """Whether this is the password; `told` hears it later."""
        if len(self._waiting) + len(self._early) >= self._most:
            told(None)
            return
        about = {"remote": remote, "local": local, "is_secured": is_secured}
        if self._transport is not None and self._conversation.is_ready:
            self._ask(name, password, about, told)
            return
        timer = self._loop.call_later(ANSWER_LIMIT_S, self._give_up_early)
        self._early.append(((name, password), about, told, timer))
        self._connect()

    def _ask(self, name: str, password: str, about: dict[str, Any], told: Told) -> None:
        number, line = self._conversation.ask(name, password, **about)
        self._waiting[number] = (told, self._loop.call_later(ANSWER_LIMIT_S, self._too_late, number))
        self._transport.write(line)

    # --- the connection ---------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        """Ask for a connection, if none is there or under way; not sooner than a second after the last time."""
        if self._transport is None and not self._is_connecting:
            self._is_connecting = True
            self._loop.call_later(max(0.0, self._asked_s + RECONNECT_S - self._loop.time()), self._ask_for_socket)

    def _ask_for_socket(self) -> None:
        self._asked_s = self._loop.time()
        self._need_socket()

    def attach(self, descriptor: int | None, reason: str) -> None:
        """The supervisor's answer."""
        self._is_connecting = False
        if descriptor is None:
            self._event("auth_away", reason=reason)
            self._fail_early()
            return
        if self._transport is not None:
            socket.socket(fileno=descriptor).close()
            return
        self._loop.create_task(self._begin(socket.socket(fileno=descriptor)))

    async def _begin(self, sock: socket.socket) -> None:
        try:
            if sock.family == socket.AF_UNIX:
                await self._loop.create_unix_connection(lambda: self, sock=sock)
            else:
                await self._loop.create_connection(lambda: self, sock=sock)
        except OSError as error:
            self.attach(None, str(error))

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._conversation = DovecotConversation()
        transport.write(self._conversation.hello())

    def data_received(self, data: bytes) -> None:
        try:
            verdicts = self._conversation.feed(data)
        except DovecotError as error:
            self._event("auth_away", reason=str(error))
            self._transport.abort()
            return
        for verdict in verdicts:
            told, timer = self._waiting.pop(verdict.request, (None, None))
            if told is not None and timer is not None:
                timer.cancel()
                told(None if verdict.is_unknown else verdict.user)
        if self._conversation.is_ready and self._early:
            early, self._early = self._early, []
            for (name, password), about, told, timer in early:
                timer.cancel()
                self._ask(name, password, about, told)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._waiting or self._early:
            self._event("auth_away", reason=str(error or "the connection was closed"))
        waiting, self._waiting = self._waiting, {}
        for told, timer in waiting.values():
            timer.cancel()
            told(None)
        self._fail_early()

    # --- what is given up -------------------------------------------------------------------------------------------

    def _too_late(self, number: int) -> None:
        told, _ = self._waiting.pop(number)
        self._event("auth_away", reason=f"no answer within {ANSWER_LIMIT_S:g} s")
        told(None)

    def _give_up_early(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._fail_early()

    def _fail_early(self) -> None:
        early, self._early = self._early, []
        for _, _, told, timer in early:
            timer.cancel()
            told(None)
