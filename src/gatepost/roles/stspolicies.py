"""MTA-STS policies in the resolver role: discovered, fetched, kept, refreshed (RFC 8461 3, 10.2).

What a policy says is `mail/mtasts.py`'s, the fetch `net/https.py`'s; this knows when to ask. The kept policies live here in memory and,
as records that mean nothing to it, with the queue role, which owns the disk: they come back from it at each start (decision 0013).

Invariants: a policy that was fetched holds until it expires, whatever DNS and web server say or do not say meanwhile; everything is
bounded; a domain is fetched once at a time, and after a failure not before RETRY_S has passed for the same id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from gatepost.config.schema import Sts
from gatepost.ipc.messages import LookupDone
from gatepost.mail.mtasts import MAX_POLICY_BYTES, Policy, StsError, parse_policy, parse_record
from gatepost.net.https import Answer, HttpsError

PATH = "/.well-known/mta-sts.txt"
RETRY_S = 300.0  # RFC 8461 3.3
NONE_TTL_S = 300  # how long the deliverer may believe that there is no policy
REFRESH_TICK_S = 1800.0
REFRESH_AFTER_S = 86400.0  # RFC 8461 10.2: about once a day
REFRESH_AT_ONCE = 50
UNUSED_S = 30 * 86400.0  # one that was not asked for as long is let expire
MAX_FETCHES = 20
MAX_WAITING = 1000  # domains that are being looked at
MAX_FAILURES = 10_000
RESTORE_WAIT_S = 20.0  # for the queue, before a domain counts as unknown

Waiter = Callable[[LookupDone], None]


class Kept(msgspec.Struct, array_like=True):
    """A policy as it is kept, also on disk: fields are only ever appended, with a default."""

    domain: str
    id: str
    fetched_s: float  # wall clock
    policy: Policy
    used_s: float = 0.0

    @property
    def expires_s(self) -> float:
        """A policy that holds for no time at all holds until it may be fetched again."""
        return self.fetched_s + max(self.policy.max_age_s, RETRY_S)


class StsPolicies:
    """See the module. `keep(domain, record)` hands a record to the disk, an empty one to have it forgotten."""

    def __init__(
        self,
        config: Sts,
        *,
        query: Callable[[str, str], Awaitable[LookupDone]],
        get: Callable[..., Awaitable[Answer]],
        keep: Callable[[str, bytes], None],
        event: Callable[..., None],
        clock: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._config = config
        self._query = query
        self._get = get
        self._keep = keep
        self._event = event
        self._clock = clock
        self._loop = loop
        self._kept: dict[str, Kept] = {}  # the one that was not asked for longest comes first
        self._failed: dict[str, tuple[str, float, str]] = {}  # domain -> id, until when, why
        self._waiting: dict[str, list[Waiter]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._fetches = asyncio.Semaphore(MAX_FETCHES)
        self._restored = asyncio.Event()
        self.counts = {"sts_questions": 0, "sts_fetches": 0, "sts_failures": 0}

    def begin(self) -> None:
        """The timers: give up waiting for the queue, refresh now and then."""
        self._loop.call_later(RESTORE_WAIT_S, self._restored.set)
        self._loop.call_later(REFRESH_TICK_S, self._refresh)

    # --- what the disk has ------------------------------------------------------------------------------------------

    def restore(self, records: list[bytes], is_all: bool) -> None:
        """Take back what was kept; what is newer here stays."""
        now_s = self._clock()
        for record in records:
            try:
                kept = _decode(record)
            except msgspec.MsgspecError:
                continue
            newer = self._kept.get(kept.domain)
            if kept.expires_s > now_s and (newer is None or newer.fetched_s < kept.fetched_s):
                self._put(kept)
        if is_all:
            self._restored.set()

    # --- questions --------------------------------------------------------------------------------------------------

    def submit(self, domain: str, waiter: Waiter) -> None:
        """Call `waiter` once with the policy of a domain.

        "ok": records are id, seconds it still holds, and the lines of the policy; `reason` is why it could not be renewed, if it could not.
        "nodata": there is none to apply; `reason` begins with a result type of RFC 8460 4.3 if there should be one. "tempfail": not known.
        """
        self.counts["sts_questions"] += 1
        waiting = self._waiting.get(domain)
        if waiting is not None:
            waiting.append(waiter)
        elif len(self._waiting) >= MAX_WAITING:
            waiter(LookupDone(0, "tempfail", [], 0, reason="too many MTA-STS policies are being looked for"))
        else:
            self._waiting[domain] = [waiter]
            self._spawn(self._answer(domain))

    async def _answer(self, domain: str) -> None:
        try:
            await self._restored.wait()
            done = await self._find(domain)
        except Exception as error:  # noqa: BLE001 - the one broad catch of a question: whoever asks must hear something
            self._event("internal_error", what=f"MTA-STS policy of {domain}", error=repr(error))
            done = LookupDone(0, "tempfail", [], 0, reason="internal error")
        for waiter in self._waiting.pop(domain):
            waiter(done)

    async def _find(self, domain: str) -> LookupDone:
        now_s = self._clock()
        kept = self._kept.get(domain)
        if kept is not None and kept.expires_s <= now_s:
            kept = None
        if kept is not None:
            kept.used_s = now_s
            self._put(kept)  # to the end of the order
        done = await self._query("TXT", f"_mta-sts.{domain}")
        try:
            policy_id = parse_record(done.records) if done.status == "ok" else ""
        except StsError:  # RFC 8461 3.1: as if there were none, which is no reason to forget a policy
            policy_id = ""
        if not policy_id or (kept is not None and kept.id == policy_id):
            return self._found(kept) if kept is not None else LookupDone(0, "nodata", [], NONE_TTL_S)
        failed = self._failed.get(domain)
        if failed is not None and failed[0] == policy_id and failed[1] > now_s:
            why = failed[2]
        else:
            why = await self._fetch(domain, policy_id)
            kept = kept if why else self._kept[domain]
        return self._found(kept, why) if kept is not None else LookupDone(0, "nodata", [], NONE_TTL_S, reason=why)

    def _found(self, kept: Kept, why: str = "") -> LookupDone:
        left_s = max(0, int(kept.expires_s - self._clock()))
        ttl_s = min(left_s, int(RETRY_S))
        return LookupDone(0, "ok", [kept.id, str(left_s), *kept.policy.lines], ttl_s, reason=why)

    # --- fetching ---------------------------------------------------------------------------------------------------

    async def _fetch(self, domain: str, policy_id: str) -> str:
        """Fetch and keep; empty, or why it failed: a result type of RFC 8460 4.3.2.2, a colon, words."""
        self.counts["sts_fetches"] += 1
        try:
            async with self._fetches:
                policy = await self._get_policy(domain)
        except (HttpsError, StsError) as error:
            why = f"{_result_type(error)}: {error}"
            self._failed.pop(domain, None)
            self._failed[domain] = policy_id, self._clock() + RETRY_S, why
            if len(self._failed) > MAX_FAILURES:
                del self._failed[next(iter(self._failed))]
            self.counts["sts_failures"] += 1
            old = self._kept.get(domain)
            left_s = round(max(0.0, old.expires_s - self._clock())) if old is not None else 0
            self._event("sts_failed", domain=domain, policy_id=policy_id, reason=why, left_s=left_s)
            return why
        now_s = self._clock()
        self._failed.pop(domain, None)
        old = self._kept.get(domain)
        kept = Kept(domain, policy_id, now_s, policy, old.used_s if old is not None else now_s)
        self._put(kept)
        self._keep(domain, msgspec.msgpack.encode(kept))
        if old is None or old.policy != policy:
            self._event("sts_policy", domain=domain, policy_id=policy_id, mode=policy.mode, max_age_s=policy.max_age_s)
        return ""

    async def _get_policy(self, domain: str) -> Policy:
        answer = await self._get(
            f"mta-sts.{domain}", PATH, limit_bytes=MAX_POLICY_BYTES, timeout_s=self._config.timeout_s
        )
        if answer.status != 200:  # redirects are not followed (RFC 8461 3.3)
            raise HttpsError("http", f"the server answers with status {answer.status}")
        if answer.content_type != "text/plain":
            raise HttpsError("http", f"the answer is of type {answer.content_type[:60]!r}, not text/plain")
        return parse_policy(answer.body)

    def _put(self, kept: Kept) -> None:
        self._kept.pop(kept.domain, None)
        self._kept[kept.domain] = kept
        if len(self._kept) > self._config.max_policies:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            self._keep(oldest, b"")

    # --- now and then -----------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Renew what is in use before it expires, also where nobody asks just now (RFC 8461 10.2)."""
        self._loop.call_later(REFRESH_TICK_S, self._refresh)
        now_s = self._clock()
        for kept in [kept for kept in self._kept.values() if kept.expires_s <= now_s]:
            del self._kept[kept.domain]
            self._keep(kept.domain, b"")
        due = [kept for kept in self._kept.values() if self._is_due(kept, now_s)]
        for kept in due[:REFRESH_AT_ONCE]:
            self._spawn(self._renew(kept))

    def _is_due(self, kept: Kept, now_s: float) -> bool:
        failed = self._failed.get(kept.domain)
        if failed is not None and failed[1] > now_s:
            return False
        after_s = min(REFRESH_AFTER_S, kept.policy.max_age_s / 2)
        return now_s >= kept.fetched_s + after_s and now_s < kept.used_s + UNUSED_S

    async def _renew(self, kept: Kept) -> None:
        """With the id that the DNS has now, else with the old one: who can hide the record must not outlast the policy."""
        done = await self._query("TXT", f"_mta-sts.{kept.domain}")
        try:
            policy_id = parse_record(done.records) if done.status == "ok" else kept.id
        except StsError:
            policy_id = kept.id
        await self._fetch(kept.domain, policy_id)

    def _spawn(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _decode(record: bytes) -> Kept:
    return msgspec.msgpack.decode(record, type=Kept)


def _result_type(error: Exception) -> str:
    """RFC 8460 4.3.2.2."""
    if isinstance(error, StsError):
        return "sts-policy-invalid"
    return "sts-webpki-invalid" if getattr(error, "kind", "") == "certificate" else "sts-policy-fetch-error"
