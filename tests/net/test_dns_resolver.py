"""The stub resolver against real servers on loopback, on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import msgspec
import pytest
import uvloop

from gatepost.config.schema import Dns
from gatepost.ipc.messages import LookupDone
from gatepost.net import dns as resolver_module
from gatepost.net import dnstransport
from gatepost.net.dns import StubResolver

sys.path.insert(0, str(Path(__file__).parent))
from dns_authority import DnsAuthority, from_zone, reply_to

ZONE = """
@ 300 SOA ns.example.test. hostmaster.example.test. 1 2 3 4 60
@ 300 NS ns
@ 300 MX 10 mx1
@ 300 MX 20 MX2.Example.Test.
mx1 200 A 192.0.2.1
mx1 200 A 192.0.2.2
mx1 100 AAAA 2001:db8::1
null 300 MX 0 .
www 50 CNAME web
web 300 CNAME mx1
out 300 CNAME elsewhere.other.test.
loop1 300 CNAME loop2
loop2 300 CNAME loop1
_25._tcp.mx1 300 TLSA 3 1 1 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
spf 300 TXT "v=spf1 " "-all"
"""
IN_ZONE = from_zone("example.test.", ZONE)
QUICK = Dns(timeout_s=0.05)
PATIENT = Dns(timeout_s=60.0)  # no answer in this time would be a failure of the test


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Run a coroutine on a loop that no exception of a callback escapes."""
    escaped = []
    with asyncio.Runner(loop_factory=request.param) as runner:
        runner.get_loop().set_exception_handler(lambda loop, context: escaped.append(context))
        yield runner.run
    assert escaped == []


def make_resolver(*servers: DnsAuthority | str, config: Dns = PATIENT, **options) -> StubResolver:
    addresses = [server if isinstance(server, str) else server.address for server in servers]
    return StubResolver(addresses, config, loop=asyncio.get_running_loop(), **options)


async def ask(handler, kind: str, name: str, config: Dns = PATIENT) -> tuple[LookupDone, DnsAuthority]:
    async with DnsAuthority(handler) as server:
        resolver = make_resolver(server, config=config)
        done = await resolver.query(kind, name)
        resolver.close()
        return done, server


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

    done, _ = run(ask(handler, "A", "x.test", QUICK if tcp_answer == [] else PATIENT))
    assert done.status == "tempfail"
    assert done.reason


# --- servers that fail ----------------------------------------------------------------------------------------------


def test_silent_server_then_the_second(run):
    async def go() -> None:
        async with DnsAuthority(lambda query, _: None) as silent, DnsAuthority(IN_ZONE) as good:
            resolver = make_resolver(silent, good, config=QUICK)
            assert (await resolver.query("MX", "example.test")).status == "ok"
            assert (len(silent.seen), len(good.seen), resolver.counters.timeouts) == (1, 1, 1)
            for index in range(4):
                await resolver.query("A", f"n{index}.example.test")
            assert len(silent.seen) == 3  # after three time-outs in a row it rests
            assert len(good.seen) == 5
            resolver.close()

    run(go())


def test_silence_everywhere_is_tempfail_after_all_attempts(run):
    done, server = run(ask(lambda query, _: None, "MX", "example.test", QUICK))
    assert (done.status, done.records) == ("tempfail", [])
    assert "no answer within 0.05 s" in done.reason
    assert len(server.seen) == 3
    assert len({query.id for query in server.queries}) > 1


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "FORMERR", "NOTIMP", "YXDOMAIN"])
def test_failing_server_then_the_second(run, rcode):
    async def go() -> None:
        bad_handler = lambda query, _: reply_to(query, rcode=dns.rcode.from_text(rcode))
        async with DnsAuthority(bad_handler) as bad, DnsAuthority(IN_ZONE) as good:
            resolver = make_resolver(bad, good)
            assert (await resolver.query("MX", "example.test")).status == "ok"
            resolver.close()
            resolver = make_resolver(bad)
            done = await resolver.query("MX", "example.test")
            assert (done.status, rcode in done.reason) == ("tempfail", True)
            assert len(bad.seen) == 2  # not asked again for what it has refused
            assert resolver.cached("MX", "example.test").status == "tempfail"
            resolver.close()

    run(go())


def test_bare_formerr_header_counts_as_failure(run):
    done, _ = run(ask(lambda query, _: query.id.to_bytes(2, "big") + b"\x81\x81" + bytes(8), "A", "x.test"))
    assert (done.status, "FORMERR" in done.reason) == ("tempfail", True)


def test_lame_server_then_the_second(run):
    def lame(query, _):
        response = reply_to(query, authority=["test. 60 IN NS a.root.test."])
        response.flags &= ~dns.flags.RA
        return response

    async def go() -> None:
        async with DnsAuthority(lame) as bad, DnsAuthority(IN_ZONE) as good:
            resolver = make_resolver(bad, good)
            assert (await resolver.query("MX", "example.test")).status == "ok"
            assert resolver.counters.failed_answers == 1
            resolver.close()
            alone = make_resolver(bad)
            assert (await alone.query("MX", "example.test")).status == "tempfail"
            alone.close()

    run(go())


def test_malformed_answer_then_the_second(run):
    def broken(query, _):
        wire = reply_to(query, records=["example.test. 60 IN A 192.0.2.9"]).to_wire()
        return wire[: -len(wire) + wire.index(b"\xc0\x00\x02\x09")]

    async def go() -> None:
        async with DnsAuthority(broken) as bad, DnsAuthority(IN_ZONE) as good:
            resolver = make_resolver(bad, good)
            done = await resolver.query("A", "example.test")
            assert (done.status, resolver.counters.malformed) == ("nodata", 1)
            resolver.close()

    run(go())


def test_server_that_is_not_there_is_noticed_at_once(run):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{free.getsockname()[1]}"

    async def go() -> None:
        async with DnsAuthority(IN_ZONE) as good:
            resolver = make_resolver(nobody, good)  # with a time-out of a minute
            assert (await resolver.query("MX", "example.test")).status == "ok"
            resolver.close()
            alone = make_resolver(nobody)
            done = await alone.query("MX", "example.test")
            assert (done.status, "refused" in done.reason) == ("tempfail", True)
            alone.close()

    run(go())


def test_nxdomain_with_records_is_no_answer(run):
    def handler(query, _):
        return reply_to(query, rcode=dns.rcode.NXDOMAIN, records=["x.test. 60 IN A 192.0.2.1"])

    done, _ = run(ask(handler, "A", "x.test"))
    assert done.status == "tempfail"


# --- forged answers -------------------------------------------------------------------------------------------------


def forged(query: dns.message.Message) -> dns.message.Message:
    return reply_to(query, records=[f"{query.question[0].name} 60 IN A 203.0.113.66"])


def test_wrong_id_and_wrong_question_are_ignored_and_counted(run):
    def handler(query, _):
        wrong_id = bytearray(forged(query).to_wire())
        wrong_id[1] ^= 1
        other = dns.message.make_query("other.test", "A")
        other.id = query.id
        not_a_response = bytearray(forged(query).to_wire())
        not_a_response[2] &= 0x7F
        good = IN_ZONE(query, "udp").to_wire()
        return [bytes(wrong_id), forged(other).to_wire(), bytes(not_a_response), b"\x00", good]

    async def go() -> None:
        async with DnsAuthority(handler) as server:
            resolver = make_resolver(server)
            done = await resolver.query("A", "mx1.example.test")
            assert sorted(done.records) == ["192.0.2.1", "192.0.2.2"]
            assert resolver.counters.strays == 4
            resolver.close()

    run(go())


def test_answer_from_another_source_is_ignored(run):
    async def go() -> None:
        async with DnsAuthority(IN_ZONE) as server:
            server.hold = True
            resolver = make_resolver(server)
            task = asyncio.create_task(resolver.query("A", "mx1.example.test"))
            await server.arrived.wait()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
                attacker.sendto(forged(server.queries[0]).to_wire(), server.sources[0])
            server.release()
            assert "203.0.113.66" not in (await task).records
            resolver.close()

    run(go())


def test_a_flood_of_forged_answers_moves_the_question_to_tcp(run):
    def handler(query, transport):
        if transport == "tcp":
            return IN_ZONE(query, transport)
        packets = []
        for guess in range(dnstransport.STRAYS_PER_PORT):
            packet = bytearray(forged(query).to_wire())
            packet[:2] = ((query.id + 1 + guess) & 0xFFFF).to_bytes(2, "big")
            packets.append(bytes(packet))
        return packets

    done, server = run(ask(handler, "A", "mx1.example.test"))
    assert sorted(done.records) == ["192.0.2.1", "192.0.2.2"]
    assert [seen[0] for seen in server.seen] == ["udp", "tcp"]


def test_records_beside_the_question_are_not_believed(run):
    def handler(query, _):
        response = reply_to(query, records=["bank.test. 60 IN A 203.0.113.66"])
        response.additional.append(dns.rrset.from_text("x.test.", 60, "IN", "A", "203.0.113.66"))
        return response

    done, _ = run(ask(handler, "A", "x.test"))
    assert (done.status, done.records) == ("nodata", [])


def remote(text: str):
    """A server address as if it were not on loopback."""
    return msgspec.structs.replace(REAL_PARSE_SERVER(text), loopback=False)


REAL_PARSE_SERVER = resolver_module.parse_server


def test_remote_server_is_asked_in_mixed_case_and_its_ad_not_believed(run, monkeypatch):
    monkeypatch.setattr(resolver_module, "parse_server", remote)

    def handler(query, transport):
        response = reply_to(query, records=["abcdefghijklmnopqrstuvwxyz.test. 60 IN A 192.0.2.1"])
        response.flags |= dns.flags.AD
        return response

    done, server = run(ask(handler, "A", "abcdefghijklmnopqrstuvwxyz.test"))
    assert (done.records, done.secure) == (["192.0.2.1"], False)
    asked = server.seen[0][1]
    assert asked.lower() == "abcdefghijklmnopqrstuvwxyz.test"
    assert asked not in (asked.lower(), asked.upper())


def test_answer_in_another_case_is_asked_for_again_over_tcp(run, monkeypatch):
    monkeypatch.setattr(resolver_module, "parse_server", remote)

    def handler(query, transport):
        wire = reply_to(query, records=["abcdefghijklmnopqrstuvwxyz.test. 60 IN A 192.0.2.1"]).to_wire()
        name = query.question[0].name.to_wire()
        return wire.replace(name, name.lower())

    done, server = run(ask(handler, "A", "abcdefghijklmnopqrstuvwxyz.test"))
    assert done.records == ["192.0.2.1"]
    assert [seen[0] for seen in server.seen] == ["udp", "tcp"]


def test_ports_and_ids_change(run):
    async def go() -> None:
        async with DnsAuthority(lambda query, _: reply_to(query, rcode=dns.rcode.NXDOMAIN)) as server:
            resolver = make_resolver(server)
            for index in range(dnstransport.QUERIES_PER_PORT * 3):
                await resolver.query("A", f"n{index}.test")
            uses = [port for _, port in server.sources]
            assert len(set(uses)) >= 3
            assert max(uses.count(port) for port in set(uses)) <= dnstransport.QUERIES_PER_PORT
            assert len({query.id for query in server.queries}) > dnstransport.QUERIES_PER_PORT
            resolver.close()

    run(go())


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
            resolver = make_resolver(server, trust_ad=False)
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
