"""The deliverer role: SMTP and LMTP to next hops. It connects out, and can neither listen nor open."""

from __future__ import annotations

import socket
from itertools import count
from typing import Any

from gatepost.config.credentialsfile import credential_files
from gatepost.delivery.callahead import CallAheads
from gatepost.delivery.demands import demands_of
from gatepost.delivery.engine import DeliveryEngine
from gatepost.delivery.logins import logins_of
from gatepost.delivery.stsanswer import read_sts_answer
from gatepost.delivery.tlspolicy import StsPolicy, TlsPolicies
from gatepost.delivery.tlsresults import TlsResults
from gatepost.ipc import messages as m
from gatepost.ipc.wire import Channel
from gatepost.model import TlsSeen
from gatepost.privsep.material import authority_files, fetches_policies
from gatepost.roles.delivering import Delivering
from gatepost.roles.material import take_material
from gatepost.roles.skeleton import Peer

TELL_AGAIN_S = 3600.0
MAX_TOLD = 10_000
LOOKUP_WAIT_S = 60.0  # behind all of the resolver's own retries, and of its restart if it dies
STS_WAIT_S = 90.0  # a fetch may take 60 s, and wait for others before it


class Deliverer(Delivering):
    """SMTP and LMTP."""

    def before_lock_in(self) -> None:
        self._resolver: Channel | None = None
        self._lookups: dict[int, tuple[m.Lookup, Any]] = {}
        self._numbers = count(1)
        self._remembered: dict[str, str] = {}  # as many as the queue keeps: domain -> by what and when
        self._told: dict[str, tuple[str, float]] = {}  # what the queue was told lately
        files = authority_files(self.config) + credential_files(self.config)
        contents = dict(zip(files, take_material(self.descriptors), strict=True))
        self._tls = TlsPolicies(self.config, contents)
        self._logins = logins_of(self.config, contents)
        self._demands = demands_of(self.config, self._tls.public_context)
        socket.getaddrinfo("127.0.0.1", 25, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)  # loads what it loads

    def begin(self) -> None:
        self.engine = DeliveryEngine(
            self.config,
            own_addresses=frozenset(self.start.extra.get("own", "").split()),
            lookup=self.lookup,
            read=self.read,
            done=self._attempt_done,
            event=self.event,
            tls=self._tls,
            demands=self._demands,
            results=TlsResults(self._tell_results, self.loop.call_later),
            logins=self._logins,
            sts=self.find_sts if fetches_policies(self.config) else None,
            remembered=lambda domain: self._remembered.get(domain, ""),
            verified=self._verified,
        )
        self._call_aheads = CallAheads(
            self.config, submit=self.engine.probe, call_later=self.loop.call_later, event=self.event
        )
        self.loop.call_soon(self.engine.begin)

    def _attempt_done(self, message: m.AttemptDone) -> None:
        if message.job < 0:
            self._call_aheads.done(message)
        else:
            self.attempt_done(message)

    def _call_ahead(self, channel: Channel, message: m.CallAhead) -> None:
        def answered(status: str, text: str, takes_all: bool) -> None:
            channel.post(m.CallAheadDone(message.query, status, text, takes_all))

        self._call_aheads.ask(message.table, message.address, answered)

    def on_link(self, channel: Channel) -> None:
        if channel.peer[0] == "resolver":
            self._resolver = channel
            for question, _ in self._lookups.values():  # those that its predecessor did not answer
                channel.post(question)
        elif channel.peer[0] == "queue":
            self._told.clear()  # another queue may not have kept all of it
        super().on_link(channel)

    def on_link_lost(self, peer: Peer) -> None:
        if peer[0] == "resolver":
            self._resolver = None
        super().on_link_lost(peer)

    def _tell_results(self, rows: list[TlsSeen]) -> None:
        if self._queue is not None:
            self._queue.post(m.TlsResults(rows))

    async def find_sts(self, domain: str) -> StsPolicy | None:
        """What a domain publishes by MTA-STS, as the resolver role knows it."""
        return read_sts_answer(await self.lookup(m.STS, domain, STS_WAIT_S))

    def handle(self, channel: Channel, message: m.Message, descriptors: list[int]) -> None:
        if type(message) is m.CallAhead:
            self._call_ahead(channel, message)
        elif type(message) is m.TlsRemembered:
            self._remembered.update(message.domains)
        elif type(message) is m.TlsForgotten:
            for domain in message.domains:
                self._remembered.pop(domain, None)
                self._told.pop(domain, None)
            self.engine.renew()
        else:
            super().handle(channel, message, descriptors)

    def _verified(self, domain: str, how: str) -> None:
        """A connection was verified by what the domain publishes: the queue remembers it, and need not hear it each time."""
        now_s = self.loop.time()
        told = self._told.get(domain)
        if self._queue is None or (told is not None and told[0] == how and now_s - told[1] < TELL_AGAIN_S):
            return
        if len(self._told) >= MAX_TOLD:
            self._told.clear()
        self._told[domain] = how, now_s
        self._queue.post(m.TlsVerified(domain, how))

    def answer(self, what: str, arguments: dict[str, Any]) -> Any:
        if what == "tls_show":
            return self.engine.show(str(arguments.get("domain", "")), str(arguments.get("next_hop", "")))
        if what == "stats":
            return self.engine.stats() | self._call_aheads.counts
        return super().answer(what, arguments)

    async def lookup(self, kind: str, name: str, wait_s: float = LOOKUP_WAIT_S) -> m.LookupDone:
        """Ask the resolver role; one that does not answer is a temporary failure."""
        question = m.Lookup(next(self._numbers), kind, name)
        future = self.loop.create_future()
        self._lookups[question.query] = question, future
        if self._resolver is not None:
            self._resolver.post(question)
        silence = m.LookupDone(question.query, "tempfail", [], 0, False, "the resolver does not answer")
        timer = self.loop.call_later(wait_s, self.looked_up, silence)
        try:
            answer: m.LookupDone = await future
            return answer
        finally:
            timer.cancel()

    def looked_up(self, message: m.LookupDone) -> None:
        _, future = self._lookups.pop(message.query, (None, None))
        if future is not None and not future.done():
            future.set_result(message)
