"""What `gatepost tls show` answers: the policy, what is published, what is remembered, host by host."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gatepost.config.schema import Config, Dns, Domain, Pool, PoolMember, Tls, TlsPolicy
from gatepost.delivery.engine import DeliveryEngine
from gatepost.ipc.messages import LookupDone

RECORDS = {
    ("SOA", "signed.test"): ["ns.signed.test x 1 2 3 4 5"],
    ("MX", "d.test"): ["10 mx.d.test"],
    ("A", "mx.d.test"): ["192.0.2.1"],
    ("TLSA", "_25._tcp.mx.d.test"): ["3 1 1 " + "00" * 32, "0 0 1 " + "00" * 32],
}


def show(domain: str, next_hop: str, *, secure: bool = True, remembered: str = "", **tls: Any) -> dict[str, Any]:
    async def lookup(kind: str, name: str) -> LookupDone:
        found = RECORDS.get((kind, name))
        return LookupDone(0, "ok" if found else "nodata", found or [], 300, secure)

    members = [PoolMember(next_hop=f"smtp://192.0.2.{number}:25") for number in (7, 8)]
    config = Config(
        hostname="gate.test",
        listen=[],
        spool="/s",
        domains={"x.test": Domain(next_hop=["mx"])},
        dns=Dns(probe="signed.test"),
        tls=Tls(**tls),
        pools={"inside": Pool(members=members)},
    )

    async def go() -> dict[str, Any]:
        engine = DeliveryEngine(
            config,
            own_addresses=frozenset(),
            lookup=lookup,
            read=lambda *_: b"",
            done=lambda _: None,
            event=lambda name, **fields: None,
            remembered=lambda domain: remembered,
        )
        found = await engine.show(domain, next_hop)
        engine.close()
        return found

    return asyncio.run(go())


def test_a_domain_with_dane():
    shown = show("d.test", "mx:d.test")
    assert shown["policy"] == {"level": "best", "row": "tls.outbound"}
    assert (shown["dane"], shown["mta_sts"], shown["remembered"], shown["problem"]) == ("in effect", "none", "", "")
    assert shown["hosts"] == [
        {
            "host": "mx.d.test",
            "addresses": ["192.0.2.1:25"],
            "level": "dane",
            "tls": "always",
            "verified": True,
            "server_name": "mx.d.test",
            "why": "TLSA records of mx.d.test",
            "records": ["3 1 1 " + "00" * 32],  # those that can be used
        }
    ]


@pytest.mark.parametrize(
    ("remembered", "level"), [("", "opportunistic"), ("d.test was verified by DANE on ...", "encrypt")]
)
def test_without_security_it_says_why_not(remembered, level):
    shown = show("d.test", "mx:d.test", secure=False, remembered=remembered)
    assert shown["dane"].startswith("not in effect")
    (host,) = shown["hosts"]
    assert host["level"] == level and (remembered or "not secure") in host["why"]


def test_the_row_that_holds():
    rows = [TlsPolicy(level="none", domains=["other.test"]), TlsPolicy(level="encrypt", domains=["d.test"])]
    shown = show("d.test", "mx:d.test", policies=rows)
    assert shown["policy"] == {"level": "encrypt", "row": "2"}
    assert shown["hosts"][0]["tls"] == "always" and "does not ask" in shown["dane"]


def test_the_members_of_a_pool():
    shown = show("d.test", "pool:inside")
    assert shown["next_hop"] == "pool:inside"
    assert [host["addresses"] for host in shown["hosts"]] == [["192.0.2.7:25"], ["192.0.2.8:25"]]


def test_a_domain_that_does_not_exist_and_a_next_hop_that_is_none():
    assert show("nowhere.test", "mx:nowhere.test")["problem"].startswith("5.4.4")
    assert show("d.test", "maildir:/var/mail")["problem"].startswith("4.3.5")
