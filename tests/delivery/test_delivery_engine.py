"""The delivery engine against scripted hosts on loopback: outcomes, kept connections, limits, failover."""

from __future__ import annotations

import asyncio
import os
import random

import pytest
from scripted_host import DROP, EXTENSIONS, SILENT, Bed, Host, run

from gatepost.delivery import pool
from gatepost.model import NextHopTrouble, Result

QUICK = {
    "connect_timeout_s": 0.2,
    "greeting_timeout_s": 0.2,
    "command_timeout_s": 0.2,
    "data_block_timeout_s": 0.2,
    "data_end_timeout_s": 0.2,
}
PLAIN = ("8BITMIME",)


def once(step: str, reply: bytes):
    """A rule that answers the first such step so, and the others as usual."""
    seen = []

    def rule(asked: str, line: str) -> bytes | None:
        if asked == step and not seen:
            seen.append(line)
            return reply
        return None

    return rule


def always(step: str, reply: bytes):
    return lambda asked, line: reply if asked == step else None


@pytest.mark.parametrize("extensions", [EXTENSIONS, PLAIN])
def test_delivered(extensions: tuple[str, ...]):
    async def body() -> None:
        host = await Host(extensions=extensions).start()
        async with Bed() as bed:
            done = await bed.submit(host.next_hop, b"A: b\r\n\r\n.dot\r\n..\r\nend", ("a@x.test", "b@x.test"))
        (outcome, other) = done.outcomes
        assert (outcome.result, outcome.stage, outcome.code, outcome.status) == (Result.DELIVERED, "body", 250, "2.0.0")
        assert outcome.text == "250 2.0.0 queued"
        assert outcome.host == f"127.0.0.1[127.0.0.1]:{host.port}"
        assert (outcome.recipient, other.recipient) == (0, 1)
        assert done.trouble is NextHopTrouble.NONE and not done.reused
        assert host.messages == [("s@example.org", ["a@x.test", "b@x.test"], b"A: b\r\n\r\n.dot\r\n..\r\nend\r\n")]

    run(body())


def test_lmtp_mixed_replies():
    def rule(step: str, line: str) -> bytes | None:
        if step == "RCPT" and "gone" in line:
            return b"550 5.1.1 gone"
        if step == "END" and "full" in line:
            return b"452 4.2.2 over quota"
        return None

    async def body() -> None:
        host = await Host(rule, lmtp=True).start()
        async with Bed() as bed:
            done = await bed.submit(host.next_hop, recipients=("a@x.test", "gone@x.test", "full@x.test", "b@x.test"))
        found = [(outcome.recipient, outcome.result, outcome.stage, outcome.status) for outcome in done.outcomes]
        assert sorted(found) == [
            (0, Result.DELIVERED, "body", "2.0.0"),
            (1, Result.FAILED, "rcpt", "5.1.1"),
            (2, Result.DEFERRED, "body", "4.2.2"),
            (3, Result.DELIVERED, "body", "2.0.0"),
        ]
        assert host.log[0] == "LHLO gate.test"

    run(body())


@pytest.mark.parametrize("extensions", [EXTENSIONS, PLAIN])
@pytest.mark.parametrize(
    ("step", "reply", "result", "stage", "status", "trouble"),
    [
        ("CONNECT", b"554 5.7.1 not you", Result.DEFERRED, "greeting", "4.7.1", NextHopTrouble.DOWN),
        ("CONNECT", b"521 never", Result.FAILED, "greeting", "5.3.2", NextHopTrouble.NONE),
        ("CONNECT", b"421 4.3.2 busy", Result.DEFERRED, "greeting", "4.3.2", NextHopTrouble.BUSY),
        ("EHLO", b"450 4.7.1 who", Result.DEFERRED, "helo", "4.7.1", NextHopTrouble.BUSY),
        ("MAIL", b"550 5.7.1 no", Result.FAILED, "mail", "5.7.1", NextHopTrouble.NONE),
        ("MAIL", b"451 later", Result.DEFERRED, "mail", "4.3.0", NextHopTrouble.NONE),
        ("MAIL", b"421 4.7.0 slow down", Result.DEFERRED, "mail", "4.7.0", NextHopTrouble.BUSY),
        ("RCPT", b"550 5.1.1 no", Result.FAILED, "rcpt", "5.1.1", NextHopTrouble.NONE),
        ("RCPT", b"450 4.2.0 grey", Result.DEFERRED, "rcpt", "4.2.0", NextHopTrouble.NONE),
        ("RCPT", b"552 5.5.3 many", Result.DEFERRED, "rcpt", "4.5.3", NextHopTrouble.NONE),
        ("DATA", b"554 5.7.1 no", Result.FAILED, "data", "5.7.1", NextHopTrouble.NONE),
        ("DATA", b"451 4.3.0 later", Result.DEFERRED, "data", "4.3.0", NextHopTrouble.NONE),
        ("END", b"554 5.7.1 spam", Result.FAILED, "body", "5.7.1", NextHopTrouble.NONE),
        ("END", b"452 4.3.1 disk", Result.DEFERRED, "body", "4.3.1", NextHopTrouble.NONE),
        ("END", b"421 4.3.2 stop", Result.DEFERRED, "body", "4.3.2", NextHopTrouble.BUSY),
        ("CONNECT", DROP, Result.DEFERRED, "greeting", "4.4.2", NextHopTrouble.DOWN),
        ("EHLO", DROP, Result.DEFERRED, "helo", "4.4.2", NextHopTrouble.DOWN),
        ("MAIL", DROP, Result.DEFERRED, "mail", "4.4.2", NextHopTrouble.DOWN),
        ("RCPT", DROP, Result.DEFERRED, "rcpt", "4.4.2", NextHopTrouble.DOWN),
        ("DATA", DROP, Result.DEFERRED, "data", "4.4.2", NextHopTrouble.DOWN),
        ("END", DROP, Result.DEFERRED, "body", "4.4.2", NextHopTrouble.BUSY),
    ],
)
def test_refused_or_dropped_at_each_step(extensions, step, reply, result, stage, status, trouble):
    async def body() -> None:
        host = await Host(always(step, reply), extensions=extensions).start()
        async with Bed() as bed:
            done = await bed.submit(host.next_hop)
            (outcome,) = done.outcomes
            assert (outcome.result, outcome.stage, outcome.status) == (result, stage, status)
            assert done.trouble is trouble
            if not reply.startswith(b"("):
                assert outcome.code == int(reply[:3]) and outcome.text == reply.decode()
            host.rule = None
            assert (await bed.submit(host.next_hop)).outcomes[0].result is Result.DELIVERED
        assert len(host.messages) == 1

    run(body())


@pytest.mark.parametrize(
    ("step", "limit"),
    [
        ("CONNECT", "greeting_timeout_s"),
        *((step, "command_timeout_s") for step in ("EHLO", "MAIL", "RCPT", "DATA")),
        ("END", "data_end_timeout_s"),
    ],
)
def test_silent_at_each_step(step: str, limit: str):
    async def body() -> None:
        host = await Host(always(step, SILENT), extensions=PLAIN).start()
        async with Bed(**{limit: 1.0}) as bed:  # the other steps have all the time they need
            done = await bed.submit(host.next_hop)
        (outcome,) = done.outcomes
        assert outcome.result is Result.DEFERRED and outcome.status == "4.4.2" and "1 s" in outcome.text
        assert ("may have been delivered" in outcome.text) == (step == "END")

    run(body())


def test_large_content_octet_for_octet():
    async def body() -> None:
        host = await Host().start()
        content = b"Subject: large\r\n\r\n" + (b".line " + os.urandom(40).hex().encode() + b"\r\n") * 12_000
        async with Bed() as bed:
            done = await bed.submit(host.next_hop, content)
        assert len(content) > 1_000_000
        assert done.outcomes[0].result is Result.DELIVERED
        assert host.messages[0][2] == content

    run(body())


def test_kept_connection_is_reused_and_ends_after_its_messages():
    async def body() -> None:
        host = await Host().start()
        async with Bed(max_messages_per_connection=4) as bed:
            reused = [(await bed.submit(host.next_hop)).reused for _ in range(10)]
            assert reused == [False, True, True, True, False, True, True, True, False, True]
            await bed.engine.drain()
        assert host.connections == 3
        assert host.log.count("QUIT") == 3
        names = [name for name, _ in bed.events]
        assert names.count("connect_out") == names.count("disconnect_out") == 3
        assert bed.events[0][1]["host"] == f"127.0.0.1[127.0.0.1]:{host.port}"

    run(body())


def test_idle_connection_ends_after_its_time():
    async def body() -> None:
        host = await Host().start()
        async with Bed(keep_idle_s=0.05) as bed:
            await bed.submit(host.next_hop)
            await host.until(lambda: not host.sessions)
            assert host.log[-1] == "QUIT"
            assert bed.engine.stats()["idle"] == 0

    run(body())


def test_idle_connection_closed_by_the_host_is_noticed():
    async def body() -> None:
        host = await Host().start()
        async with Bed() as bed:
            await bed.submit(host.next_hop)
            host.sessions[0].transport.close()
            await bed.until_event("disconnect_out")
            assert bed.engine.stats()["connections"] == 0
            done = await bed.submit(host.next_hop)
            assert done.outcomes[0].result is Result.DELIVERED and not done.reused

    run(body())


@pytest.mark.parametrize("reply", [DROP, b"421 4.4.2 idle too long"])
def test_stale_connection_is_retried_once_on_a_fresh_one(reply: bytes):
    async def body() -> None:
        host = await Host().start()
        async with Bed() as bed:
            await bed.submit(host.next_hop)
            host.rule = once("MAIL", reply)
            done = await bed.submit(host.next_hop)
            assert done.outcomes[0].result is Result.DELIVERED and done.trouble is NextHopTrouble.NONE
            assert host.connections == 2
            host.rule = always("MAIL", reply)
            done = await bed.submit(host.next_hop)
            assert done.outcomes[0].result is Result.DEFERRED
            assert host.connections == 3

    run(body())


def test_a_kept_connection_that_nothing_went_over_may_be_stale_too():
    """It was opened for a message that another one took meanwhile; the host had enough of it before the next one came."""

    async def body() -> None:
        greeted: list[str] = []

        def rule(step: str, line: str) -> bytes | None:
            if step == "CONNECT":
                greeted.append(line)
            return SILENT if step == "CONNECT" and len(greeted) == 2 else None

        host = await Host(rule).start()
        async with Bed() as bed:
            await asyncio.gather(*(bed.submit(host.next_hop) for _ in range(2)))
            await host.until(lambda: len(host.sessions) == 2)
            late = host.sessions[1].transport
            late.resume_reading()
            late.write(b"220 host.test ESMTP\r\n")
            while [name for name, _ in bed.events].count("connect_out") < 2:
                bed.changed.clear()
                await bed.changed.wait()
            assert len(host.messages) == 2 and bed.engine.stats()["idle"] == 2
            host.rule = once("MAIL", DROP)
            done = await bed.submit(host.next_hop)
            assert done.outcomes[0].result is Result.DELIVERED and done.trouble is NextHopTrouble.NONE
            assert host.connections == 3

    run(body())


def test_connection_limit_is_respected_and_follows_the_queue():
    async def body() -> None:
        host = await Host().start()
        async with Bed() as bed:
            waiters = [bed.submit(host.next_hop, limit=3) for _ in range(40)]
            dones = await asyncio.gather(*waiters)
            assert all(done.outcomes[0].result is Result.DELIVERED for done in dones)
            assert host.most_open == 3
            waiters = [bed.submit(host.next_hop, limit=1) for _ in range(20)]
            await asyncio.gather(*waiters)
            await host.until(lambda: len(host.sessions) == 1)
        assert len(host.messages) == 60

    run(body())


def test_cross_transaction_pipelining():
    async def body() -> None:
        host = await Host().start()
        async with Bed() as bed:
            waiters = [bed.submit(host.next_hop, f"n: {n}\r\n\r\n".encode(), limit=1) for n in range(10)]
            await asyncio.gather(*waiters)
        assert [content for _, _, content in host.messages] == [f"n: {n}\r\n\r\n".encode() for n in range(10)]
        assert sum(b"\r\n.\r\nMAIL FROM" in chunk for chunk in host.chunks) == 9
        assert host.connections == 1

    run(body())


@pytest.mark.parametrize("extensions", [EXTENSIONS, PLAIN])
@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", "END"])
@pytest.mark.parametrize("reply", [b"550 5.0.0 no", b"450 4.0.0 later", DROP])
def test_one_bad_message_in_a_stream_spoils_no_other(extensions: tuple[str, ...], step: str, reply: bytes):
    async def body() -> None:
        host = await Host(extensions=extensions).start()
        seen: list[str] = []

        def rule(asked: str, line: str) -> bytes | None:
            if asked == step:
                seen.append(line)
                if len(seen) == 3:
                    return reply
            return None

        host.rule = rule
        async with Bed() as bed:
            waiters = [bed.submit(host.next_hop, f"n: {n}\r\n\r\n".encode(), limit=1) for n in range(8)]
            dones = await asyncio.gather(*waiters)
        delivered = [n for n, done in enumerate(dones) if done.outcomes[0].result is Result.DELIVERED]
        taken = [int(content[3:4]) for _, _, content in host.messages]
        if reply == DROP and step == "MAIL":
            assert delivered == list(range(8))  # stale: tried again
        else:
            assert delivered == [0, 1, 3, 4, 5, 6, 7]
        assert sorted(taken) == delivered

    run(body())


def test_recipients_are_split_over_transactions():
    async def body() -> None:
        host = await Host().start()
        async with Bed(max_recipients_per_transaction=4) as bed:
            done = await bed.submit(host.next_hop, recipients=tuple(f"r{n}@x.test" for n in range(10)), limit=1)
        assert sorted(outcome.recipient for outcome in done.outcomes) == list(range(10))
        assert [len(recipients) for _, recipients, _ in host.messages] == [4, 4, 2]

    run(body())


@pytest.mark.parametrize("reply", [b"452 4.5.3 too many", b"552 too many"])
def test_too_many_recipients_go_in_another_transaction(reply: bytes):
    async def body() -> None:
        host = Host()
        host.rule = lambda step, line: reply if step == "RCPT" and len(host.sessions[0].accepted) >= 3 else None
        await host.start()
        async with Bed() as bed:
            done = await bed.submit(host.next_hop, recipients=tuple(f"r{n}@x.test" for n in range(8)), limit=1)
        assert all(outcome.result is Result.DELIVERED for outcome in done.outcomes)
        assert sorted(outcome.recipient for outcome in done.outcomes) == list(range(8))
        assert [len(recipients) for _, recipients, _ in host.messages] == [3, 3, 2]

    run(body())


def test_refused_connections_beside_living_ones_fail_nothing():
    async def body() -> None:
        host = Host()
        host.rule = lambda step, line: b"421 4.7.0 enough" if step == "CONNECT" and len(host.sessions) > 1 else None
        await host.start()
        async with Bed() as bed:
            waiters = [bed.submit(host.next_hop, limit=5) for _ in range(20)]
            dones = await asyncio.gather(*waiters)
        assert all(done.outcomes[0].result is Result.DELIVERED for done in dones)
        assert max(done.trouble for done in dones) is NextHopTrouble.BUSY

    run(body())


def test_a_mistake_of_ours_while_connecting_defers_and_is_told(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    async def body() -> None:
        host = await Host().start()
        async with Bed() as bed:
            with monkeypatch.context() as patched:
                patched.setattr(pool, "plan", fail)
                done = await bed.submit(host.next_hop, b"A: b\r\n\r\n")
            again = await bed.submit(host.next_hop, b"A: b\r\n\r\n")
        (outcome,) = done.outcomes
        assert (outcome.result, outcome.status, outcome.text) == (Result.DEFERRED, "4.5.0", "internal error")
        assert again.outcomes[0].result is Result.DELIVERED  # no slot and no opening was lost by it

    run(body())


def test_content_that_cannot_be_read_defers_and_does_not_arrive():
    async def body() -> None:
        host = await Host().start()
        async with Bed() as bed:
            waiter = bed.submit(host.next_hop)
            bed.broken_sources.add(1)
            done = await waiter
        assert (done.outcomes[0].result, done.outcomes[0].status) == (Result.DEFERRED, "4.3.0")
        assert done.trouble is NextHopTrouble.NONE
        assert host.messages == []

    run(body())


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"has_8bit": True}, "5.6.3"),
        ({"smtputf8": True}, "5.6.7"),
        ({"body_type": "BINARYMIME"}, "5.6.1"),
    ],
)
def test_what_the_host_cannot_take_fails(fields: dict, status: str):
    async def body() -> None:
        host = await Host(extensions=("PIPELINING",)).start()
        async with Bed() as bed:
            done = await bed.submit(host.next_hop, **fields)
            assert (done.outcomes[0].result, done.outcomes[0].status) == (Result.FAILED, status)
            assert (await bed.submit(host.next_hop)).outcomes[0].result is Result.DELIVERED
        assert host.connections == 1

    run(body())


def test_max_connections_in_all():
    async def body() -> None:
        hosts = [await Host().start() for _ in range(4)]
        async with Bed(max_connections=2) as bed:
            waiters = [bed.submit(host.next_hop, limit=5) for _ in range(6) for host in hosts]
            dones = await asyncio.gather(*waiters)
            assert all(done.outcomes[0].result is Result.DELIVERED for done in dones)
            assert bed.engine.stats()["connections"] <= 2
        for host in hosts:
            assert len(host.messages) == 6

    run(body())


def test_drain_waits_for_what_is_under_way():
    async def body() -> None:
        host = await Host().start()
        async with Bed() as bed:
            waiters = [bed.submit(host.next_hop, limit=2) for _ in range(10)]
            await bed.engine.drain()
            assert all(waiter.done() for waiter in waiters)
            await host.until(lambda: not host.sessions)
            late = await bed.submit(host.next_hop)
            assert late.outcomes[0].result is Result.DEFERRED
        assert len(host.messages) == 10

    run(body())


@pytest.mark.parametrize("step", ["CONNECT", "MAIL", "END"])
def test_close_leaves_nobody_without_an_outcome(step: str):
    async def body() -> None:
        host = await Host(always(step, SILENT)).start()
        async with Bed() as bed:
            waiters = [bed.submit(host.next_hop, limit=2) for _ in range(5)]
            await host.until(lambda: bool(host.log) or (step == "CONNECT" and bool(host.sessions)))
            bed.engine.close()
            dones = await asyncio.gather(*waiters)
            assert {done.outcomes[0].result for done in dones} == {Result.DEFERRED}
            assert bed.engine.stats()["connections"] == 0

    run(body())


def test_pools_are_forgotten():
    async def body() -> None:
        host = await Host().start()
        async with Bed(keep_idle_s=0.02) as bed:
            await bed.submit(host.next_hop)
            await host.until(lambda: not host.sessions)
            while bed.engine.stats()["next_hops"]:
                await asyncio.sleep(0)

    run(body())


@pytest.mark.parametrize("seed", range(6))
def test_hosts_that_fail_at_random_lose_and_invent_nothing(seed: int):
    rng = random.Random(seed)
    answers = [DROP, b"421 4.3.2 bye", b"451 4.3.0 later", b"550 5.7.1 no", b"rubbish", b"250 2.0.0 odd"]

    def rule(step: str, line: str) -> bytes | None:
        return rng.choice(answers) if rng.random() < 0.08 else None

    async def body() -> None:
        hosts = [
            await Host(rule, extensions=extensions, lmtp=lmtp).start()
            for extensions, lmtp in ((EXTENSIONS, False), (PLAIN, False), (EXTENSIONS, True))
        ]
        hops = [f"{hosts[0].next_hop},{hosts[1].next_hop}", hosts[1].next_hop, hosts[2].next_hop]
        people = [("a@x.test",), ("a@x.test", "b@x.test", "c@x.test")]
        async with Bed(max_recipients_per_transaction=2, max_connections=6, **QUICK) as bed:
            waiters = [
                bed.submit(rng.choice(hops), f"n: {n}\r\n\r\n".encode(), rng.choice(people), limit=rng.randint(1, 4))
                for n in range(200)
            ]
            dones = await asyncio.gather(*waiters)
            assert bed.engine.stats()["attempts"] == bed.engine.stats()["waiting"] == 0
        taken = {(int(text[3:-4]), rcpt) for host in hosts for _, rcpts, text in host.messages for rcpt in rcpts}
        for n, done in enumerate(dones):
            recipients = [outcome.recipient for outcome in done.outcomes]
            assert sorted(recipients) == list(range(len(recipients)))
            for outcome in done.outcomes:
                arrived = (n, "abc"[outcome.recipient] + "@x.test") in taken
                assert arrived or outcome.result is not Result.DELIVERED

    run(body())
