"""When MTA-STS policies are asked for, kept and renewed; the web and the DNS are of the test."""

from __future__ import annotations

import asyncio

import msgspec

from gatepost.config.schema import Sts
from gatepost.eventtable import EVENTS
from gatepost.ipc.messages import LookupDone
from gatepost.mail.mtasts import Policy
from gatepost.net.https import Answer, HttpsError
from gatepost.roles import stspolicies
from gatepost.roles.stspolicies import Kept, StsPolicies

DOMAIN = "example.test"
ENFORCE = b"version: STSv1\nmode: enforce\nmx: mx.example.test\nmax_age: 864000\n"
DAY = 86400.0


class Bed:
    """`records` are TXT records by domain, `web` answers or errors by host."""

    def __init__(self, max_policies: int = 100) -> None:
        self.now_s = 1000.0
        self.records: dict[str, list[str] | str] = {DOMAIN: ["v=STSv1; id=1"]}
        self.web: dict[str, Answer | Exception] = {f"mta-sts.{DOMAIN}": Answer(200, "text/plain", ENFORCE)}
        self.fetched: list[str] = []
        self.kept: dict[str, bytes] = {}
        self.events: list[tuple[str, dict[str, object]]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.policies = StsPolicies(
            Sts(max_policies=max_policies),
            query=self._query,
            get=self._get,
            keep=self.kept.__setitem__,
            event=self._event,
            clock=lambda: self.now_s,
            loop=asyncio.get_running_loop(),
        )
        self.policies.restore([], True)

    async def _query(self, kind: str, name: str) -> LookupDone:
        assert kind == "TXT"
        found = self.records.get(name.removeprefix("_mta-sts."), [])
        if isinstance(found, str):
            return LookupDone(0, found, [], 0)
        return LookupDone(0, "ok" if found else "nxdomain", found, 60)

    async def _get(self, host: str, path: str, *, limit_bytes: int, timeout_s: float) -> Answer:
        assert path == "/.well-known/mta-sts.txt"
        self.fetched.append(host)
        await self.gate.wait()
        answer = self.web[host]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _event(self, name: str, **fields: object) -> None:
        assert set(fields) <= set(EVENTS[name])
        self.events.append((name, fields))

    async def ask(self, domain: str = DOMAIN) -> LookupDone:
        future = asyncio.get_running_loop().create_future()
        self.policies.submit(domain, future.set_result)
        return await future


def scenario(test):
    """Run an async test with a Bed."""

    def run():
        async def main():
            await test(Bed())

        asyncio.run(main())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


@scenario
async def test_a_policy_is_fetched_once_and_kept(bed):
    done = await bed.ask()
    assert done.status == "ok"
    assert done.records == ["1", "864000", *ENFORCE.decode().splitlines()]
    assert not done.reason
    assert (await bed.ask()).records == done.records
    assert bed.fetched == ["mta-sts.example.test"]
    assert msgspec.msgpack.decode(bed.kept[DOMAIN], type=Kept).policy == Policy("enforce", 864000, ("mx.example.test",))
    assert [name for name, _ in bed.events] == ["sts_policy"]


@scenario
async def test_no_record_no_question_to_the_web(bed):
    bed.records[DOMAIN] = []
    done = await bed.ask()
    assert (done.status, done.reason) == ("nodata", "")
    assert not bed.fetched


@scenario
async def test_a_new_id_is_fetched(bed):
    await bed.ask()
    bed.records[DOMAIN] = ["v=STSv1; id=2"]
    bed.web[f"mta-sts.{DOMAIN}"] = Answer(200, "text/plain", ENFORCE.replace(b"enforce", b"testing"))
    assert (await bed.ask()).records[:4] == ["2", "864000", "version: STSv1", "mode: testing"]


@scenario
async def test_the_kept_policy_holds_while_nothing_can_be_fetched(bed):
    await bed.ask()
    bed.records[DOMAIN] = ["v=STSv1; id=2"]
    bed.web[f"mta-sts.{DOMAIN}"] = HttpsError("connect", "refused")
    done = await bed.ask()
    assert done.records[0] == "1"
    assert done.reason == "sts-policy-fetch-error: refused"


@scenario
async def test_the_kept_policy_holds_without_record_and_without_dns(bed):
    await bed.ask()
    for records in ([], "tempfail", ["v=STSv1; id=1", "v=STSv1; id=2"]):
        bed.records[DOMAIN] = records
        assert (await bed.ask()).status == "ok", records


@scenario
async def test_it_ends_when_it_expires(bed):
    await bed.ask()
    bed.web[f"mta-sts.{DOMAIN}"] = HttpsError("connect", "refused")
    bed.records[DOMAIN] = []
    bed.now_s += 864001
    assert (await bed.ask()).status == "nodata"


@scenario
async def test_failures_have_their_types_and_are_not_repeated_at_once(bed):
    host = f"mta-sts.{DOMAIN}"
    for number, (answer, kind) in enumerate(
        [
            (HttpsError("certificate", "expired"), "sts-webpki-invalid"),
            (HttpsError("timeout", "no answer"), "sts-policy-fetch-error"),
            (HttpsError("size", "too large"), "sts-policy-fetch-error"),
            (Answer(301, "text/plain", ENFORCE), "sts-policy-fetch-error"),
            (Answer(200, "text/html", ENFORCE), "sts-policy-fetch-error"),
            (Answer(200, "text/plain", b"<html>"), "sts-policy-invalid"),
        ]
    ):
        bed.records[DOMAIN] = [f"v=STSv1; id=n{number}"]
        bed.web[host] = answer
        for _ in range(3):
            done = await bed.ask()
            assert done.status == "nodata"
            assert done.reason.startswith(f"{kind}: ")
        assert len(bed.fetched) == number + 1
    bed.now_s += stspolicies.RETRY_S + 1
    bed.web[host] = Answer(200, "text/plain", ENFORCE)
    assert (await bed.ask()).status == "ok"


@scenario
async def test_who_asks_at_the_same_time_gets_the_same_answer(bed):
    bed.gate.clear()
    asked = [asyncio.ensure_future(bed.ask()) for _ in range(5)]
    while not bed.fetched:
        await asyncio.sleep(0)
    bed.gate.set()
    assert {done.status for done in await asyncio.gather(*asked)} == {"ok"}
    assert len(bed.fetched) == 1


@scenario
async def test_too_many_at_once_are_put_off(bed):
    bed.gate.clear()
    for number in range(stspolicies.MAX_WAITING):
        bed.policies.submit(f"d{number}.test", lambda done: None)
    done = await bed.ask("one-more.test")
    assert done.status == "tempfail"
    bed.gate.set()


@scenario
async def test_what_the_disk_has_comes_back_but_not_what_has_expired(bed):
    policy = Policy("enforce", 864000, ("mx.old.test",))
    fresh, old = (
        Kept(domain, "9", when_s, policy) for domain, when_s in (("old.test", 900.0), ("gone.test", -900000.0))
    )
    bed.policies.restore([b"\xc1", b"", *map(msgspec.msgpack.encode, (fresh, old))], False)
    assert (await bed.ask("old.test")).records[0] == "9"
    assert (await bed.ask("gone.test")).status == "nodata"


def test_nothing_is_answered_before_the_disk_was_heard():
    async def main():
        bed = Bed()
        bed.policies._restored.clear()
        asked = asyncio.ensure_future(bed.ask())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not bed.fetched
        assert not asked.done()
        bed.policies.restore([msgspec.msgpack.encode(Kept(DOMAIN, "1", 999.0, Policy("none", 5000)))], True)
        assert (await asked).records[3] == "mode: none"
        assert not bed.fetched

    asyncio.run(main())


def test_the_one_unused_for_longest_makes_room():
    async def main():
        bed = Bed(max_policies=2)
        for number in range(3):
            domain = f"d{number}.test"
            bed.records[domain] = ["v=STSv1; id=1"]
            bed.web[f"mta-sts.{domain}"] = Answer(200, "text/plain", ENFORCE)
            await bed.ask(domain)
            await bed.ask("d0.test")
        assert bed.kept["d1.test"] == b""
        assert bed.kept["d0.test"]
        assert bed.kept["d2.test"]

    asyncio.run(main())


@scenario
async def test_what_is_in_use_is_renewed_before_it_expires_also_without_its_record(bed):
    await bed.ask()
    bed.records[DOMAIN] = []
    bed.now_s += DAY + 1
    bed.policies._refresh()
    while bed.policies._tasks:
        await asyncio.sleep(0)
    assert len(bed.fetched) == 2
    assert msgspec.msgpack.decode(bed.kept[DOMAIN], type=Kept).fetched_s == bed.now_s
    bed.now_s += 8 * DAY
    bed.policies._refresh()
    await asyncio.sleep(0)
    bed.now_s += 40 * DAY
    bed.policies._refresh()
    assert bed.kept[DOMAIN] == b""


@scenario
async def test_a_renewal_that_fails_is_told_with_the_time_that_is_left(bed):
    await bed.ask()
    bed.web[f"mta-sts.{DOMAIN}"] = HttpsError("connect", "refused")
    bed.now_s += DAY + 1
    bed.policies._refresh()
    while bed.policies._tasks:
        await asyncio.sleep(0)
    name, fields = bed.events[-1]
    assert name == "sts_failed"
    assert fields["left_s"] == 864000 - int(DAY) - 1
    assert (await bed.ask()).status == "ok"
