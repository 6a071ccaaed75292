"""The supervisor: binds, starts roles, wires them together, restarts what dies, reloads, and stops in order.

It never parses a byte from the network or of a message and never imports smtp, mail, ssl or asyncio (a test looks). Its inputs are the
configuration file, signals, exit statuses, and the few control messages of the roles.

States of a role: STARTING (Start sent) -> READY (locked in, gets its links) -> DRAINING -> GONE. A role that dies unasked is
started again after a back-off; the others go on.
"""

from __future__ import annotations

import heapq
import math
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable
from itertools import count

import msgspec

from gatepost.config.encoded import encode_config
from gatepost.config.errors import ConfigErrors
from gatepost.config.listening import listen_addresses
from gatepost.config.load import load_config
from gatepost.config.paths import inspect_paths
from gatepost.config.schema import Config
from gatepost.events import EventLog
from gatepost.ipc import messages as m
from gatepost.ipc.wire import LinkClosed, WireError
from gatepost.privsep import restart
from gatepost.privsep.activation import ActivationError, take_inherited
from gatepost.privsep.attest import notes
from gatepost.privsep.authsocket import give_auth_socket
from gatepost.privsep.child import Child, State
from gatepost.privsep.describing import answer_control, describe_roles, describe_state, look_at_all
from gatepost.privsep.ground import Ground
from gatepost.privsep.listeners import ListenError
from gatepost.privsep.notify import Notifier
from gatepost.privsep.plan import Placement, changes_needing_restart, placements
from gatepost.privsep.proving import refutation_of
from gatepost.privsep.pulse import Pulse, View
from gatepost.privsep.recipientlists import RecipientLists
from gatepost.privsep.reloading import Generations, PendingReload, Succession
from gatepost.privsep.signals import catch_signals
from gatepost.privsep.watch import Watch
from gatepost.privsep.wiring import Wiring

START_LIMIT_S = 60.0  # a role not ready by then is killed and counted as dead; recovery of a spool is part of it
SESSIONS_END_S = 20.0  # SIGTERM: sessions in the middle of a message get this long
ROLES_END_S = 20.0
GENERATION_END_S = 600.0  # reload: the old generation's sessions may go on for this long
DOORS_CLOSE_S = 30.0  # reload: so long the answer waits for an old receiver or control that has not closed its doors
LAST_BREATH_S = 1.0  # a role that closed its control channel should have ended by itself by then
LOOK_AFTER_S = 1.0  # who came by a reload or after a death is compared with the table so soon
IDLE_RECHECK_S = 60.0  # recheck_s = 0: how soon it is looked whether a reload has changed that
CERTIFICATES_S = 60.0  # how often it is looked whether files of certificates have changed
KILL_AFTER_S = 2.0  # behind the limit that a draining role was given


class Supervisor:
    """Runs until SIGTERM; `run` returns the exit status."""

    def __init__(self, config_path: str, config: Config, *, on_ready: Callable[[list[str]], None]) -> None:
        self._config_path = config_path
        self._lists = RecipientLists(config.spool)
        self._config = config = self._lists.at_start(config)
        self._on_ready = on_ready
        self._selector = selectors.DefaultSelector()
        self._children: dict[tuple[str, int, int], Child] = {}
        self._generation = self._last_generation = 1
        self._generations = Generations()
        self._restarts = restart.Restarts()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = count()
        self._wiring = Wiring(self._children, self._after)
        self._watch = Watch()
        self._started_s = time.monotonic()
        self._announced = False
        self._stopping = False
        self._exit_status = 0
        self._pending_reload: PendingReload | None = None
        self._succession = Succession(self._children, self._reloaded)
        self._notifier = Notifier.from_environment()
        self._pulse = Pulse(self._children, self._notifier, self._after, self._view)
        try:
            self._ground = Ground(config, take_inherited())
        except ActivationError as error:
            raise ListenError(str(error)) from error
        self._log = EventLog(2, "supervisor", 0)

    # --- start ------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Start everything and serve until told to stop; returns the exit status."""
        signals = catch_signals()
        self._selector.register(signals, selectors.EVENT_READ, None)
        try:
            self._ground.prepare()
            self._log = EventLog(self._ground.event_descriptor, "supervisor", 0)
            self._lists.commit(self._log.event)
            for note in notes(self._config):
                self._log.event("weakened", why=note)
            for placement in placements(self._config, self._generation):
                self._start(placement)
            while self._children or not self._stopping:
                self._step(signals)
        finally:
            for child in self._children.values():
                child.signal(signal.SIGKILL)
            self._ground.release()
            self._notifier.close()
        return self._exit_status

    def _start(self, placement: Placement) -> None:
        child = Child(placement.role, placement.instance, placement.generation)
        try:
            child.spawn(time.monotonic())
        except OSError as error:
            self._cannot_start(child, error)
            return
        self._children[child.key] = child
        self._selector.register(child.fileno(), selectors.EVENT_READ, child)
        pending = self._pending_reload
        config = self._config if pending is None or self._is_pending(child) else pending.old_config
        start, descriptors = self._ground.start_message(placement, config)
        if placement.role == "queue":
            start.extra |= self._generations.extra_of_queue(self._generation, self._children.values())
        child.send(start, descriptors)
        self._after(START_LIMIT_S, lambda: self._check_started(child))
        self._log.event("role_started", **child.fields)

    def _cannot_start(self, child: Child, error: OSError) -> None:
        why = f"cannot execute {sys.executable}: {error.strerror}"
        self._log.event("role_died", **child.fields, why=why)
        delay_s = self._restarts.delay_s(child.name, time.monotonic())
        if self._is_pending(child):
            self._after(0.0, lambda: self._give_up_generation(child, why))
        elif not self._announced and self._restarts.is_hopeless(child.name):
            self._fail_start(f"{child.name} cannot be started: {why}")
        else:
            self._after(delay_s, lambda: self._restart(child.key))

    def _check_started(self, child: Child) -> None:
        if child.state is State.STARTING:
            self._log.event("role_died", **child.fields, why=f"not ready after {START_LIMIT_S:.0f} s")
            child.signal(signal.SIGKILL)

    # --- loop -------------------------------------------------------------------------------------------------------

    def _after(self, delay_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._serial), call))

    def _step(self, signals: int) -> None:
        self._log.flush()
        timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                self._on_signals(os.read(signals, 512))
            else:
                self._read(key.data)
        self._log.flush()  # an event of a timer has a time of its own
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    def _on_signals(self, numbers: bytes) -> None:
        if signal.SIGCHLD in numbers:
            self._reap()
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._stop(0)
        elif signal.SIGHUP in numbers:
            self._reload(None, 0)

    def _read(self, child: Child) -> None:
        if child.reader is None or child.fileno() < 0:
            return
        try:
            batch = child.read(time.monotonic())
        except LinkClosed:
            self._selector.unregister(child.fileno())
            child.close()
            self._after(LAST_BREATH_S, lambda: child.signal(signal.SIGKILL))  # of no use without its channel
            return
        except (WireError, OSError) as error:
            self._log.event("role_died", **child.fields, why=f"broke the control protocol: {error}")
            child.signal(signal.SIGKILL)
            return
        for message in batch:
            self._handle(child, message)

    def _handle(self, child: Child, message: m.Message) -> None:
        match message:
            case m.Ready():
                child.rights, child.tries = message.rights, message.tries
                self._became_ready(child)
            case m.Serving():
                child.is_serving = True
                self._check_serving()
            case m.DoorsClosed():
                child.has_closed = True
                self._succession.check()
            case m.Fatal():
                self._on_fatal(child, message)
            case m.Pong():
                self._pulse.answered(child)
            case m.LinkLost():
                self._wiring.lost(child, message)
            case m.NeedAuthSocket() if child.role == "receiver":
                give_auth_socket(self._config, child)
            case m.Reload() if child.role == "control":
                self._reload(child, message.request)
            case m.Ask() if child.role == "control":
                self._answer(child, message)
            case _:
                self._log.event("role_died", **child.fields, why=f"sent {type(message).__name__} to the supervisor")
                child.signal(signal.SIGKILL)

    def _answer(self, child: Child, ask: m.Ask) -> None:
        self._log.flush()  # who has the answer finds the events of what it tells of written
        if ask.what == "roles":
            answer_control(child, ask.request, describe_roles(self._children.values(), self._generation))
        elif ask.what == "stats":
            answer_control(child, ask.request, self._watch.counters() | {"roles_hung": self._pulse.killed})
        elif ask.what == "recipients_lists":
            answer_control(child, ask.request, self._lists.answer(ask.arguments))
        else:
            bound = self._ground.listeners.bound()
            state = describe_state(self._config, self._generation, self._started_s, self._watch, bound)
            answer_control(child, ask.request, state)

    def _recheck(self) -> None:
        self._look()
        self._after(self._config.processes.recheck_s or IDLE_RECHECK_S, self._recheck)

    def _look(self, only_new: bool = False) -> None:
        """Compare the kernel's records of all processes with the table of roles; say what is new."""
        if self._announced and self._config.processes.recheck_s and not self._stopping:
            for fields in look_at_all(self._watch, self._config, self._children.values(), self._generation, only_new):
                self._log.event("privs_differ", **fields)

    # --- a role is up -----------------------------------------------------------------------------------------------

    def _became_ready(self, child: Child) -> None:
        if child.state is not State.STARTING:
            return
        child.state = State.READY
        self._log.event("role_ready", **child.fields, rights=child.rights)
        self._after(LOOK_AFTER_S, lambda: self._look(only_new=True))
        if self._is_pending(child):
            self._check_reload()  # the new generation is linked when all of it is ready
        else:
            self._generations.tell(child, self._children.values())
            self._wiring.link_all(child, self._generation)
            self._check_serving()

    def _is_pending(self, child: Child) -> bool:
        """Whether it is of a generation that has not taken over yet."""
        return self._pending_reload is not None and child.generation == self._pending_reload.generation

    def _check_serving(self) -> None:
        wanted = [(p.role, p.instance, p.generation) for p in placements(self._config, self._generation)]
        all_up = all((c := self._children.get(key)) and c.state is State.READY and c.is_serving for key in wanted)
        if all_up and not self._announced:
            self._announced = True
            self._log.flush()
            self._on_ready(self._ground.listeners.bound())
            self._notify_ready()
            self._pulse.begin()
            self._after(CERTIFICATES_S, self._look_at_certificates)
            self._recheck()

    # --- the service manager ----------------------------------------------------------------------------------------

    def _notify_ready(self) -> None:
        self._notifier.ready(
            f"Listens on {', '.join(self._ground.listeners.bound())}; configuration {self._generation}, "
            f"{len(placements(self._config, self._generation))} roles"
        )

    def _view(self) -> View:
        """For the pulse. The start of a generation and the end of all have limits of their own: nobody is expected then."""
        expected = {(p.role, p.instance, p.generation) for p in placements(self._config, self._generation)}
        is_calm = not self._stopping and self._pending_reload is None
        return View(self._config.processes.hang_limit_s, expected if is_calm else set(), self._log)

    # --- the end of a role ------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = next((c for c in self._children.values() if c.pid == pid), None)
            if child is not None:
                self._ended(child, status)

    def _ended(self, child: Child, status: int) -> None:
        was_draining = child.state is State.DRAINING or self._stopping
        was_starting = child.state is State.STARTING
        while child.fileno() >= 0 and child.has_more:  # a Fatal that came just before the end must not be lost
            self._read(child)
        if child.fileno() >= 0:
            self._selector.unregister(child.fileno())
        child.reaped()
        self._wiring.forget(child)
        del self._children[child.key]
        self._succession.check()
        for other in self._children.values():
            if other.role == "queue":
                other.send(m.PeerGone(*child.key, child.pid))
        if was_draining and os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            self._log.event("role_ended", **child.fields)
        else:
            self._log.event("role_died", **child.fields, why=restart.explain_status(status))
        if self._stopping:
            self._continue_stopping()
        elif self._is_pending(child):
            self._give_up_generation(child, restart.explain_status(status))
        elif child.generation < self._generation and child.role != "queue":
            self._drain_old()  # a resolver may have waited for it
        elif child.generation == self._generation or child.role == "queue":
            if was_starting and not self._announced and self._restarts.is_hopeless(child.name):
                self._fail_start(f"{child.name} cannot be started: {restart.explain_status(status)}")
                return
            self._after(self._restarts.delay_s(child.name, time.monotonic()), lambda: self._restart(child.key))

    def _restart(self, key: tuple[str, int, int]) -> None:
        if self._stopping or key in self._children:
            return
        role, instance, generation = key
        if role != "queue" and generation != self._generation:
            return
        for placement in placements(self._config, self._generation):
            if placement.role == role and placement.instance == instance:
                self._start(placement)

    def _on_fatal(self, child: Child, message: m.Fatal) -> None:
        self._log.event("role_fatal", name=child.role, number=child.instance, why=message.reason, advice=message.advice)
        if not self._announced:
            self._fail_start(f"{child.name}: {message.reason}" + (f"\n  {message.advice}" if message.advice else ""))
        elif self._is_pending(child):
            self._give_up_generation(child, "; ".join(filter(None, (message.reason, message.advice))))

    def _fail_start(self, why: str) -> None:
        if self._stopping:
            return
        sys.stderr.write(f"gatepost: not started: {why}\n")
        self._stop(2)

    # --- stop -------------------------------------------------------------------------------------------------------

    def _stop(self, status: int) -> None:
        """First the receivers (no new mail), then the queue (which waits for attempts under way), then the rest."""
        if self._stopping:
            for child in self._children.values():  # a second signal: at once
                child.signal(signal.SIGKILL)
            return
        self._stopping = True
        self._exit_status = status
        self._notifier.stopping()
        self._log.event("stopping", status=status)
        self._ground.listeners.close_except([])  # who connects now is refused at once, not left to wait for a greeting
        if not self._announced:
            for child in self._children.values():
                child.signal(signal.SIGKILL)
        self._continue_stopping()

    def _continue_stopping(self) -> None:
        for stage, limit_s in (("receiver", SESSIONS_END_S), ("queue", ROLES_END_S), ("", ROLES_END_S)):
            concerned = [c for c in self._children.values() if not stage or c.role == stage]
            if concerned:
                for child in concerned:
                    self._drain(child, limit_s, end_sessions=True)
                return

    def _drain(self, child: Child, limit_s: float, *, end_sessions: bool) -> None:
        is_sooner = (child.kill_at_s or math.inf) <= time.monotonic() + limit_s
        if child.state is State.DRAINING and (is_sooner or not end_sessions):
            return
        child.state = State.DRAINING
        child.kill_at_s = time.monotonic() + limit_s + KILL_AFTER_S
        child.send(m.Drain(limit_s, end_sessions))
        self._after(limit_s + KILL_AFTER_S, lambda: child.signal(signal.SIGKILL))

    # --- reload -----------------------------------------------------------------------------------------------------

    def _look_at_certificates(self) -> None:
        """Files that have changed are taken up by a new generation with the configuration as it is."""
        self._after(CERTIFICATES_S, self._look_at_certificates)
        is_calm = self._pending_reload is None and not self._succession.is_open
        if is_calm and self._ground.materials.have_changed(self._config):
            self._reload(None, 0, msgspec.structs.replace(self._config))

    def _reload(self, asked_by: Child | None, request: int, unchanged: Config | None = None) -> None:
        """Start a new generation with the new configuration; nothing of the old one changes before all of it is ready."""
        errors: list[str] = []
        config = self._config
        if self._announced and not self._stopping:
            self._notifier.reloading()
        try:
            self._lists.begin()
            config = unchanged or self._lists.guard(load_config(self._config_path))
            errors = changes_needing_restart(self._config, config)
            errors += [str(problem) for problem in inspect_paths(config, self._config_path)]
            errors += refutation_of(config)
        except ConfigErrors as error:
            errors = str(error).splitlines()
        is_reloading = self._pending_reload is not None or self._succession.is_open
        if self._stopping or is_reloading or not self._announced:
            errors = ["the gateway is starting, stopping or reloading already; try again when it has finished"]
        newly_bound: list[str] = []
        if not errors:
            try:
                self._ground.materials.add(config)
                newly_bound = self._ground.bind_listeners(config)
                self._ground.make_maildir_roots(config)
                self._ground.replace_events(config, self._log)
            except (ListenError, OSError) as error:
                errors = [str(error)]
                self._ground.listeners.close_only(newly_bound)
        if errors:
            self._refuse_reload(errors)
            if asked_by is not None:
                asked_by.send(m.ReloadDone(request, errors))
            return
        old = self._config
        self._config = config
        self._last_generation += 1
        self._pending_reload = PendingReload(self._last_generation, old, asked_by, request, newly_bound)
        for placement in placements(config, self._last_generation):
            if placement.role != "queue":
                self._start(placement)

    def _check_reload(self) -> None:
        """When all of the new generation is ready, it takes over."""
        pending = self._pending_reload
        if pending is None:
            return
        new = [c for c in self._children.values() if c.generation == pending.generation and c.role != "queue"]
        if any(c.state is State.STARTING for c in new):
            return
        self._pending_reload = None
        self._lists.commit(self._log.event)
        self._generations.supersede(self._generation, pending.old_config, self._children.values())
        self._generation = pending.generation
        for child in self._children.values():
            if child.role == "queue":
                config = encode_config(self._config, "queue")
                child.send(m.Reconfigure(config, self._generation), [self._ground.event_descriptor])
        self._wiring.link_generation(self._generation)
        self._drain_old()  # the control role that asked goes behind its answer
        self._ground.listeners.close_except(listen_addresses(self._config))
        self._ground.materials.keep(self._config)
        self._after(DOORS_CLOSE_S, lambda: self._succession.end(pending))
        self._succession.begin(pending)

    def _reloaded(self) -> None:
        self._log.event("reloaded", generation=self._generation)
        self._log.flush()
        if not self._stopping:
            self._notify_ready()

    def _drain_old(self) -> None:
        """Let the generations before end; a resolver only behind those that ask it."""
        asking = {c.generation for c in self._children.values() if c.role in ("deliverer", "receiver")}
        for child in [c for c in self._children.values() if c.role != "queue" and c.generation < self._generation]:
            if child.role != "resolver" or child.generation not in asking:
                self._drain(child, GENERATION_END_S, end_sessions=False)

    def _give_up_generation(self, child: Child, why: str) -> None:
        self._abandon_reload([f"{child.name} of the new generation did not start: {why}"])

    def _abandon_reload(self, errors: list[str]) -> None:
        pending, self._pending_reload = self._pending_reload, None
        if pending is None:
            return
        self._config = pending.old_config
        for child in self._children.values():
            if child.generation == pending.generation and child.role != "queue":
                child.state = State.DRAINING
                child.signal(signal.SIGKILL)
        self._ground.listeners.close_only(pending.newly_bound)
        self._refuse_reload(errors)
        pending.answer(errors)

    def _refuse_reload(self, errors: list[str]) -> None:
        self._log.event("reload_refused", errors=errors)
        if self._pending_reload is None:
            self._ground.materials.keep(self._config)
        if self._announced and self._pending_reload is None and not self._stopping:
            self._notify_ready()  # it goes on as before
