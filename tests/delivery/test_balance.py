"""Pools of next hops: the spread by weight, priorities, failover, members that are down and come back, probes without mail."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from integration.peers.process import take_port
from scripted_host import DROP, Bed, Host, run

from gatepost.config.schema import Pool, PoolMember
from gatepost.delivery.balance import Balance
from gatepost.model import NextHopTrouble, Result


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def balance_of(*members: tuple[str, int, int], **settings: Any) -> tuple[Balance, Clock, list[tuple[str, str]]]:
    clock, told = Clock(), []
    pool = Pool(members=[PoolMember(next_hop=n, weight=w, priority=p) for n, w, p in members], **settings)
    balance = Balance("inside", pool, None, lambda name, **f: told.append((f["member"], f["state"])), clock)  # type: ignore[arg-type]
    return balance, clock, told


def names(balance: Balance, count: int) -> list[str]:
    return [member.name if (member := balance.choose()) else "-" for _ in range(count)]


def test_weights_are_counted_and_smooth() -> None:
    balance, _, _ = balance_of(("a", 5, 0), ("b", 1, 0), ("c", 1, 0), ("spare", 9, 1))
    assert names(balance, 7) == ["a", "a", "b", "a", "c", "a", "a"]
    assert Counter(names(balance, 700)) == {"a": 500, "b": 100, "c": 100}


def test_a_member_that_is_down_is_left_out_and_tried_again() -> None:
    balance, clock, told = balance_of(("a", 1, 0), ("b", 1, 0), ("spare", 1, 5), retry_s=30.0)
    a, b, _ = balance.members
    a.failed("refused")
    assert names(balance, 4) == ["b"] * 4
    b.failed("refused")
    assert names(balance, 3) == ["spare"] * 3
    clock.now_s += 30.0
    assert names(balance, 4) == ["a", "b", "spare", "spare"]  # one transaction each finds out
    a.worked()
    assert names(balance, 2) == ["a", "a"]
    b.failed("refused again")  # twice as long now
    clock.now_s += 59.0
    assert "b" not in names(balance, 4)
    clock.now_s += 1.0
    assert "b" in names(balance, 1)
    assert told == [("a", "down"), ("b", "down"), ("a", "up")]


def test_when_all_are_down_one_is_tried_all_the_same() -> None:
    balance, clock, _ = balance_of(("a", 1, 0), ("b", 1, 0))
    for member in balance.members:
        member.failed("refused")
        clock.now_s += 1.0
    assert names(balance, 1) == ["a"]
    assert balance.choose(("a",)) is None


def pool_of(
    *hosts: Host | int, weights: tuple[int, ...] = (), priorities: tuple[int, ...] = (), **settings: Any
) -> Pool:
    members = []
    for index, host in enumerate(hosts):
        hop = f"smtp://127.0.0.1:{host}" if isinstance(host, int) else host.next_hop
        weight = weights[index] if weights else 1
        members.append(PoolMember(next_hop=hop, weight=weight, priority=priorities[index] if priorities else 0))
    return Pool(members=members, **settings)


def test_messages_are_spread_by_weight():
    async def body() -> None:
        hosts = [await Host().start() for _ in range(3)]
        async with Bed(pools={"inside": pool_of(*hosts, weights=(3, 2, 1))}) as bed:
            done = await asyncio.gather(*(bed.submit("pool:inside") for _ in range(60)))
        assert all(one.outcomes[0].result is Result.DELIVERED and one.trouble is NextHopTrouble.NONE for one in done)
        assert [len(host.messages) for host in hosts] == [30, 20, 10]

    run(body())


@pytest.mark.parametrize(
    ("step", "reply"),
    [("CONNECT", b"554 no"), ("CONNECT", DROP), ("MAIL", b"421 busy"), ("RCPT", b"450 grey"), ("DATA", DROP)],
)
def test_what_one_member_did_not_take_another_takes(step: str, reply: bytes):
    async def body() -> None:
        first = await Host(lambda asked, line: reply if asked == step else None).start()
        second = await Host().start()
        async with Bed(pools={"inside": pool_of(first, second)}) as bed:
            done = await asyncio.gather(*(bed.submit("pool:inside") for _ in range(6)))
        assert all(one.outcomes[0].result is Result.DELIVERED for one in done)
        assert len(second.messages) == 6 and first.messages == []

    run(body())


def test_a_refusal_for_good_is_not_asked_elsewhere():
    async def body() -> None:
        first = await Host(lambda asked, line: b"550 5.1.1 no" if asked == "RCPT" else None).start()
        second = await Host().start()
        async with Bed(pools={"inside": pool_of(first, second, priorities=(0, 1))}) as bed:
            done = await bed.submit("pool:inside")
        assert (done.outcomes[0].result, done.outcomes[0].code) == (Result.FAILED, 550)
        assert second.connections == 0

    run(body())


def test_all_down_is_one_reason_with_every_name():
    ports = [take_port(), take_port()]

    async def body() -> None:
        async with Bed(pools={"inside": pool_of(*ports)}) as bed:
            done = await bed.submit("pool:inside", recipients=("a@x.test", "b@x.test"))
        assert done.trouble is NextHopTrouble.DOWN
        assert {(one.result, one.stage, one.status) for one in done.outcomes} == {(Result.DEFERRED, "connect", "4.4.1")}
        (text,) = {one.text for one in done.outcomes}
        assert text.startswith("no member of the pool inside can be reached (")
        assert all(f"smtp://127.0.0.1:{port}: cannot connect" in text for port in ports)

    run(body())


def test_all_refuse_for_now_is_what_the_last_one_said():
    async def body() -> None:
        hosts = [
            await Host(lambda asked, line: b"450 4.2.0 grey" if asked == "RCPT" else None).start() for _ in range(2)
        ]
        async with Bed(pools={"inside": pool_of(*hosts)}) as bed:
            done = await bed.submit("pool:inside")
        assert (done.outcomes[0].result, done.outcomes[0].code, done.trouble) == (
            Result.DEFERRED,
            450,
            NextHopTrouble.NONE,
        )
        assert all(host.connections == 1 for host in hosts)

    run(body())


def test_a_probe_without_mail_finds_a_member_down_and_up_again():
    port = take_port()

    async def body() -> None:
        host = await Host().start()
        async with Bed(pools={"inside": pool_of(port, host, retry_s=3600.0, probe_interval_s=0.02)}) as bed:
            bed.engine.begin()
            await bed.until_event("pool_member")
            assert [fields["state"] for _, fields in bed.events] == ["down"]
            other = await Host().start(port=port)
            while bed.events[-1][1].get("state") != "up":
                bed.changed.clear()
                await bed.changed.wait()
            await other.until(lambda: "QUIT" in other.log)
            assert not any(line.startswith("MAIL") for line in other.log)

    run(body())


def test_a_pool_that_is_no_more_defers():
    async def body() -> None:
        async with Bed() as bed:
            done = await bed.submit("pool:gone")
        assert done.outcomes[0].result is Result.DEFERRED and "no pool gone" in done.outcomes[0].text

    run(body())


def test_closing_ends_every_attempt():
    async def body() -> None:
        host = await Host(lambda asked, line: b"(silent)" if asked == "MAIL" else None).start()
        async with Bed(pools={"inside": pool_of(host, take_port(), priorities=(0, 1))}) as bed:
            waiters = [bed.submit("pool:inside", limit=1) for _ in range(3)]
            await host.until(lambda: any(line.startswith("MAIL") for line in host.log))
            bed.engine.close()
            done = await asyncio.gather(*waiters)
        assert all(one.outcomes[0].result is Result.DEFERRED for one in done)

    run(body())
