"""The stub resolver: questions in, LookupDone out, with a cache, retries over servers, and CNAME chains followed.

Not a recursive resolver and not a validator: it asks the configured servers, and believes the AD flag only of ones on loopback
(RFC 6840 5.7, 8; RFC 7672 2.2 needs it for DANE). `query` and `submit` never raise for what a name, a server or a forger does:
whatever is unsure is "tempfail". Identical questions under way are asked once. One coarse timer serves all time-outs; everything
under way is bounded. Loads no asyncio: the loop is injected, and nothing is imported, opened or looked up at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gatepost.ipc.messages import LookupDone
from gatepost.net import dnsnames, dnswire
from gatepost.net.dnscache import TEMPFAIL_TTL_S, DnsCache
from gatepost.net.dnsnames import parse_server, read_resolv_conf, reverse_name
from gatepost.net.dnstransport import Counters, Entropy, Question, Server
from gatepost.net.dnswire import DnsFormatError, Rcode
from gatepost.net.turns import READ_S

if TYPE_CHECKING:
    import asyncio

    from gatepost.config.schema import Dns

__all__ = ["StubResolver", "parse_server", "read_resolv_conf", "reverse_name"]

MAX_OUTSTANDING = 4096
_SILENT_BEFORE_REST = 3  # time-outs in a row after which a server is asked last
_REST_S = 10.0
_FOREVER_S = 0x7FFFFFFF


class _Pending(Question):
    """A question of ours from its first query to its last, over all retries and all links of a CNAME chain."""

    __slots__ = (
        "asked",
        "canonical",
        "deadline_s",
        "failed",
        "hops",
        "kind",
        "name",
        "reason",
        "resolver",
        "secure",
        "tries",
        "ttl_s",
        "waiters",
    )

    def __init__(self, resolver: StubResolver, kind: str, name: str, waiter: Callable[[LookupDone], None]) -> None:
        super().__init__()
        self.resolver = resolver
        self.kind = kind
        self.name = name
        self.waiters = [waiter]
        self.asked = name  # the name of the chain that is asked for now
        self.hops = 0
        self.ttl_s = _FOREVER_S
        self.secure = True
        self.canonical = ""
        self.tries = 0
        self.failed: set[Server] = set()  # servers that answered, but not well
        self.deadline_s = 0.0
        self.reason = ""

    def on_answer(self, packet: bytes) -> None:
        self.resolver.take_answer(self, packet)

    def on_unreachable(self, reason: str) -> None:
        self.resolver.take_unreachable(self, reason)

    def on_needs_tcp(self) -> None:
        self.resolver.go_over_tcp(self)


class StubResolver:
    """Answers DNS questions by asking `servers` ("192.0.2.1:53", "[2001:db8::1]:53") in order of preference.

    `LookupDone.secure` is true for what a server says it has validated, if `config.trust_ad` lets it be believed: "auto" only where all
    servers are on loopback. Raises ValueError for a server that is no address. Sockets are made when they are needed, and closed
    when nothing is awaited.
    """

    def __init__(
        self,
        servers: list[str],
        config: Dns,
        *,
        loop: asyncio.AbstractEventLoop,
        max_outstanding: int = MAX_OUTSTANDING,
    ) -> None:
        if not servers:
            raise ValueError("a resolver needs a DNS server")
        self.counters = Counters()
        entropy = Entropy()
        self._servers = [
            Server(parse_server(text), loop=loop, entropy=entropy, counters=self.counters) for text in servers
        ]
        self._loop = loop
        self.trusts_ad = is_ad_trusted(config.trust_ad, self._servers)
        self._timeout_s = config.timeout_s
        self._tick_s = min(0.25, config.timeout_s / 4)
        self._max_tries = max(config.attempts, len(servers))
        self._max_ttl_s = config.max_ttl_s
        self._max_outstanding = max_outstanding
        self._cache = DnsCache(
            config.max_cache_entries,
            max_ttl_s=config.max_ttl_s,
            max_negative_ttl_s=config.max_negative_ttl_s,
            clock=loop.time,
        )
        self._pending: dict[tuple[str, str], _Pending] = {}
        # In the order of their deadlines, since every query has the same time-out: a dict keeps insertion order.
        self._on_their_way: dict[_Pending, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    # --- questions ----------------------------------------------------------------------------------------------

    def cached(self, kind: str, name: str) -> LookupDone | None:
        """The answer if no query is needed for it: cached, a special name, an IP literal, or a name that cannot be."""
        done = self._cache.get(kind, name)
        if done is None:
            normal = _normal_name(kind, name)
            if normal != name:
                done = self._cache.get(kind, normal)
            done = done or _answer_at_once(kind, normal)
        if done is not None:
            self.counters.cache_hits += 1
        return done

    async def query(self, kind: str, name: str) -> LookupDone:
        """The answer, with `query` 0. `kind` is one of dnswire.KINDS; for "PTR", `name` may be an IP address."""
        done = self.cached(kind, name)
        if done is not None:
            return done
        future: asyncio.Future[LookupDone] = self._loop.create_future()

        def deliver(done: LookupDone) -> None:
            if not future.done():
                future.set_result(done)

        self.submit(kind, name, deliver)
        return await future

    def submit(self, kind: str, name: str, waiter: Callable[[LookupDone], None]) -> None:
        """Ask, and call `waiter` once with the answer: at once if no query is needed. Costs no task and no future.

        Each waiter gets a LookupDone of its own, so it may set `query`; `records` is shared and must not be changed.
        """
        done = self.cached(kind, name)
        if done is not None:
            waiter(done)
            return
        name = _normal_name(kind, name)
        pending = self._pending.get((kind, name))
        if pending is not None:
            self.counters.coalesced += 1
            pending.waiters.append(waiter)
            return
        if len(self._pending) >= self._max_outstanding or self._closed:
            self.counters.over_limit += 1
            waiter(LookupDone(0, "tempfail", [], 0, reason="too many DNS questions outstanding"))
            return
        self.counters.questions += 1
        pending = self._pending[kind, name] = _Pending(self, kind, name, waiter)
        pending.wire = dnswire.build_question(name, kind)
        self._try(pending)

    def close(self) -> None:
        """Close all sockets and answer what is outstanding with "tempfail"."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._on_their_way.clear()
        for server in self._servers:
            server.close()
        for pending in list(self._pending.values()):
            self._finish(pending, "tempfail", [], 0, reason="the resolver was stopped")

    # --- sending ------------------------------------------------------------------------------------------------

    def _try(self, pending: _Pending) -> None:
        """Send the question to the next server that may be asked; without one, give up."""
        while pending.tries < self._max_tries:
            server = self._choose(pending)
            if server is None:
                break
            pending.tries += 1
            failure = server.send_udp(pending)
            if not failure:
                self._await_answer(pending)
                return
            self.counters.unreachable += 1
            pending.failed.add(server)
            pending.reason = failure
        self._finish(pending, "tempfail", [], TEMPFAIL_TTL_S, reason=pending.reason)

    def _choose(self, pending: _Pending) -> Server | None:
        """The server after the last one asked, healthy before resting; never one that failed this question."""
        servers = self._servers
        now_s = self._loop.time()
        if pending.tries == 0 and servers[0].resting_until_s <= now_s:
            return servers[0]
        first = 0 if pending.server is None else servers.index(pending.server) + 1
        in_turn = [server for server in servers[first:] + servers[:first] if server not in pending.failed]
        for server in in_turn:
            if server.resting_until_s <= now_s:
                return server
        return in_turn[0] if in_turn else None

    def _await_answer(self, pending: _Pending) -> None:
        pending.deadline_s = self._loop.time() + self._timeout_s
        self._on_their_way[pending] = None
        if self._timer is None:
            self._timer = self._loop.call_later(self._tick_s, self._on_tick)

    def _on_tick(self) -> None:
        """An answer that has come and was not read yet is none that is late."""
        self._timer = self._loop.call_later(READ_S, self._time_out)

    def _time_out(self) -> None:
        """Time out what is due, and close idle ports when nothing is under way any more."""
        self._timer = None
        now_s = self._loop.time()
        due = []
        for pending in self._on_their_way:
            if pending.deadline_s > now_s:
                break
            due.append(pending)
        for pending in due:
            self._on_their_way.pop(pending, None)
            server = pending.server
            assert server is not None
            if pending.channel is not None:
                pending.channel.forget(pending)
            self.counters.timeouts += 1
            server.silent += 1
            if server.silent >= _SILENT_BEFORE_REST:
                server.resting_until_s = now_s + _REST_S
            pending.reason = f"{server.address.text}: no answer within {self._timeout_s:g} s"
            self._try(pending)
        if not self._on_their_way:
            for server in self._servers:
                server.close_idle()
        elif self._timer is None:
            self._timer = self._loop.call_later(self._tick_s, self._on_tick)

    # --- what servers say ---------------------------------------------------------------------------------------

    def go_over_tcp(self, pending: _Pending) -> None:
        """Ask the same server again over TCP."""
        server = pending.server
        assert server is not None
        self._on_their_way.pop(pending, None)
        failure = server.send_tcp(pending)
        if failure:
            self._next_server(pending, failure)
        else:
            self._await_answer(pending)

    def take_unreachable(self, pending: _Pending, reason: str) -> None:
        """Go on with the next server."""
        self._on_their_way.pop(pending, None)
        self.counters.unreachable += 1
        self._next_server(pending, reason)

    def take_answer(self, pending: _Pending, packet: bytes) -> None:
        """Read an answer: finish, follow its CNAME chain, or go on with the next server."""
        self._on_their_way.pop(pending, None)
        server = pending.server
        assert server is not None
        server.silent = 0
        server.resting_until_s = 0.0
        try:
            response = dnswire.parse_response(packet, pending.sent, pending.asked, pending.kind)
            followed = dnswire.follow(response.answers, pending.asked, pending.kind)
        except DnsFormatError as error:
            self.counters.malformed += 1
            self._next_server(pending, f"{server.address.text}: {error}")
            return
        failure = _find_failure(response, followed)
        if failure:
            self.counters.failed_answers += 1
            self._next_server(pending, f"{server.address.text}: {failure}")
            return
        pending.secure = pending.secure and response.authentic and self.trusts_ad
        if followed.hops:
            pending.canonical = followed.name
        pending.ttl_s = min(pending.ttl_s, followed.ttl_s)
        pending.hops += followed.hops
        if pending.hops > dnswire.MAX_HOPS:
            self._finish(pending, "tempfail", [], TEMPFAIL_TTL_S, reason="the CNAME chain is too long, or a loop")
            return
        if followed.records:
            self._finish(pending, "ok", followed.records, pending.ttl_s)
        elif response.rcode == Rcode.NXDOMAIN:
            self._finish(pending, "nxdomain", [], min(pending.ttl_s, max(response.negative_ttl_s, 0)))
        elif followed.hops and response.negative_ttl_s < 0:
            self._follow_outside(pending, followed.name)
        else:
            self._finish(pending, "nodata", [], min(pending.ttl_s, max(response.negative_ttl_s, 0)))

    def _follow_outside(self, pending: _Pending, name: str) -> None:
        """The chain ends at a name this server said nothing about: ask for that."""
        known = self.cached(pending.kind, name)
        if known is not None:
            pending.secure = pending.secure and known.secure
            pending.canonical = known.canonical or name
            self._finish(pending, known.status, known.records, min(pending.ttl_s, known.ttl_s), reason=known.reason)
            return
        pending.asked = name
        pending.wire = dnswire.build_question(name, pending.kind)
        pending.tries = 0
        pending.failed.clear()
        self._try(pending)

    def _next_server(self, pending: _Pending, reason: str) -> None:
        assert pending.server is not None
        pending.failed.add(pending.server)
        pending.reason = reason
        self._try(pending)

    def _finish(self, pending: _Pending, status: str, records: list[str], ttl_s: int, *, reason: str = "") -> None:
        """Cache the answer and give it to all who wait for it."""
        del self._pending[pending.kind, pending.name]
        secure = pending.secure and status != "tempfail"
        ttl_s = min(ttl_s, self._max_ttl_s)
        canonical = pending.canonical
        self._cache.put(pending.kind, pending.name, LookupDone(0, status, records, ttl_s, secure, reason, canonical))
        for waiter in pending.waiters:
            waiter(LookupDone(0, status, records, ttl_s, secure, reason, canonical))


def is_ad_trusted(trust_ad: str, servers: Sequence[Server]) -> bool:
    """Whether the AD flag is believed: it is worth what the way to the server is worth (RFC 6840 5.7, RFC 7672 2.2)."""
    return trust_ad == "always" or (trust_ad == "auto" and all(server.address.loopback for server in servers))


def _normal_name(kind: str, name: str) -> str:
    name = dnsnames.normal_name(name)
    if kind == "PTR" and (":" in name or name[-1:].isdigit()) and dnsnames.packed_address(name) is not None:
        return reverse_name(name)
    return name


def _answer_at_once(kind: str, name: str) -> LookupDone | None:
    """What is known without asking or remembering anything."""
    if kind not in dnswire.KINDS:
        return LookupDone(0, "tempfail", [], 0, reason="not a kind of record that can be asked for")
    done = dnsnames.local_answer(kind, name)
    if done is None and not dnswire.is_askable(name):
        done = LookupDone(0, "nxdomain", [], 0, reason="not a domain name")
    return done


def _find_failure(response: dnswire.Response, followed: dnswire.Followed) -> str:
    """Why a response is no answer of a resolver that does its work, or empty."""
    if followed.records and response.rcode == 0:
        return ""
    if response.truncated:
        return "truncated over TCP"
    if response.rcode not in (Rcode.NOERROR, Rcode.NXDOMAIN):
        return Rcode(response.rcode).name if response.rcode in _RCODES else f"rcode {response.rcode}"
    if followed.records:
        return "says that the name does not exist, and gives records"
    if response.referral and not followed.hops and response.negative_ttl_s < 0:
        return "refers to other servers instead of answering"
    return ""


_RCODES = frozenset(Rcode)
