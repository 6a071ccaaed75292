"""TLS reports in the queue role (RFC 8460): results of deliverers counted by day and domain, kept, and reported.

What deliverers saw is kept for `tls.reports.keep_days`, for `gatepost tls report`, whether reports are sent or not. They are sent only where
`tls.reports.contact` is set: a day's report of a domain goes some time after midnight UTC, by mail through our own queue or by POST through
the resolver, to where the domain's `_smtp._tls` record says; a web server that fails is tried again for a day. The records on disk mean
nothing to delivery; a crash loses the last half minute of counts.
"""

from __future__ import annotations

import asyncio
import time
from itertools import count
from typing import TYPE_CHECKING, Any
from zlib import crc32

import msgspec

from gatepost.config import schema
from gatepost.ipc import messages as m
from gatepost.ipc.wire import Channel
from gatepost.mail.tlsrpt import MEDIA_TYPE, Report, Rua, build_mail, build_report, parse_tlsrpt_record
from gatepost.model import Address, Envelope, Recipient, TlsSeen
from gatepost.roles.ids import REPORTS, IdMaker
from gatepost.roles.notices import lead
from gatepost.roles.remembering import is_name
from gatepost.roles.settling import timestamp
from gatepost.roles.writtenlater import WrittenLater
from gatepost.routing.route import Refusal
from gatepost.spool.errors import SpoolError
from gatepost.spool.keptfile import KeptFile
from gatepost.spool.tlsmemory import MAX_DOMAIN

if TYPE_CHECKING:
    from gatepost.roles.queue import Queue

PERMIT = "tlsrpt"
MAX_RECORDS = 20_000  # a domain on a day
MAX_BYTES = 16 * 1024 * 1024
MAX_ROWS = 100  # different results of one domain on a day; what is beyond is not counted
MAX_AT_ONCE = 10  # reports
MAX_TRIES = 24  # RFC 8460 5.5: about a day
WRITE_DELAY_S = 30.0
WHAT = "TLS results"
ANSWER_WAIT_S = 90.0
LISTED = 1000


class Day(msgspec.Struct, array_like=True):
    """The results of one domain in one period, and what became of its report; also on disk."""

    rows: list[TlsSeen]
    is_sent: bool = False  # or not wanted, or given up
    done: list[str] = []  # places that have it
    tries: int = 0


class TlsReports:
    """See the module."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._file = KeptFile(".", "results", MAX_RECORDS, MAX_BYTES)
        self._days: dict[tuple[int, str], Day] = {}
        self._bytes = 0  # of the rows
        self._changed: set[tuple[int, str]] = set()
        self._later = WrittenLater(queue, WHAT, self._encoded, lambda data: self._file.write(data), WRITE_DELAY_S)
        self._retry_at_s: dict[tuple[int, str], float] = {}
        self._questions: dict[int, asyncio.Future[Any]] = {}
        self._numbers = count(1)
        self._new_id = IdMaker(0, REPORTS)
        self._busy: set[tuple[int, str]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- start and disk ---------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Read what is there."""
        try:
            self._file.load()
        except (SpoolError, ValueError) as error:
            self._queue.event("error", where=WHAT, reason=str(error))
        for key, record in self._file.records.items():
            period, _, domain = key.partition("/")
            try:
                day = self._days[int(period), domain] = msgspec.msgpack.decode(record, type=Day)
                self._bytes += sum(map(_size, day.rows))
            except (ValueError, msgspec.MsgspecError):
                continue
        self._queue.loop.call_later(self._tick_s, self._tick)

    @property
    def _config(self) -> schema.TlsReports:
        return self._queue.config.tls.reports

    @property
    def _tick_s(self) -> float:
        return min(60.0, self._config.period_s / 4)

    def _note(self, key: tuple[int, str]) -> None:
        """This day is not on disk as it is now."""
        self._changed.add(key)
        self._later.write_soon()

    def _encoded(self) -> bytes:
        for period, domain in self._changed:
            day = self._days.get((period, domain))
            self._file.put(f"{period}/{domain}", msgspec.msgpack.encode(day) if day is not None else b"")
        self._changed.clear()
        return self._file.encoded()

    def close(self) -> None:
        """The end is near: what is not written yet is."""
        self._later.flush()

    # --- what deliverers tell ---------------------------------------------------------------------------------------

    def take(self, message: m.TlsResults) -> None:
        """Count. They come from a role that talks to strangers: what is no domain is not counted, nor what is too much."""
        period = int(time.time() // self._config.period_s)
        for row in message.rows:
            if not is_name(row.domain) or not 0 < len(row.domain) <= MAX_DOMAIN:
                continue
            key = period, row.domain
            day = self._days.get(key)
            if day is None:
                if len(self._days) >= MAX_RECORDS:
                    continue
                day = self._days[key] = Day([])
            for at, known in enumerate(day.rows):
                if _is_same(known, row):
                    day.rows[at] = msgspec.structs.replace(known, count=known.count + row.count)
                    break
            else:
                if len(day.rows) < MAX_ROWS and self._bytes + _size(row) <= MAX_BYTES:
                    day.rows.append(row)
                    self._bytes += _size(row)
            self._note(key)

    # --- sending ----------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Forget what is old; report what is due."""
        self._queue.loop.call_later(self._tick_s, self._tick)
        config = self._config
        now_s = time.time()
        oldest = int(now_s // config.period_s) - config.keep_days
        for key in [key for key in self._days if key[0] < oldest]:
            self._bytes -= sum(map(_size, self._days.pop(key).rows))
            self._retry_at_s.pop(key, None)
            self._note(key)
        if config.contact is None:
            return
        for key in [key for key in self._days if self._is_due(key, now_s)][: MAX_AT_ONCE - len(self._busy)]:
            self._busy.add(key)
            task = self._queue.loop.create_task(self._report(key, self._days[key], config.contact))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _is_due(self, key: tuple[int, str], now_s: float) -> bool:
        """After the end of its day, each domain at its own time (RFC 8460 4.1 asks for spreading)."""
        period, domain = key
        if self._days[key].is_sent or key in self._busy:
            return False
        config = self._config
        spread_s = crc32(f"{self._queue.config.hostname}/{domain}".encode()) % max(1, int(config.spread_s))
        return now_s >= max((period + 1) * config.period_s + spread_s, self._retry_at_s.get(key, 0.0))

    async def _report(self, key: tuple[int, str], day: Day, contact: str) -> None:
        try:
            failed = await self._send(key, day, contact)
        except Exception as error:  # noqa: BLE001 - the one broad catch of a report
            self._queue.event("internal_error", what=f"TLS report for {key[1]}", error=repr(error))
            failed = "internal error"
        finally:
            self._busy.discard(key)
        day.tries += 1
        day.is_sent = not failed or day.tries >= MAX_TRIES
        self._note(key)
        if failed:
            self._retry_at_s[key] = time.time() + min(3600.0, self._config.period_s / 4)
            self._queue.event("tls_report_failed", domain=key[1], reason=failed, tries=day.tries, given_up=day.is_sent)

    async def _send(self, key: tuple[int, str], day: Day, contact: str) -> str:
        """Send to each place that has it not yet; why one of them failed, or nothing. A reload meanwhile may have taken the contact away."""
        period, domain = key
        config = self._config
        found = await self._ask(m.Lookup(0, "TXT", f"_smtp._tls.{domain}"), None)
        if found is None or found.status == "tempfail":
            return f"the look-up of _smtp._tls.{domain} failed"
        report_id = self._new_id()
        begin_s = period * config.period_s
        host = self._queue.config.hostname
        organization = config.organization or host
        end_s = begin_s + config.period_s
        report = Report(report_id, domain, host, organization, contact, begin_s, end_s, day.rows)
        packed = build_report(report)
        failed = ""
        for rua in parse_tlsrpt_record(found.records):
            if rua.text in day.done:
                continue
            why = self._mail(report, packed, rua) if rua.mailbox else await self._post(packed, rua)
            if why:
                failed = f"{rua.text}: {why}"
                continue
            day.done.append(rua.text)
            sessions = sum(row.count for row in day.rows)
            self._queue.event("tls_report_sent", domain=domain, to=rua.text, report=report_id, sessions=sessions)
        return failed

    async def _post(self, packed: bytes, rua: Rua) -> str:
        done = await self._ask(m.Post(0, rua.host, rua.port, rua.path, MEDIA_TYPE, packed), None)
        return "the resolver does not answer" if done is None else done.failed

    def _mail(self, report: Report, packed: bytes, rua: Rua) -> str:
        """Spool it like any message; its bounces go to the contact."""
        queue = self._queue
        now_s = time.time()
        local, _, domain = rua.mailbox.rpartition("@")
        domain = domain.lower()
        route = queue.notices.route(Address(rua.mailbox, local, domain))
        if isinstance(route, Refusal):
            return route.text
        message_id = self._new_id()
        content = b"".join(build_mail(report, packed, rua.mailbox, message_id, now_s))
        envelope = Envelope(
            id=message_id,
            session_id="",
            reverse_path=report.contact,
            recipients=[Recipient(rua.mailbox, domain, route.next_hop)],
            received_s=now_s,
            peer_address="local",
            helo=queue.config.hostname,
            permit=PERMIT,
            tls_optional=True,  # RFC 8460 3: it goes whatever is wrong with TLS
            needs_stuffing=b"\n." in content,
        )
        lead(envelope, route)
        try:
            entry = queue.spool.store(envelope, [content])
        except SpoolError as error:
            return str(error)
        queue.notices.enter_when_durable(entry)
        queue.dispatch_soon()
        return ""

    # --- the resolver -----------------------------------------------------------------------------------------------

    async def _ask(self, question: Any, silence: Any) -> Any:
        resolvers = self._queue.peers("resolver")
        if not resolvers:
            return silence
        question.query = next(self._numbers)
        future = self._queue.loop.create_future()
        self._questions[question.query] = future
        max(resolvers, key=lambda channel: channel.peer[2]).post(question)
        try:
            return await asyncio.wait_for(future, ANSWER_WAIT_S)
        except TimeoutError:
            return silence
        finally:
            self._questions.pop(question.query, None)

    def answered(self, channel: Channel, message: Any) -> None:
        """An answer of the resolver."""
        future = self._questions.get(message.query)
        if future is not None and not future.done():
            future.set_result(message)

    # --- the operator -----------------------------------------------------------------------------------------------

    def show(self, since_s: float) -> dict[str, Any]:
        """What was seen in periods that were not over then, newest first."""
        period_s = self._config.period_s
        found: list[dict[str, Any]] = []
        for (period, domain), day in sorted(self._days.items(), reverse=True):
            if (period + 1) * period_s <= since_s or len(found) == LISTED:
                continue
            rows = [msgspec.to_builtins(_Shown.of(row)) for row in day.rows]
            found.append(
                {
                    "day": timestamp(period * period_s),
                    "domain": domain,
                    "report": ", ".join(day.done) if day.done else "none" if day.is_sent else "not yet",
                    "results": rows,
                }
            )
        return {"contact": self._config.contact, "seen": found}


class _Shown(msgspec.Struct):
    """A TlsSeen with the names of its fields, for JSON."""

    policy: str
    policy_domain: str
    mx: str
    address: str
    result: str
    reason: str
    count: int

    @classmethod
    def of(cls, row: TlsSeen) -> _Shown:
        result = row.result or "success"
        return cls(row.policy_type, row.policy_domain, row.mx_host, row.receiving_ip, result, row.reason, row.count)


def _size(row: TlsSeen) -> int:
    """About what it takes in memory and on disk."""
    texts = (
        row.domain,
        row.policy_type,
        row.policy_domain,
        row.mx_host,
        row.receiving_ip,
        row.sending_ip,
        row.result,
        row.reason,
    )
    return 100 + sum(map(len, texts)) + sum(map(len, row.policy_strings))


def _is_same(one: TlsSeen, other: TlsSeen) -> bool:
    return msgspec.structs.astuple(one)[:-1] == msgspec.structs.astuple(other)[:-1]
