"""What values of TLS_ lines mean, and who fulfils them."""

from __future__ import annotations

import pytest

from gatepost.config.tlsdemands import BadDemand, Demand, parse_demand, unmet
from gatepost.model import TlsPeer

VERIFIED = TlsPeer(256, True, True, "mx.a.example", "/C=DE/O=A Firm/CN=mx.a.example", "/CN=Test ca", ("mx2.a.example",))


@pytest.mark.parametrize(
    ("value", "demand"),
    [
        ("VERIFY", Demand(True)),
        ("verify:128", Demand(True, 128)),
        ("ENCR:112", Demand(False, 112)),
        ("TEMP+VERIFY:256", Demand(True, 256, (), 403)),
        ("PERM + ENCR:112", Demand(False, 112, (), 503)),
        ("VERIFY+CN", Demand(True, 0, (("CN", ""),))),
        (
            "PERM+VERIFY:112+CN:a.example++CI:/CN=Test+20ca",
            Demand(True, 112, (("CN", "a.example"), ("CI", "/CN=Test ca")), 503),
        ),
        ("OK", None),
        ("SKIP", None),
    ],
)
def test_values(value: str, demand: Demand | None):
    assert parse_demand(value) == demand


@pytest.mark.parametrize(
    "value",
    [
        "",
        "VERFY",
        "ENCR",
        "ENCR:x",
        "ENCR:9999",
        "VERIFY:",
        "VERIFY+",
        "VERIFY+CN:a+++CI",
        "VERIFY+CITag:",
        "VERIFY+CITag",
        "PERM+OK",
    ],
)
def test_what_is_no_value(value: str):
    with pytest.raises(BadDemand):
        parse_demand(value)


@pytest.mark.parametrize(
    ("value", "peer", "lack"),
    [
        ("ENCR:112", None, "encryption too weak 0 less than 112"),
        ("ENCR:112", TlsPeer(128), ""),
        ("ENCR:128", TlsPeer(128), ""),
        ("ENCR:256", TlsPeer(128), "encryption too weak 128 less than 256"),
        ("VERIFY", None, "other side does not support STARTTLS"),
        ("VERIFY", TlsPeer(256), "not authenticated"),
        ("VERIFY", TlsPeer(256, True), "authentication failed"),
        ("VERIFY", VERIFIED, ""),
        ("VERIFY:512", VERIFIED, "encryption too weak 256 less than 512"),
        ("VERIFY+CN:MX.a.example", VERIFIED, ""),
        ("VERIFY+CN:mx2.a.example", VERIFIED, ""),
        ("VERIFY+CN", VERIFIED, "CN mx.a.example does not match peer.example"),
        (
            "ENCR:112+CN:mx.a.example",
            TlsPeer(256, True, False, "mx.a.example"),
            "CN mx.a.example does not match mx.a.example",
        ),
        ("VERIFY+CS:/C=DE/O=A+20Firm/CN=mx.a.example", VERIFIED, ""),
        ("VERIFY+CI:/CN=Other", VERIFIED, "Cert Issuer /CN=Test ca does not match /CN=Other"),
        ("VERIFY+CN:mx.a.example++CI:/CN=Other", VERIFIED, "Cert Issuer /CN=Test ca does not match /CN=Other"),
    ],
)
def test_who_fulfils_them(value: str, peer: TlsPeer | None, lack: str):
    demand = parse_demand(value)
    assert demand is not None
    assert unmet(demand, peer, "peer.example") == lack
