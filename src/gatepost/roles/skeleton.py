"""The one life of every role: import everything, take Start, lock itself in, say Ready, serve its links, end.

Everything that a role will ever need is imported before it is locked in, codecs and `idna` included: afterwards there is no file system.
A message that a role does not expect ends it: the supervisor starts a clean one.

Not here: what a role does (its own module), what it may do (`privsep/roles.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import encodings.ascii
import encodings.idna
import encodings.latin_1
import encodings.punycode
import encodings.utf_8
import encodings.utf_8_sig
import encodings.utf_16_be
import faulthandler
import gc
import importlib
import os
import signal
import socket
import sys
import traceback
from typing import TYPE_CHECKING, Any

import idna
import msgspec

from gatepost.config.encoded import decode_config
from gatepost.events import EventLog
from gatepost.ipc import messages as m
from gatepost.ipc.wire import Channel, LinkClosed, PacketReader, WireError, send_blocking
from gatepost.privsep.child import CONTROL_DESCRIPTOR
from gatepost.privsep.roles import ROLES, accepted_from
from gatepost.privsep.sandbox import SandboxError, before_loop, lock_in, release_memory, warm_loop
from gatepost.privsep.trying import attest_by_trying

if TYPE_CHECKING:
    from gatepost.config.schema import Config

MODULES = {
    "receiver": "gatepost.roles.receiver:Receiver",
    "resolver": "gatepost.roles.resolver:Resolver",
    "queue": "gatepost.roles.queue:Queue",
    "deliverer": "gatepost.roles.deliverer:Deliverer",
    "maildir": "gatepost.roles.maildir:MaildirDeliverer",
    "control": "gatepost.roles.control:Control",
}
LEAVE_S = 10.0  # below what the supervisor waits for a role that ends
LOOK_AGAIN_S = 0.01
SWITCH_INTERVAL_S = 0.0005  # a commit thread gets the interpreter soon after its fdatasync returned
GC_THRESHOLDS = (20000, 50, 50)  # the hot path makes few cycles; the default of 700 costs several per cent

_PRELOADED = (
    encodings.ascii,
    encodings.idna,
    encodings.latin_1,
    encodings.punycode,
    encodings.utf_8,
    encodings.utf_8_sig,
    encodings.utf_16_be,
)
Peer = tuple[str, int, int]


class Role:
    """What is common to all roles. A subclass has `begin`, `handle`, and what else it needs of the hooks."""

    def __init__(self, start: m.Start, config: Config, descriptors: list[int], log: EventLog, loop: Any) -> None:
        self.start = start
        self.config = config
        self.descriptors = descriptors
        self.log = log
        self.loop = loop
        self.links: dict[Peer, Channel] = {}
        self.supervisor: Channel | None = None
        self._flush_scheduled = False

    # --- hooks ------------------------------------------------------------------------------------------------------

    def before_lock_in(self) -> None:
        """Warm-up that needs files."""

    def begin(self) -> None:
        """Start working; the role is locked in. May take long (recovery of a spool)."""

    def on_link(self, channel: Channel) -> None:
        """A link to a peer is up (again)."""

    def on_link_lost(self, peer: Peer) -> None:
        """The link to a peer is gone; the supervisor makes a new one if the peer lives or is started again."""

    def handle(self, channel: Channel, message: m.Message, descriptors: list[int]) -> None:
        """A message of a peer, of a type that the table allows."""
        raise NotImplementedError

    def on_supervisor(self, message: m.Message, descriptors: list[int]) -> None:
        """A message of the supervisor other than Ping, Link and Drain."""

    def drain(self, limit_s: float, end_sessions: bool) -> None:
        """Finish and call `leave`."""
        self.leave()

    def answer(self, what: str, arguments: dict[str, Any]) -> Any:
        """Answer a question of control: anything JSON-able, or a coroutine that gives it."""
        return {"error": f"{self.start.role} does not know {what!r}"}

    # --- what a role uses -------------------------------------------------------------------------------------------

    def peers(self, role: str) -> list[Channel]:
        return [channel for (name, _, _), channel in self.links.items() if name == role]

    def event(self, name: str, /, **fields: Any) -> None:
        """Log an event; written once per loop iteration."""
        self.log.event(name, **fields)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self.loop.call_soon(self._flush_log)

    def _flush_log(self) -> None:
        self._flush_scheduled = False
        self.log.flush()

    def tell_supervisor(self, message: m.Message) -> None:
        if self.supervisor is not None:
            self.supervisor.post(message)

    def fatal(self, reason: str, advice: str = "") -> None:
        """Cannot go on: say why, exit; the supervisor decides about a restart."""
        self.log.flush()
        if self.supervisor is not None:
            self.supervisor.post(m.Fatal(reason, advice))
            self.supervisor.flush()
        self.exit(1)

    def leave(self) -> None:
        """End when the others have taken all that was said to them; one that takes nothing is waited for LEAVE_S."""
        self._leave_until(self.loop.time() + LEAVE_S)

    def _leave_until(self, limit_s: float) -> None:
        for channel in self.links.values():
            channel.flush()
        if self.loop.time() < limit_s and any(channel.waiting for channel in self.links.values()):
            self.loop.call_later(LOOK_AGAIN_S, self._leave_until, limit_s)
        else:
            self.exit()

    def exit(self, status: int = 0) -> None:
        """End the process now. No atexit handlers, no destructors: everything durable is durable already."""
        for channel in self.links.values():
            channel.flush()
        self.log.flush()
        sys.stderr.flush()
        os._exit(status)

    # --- wiring -----------------------------------------------------------------------------------------------------

    def attach(self, control: socket.socket) -> None:
        self.supervisor = Channel(
            control,
            self.loop,
            peer=("supervisor", 0, 0),
            accepts=accepted_from(self.start.role, "supervisor"),
            on_message=self._from_supervisor,
            on_lost=lambda _: self.exit(0),  # without a supervisor nobody restarts or wires: end
        )

    def _from_supervisor(self, channel: Channel, message: m.Message, descriptors: list[int]) -> None:
        if type(message) is m.Ping:
            channel.post(m.Pong())
        elif type(message) is m.Link:
            self._new_link(message, descriptors[0])
        elif type(message) is m.Drain:
            self.drain(message.limit_s, message.end_sessions)
        else:
            self.on_supervisor(message, descriptors)

    def _new_link(self, link: m.Link, descriptor: int) -> None:
        peer = (link.role, link.instance, link.generation)
        old = self.links.pop(peer, None)
        if old is not None:
            old.close()
            self.on_link_lost(peer)
        channel = Channel(
            socket.socket(fileno=descriptor),
            self.loop,
            peer=peer,
            accepts=accepted_from(self.start.role, link.role),
            on_message=self._from_peer,
            on_lost=lambda channel: self._lost(channel, link.serial),
        )
        self.links[peer] = channel
        self.on_link(channel)

    def _from_peer(self, channel: Channel, message: m.Message, descriptors: list[int]) -> None:
        if type(message) is m.Ask:
            answer = self.answer(message.what, message.arguments)
            if asyncio.iscoroutine(answer):
                self.loop.create_task(self._answer_later(channel, message.request, answer))
            else:
                self._post_answer(channel, message.request, answer)
        else:
            self.handle(channel, message, descriptors)

    async def _answer_later(self, channel: Channel, request: int, answer: Any) -> None:
        """For what has to ask others first; whoever asks must hear something."""
        try:
            found = await answer
        except Exception as error:  # noqa: BLE001 - the one broad catch of this task
            self.event("internal_error", what="answer", error=repr(error))
            found = {"error": "internal error"}
        self._post_answer(channel, request, found)

    def _post_answer(self, channel: Channel, request: int, answer: Any) -> None:
        """Behind the events of what it tells of: who has the answer finds them written."""
        self.log.flush()
        data = msgspec.json.encode(answer)
        for part in range(0, len(data) or 1, 60_000):
            channel.post(m.Answer(request, data[part : part + 60_000], part + 60_000 < len(data)))

    def _lost(self, channel: Channel, serial: int) -> None:
        if self.links.get(channel.peer) is channel:
            del self.links[channel.peer]
            self.on_link_lost(channel.peer)
            self.tell_supervisor(m.LinkLost(*channel.peer, serial))


def main(arguments: list[str]) -> int:
    """Run one role; returns the exit status if it could not start."""
    if len(arguments) != 2 or arguments[0] not in MODULES:
        sys.stderr.write("gatepost.roles is started by the gateway itself; run `gatepost run`\n")
        return 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)  # they may reach the whole group; the supervisor says what to do
    faulthandler.enable()  # SIGABRT from the supervisor: write where it is stuck
    control = socket.socket(fileno=os.dup(CONTROL_DESCRIPTOR))
    os.close(CONTROL_DESCRIPTOR)
    control.setblocking(True)
    try:
        return _live(arguments[0], control)
    except LinkClosed:
        return 0
    except SandboxError as error:
        _say_fatal(control, error.problem, error.advice)
    except Exception as error:  # noqa: BLE001 - the process ends, and says why
        traceback.print_exc()
        _say_fatal(control, f"{type(error).__name__}: {error}", getattr(error, "advice", ""))
    return 1


def _say_fatal(control: socket.socket, reason: str, advice: str) -> None:
    with contextlib.suppress(LinkClosed, OSError):
        send_blocking(control, m.Fatal(reason, advice))


def _live(name: str, control: socket.socket) -> int:
    module, _, class_name = MODULES[name].partition(":")
    role_class = getattr(importlib.import_module(module), class_name)
    batch, descriptors = PacketReader(control).read()
    start = batch[0]
    if len(batch) != 1 or not isinstance(start, m.Start) or start.role != name:
        raise WireError("the first message was not this role's Start")
    config = decode_config(start.config)
    before_loop()
    loop = importlib.import_module(ROLES[name].loop).new_event_loop()
    asyncio.set_event_loop(loop)
    log = EventLog(descriptors[0], name, start.instance)
    role = role_class(start, config, descriptors[1:], log, loop)
    role.before_lock_in()
    _warm_up(loop)
    rights = ROLES[name]
    tries = attest_by_trying(rights, root=start.root, uid=start.uid, gid=start.gid, mode=config.sandbox)
    if succeeded := [t.what for t in tries if t.succeeded]:
        raise SandboxError(
            f"{name} could {', '.join(succeeded)} although it is locked in", "report this; do not run it"
        )
    release_memory()
    denied = "log" if config.sandbox_debug == "log" else "kill"
    line = lock_in(rights, root=start.root, uid=start.uid, gid=start.gid, mode=config.sandbox, denied=denied)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    loop.set_exception_handler(_handler_of(role))
    role.begin()
    role.attach(control)
    role.tell_supervisor(m.Ready(line, msgspec.json.encode(tries)))
    loop.run_forever()
    return 0


def _warm_up(loop: Any) -> None:
    """Use the loop once and raise one exception, so that what is loaded lazily for them is loaded."""
    warm_loop(loop)
    try:
        raise WireError
    except WireError:
        traceback.format_exc()
    for codec in ("idna", "punycode", "ascii", "latin-1", "utf-8", "utf-8-sig", "utf-16-be"):
        "x".encode(codec).decode(codec)
    idna.ulabel(idna.encode("bücher.example", uts46=True, std3_rules=True).split(b".")[0])  # loads its tables


def _handler_of(role: Role) -> Any:
    """An exception in a callback is a bug: log it with its traceback. A broken wire protocol ends the role."""

    def handle(_: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None:
            why = "".join(traceback.format_exception(error))
        else:
            why = str(context.get("message"))
        role.event("bug", why=why[-2000:])
        if isinstance(error, WireError | MemoryError):
            role.fatal(f"{type(error).__name__}: {error}")

    return handle
