"""The receiver role: takes connections, decides, makes messages durable, tells the queue.

It holds client connections, one segment to append to and a few body files, all opened by others. It cannot open, connect or execute.
The queue may die and come back meanwhile: what was acknowledged is in the segment, and the new queue reads it there.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from typing import Any

from gatepost.config.authvalues import auth_files
from gatepost.config.listening import listen_addresses
from gatepost.config.neighbours import read_neighbours
from gatepost.config.rewritevalues import rewrite_files
from gatepost.config.schema import Config
from gatepost.events import EventLog
from gatepost.ipc import messages as m
from gatepost.ipc.wire import Channel
from gatepost.mail.header import TraceBuilder
from gatepost.model import Address, Envelope, Recipient
from gatepost.net.proxy_in import ProxyIn
from gatepost.net.smtp_in import SmtpIn
from gatepost.net.transaction_in import Transaction
from gatepost.net.turns import READ_S
from gatepost.policy.engine import Engine, Phase
from gatepost.policy.relay import AddressSet
from gatepost.policy.rewriting import FORWARD_PATH
from gatepost.roles import requests
from gatepost.roles.admission import Admission
from gatepost.roles.asking import Asking, lifetimes_of, shrinkages_of
from gatepost.roles.bodyfiles import BodyFiles
from gatepost.roles.doors import Doors
from gatepost.roles.expanding import add_recipients, recipients_of
from gatepost.roles.groupcommit import FULL, UNHEALTHY, GroupCommit, Pending
from gatepost.roles.harvest import Harvest
from gatepost.roles.ids import IdMaker
from gatepost.roles.introducing import Introducing
from gatepost.roles.judgement import Judgement
from gatepost.roles.localclients import LocalClients
from gatepost.roles.rewriting import SessionRewriting, take_rewriting
from gatepost.roles.securing import Securing
from gatepost.roles.skeleton import Peer, Role
from gatepost.roles.submitting import Submitting
from gatepost.routing.answers import Answers
from gatepost.smtp.events import Violation
from gatepost.smtp.parameters import ORDINARY
from gatepost.smtp.reply import Reply
from gatepost.smtp.server import ServerSession, Waiting
from gatepost.spool.layout import close_anyway
from gatepost.spool.segment import build_body_record, build_record

NO_TLS: dict[str, str] = {}
QUEUE_AWAY_LIMIT_S = 30.0  # acknowledge without a queue for no longer than this: docs/queue.md
SWEEP_S = 1.0
FAREWELL_S = 1.0  # behind the limit of a drain: for the last 421 to leave; the supervisor kills a second later


class Receiver(BodyFiles, Role):
    """See the module. `SmtpIn` calls `decide_*`, `commit` and the rest of its host's side."""

    def __init__(self, start: m.Start, config: Config, descriptors: list[int], log: EventLog, loop: Any) -> None:
        super().__init__(start, config, descriptors, log, loop)
        self.limits = config.smtp
        self.now_s = time.time
        self.new_id = IdMaker(start.generation, start.instance)
        self.note_mail, self.note_recipient = requests.note_mail, requests.note_recipient
        self.add_priority = requests.add_priority
        self.trace = TraceBuilder(config.hostname).build
        self.held_bytes = 0
        self.timeouts = {
            Waiting.GREETING: config.smtp.command_timeout_s,
            Waiting.COMMAND: config.smtp.command_timeout_s,
            Waiting.DATA: config.smtp.data_timeout_s,
            Waiting.TLS: config.tls.handshake_timeout_s,
        }
        answers = Answers(trouble=lambda source, why: self.event("table_trouble", table=source, reason=why))
        self.asking = Asking(loop, answers, lifetimes_of(config), shrinkages_of(config), self.event)
        self._engine = Engine(config, answers=answers)
        self._judgement = Judgement(
            config,
            self._engine,
            event=self.event,
            send=self._send_facts,
            now_s=lambda: self.now_s(),
            kind_of=read_neighbours().kind_of,
            key=bytes.fromhex(start.extra.get("facts_key", "")),
        )
        self._repaired = AddressSet(config.smtp.repair_networks) if config.smtp.repair_networks else None
        self.rewriting: SessionRewriting | None = None
        self._judges_mail = self._engine.has_checks(Phase.MAIL)
        self._harvest = Harvest(config.smtp, loop, self.event)
        self._admission = Admission(config.smtp, self._engine, self.asking, self._harvest, loop, self.event)
        self._connections: set[SmtpIn | ProxyIn] = set()
        tell = self.tell_supervisor
        self._doors = Doors(self, lambda: tell(m.Serving()), lambda: tell(m.DoorsClosed()))
        self._health: Reply | None = None
        self._queue: Channel | None = None
        self._queue_lost_s = 0.0
        self._body_files: deque[tuple[int, int]] = deque()
        self._body_waiters: deque[SmtpIn] = deque()
        self._body_asked = 0
        self._is_draining = False
        self._commit = GroupCommit(
            loop,
            segment_bytes=config.queue.segment_bytes,
            accepted=self._tell_accepted,
            sealed=self._tell_sealed,
            need_segment=self._ask_segment,
            trouble=lambda why: self.event("error", where="commit", reason=why),
        )
        self.counts = {"connections": 0, "accepted": 0, "refused": 0, "violations": 0}

    def before_lock_in(self) -> None:
        """Certificates and users are read while there are files."""
        listening = len(listen_addresses(self.config))
        self.descriptors, material = self.descriptors[:listening], self.descriptors[listening:]
        of_rewriting = len(material) - len(rewrite_files(self.config))
        self.rewriting = take_rewriting(self.config, self._engine, material[of_rewriting:], self.event, self.refuse)
        material = material[:of_rewriting]
        of_tls = len(material) - len(auth_files(self.config.auth))
        self.local_clients = LocalClients(self.config, self._engine)
        self.introducing = Introducing(self, self.limits)
        self.securing = Securing(self.config, material[:of_tls], self.event, self._is_repaired)
        if self.introducing.is_used:
            self.securing.extend = self.introducing.extend
        self.submitting = Submitting(
            self.config, material[of_tls:], self.loop, self.event, self._engine, self._need_auth_socket
        )
        self.counts |= self.securing.counts
        self.securing.counts = self.counts

    def _is_repaired(self, address: str) -> bool:
        return self._repaired is not None and self._repaired.match(address) is not None

    def begin(self) -> None:
        self._commit.start()
        self.loop.call_later(SWEEP_S, self._sweep)

    # --- the queue --------------------------------------------------------------------------------------------------

    @property
    def _owner(self) -> str:
        return f"receiver/{self.start.instance}/{self.start.generation}/{os.getpid()}"

    def on_link(self, channel: Channel) -> None:
        if channel.peer[0] == "resolver":
            self.asking.linked(channel)
            self.submitting.linked(channel)
        if channel.peer[0] != "queue":
            return
        self._queue = channel
        self._body_asked = 0
        for number, descriptor in self._body_files:  # opened by a queue that is gone: give them back
            close_anyway(descriptor)
            channel.post(m.BodyFileUnused(number))
        self._body_files.clear()
        for connection in self._connections:
            transaction = connection.transaction
            if transaction is not None and transaction.body_descriptor >= 0:
                transaction.failure = UNHEALTHY
        self._commit.renew()
        self.loop.call_soon(self._introduce, channel)

    def _introduce(self, channel: Channel) -> None:
        """Behind the seals of the segments of before; a commit under way is waited for."""
        if self._queue is not channel:
            return
        if self._commit.has_segments:
            self.loop.call_later(0.005, self._introduce, channel)
            return
        channel.post(m.Holding(self._owner))
        self._body_asked = 0  # what was asked in front of it the queue has not taken
        self._ask_segment()
        self._ask_body_files()

    def on_link_lost(self, peer: Peer) -> None:
        if peer[0] == "queue":
            self._queue = None
            self._queue_lost_s = self.loop.time()
        elif peer[0] == "resolver":
            self.asking.unlinked()
            self.submitting.unlinked()

    def handle(self, channel: Channel, message: m.Message, descriptors: list[int]) -> None:
        if type(message) is m.SegmentOpened:
            self._commit.use(message.segment, descriptors[0])
            self._doors.open(self.descriptors, self.securing.ports)
        elif type(message) is m.BodyFilesOpened:
            self._body_asked = 0
            for pair in zip(message.numbers, descriptors, strict=True):
                self._offer_body_file(*pair)
            self._ask_body_files()  # others may have begun to wait since the question
        elif type(message) is m.TableLookupDone or type(message) is m.LookupDone:
            self.asking.answered(message)
        elif type(message) is m.Introspected:
            self.submitting.answered(message)
        elif type(message) is m.SpoolHealth:
            self._health = None if message.accepting else FULL
            self.event("queue_health", accepting=message.accepting, reason=message.reason)
            if not message.accepting:
                self._refuse_waiting()

    def on_supervisor(self, message: m.Message, descriptors: list[int]) -> None:
        if type(message) is m.AuthSocket and self.submitting.dovecot is not None:
            self.submitting.dovecot.attach(descriptors[0] if descriptors else None, message.reason)

    def _need_auth_socket(self) -> None:
        self.tell_supervisor(m.NeedAuthSocket())

    def _ask_segment(self) -> None:
        if self._queue is not None:
            self._queue.post(m.NeedSegment())

    def _tell_accepted(self, message: m.Accepted) -> None:
        if self._queue is not None:
            self._queue.post(message)

    def _send_facts(self, records: bytes) -> None:
        if self._queue is not None:
            self._queue.post(m.Facts(records))

    def _tell_sealed(self, number: int, length: int) -> None:
        if self._queue is not None:
            self._queue.post(m.SegmentSealed(number, length))

    def _refuse_waiting(self) -> None:
        """No files come now for what waits for one: say so at once."""
        if not self._commit.is_ready:
            self._commit.fail_waiting(FULL)
        waiters, self._body_waiters = self._body_waiters, deque()
        for connection in waiters:
            connection.deny_body_file(FULL)

    # --- connections ------------------------------------------------------------------------------------------------

    def opened(self, connection: SmtpIn, port: int) -> None:
        """A new connection: count it, greet it or turn it away."""
        address = connection.address
        connection.session_id = self.new_id()
        facts = self._engine.facts_of(address, connection.local_address, connection.session_id)
        connection.facts = facts
        connection.session = ServerSession(self.securing.settings_of(connection), connection.session_id)
        self._connections.add(connection)
        self.counts["connections"] += 1
        connection.deadline_s = connection.opened_s + self.limits.command_timeout_s
        self._admission.enter(connection, port)

    def readmit(self, connection: SmtpIn, address: str, local_address: str) -> Reply | None:
        """The session is another client's from now on; the reply of a limit that refuses that one, or None."""
        self._judgement.end_session(connection.facts)
        self._admission.leave(connection.address)
        connection.address, connection.local_address = address, local_address
        connection.facts = self._engine.facts_of(address, local_address, connection.session_id)
        return self._admission.count(connection)

    def judge(self, connection: SmtpIn) -> Reply | None:
        """Whether the checks of the phase CONNECT refuse this client; raises NeedsAnswer."""
        return self._admission.judge(connection.facts)

    def wait_for(self, connection: ProxyIn) -> bool:
        """A connection whose client is not known yet; whether there is room for it."""
        if self._admission.is_ending or len(self._connections) >= self.limits.max_connections:
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: ProxyIn) -> None:
        """Its client is known now, or it is gone."""
        self._connections.discard(connection)
        if self._is_draining and not self._connections:
            self._finish_drain()

    def greet(self, connection: SmtpIn) -> None:
        """TLS from the first octet has begun."""
        self._admission.greet(connection)

    def closed(self, connection: SmtpIn, cause: str) -> None:
        self._connections.discard(connection)
        self.asking.forget(connection)
        self._admission.leave(connection.address)
        self._judgement.end_session(connection.facts)
        self.event(
            "disconnect",
            session=connection.session_id,
            address=connection.address,
            cause=cause,
            seconds=round(self.loop.time() - connection.opened_s, 3),
            messages=connection.messages,
            bytes_in=connection.bytes_in,
        )
        if self._is_draining and not self._connections:
            self._finish_drain()

    def _sweep(self) -> None:
        self.loop.call_later(SWEEP_S, self._sweep)
        self.loop.call_later(READ_S, self._end_what_is_late)
        self._judgement.flush()

    def _end_what_is_late(self) -> None:
        now_s = self.loop.time()
        for connection in list(self._connections):
            connection.check_deadline(now_s)
        if self._queue is None and self._commit.waiting and now_s - self._queue_lost_s > QUEUE_AWAY_LIMIT_S:
            self._commit.fail_waiting(UNHEALTHY)

    # --- decisions --------------------------------------------------------------------------------------------------

    def decide_hello(self, connection: SmtpIn, event: Any) -> Reply | None:
        connection.facts.helo = event.name
        return requests.build_hello(connection.session.settings, self.now_s()) if event.extended else None

    def decide_mail(self, connection: SmtpIn, event: Any) -> Reply | None:
        """Whether mail can be taken at all now."""
        if self._health is not None:
            return self._shed(connection, self._health)
        if self._queue is None and self.loop.time() - self._queue_lost_s > QUEUE_AWAY_LIMIT_S:
            return self._shed(connection, UNHEALTHY)
        facts = connection.facts
        path = event.reverse_path
        if connection.wait is None:  # else it is decided again
            self._judgement.begin_mail(facts, path.text if path is not None else "")
        if facts.identity or connection.port.kind != "edge":
            who = self.local_clients if connection.port.is_local else self.submitting
            refusal = who.decide_mail(connection, event.reverse_path)
            if refusal is not None:
                self.refuse(connection, refusal, "MAIL", argument=facts.reverse_path, cause="identity")
                return refusal
        if self._judges_mail:
            verdict = self._engine.decide(Phase.MAIL, connection.facts)
            if verdict.code:
                reply = Reply(verdict.code, verdict.detail, verdict.text)
                facts.refused = ("mail", f"{reply.code} {reply.status} {reply.text}")
                self.refuse(connection, reply, "MAIL", cause=verdict.check)
                return reply
        if not ORDINARY.issuperset(event.parameters):
            return requests.decide_mail(
                event.parameters, self.limits, self.now_s(), is_trusted=facts.client_permit is not None or bool(facts.identity)
            )  # fmt: skip
        return None

    def decide_rcpt(self, connection: SmtpIn, address: Address) -> Reply | tuple[Recipient | list[Recipient], str]:
        if self._harvest.slow:
            self._harvest.delay(connection)
        verdict = self._judgement.decide_rcpt(connection.facts, address)
        route = verdict.route
        if verdict.code or route is None:
            reply = Reply(verdict.code, verdict.detail, verdict.text)
            if verdict.detail == "1.1" and verdict.check == "recipient":
                reply = self._harvest.note(connection, reply)
            self.refuse(connection, reply, "RCPT", recipient=address.text, cause=verdict.cause or verdict.check)
            return reply
        if route.hold and connection.transaction is not None:
            connection.transaction.hold = route.hold
        if verdict.rewritten and self.rewriting is not None:
            self.rewriting.tell_path(
                connection, FORWARD_PATH, address.text, route.address or address.text, verdict.rewritten
            )
        if route.expansion is not None:
            return recipients_of(self, connection, address, route.expansion), verdict.permit
        return Recipient(route.address or address.text, route.domain, route.next_hop), verdict.permit

    def add_recipients(self, transaction: Transaction, recipients: list[Recipient]) -> Reply | None:
        most = self.limits.max_recipients + self.config.alias_max_recipients
        return add_recipients(transaction, recipients, most)

    def decide_data(self, connection: SmtpIn) -> Reply | None:
        if self._health is not None:
            return self._shed(connection, self._health)
        return None

    def _shed(self, connection: SmtpIn, reply: Reply) -> Reply:
        self.event(
            "shed", session=connection.session_id, address=connection.address, reason=reply.text, code=reply.code, status=reply.status
        )  # fmt: skip
        return reply

    def refuse(self, connection: SmtpIn, reply: Reply, verb: str, **fields: Any) -> None:
        """Log a refusal; the fields say of what."""
        self.counts["refused"] += 1
        transaction = connection.transaction
        self.event(
            "reply_refused",
            session=connection.session_id,
            address=connection.address,
            helo=connection.helo,
            verb=verb,
            reverse_path=transaction.reverse_path if transaction is not None else "",
            code=reply.code,
            status=reply.status,
            text=reply.text,
            **fields,
        )

    def violation(self, connection: SmtpIn, event: Violation) -> None:
        self.counts["violations"] += 1
        self._judgement.note_fault(connection.facts, f"{event.reply.code} {event.reply.status} {event.reply.text}")
        self.event(
            "violation",
            session=connection.session_id,
            address=connection.address,
            kind=event.kind,
            detail=event.detail,
            code=event.reply.code,
            status=event.reply.status,
        )

    # --- the end of a message ---------------------------------------------------------------------------------------

    def commit(self, transaction: Transaction, envelope: Envelope, done: Any) -> None:
        if self._health is not None and not self._commit.is_ready:
            self.loop.call_soon(done, self._health)
            return
        size = len(transaction.trace) + transaction.body_bytes
        if transaction.body_descriptor >= 0:
            record = build_body_record(envelope, transaction.body_file, size, transaction.body_crc)
            pending = Pending(record, envelope, size, done, transaction.body_file, transaction.body_descriptor)
        else:
            record = build_record(envelope, transaction.trace, transaction.chunks, size)
            pending = Pending(record, envelope, size, done)
        self._commit.add(pending)

    def write_failed(self, error: OSError) -> Reply:
        """What a failed write to a body file means for the client."""
        self.event("error", where="body file", reason=str(error.strerror))
        return FULL if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else UNHEALTHY

    def accepted(self, connection: SmtpIn, transaction: Transaction) -> None:
        self.counts["accepted"] += 1
        self._judgement.end_mail(connection.facts, transaction.id, transaction.body_bytes)
        self.event(
            "accepted",
            session=connection.session_id,
            id=transaction.id,
            address=connection.address,
            helo=connection.helo,
            reverse_path=transaction.reverse_path,
            recipients=len(transaction.recipients),
            recipient=transaction.recipients[0].address,
            bytes=transaction.body_bytes,
            permit=transaction.permit,
            **(NO_TLS if connection.tls is None else connection.tls.event_fields),
        )

    # --- the end ----------------------------------------------------------------------------------------------------

    def drain(self, limit_s: float, end_sessions: bool) -> None:
        self._is_draining = True
        self._admission.is_ending = self._admission.is_ending or end_sessions
        self._doors.close()
        self.loop.call_later(limit_s, self._cut_off)
        if end_sessions:
            for connection in list(self._connections):
                connection.end()
        if not self._connections:
            self._finish_drain()

    def _cut_off(self) -> None:
        """The limit is reached: who is still here hears that it ends; the supervisor kills a little later."""
        for connection in list(self._connections):
            connection.cut_off()
        self.loop.call_later(FAREWELL_S, self.exit)

    def _finish_drain(self) -> None:
        """All sessions have ended: seal the segments, tell the queue, go."""
        self._judgement.flush()
        if self._connections:
            return  # one that was accepted before the listening sockets were closed
        if self._commit.waiting:
            self.loop.call_later(0.01, self._finish_drain)
            return
        self._commit.renew()
        self.loop.call_later(0.05, self._exit_if_idle)

    def _exit_if_idle(self) -> None:
        if not self._connections:
            self.leave()

    def answer(self, what: str, arguments: dict[str, Any]) -> Any:
        if what == "stats":
            return self.counts | {
                "open": len(self._connections), "held_bytes": self.held_bytes, "groups": self._commit.groups,
                "committed": self._commit.committed, **self.asking.counts, **self._harvest.stats(),
            }  # fmt: skip
        if what in ("recipients_confirm", "recipients_forget"):
            names = [str(name) for name in arguments.get("names") or ()]
            return self.asking.confirm(names) if what == "recipients_confirm" else self.asking.answers.forget(names)
        return super().answer(what, arguments)
