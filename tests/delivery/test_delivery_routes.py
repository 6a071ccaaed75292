"""The engine and the DNS: MX, literals, named hosts, ourselves, and lookups that fail."""

from __future__ import annotations

import asyncio

import pytest
from scripted_host import Bed, Host, run

from gatepost.ipc.messages import LookupDone
from gatepost.model import NextHopTrouble, Result


def dns(**zone: tuple[str, list[str]]):
    async def lookup(kind: str, name: str) -> LookupDone:
        status, records = zone.get(f"{kind}_{name.replace('.', '_')}", ("nodata", []))
        return LookupDone(0, status, records, 60)

    return lookup


def test_mx_with_failover():
    async def body() -> None:
        host = await Host().start()
        lookup = dns(
            MX_d_test=("ok", ["20 good.test", "10 bad.test"]),
            A_good_test=("ok", ["127.0.0.1"]),
            A_bad_test=("ok", ["127.0.0.2"]),
        )
        async with Bed(lookup=lookup, port=host.port) as bed:
            done = await bed.submit("mx:d.test")
        assert done.outcomes[0].host == f"good.test[127.0.0.1]:{host.port}"

    run(body())


@pytest.mark.parametrize(
    ("zone", "result", "status"),
    [
        ({"MX_d_test": ("nxdomain", [])}, Result.FAILED, "5.1.2"),
        ({"MX_d_test": ("ok", ["0 ."])}, Result.FAILED, "5.1.10"),
        ({"MX_d_test": ("tempfail", [])}, Result.DEFERRED, "4.4.3"),
        ({"MX_d_test": ("ok", ["10 gate.test"])}, Result.FAILED, "5.4.6"),
    ],
)
def test_mx_that_cannot_be_used(zone: dict, result: Result, status: str):
    async def body() -> None:
        async with Bed(lookup=dns(**zone)) as bed:
            waiters = [bed.submit("mx:d.test") for _ in range(3)]
            for done in await asyncio.gather(*waiters):
                assert (done.outcomes[0].result, done.outcomes[0].status) == (result, status)
                assert done.outcomes[0].stage == "mx"

    run(body())


def test_address_literal_and_named_host():
    async def body() -> None:
        host = await Host().start()
        async with Bed(lookup=dns(A_inside_test=("ok", ["127.0.0.1"])), port=host.port) as bed:
            done = await bed.submit("mx:[127.0.0.1]")
            assert done.outcomes[0].result is Result.DELIVERED
            done = await bed.submit(f"smtp://inside.test:{host.port}")
            assert done.outcomes[0].host == f"inside.test[127.0.0.1]:{host.port}"
            done = await bed.submit(f"smtp://localhost:{host.port}")
            assert done.outcomes[0].result is Result.DELIVERED
            done = await bed.submit(f"smtp://nowhere.test:{host.port}")
            assert (done.outcomes[0].result, done.outcomes[0].status) == (Result.DEFERRED, "4.4.3")

    run(body())


def test_a_fixed_next_hop_that_is_ourselves_defers():
    async def body() -> None:
        async with Bed(own_addresses=frozenset({"127.0.0.1:2525"})) as bed:
            done = await bed.submit("smtp://127.0.0.1:2525")
        assert (done.outcomes[0].result, done.outcomes[0].status) == (Result.DEFERRED, "4.4.6")

    run(body())


def test_a_lookup_that_breaks_defers():
    async def broken(kind: str, name: str) -> LookupDone:
        raise ConnectionResetError("resolver is gone")

    async def body() -> None:
        async with Bed(lookup=broken) as bed:
            done = await bed.submit("mx:d.test")
        assert done.outcomes[0].result is Result.DEFERRED and done.trouble is NextHopTrouble.DOWN

    run(body())
