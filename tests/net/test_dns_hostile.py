"""The stub resolver against servers that fail, and against forged answers."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import msgspec
import pytest
import uvloop

from gatepost.net import dns as resolver_module
from gatepost.net import dnstransport

sys.path.insert(0, str(Path(__file__).parent))
from dns_authority import IN_ZONE, DnsAuthority, HandClock, ask, loop_runner, make_resolver, reply_to


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    with loop_runner(request.param) as run:
        yield run


# --- servers that fail ----------------------------------------------------------------------------------------------


def test_silent_server_then_the_second(run):
    async def go() -> None:
        clock = HandClock()
        async with DnsAuthority(clock.silent) as silent, DnsAuthority(IN_ZONE) as good:
            resolver = make_resolver(silent, good, loop=clock)
            assert (await resolver.query("MX", "example.test")).status == "ok"
            assert (len(silent.seen), len(good.seen), resolver.counters.timeouts) == (1, 1, 1)
            for index in range(4):
                await resolver.query("A", f"n{index}.example.test")
            assert len(silent.seen) == 3  # after three time-outs in a row it rests
            assert len(good.seen) == 5
            resolver.close()

    run(go())


def test_silence_everywhere_is_tempfail_after_all_attempts(run):
    async def go() -> None:
        clock = HandClock()
        async with DnsAuthority(clock.silent) as server:
            resolver = make_resolver(server, loop=clock)
            done = await resolver.query("MX", "example.test")
            assert (done.status, done.records) == ("tempfail", [])
            assert "no answer within 60 s" in done.reason
            assert len(server.seen) == 3
            assert len({query.id for query in server.queries}) > 1
            resolver.close()

    run(go())


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
