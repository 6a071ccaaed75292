"""The control role: the administrator's Unix socket. Passes questions to the roles that know, and a reload to the supervisor.

One request is one line of JSON, `{"what": VERB, "arguments": {...}}`; the answer is one line, then the connection ends. The socket belongs to
the user who started the gateway, mode 0600: who can open it may ask everything. It holds neither spool nor keys.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

import msgspec

from gatepost.ipc import messages as m
from gatepost.ipc.wire import Channel
from gatepost.roles.skeleton import Peer, Role

MAX_REQUEST_BYTES = 256 * 1024
ANSWER_WAIT_S = 30.0
# a role that died is back by then, on a busy machine and behind the longest delay of a restart too
AWAY_WAIT_S = 20.0
AWAY_LOOK_S = 0.05
RELOAD_WAIT_S = 120.0
SUPERVISOR_VERBS = frozenset({"roles", "status", "recipients_lists"})
QUEUE_LOOKS = frozenset({"tls_remembered", "ledger", "list", "show", "next_hops", "tls_report"})
RECIPIENT_CHANGES = frozenset({"recipients_confirm", "recipients_forget"})
QUEUE_VERBS = QUEUE_LOOKS | {"retry", "remove", "hold", "release", "tls_forget"}
ROLE_OF = {
    **dict.fromkeys(QUEUE_VERBS, "queue"),
    **dict.fromkeys(RECIPIENT_CHANGES | {"recipients_status", "lookup"}, "resolver"),
    "tls_show": "deliverer",
}


class _Waiting(NamedTuple):
    """A question that was passed on: who is to hear the answer, who was asked, and what to do if that one ends first."""

    answer: Callable[[bytes], None]
    peer: Peer | None
    again: Callable[[], None] | None


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    what: str
    arguments: dict[str, str | int | float | bool | list[str] | None] = {}


_ERROR = b'{"error"'
_decode = msgspec.json.Decoder(_Request).decode


class Control(Role):
    """See the module."""

    def begin(self) -> None:
        self._numbers = count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._parts: dict[int, bytes] = {}
        self._connections: set[_Connection] = set()
        self._server: Any = None
        self._is_draining = False
        self.loop.create_task(self._listen(socket.socket(fileno=self.descriptors[0])))

    async def _listen(self, sock: socket.socket) -> None:
        self._server = await self.loop.create_unix_server(lambda: _Connection(self), sock=sock)
        if self._is_draining:
            self._server.close()

    def drain(self, limit_s: float, end_sessions: bool) -> None:
        """Take no new request, and go when those that were made are answered: one of them may be the reload itself."""
        self._is_draining = True
        if self._server is not None:
            self._server.close()
        self.tell_supervisor(m.DoorsClosed())
        self.loop.call_later(limit_s, self.exit)
        for connection in list(self._connections):
            connection.end_if_idle()
        self._exit_if_idle()

    def opened(self, connection: _Connection) -> None:
        self._connections.add(connection)

    def closed(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self._exit_if_idle()

    def _exit_if_idle(self) -> None:
        if self._is_draining and not self._connections:
            self.exit()

    def handle(self, channel: Channel, message: m.Message, descriptors: list[int]) -> None:
        self._on_answer(message)

    def on_supervisor(self, message: m.Message, descriptors: list[int]) -> None:
        if type(message) is m.ReloadDone:
            self._done(message.request, msgspec.json.encode({"errors": message.errors}))
        else:
            self._on_answer(message)

    def _on_answer(self, message: m.Message) -> None:
        if isinstance(message, m.Answer):
            data = self._parts.pop(message.request, b"") + message.data
            if message.more:
                self._parts[message.request] = data
            else:
                self._done(message.request, data)

    def _done(self, number: int, data: bytes) -> None:
        self._parts.pop(number, None)
        waiting = self._waiting.pop(number, None)
        if waiting is not None:
            waiting.answer(data)

    def on_link_lost(self, peer: Peer) -> None:
        """What only looks is asked again; of the rest nobody knows whether it was done."""
        for number, waiting in [item for item in self._waiting.items() if item[1].peer == peer]:
            if waiting.again is not None:
                del self._waiting[number]
                waiting.again()
            else:
                error = f"{peer[0]} ended before it answered; look whether it was done, and try again"
                self._done(number, msgspec.json.encode({"error": error}))

    def ask(self, what: str, arguments: dict[str, Any], answer: Callable[[bytes], None]) -> None:
        """Answer one request by `answer(json)`, once."""
        if what in ROLE_OF:
            self._ask_role(ROLE_OF[what], what, arguments, answer, self.loop.time() + AWAY_WAIT_S)
        elif what in SUPERVISOR_VERBS and self.supervisor is not None:
            self._post(self.supervisor, m.Ask(self._number(answer, ANSWER_WAIT_S), what, arguments))
        elif what == "reload" and self.supervisor is not None:
            self._post(self.supervisor, m.Reload(self._number(answer, RELOAD_WAIT_S)))
        elif what == "stats":
            self._ask_all(answer)
        else:
            answer(msgspec.json.encode({"error": f"unknown request {what!r}"}))

    def _ask_role(
        self, role: str, what: str, arguments: dict[str, Any], answer: Callable[[bytes], None], until_s: float
    ) -> None:
        """Ask a process of the newest generation: they have the same configuration. One that is being started again is waited for."""
        channel = max(self.peers(role), key=lambda channel: channel.peer[2], default=None)
        if channel is None:
            if self.loop.time() < until_s:
                self.loop.call_later(AWAY_LOOK_S, self._ask_role, role, what, arguments, answer, until_s)
            else:
                reason = f"the {role} is not running at the moment; try again in a second"
                answer(msgspec.json.encode({"error": reason}))
            return
        again = functools.partial(self.ask, what, arguments, answer) if what in QUEUE_LOOKS else None
        if what == "recipients_forget":
            answer = functools.partial(self._keep, answer)
        if what in RECIPIENT_CHANGES:
            answer = functools.partial(self._tell_receivers, m.Ask(0, what, arguments), answer)
        self._post(channel, m.Ask(self._number(answer, ANSWER_WAIT_S, channel.peer, again), what, arguments))

    def _tell_receivers(self, ask: m.Ask, answer: Callable[[bytes], None], data: bytes) -> None:
        """What they remember of the resolver's answers goes the same way, before its answer is passed on."""
        left = {channel.peer for channel in self.peers("receiver")}
        said = data

        def done(peer: Peer, heard: bytes = b"") -> None:
            nonlocal said
            left.discard(peer)
            if heard.startswith(_ERROR):  # it may still remember
                said = heard
            if not left:
                answer(said)

        if data.startswith(_ERROR) or not left:
            answer(data)
            return
        for channel in self.peers("receiver"):
            one = functools.partial(done, channel.peer)
            number = self._number(one, ANSWER_WAIT_S, channel.peer, one)  # one that has ended remembers nothing
            self._post(channel, m.Ask(number, ask.what, ask.arguments))

    def _keep(self, answer: Callable[[bytes], None], data: bytes) -> None:
        """What the resolver has forgotten is to be gone from the disk, too, before its answer is passed on."""

        def kept(said: bytes) -> None:
            answer(said if b"error" in said else data)

        if data == b"0" or b"error" in data:
            answer(data)
        else:
            self._ask_role("queue", "recipients_keep", {}, kept, self.loop.time() + AWAY_WAIT_S)

    def _post(self, channel: Channel, message: m.Message) -> None:
        channel.post(message)

    def _number(
        self,
        answer: Callable[[bytes], None],
        wait_s: float,
        peer: Peer | None = None,
        again: Callable[[], None] | None = None,
    ) -> int:
        number = next(self._numbers)
        self._waiting[number] = _Waiting(answer, peer, again)
        self.loop.call_later(wait_s, self._done, number, b'{"error":"no answer in time"}')
        return number

    def _ask_all(self, answer: Callable[[bytes], None]) -> None:
        """The counters of every role, by name."""
        channels = [*self.links.values(), *filter(None, [self.supervisor])]
        collected: dict[str, Any] = {}

        def one(name: str) -> Callable[[bytes], None]:
            def take(data: bytes) -> None:
                collected[name] = msgspec.Raw(data)
                if len(collected) == len(channels):
                    answer(msgspec.json.encode(collected))

            return take

        if not channels:
            answer(b"{}")
        for channel in channels:
            role, instance, _ = channel.peer
            number = self._number(one(f"{role}/{instance}"), ANSWER_WAIT_S, channel.peer)
            channel.post(m.Ask(number, "stats", {}))


class _Connection(asyncio.Protocol):
    """One administrator's request."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._data = b""
        self._transport: Any = None
        self._is_asked = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._control.opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._control.closed(self)

    def end_if_idle(self) -> None:
        """End a connection that has asked nothing."""
        if not self._is_asked:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._is_asked:
            return
        self._data += data
        if len(self._data) > MAX_REQUEST_BYTES:
            self._transport.abort()
        elif b"\n" in self._data:
            self._is_asked = True
            self._request(self._data.partition(b"\n")[0])

    def _request(self, line: bytes) -> None:
        try:
            request = _decode(line)
        except msgspec.MsgspecError as error:
            self._answer(msgspec.json.encode({"error": f"not a request: {error}"}))
            return
        self._control.ask(request.what, request.arguments, self._answer)

    def _answer(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data + b"\n")
            self._transport.close()
