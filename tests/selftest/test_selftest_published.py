"""What is published, what is not, and what contradicts the gateway."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from pathlib import Path

import msgspec
import pytest
from certificates import Authority

from gatepost.config.publish import records_to_publish
from gatepost.config.schema import Config, Domain, Selftest
from gatepost.delivery.dane import public_key_of
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
    ("TLSA", "_25._tcp.mx.example.net"): [f"3 1 1 {'AA' * 32}"],
    ("MX", "example.net"): ["10 MX.example.net."],
    ("TXT", "example.net"): ['"other"', '"v=spf1 " "mx -all"'],
    ("TXT", "_dmarc.example.net"): ['"v=DMARC1; p=none"'],
    ("TXT", "_mta-sts.example.net"): ['"v=STSv1; id=1"'],
    ("A", "mta-sts.example.net"): ["192.0.2.9"],
    ("TXT", "_domainkey.example.net"): ['"o=-"'],
}


def ask(
    monkeypatch: pytest.MonkeyPatch,
    records: dict[tuple[str, str], list[str]],
    status: str = "nodata",
    certificate: bytes = b"",
    config: Config = CONFIG,
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
    return {result.name: result.verdict for result in asyncio.run(published.check_published(config, certificate))}


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


# --- keys -----------------------------------------------------------------------------------------------------------------

KEY = base64.b64encode(bytes(294)).decode()
SELECTOR = "mail1._domainkey.example.net"
SIGNS = msgspec.structs.replace(CONFIG, selftest=Selftest(dkim_keys=[SELECTOR, "x._domainkey.elsewhere.test"]))


@pytest.mark.parametrize(
    ("records", "verdict"),
    [
        ([f'"v=DKIM1; k=rsa; p={KEY}"'], OK),
        ([f'"k=rsa; p={KEY[:200]}" "{KEY[200:]}"'], OK),  # in pieces, as long keys are
        ([f'"v=DKIM1; k=ed25519; p={base64.b64encode(bytes(32)).decode()}"'], OK),
        ([], FAILED),
        ([f'"v=DKIM1; p={KEY}"', f'"v=DKIM1; p={KEY}"'], FAILED),
        (['"v=DKIM1; p="'], FAILED),  # revoked
        (['"v=DKIM1; k=rsa"'], FAILED),
        ([f'"v=DKIM2; p={KEY}"'], FAILED),
        ([f'"v=DKIM1; k=dsa; p={KEY}"'], FAILED),
        (['"v=DKIM1; p=<public key>"'], FAILED),
        ([f'"v=DKIM1; p={base64.b64encode(bytes(94)).decode()}"'], FAILED),  # 512 bits
        ([f'"v=DKIM1; k=ed25519; p={KEY}"'], FAILED),
    ],
)
def test_a_dkim_key_that_the_configuration_names(monkeypatch, records, verdict) -> None:
    found = ask(monkeypatch, GOOD | {("TXT", SELECTOR): records}, config=SIGNS)
    assert found[f"DKIM key {SELECTOR}"] == verdict
    assert not any("elsewhere" in name or name.startswith("DKIM of") for name in found)


def test_a_policy_that_nobody_can_find_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    rest = {key: value for key, value in GOOD.items() if key != ("A", "mta-sts.example.net")}
    assert ask(monkeypatch, rest)["MTA-STS of example.net"] == WARNING
    assert ask(monkeypatch, rest | {("AAAA", "mta-sts.example.net"): ["2001:db8::9"]})["MTA-STS of example.net"] == OK


def test_tlsa_records_are_held_against_the_certificate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pem = Authority(tmp_path).issue("gate", ["DNS:mx.example.net"]).read_text()
    der = ssl.PEM_cert_to_DER_cert(pem)
    right, wrong = (f"3 1 1 {hashlib.sha256(data).hexdigest()}" for data in (public_key_of(der), b"other"))
    for records, verdict in (
        ([right], OK),
        ([wrong, right], OK),  # a change of keys is under way
        ([f"3 0 1 {hashlib.sha256(der).hexdigest()}"], OK),
        ([wrong], FAILED),  # whoever uses DANE keeps their mail
        (["1 1 1 00", "nonsense"], WARNING),
        ([f"2 1 1 {'00' * 32}"], OK),  # an authority: not looked at
    ):
        found = ask(monkeypatch, GOOD | {("TLSA", "_25._tcp.mx.example.net"): records}, certificate=der)
        assert found["TLSA of mx.example.net"] == verdict, records


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


def test_the_records_to_publish_name_the_dkim_keys_of_their_domain() -> None:
    names = [record.name for record in records_to_publish(SIGNS) if "_domainkey" in record.name]
    assert names == [f"{SELECTOR}."]
