"""The stub resolver against a real server on loopback, on asyncio's loop and on uvloop: answers, cache, TCP, aliases."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import pytest
import uvloop

from gatepost.config.schema import Dns
from gatepost.ipc.messages import LookupDone
from gatepost.net import dnstransport

sys.path.insert(0, str(Path(__file__).parent))
from dns_authority import IN_ZONE, PATIENT, DnsAuthority, ask, loop_runner, make_resolver, reply_to


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    with loop_runner(request.param) as run:
        yield run


@pytest.mark.parametrize(
    ("kind", "name", "status", "records", "ttl_s"),
    [
        ("MX", "Example.TEST.", "ok", ["10 mx1.example.test", "20 mx2.example.test"], 300),
        ("A", "mx1.example.test", "ok", ["192.0.2.1", "192.0.2.2"], 200),
        ("AAAA", "www.example.test", "ok", ["2001:db8::1"], 50),
        ("MX", "null.example.test", "ok", ["0 ."], 300),
        ("TXT", "spf.example.test", "ok", ["v=spf1 -all"], 300),
        (
            "TLSA",
            "_25._tcp.mx1.example.test",
            "ok",
            ["3 1 1 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"],
            300,
        ),
        ("CNAME", "www.example.test", "ok", ["web.example.test"], 50),
        ("SOA", "example.test", "ok", ["ns.example.test hostmaster.example.test 1 2 3 4 60"], 300),
        ("MX", "mx1.example.test", "nodata", [], 60),
        ("MX", "www.example.test", "nodata", [], 50),
        ("A", "nothing.example.test", "nxdomain", [], 60),
        ("A", "loop1.example.test", "tempfail", [], 5),
    ],
)
def test_answers_of_a_zone(run, kind, name, status, records, ttl_s):
    done, _ = run(ask(IN_ZONE, kind, name))
    assert (done.status, sorted(done.records), done.ttl_s, done.secure) == (status, records, ttl_s, False)


def test_address_as_ptr_name(run):
    done, server = run(ask(lambda query, _: reply_to(query, rcode=dns.rcode.NXDOMAIN), "PTR", "192.0.2.77"))
    assert done.status == "nxdomain"
    assert server.seen == [("udp", "77.2.0.192.in-addr.arpa", "PTR")]


@pytest.mark.parametrize(
    ("kind", "name", "status"),
    [
        ("A", "a" * 64 + ".test", "nxdomain"),
        ("A", "exa mple.test", "nxdomain"),
        ("MX", "", "nxdomain"),
        ("MX", "münchen.test", "nxdomain"),
        ("MX", "x\x00.test", "nxdomain"),
        ("A", "x.invalid", "nxdomain"),
        ("A", "LocalHost", "ok"),
        ("AAAA", "2001:db8::1", "ok"),
        ("HINFO", "example.test", "tempfail"),
    ],
)
def test_no_query_for_these(run, kind, name, status):
    async def go() -> None:
        done, server = await ask(IN_ZONE, kind, name)
        assert done.status == status
        assert server.seen == []

    run(go())


def test_cache_answers_again_and_at_once(run):
    async def go() -> None:
        async with DnsAuthority(IN_ZONE) as server:
            resolver = make_resolver(server)
            assert resolver.cached("MX", "example.test") is None
            for name in ("example.test", "EXAMPLE.test", "example.test."):
                assert (await resolver.query("MX", name)).status == "ok"
            assert resolver.cached("MX", "example.test").records == (await resolver.query("MX", "example.test")).records
            assert (await resolver.query("A", "no.example.test")).status == "nxdomain"
            assert resolver.cached("A", "no.example.test").status == "nxdomain"
            assert len(server.seen) == 2
            resolver.close()

    run(go())


def test_identical_questions_are_asked_once_and_answered_apart(run):
    async def go() -> None:
        async with DnsAuthority(IN_ZONE) as server:
            server.hold = True
            resolver = make_resolver(server)
            tasks = [asyncio.create_task(resolver.query("A", "mx1.example.test")) for _ in range(5)]
            await server.arrived.wait()
            tasks[0].cancel()
            server.release()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(answers[0], asyncio.CancelledError)
            assert [done.status for done in answers[1:]] == ["ok"] * 4
            assert len({id(done) for done in answers}) == 5
            assert len(server.seen) == 1
            assert resolver.counters.coalesced == 4
            resolver.close()

    run(go())


def test_outstanding_questions_are_limited(run):
    async def go() -> None:
        async with DnsAuthority(IN_ZONE) as server:
            server.hold = True
            resolver = make_resolver(server, max_outstanding=2)
            tasks = [asyncio.create_task(resolver.query("A", f"n{index}.example.test")) for index in range(2)]
            while len(server.held) < 2:
                server.arrived.clear()
                await server.arrived.wait()
            done = await resolver.query("A", "n3.example.test")
            assert (done.status, "outstanding" in done.reason) == ("tempfail", True)
            server.release()
            assert [done.status for done in await asyncio.gather(*tasks)] == ["nxdomain"] * 2
            server.hold = False
            assert (await resolver.query("A", "n3.example.test")).status == "nxdomain"
            resolver.close()

    run(go())


# --- TCP ------------------------------------------------------------------------------------------------------------


def test_truncated_answer_is_fetched_over_tcp(run):
    text = "".join(f'"{index:03}{"x" * 240}" ' for index in range(100))

    def handler(query, transport):
        return reply_to(query, records=[f"big.example.test. 60 IN TXT {text}"])

    done, server = run(ask(handler, "TXT", "big.example.test"))
    assert done.records == [text.replace('"', "").replace(" ", "")]
    assert [seen[0] for seen in server.seen] == ["udp", "tcp"]


def test_datagram_larger_than_asked_for_is_fetched_over_tcp(run):
    text = " ".join(["x" * 250] * 20)
    done, server = run(
        ask(
            lambda query, _: reply_to(query, records=[f"b.test. 60 IN TXT {text}"]).to_wire(max_size=65535),
            "TXT",
            "b.test",
        )
    )
    assert done.records == [text.replace(" ", "")]
    assert [seen[0] for seen in server.seen] == ["udp", "tcp"]


@pytest.mark.parametrize("tcp_answer", [[], [b"\x00" * 40], b"\x00"])
def test_tcp_that_fails_is_tempfail(run, tcp_answer):
    def handler(query, transport):
        if transport == "tcp":
            return tcp_answer
        response = dns.message.make_response(query)
        response.flags |= dns.flags.TC
        return response.to_wire()

    done, _ = run(ask(handler, "A", "x.test", Dns(timeout_s=0.3) if tcp_answer == [] else PATIENT))
    assert done.status == "tempfail"
    assert done.reason


# --- AD and aliases -------------------------------------------------------------------------------------------------


def with_ad(query, _):
    response = IN_ZONE(query, "udp")
    response.flags |= dns.flags.AD
    return response


def test_ad_flag_of_loopback_is_believed_and_asked_for(run):
    done, server = run(ask(with_ad, "MX", "example.test"))
    assert (done.status, done.secure) == ("ok", True)
    assert server.queries[0].flags & dns.flags.AD


def test_ad_flag_is_not_believed_when_not_trusted(run):
    async def go() -> None:
        async with DnsAuthority(with_ad) as server:
            for config in (Dns(trust_ad="never"), Dns()):
                others = ["192.0.2.53:53"] if config.trust_ad == "auto" else []
                resolver = make_resolver(server, *others, config=config)
                assert (await resolver.query("MX", "example.test")).secure is False
                resolver.close()

    run(go())


@pytest.mark.parametrize("second_is_secure", [True, False])
def test_chain_that_ends_outside_is_asked_for(run, second_is_secure):
    def handler(query, _):
        if query.question[0].name.to_text() == "elsewhere.other.test.":
            response = reply_to(query, records=["elsewhere.other.test. 20 IN A 192.0.2.5"])
            response.flags |= dns.flags.AD if second_is_secure else 0
            return response
        return with_ad(query, _)

    done, server = run(ask(handler, "A", "out.example.test"))
    assert (done.status, done.records, done.ttl_s) == ("ok", ["192.0.2.5"], 20)
    assert done.secure is second_is_secure
    assert [seen[1] for seen in server.seen] == ["out.example.test", "elsewhere.other.test"]


def one_link(query, _):
    """Each answer is one alias further: n0 -> n1 -> n2 ..., one query each."""
    name = query.question[0].name.to_text()
    number = int(name[1 : name.index(".")])
    if number == 8:
        return reply_to(query, records=[f"{name} 60 IN A 192.0.2.8"])
    return reply_to(query, records=[f"{name} 60 IN CNAME n{number + 1}.test."])


def test_long_chains_over_many_queries_end(run):
    done, server = run(ask(one_link, "A", "n0.test"))
    assert (done.status, done.records, len(server.seen)) == ("ok", ["192.0.2.8"], 9)
    done, server = run(ask(one_link, "A", "n9.test"))
    assert (done.status, len(server.seen)) == ("tempfail", 9)
    assert "CNAME" in done.reason


def test_loop_over_two_queries_ends(run):
    def handler(query, _):
        here, there = ("a", "b") if query.question[0].name.to_text() == "a.test." else ("b", "a")
        return reply_to(query, records=[f"{here}.test. 60 IN CNAME {there}.test."])

    done, _ = run(ask(handler, "A", "a.test"))
    assert done.status == "tempfail"


def test_alias_to_a_known_name_needs_no_query(run):
    def handler(query, _):
        return reply_to(query, records=[f"{query.question[0].name} 60 IN CNAME nothing.invalid."])

    done, server = run(ask(handler, "A", "a.test"))
    assert (done.status, len(server.seen)) == ("nxdomain", 1)


# --- the end --------------------------------------------------------------------------------------------------------


def test_close_answers_what_is_outstanding(run):
    async def go() -> None:
        async with DnsAuthority(lambda query, _: None) as server:
            resolver = make_resolver(server)
            task = asyncio.create_task(resolver.query("A", "x.test"))
            await server.arrived.wait()
            resolver.close()
            assert (await task).status == "tempfail"
            assert (await resolver.query("A", "y.test")).status == "tempfail"
            resolver.close()

    run(go())


def test_submit_needs_no_task(run):
    async def go() -> None:
        async with DnsAuthority(IN_ZONE) as server:
            resolver = make_resolver(server)
            got: asyncio.Queue[LookupDone] = asyncio.Queue()
            resolver.submit("A", "mx1.example.test", got.put_nowait)
            assert (await got.get()).status == "ok"
            resolver.submit("A", "mx1.example.test", got.put_nowait)
            assert got.get_nowait().status == "ok"
            resolver.close()

    run(go())


def test_a_resolver_needs_servers_that_are_addresses(run):
    async def go() -> None:
        for servers in ([], ["dns.example:53"]):
            with pytest.raises(ValueError, match="DNS server"):
                make_resolver(*servers)

    run(go())


def test_no_socket_can_be_made(run, monkeypatch):
    async def go() -> None:
        resolver = make_resolver("127.0.0.1:53")

        def refuse(*_):
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(dnstransport.socket, "socket", refuse)
        done = await resolver.query("A", "x.test")
        monkeypatch.undo()
        assert (done.status, done.reason) == ("tempfail", "127.0.0.1:53: Too many open files")
        resolver.close()

    run(go())
