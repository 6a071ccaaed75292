"""What is published, what is not, and what contradicts the gateway."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from gatepost.config.schema import Config, Domain
from gatepost.ipc.messages import LookupDone
from gatepost.selftest import published
from gatepost.selftest.host import check_clock, check_disk
from gatepost.selftest.result import FAILED, OK, SKIPPED, WARNING

CONFIG = Config(
    hostname="mx.example.net",
    listen=["192.0.2.5:25", "127.0.0.1:25"],
    spool="/",
    domains={"example.net": Domain(next_hop=["smtp://10.0.0.5:25"])},
)
GOOD: dict[tuple[str, str], list[str]] = {
    ("A", "mx.example.net"): ["8.8.4.4"],
    ("PTR", "8.8.4.4"): ["mx.example.net."],
    ("TXT", "mx.example.net"): ['"v=spf1 a -all"'],
    ("TLSA", "_25._tcp.mx.example.net"): ["3 1 1 AA"],
    ("MX", "example.net"): ["10 MX.example.net."],
    ("TXT", "example.net"): ['"other"', '"v=spf1 " "mx -all"'],
    ("TXT", "_dmarc.example.net"): ['"v=DMARC1; p=none"'],
    ("TXT", "_mta-sts.example.net"): ['"v=STSv1; id=1"'],
    ("TXT", "_domainkey.example.net"): ['"o=-"'],
}


def ask(
    monkeypatch: pytest.MonkeyPatch, records: dict[tuple[str, str], list[str]], status: str = "nodata"
) -> dict[str, str]:
    class Fake:
        def __init__(self, servers: list[str], config: object, *, loop: object) -> None:
            assert servers == ["192.0.2.53:53"]

        async def query(self, kind: str, name: str) -> LookupDone:
            found = records.get((kind, name), [])
            return LookupDone(0, "ok" if found else status, found, 60, reason="no server answers")

        def close(self) -> None:
            pass

    monkeypatch.setattr(published, "StubResolver", Fake)
    monkeypatch.setattr(published, "read_resolv_conf", lambda: ["192.0.2.53:53"])
    return {result.name: result.verdict for result in asyncio.run(published.check_published(CONFIG))}


def test_all_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ask(monkeypatch, GOOD)
    assert set(found.values()) == {OK}
    assert len(found) == 8


@pytest.mark.parametrize("missing", GOOD)
def test_each_record_that_is_missing_is_a_warning(monkeypatch: pytest.MonkeyPatch, missing: tuple[str, str]) -> None:
    rest = {key: value for key, value in GOOD.items() if key != missing}
    found = ask(monkeypatch, rest, status="nxdomain")
    assert WARNING in found.values() and FAILED not in found.values()


@pytest.mark.parametrize(
    ("key", "records", "name", "verdict"),
    [
        (("MX", "example.net"), ["0 ."], "MX of example.net", FAILED),
        (("MX", "example.net"), ["10 other.example."], "MX of example.net", WARNING),
        (("PTR", "8.8.4.4"), ["host.isp.example."], "PTR of 8.8.4.4", WARNING),
        (("TXT", "example.net"), ['"v=spf1 -all"', '"v=spf1 mx"'], "SPF of example.net", FAILED),
    ],
)
def test_what_contradicts(monkeypatch, key, records, name, verdict) -> None:
    assert ask(monkeypatch, GOOD | {key: records})[name] == verdict


def test_no_answer_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(ask(monkeypatch, {}, status="tempfail").values()) == {SKIPPED}


def test_a_clock_that_was_never_set_and_one_that_jumps() -> None:
    assert {r.name: r.verdict for r in check_clock()}["is set"] == OK
    assert check_clock(lambda: 0.0)[0].verdict == FAILED
    readings = iter([2e9, 2e9, 2e9 + 100])
    assert {r.name: r.verdict for r in check_clock(lambda: next(readings))}["runs evenly"] == WARNING


def test_disk() -> None:
    room = {r.name: r.verdict for r in check_disk(CONFIG)}
    assert room["room for the spool"] in (OK, WARNING, FAILED)
    queue = msgspec.structs.replace(CONFIG.queue, min_free_bytes=1 << 60)
    full = check_disk(msgspec.structs.replace(CONFIG, queue=queue))
    assert full[0].verdict == FAILED and "make room" in full[0].advice
    assert check_disk(msgspec.structs.replace(CONFIG, spool="/no/such"))[0].verdict == FAILED
