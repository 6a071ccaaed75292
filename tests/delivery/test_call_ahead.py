"""Asking a next hop for recipients: what is asked, what an answer means, and the limits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from delivery.scripted_host import DROP, SILENT, Bed, Host, run

from gatepost.config.callahead import OWN, place_to_ask
from gatepost.config.schema import CallAhead, Config, Domain, Pool, PoolMember
from gatepost.delivery.callahead import DEFERRED, KNOWN, UNKNOWN, CallAheads, forward_path
from gatepost.ipc.messages import Attempt, AttemptDone

REPLIES = {
    "anna": b"250 2.1.5 Ok",
    "nobody": b"550 5.1.1 No such user",
    "plain": b"550 who?",
    "off": b"550 5.2.1 Disabled",
    "late": b"450 4.2.0 Greylisted",
    "full": b"552 5.2.2 Full",
    "barred": b"550 5.7.1 Relaying denied",
    "auth": b"530 5.7.0 Authenticate",
    "odd": b"503 5.5.1 What?",
}


class Desk:
    """CallAheads over a delivery engine and one scripted host."""

    def __init__(self, bed: Bed, next_hop: str, **settings: Any) -> None:
        domain = Domain(next_hop=[next_hop], recipients=[OWN])
        config = Config(
            hostname="gate.test", listen=[], spool="/x", domains={"x.test": domain, "y.test": domain},
            call_ahead=CallAhead(**{"check_s": 0.0, "timeout_s": 60.0, **settings}),
        )  # fmt: skip
        loop = asyncio.get_running_loop()
        bed.engine._done = self._done  # type: ignore[assignment]
        self.calls = CallAheads(
            config, submit=bed.engine.probe, call_later=loop.call_later, event=bed.note_event, clock=loop.time
        )

    def _done(self, message: AttemptDone) -> None:
        self.calls.done(message)

    async def ask(self, local: str, domain: str = "x.test", table: str = OWN) -> tuple[str, str, bool]:
        future: asyncio.Future[tuple[str, str, bool]] = asyncio.get_running_loop().create_future()
        self.calls.ask(table, f"{local}@{domain}", lambda *answer: future.set_result(answer))
        return await future


def rule(step: str, line: str) -> bytes | None:
    return REPLIES.get(line.partition("<")[2].partition("@")[0], b"550 5.1.1 No") if step == "RCPT" else None


def test_what_an_answer_means() -> None:
    async def go() -> None:
        host = await Host(rule).start()
        async with Bed() as bed:
            desk = Desk(bed, host.next_hop)
            found = {local: (await desk.ask(local))[0] for local in REPLIES}
            assert found == {
                "anna": KNOWN, "nobody": UNKNOWN, "plain": UNKNOWN, "off": UNKNOWN, "late": DEFERRED, "full": DEFERRED,
                "barred": DEFERRED, "auth": DEFERRED, "odd": DEFERRED,
            }  # fmt: skip
            assert not [line for line in host.log if line.startswith(("DATA", "BDAT"))] and not host.messages
            assert [line for line in host.log if line.startswith("MAIL")] == ["MAIL FROM:<>"] * len(REPLIES)
            assert host.log.count("RSET") >= len(REPLIES) - 1 and host.connections <= 2
            assert desk.calls.counts["call_aheads_deferred"] == 5

    run(go())


@pytest.mark.parametrize("extensions", [(), ("PIPELINING", "SIZE 1000", "SMTPUTF8")])
@pytest.mark.parametrize("lmtp", [False, True])
def test_hosts_of_all_kinds(extensions: tuple[str, ...], lmtp: bool) -> None:
    async def go() -> None:
        host = await Host(rule, extensions=extensions, lmtp=lmtp).start()
        async with Bed() as bed:
            desk = Desk(bed, host.next_hop)
            assert [(await desk.ask(local))[0] for local in ("anna", "nobody", "anna")] == [KNOWN, UNKNOWN, KNOWN]
            assert not host.messages

    run(go())


@pytest.mark.parametrize("step", ["CONNECT", "MAIL"])
@pytest.mark.parametrize("reply", [b"554 5.7.1 go away", b"421 4.3.2 busy", DROP])
def test_a_refusal_that_is_not_at_rcpt_defers(step: str, reply: bytes) -> None:
    async def go() -> None:
        host = await Host(lambda at, line: reply if at == step else None).start()
        async with Bed() as bed:
            desk = Desk(bed, host.next_hop, retry_s=100.0)
            assert (await desk.ask("anna"))[0] == DEFERRED
            connections = host.connections
            assert (await desk.ask("bob"))[0] == DEFERRED and host.connections == connections
            assert [name for name, _ in bed.events].count("call_ahead_down") == 1

    run(go())


def test_one_question_finds_out_whether_it_is_back() -> None:
    async def go() -> None:
        replies: dict[str, bytes | None] = {"CONNECT": b"421 busy"}
        host = await Host(lambda step, line: replies.get(step)).start()
        async with Bed() as bed:
            desk = Desk(bed, host.next_hop, retry_s=0.01)
            assert (await desk.ask("anna"))[0] == DEFERRED
            replies.clear()
            while (await desk.ask("anna"))[0] == DEFERRED:
                await asyncio.sleep(0.005)
            assert (await desk.ask("bob"))[0] == KNOWN

    run(go())


def test_a_host_that_is_silent_is_not_waited_for_and_questions_are_bounded() -> None:
    async def go() -> None:
        host = await Host(lambda step, line: SILENT if step == "RCPT" else None).start()
        async with Bed() as bed:
            desk = Desk(bed, host.next_hop, timeout_s=0.2, max_waiting=3, max_connections=2, retry_s=100.0)
            answers = await asyncio.gather(*(desk.ask(f"u{number}") for number in range(5)))
            assert [status for status, _, _ in answers] == [DEFERRED] * 5
            texts = [text for _, text, _ in answers]
            assert sum("too many" in text for text in texts) == 2 and sum("no answer" in text for text in texts) == 3
            assert host.most_open <= 2

    run(go())


@pytest.mark.parametrize(("answer", "takes_all"), [(b"250 ok", True), (b"550 5.1.1 no", False), (b"450 later", False)])
def test_a_host_that_takes_everything_is_noticed(answer: bytes, takes_all: bool) -> None:
    async def go() -> None:
        def takes(step: str, line: str) -> bytes | None:
            return answer if step == "RCPT" and "gatepost-probe-" in line else None

        host = await Host(takes).start()
        async with Bed() as bed:
            desk = Desk(bed, host.next_hop, check_s=1000.0)
            assert (await desk.ask("anna"))[::2] == (KNOWN, takes_all)
            assert (await desk.ask("bob"))[::2] == (KNOWN, takes_all)
            probes = [line for line in host.log if "gatepost-probe-" in line]
            assert len(probes) == 1 and probes[0].endswith("@x.test>")
            assert ("call_ahead_takes_all" in [name for name, _ in bed.events]) is takes_all
            assert len(desk.calls.taking_all()) == takes_all

    run(go())


def test_nobody_else_is_asked() -> None:
    submitted: list[Attempt] = []
    domain = Domain(next_hop=["smtp://10.0.0.5:25"], recipients=[OWN])
    config = Config(hostname="g", listen=[], spool="/x", domains={"x.test": domain, "n.test": Domain(next_hop=["mx"])})
    calls = CallAheads(
        config, submit=submitted.append, call_later=lambda s, call: None, event=lambda name, **fields: None
    )
    answers: list[tuple[str, str, bool]] = []
    for table, address in (
        (OWN, "anna@world.example"),
        (OWN, "anna@n.test"),
        ("call-ahead:smtp://192.0.2.1:25", "anna@x.test"),
        (OWN, "anna\r\nQUIT@x.test"),
        (OWN, "anna@x.test\r\nQUIT"),
        (OWN, "@x.test"),
    ):
        calls.ask(table, address, lambda *answer: answers.append(answer))
    assert [status for status, _, _ in answers] == [DEFERRED] * 6 and not submitted


def test_who_is_asked() -> None:
    named = "call-ahead:smtp://10.0.0.9:25"
    members = [PoolMember(next_hop="smtp://10.0.0.2:25", priority=1), PoolMember(next_hop="smtp://10.0.0.1:25")]
    config = Config(
        hostname="g", listen=[], spool="/x", pools={"p": Pool(members=members)},
        domains={
            "x.test": Domain(next_hop=["hold:smtp://10.0.0.5:25"], recipients=[OWN, named]),
            "mx.test": Domain(next_hop=["mx"], recipients=[OWN]),
            ".below.test": Domain(next_hop=["mx"], recipients=[OWN]),
            "pool.test": Domain(next_hop=["pool:p"], recipients=[OWN]),
        },
    )  # fmt: skip
    assert place_to_ask(config, OWN, "x.test") == "smtp://10.0.0.5:25"
    assert place_to_ask(config, named, "x.test") == "smtp://10.0.0.9:25"
    assert place_to_ask(config, named, "mx.test") == ""
    assert place_to_ask(config, OWN, "mx.test") == "mx:mx.test"
    assert place_to_ask(config, OWN, "a.below.test") == "mx:a.below.test"
    assert place_to_ask(config, OWN, "pool.test") == "smtp://10.0.0.1:25,smtp://10.0.0.2:25"


@pytest.mark.parametrize(
    ("local", "path"),
    [("anna", "anna@x.test"), ("a b", '"a b"@x.test'), ('a"\\', '"a\\"\\\\"@x.test'), (".a", '".a"@x.test'), ("zoë", "zoë@x.test"),
     ("a\nb", ""), ("a\x00", ""), ("", ""), ("x" * 65, ""), ("a\u2028b", "")],
)  # fmt: skip
def test_how_a_local_part_is_written(local: str, path: str) -> None:
    assert forward_path(local, "x.test") == path
