"""testssl.sh looks at the gateway with its default TLS configuration, on the edge by STARTTLS and on 465, and finds nothing weak."""

from __future__ import annotations

import json
import subprocess

import pytest
from certificates import RSA, Authority, config_rows
from integration.gateway import Gateway
from integration.nexthop import NextHop
from peers import require, take_port

WEAK = {"LOW", "MEDIUM", "HIGH", "CRITICAL"}
FAILED = {"WARN", "FATAL"}
LOOKED_AT = {
    "SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3", "cipherlist_NULL", "cipherlist_aNULL", "cipherlist_EXPORT",
    "cipherlist_3DES_IDEA", "cipherlist_STRONG", "heartbleed", "CCS", "ROBOT", "secure_renego",
    "secure_client_renego", "CRIME_TLS", "POODLE_SSL", "SWEET32", "FREAK", "DROWN", "LOGJAM", "BEAST", "LUCKY13", "RC4",
}  # fmt: skip


@pytest.fixture(scope="module")
def ports(tmp_path_factory):
    directory = tmp_path_factory.mktemp("scanned")
    directory.chmod(0o755)
    authority = Authority(directory)
    names = ["DNS:gate.example.test", "DNS:localhost", "IP:127.0.0.1"]
    rows = config_rows(authority.issue("gate-ec", names), authority.issue("gate-rsa", names, algorithm=RSA))
    implicit = take_port()
    listener = f'[[listeners]]\naddress = "127.0.0.1:{implicit}"\nkind = "submissions"\n[tls]\n{rows}'
    with NextHop() as hop, Gateway(directory, next_hop=hop.name, extra=listener) as gateway:
        yield {"edge": gateway.port, "submissions": implicit}
        gateway.assert_no_bugs()


@pytest.mark.timeout(900)
@pytest.mark.peer("testssl")
@pytest.mark.parametrize("kind", ["edge", "submissions"])
def test_nothing_weak_is_found(ports, kind, tmp_path):
    program = require("testssl")
    report = tmp_path / "report.json"
    options = ["--quiet", "--color", "0", "--ip", "127.0.0.1", "--nodns", "none", "--jsonfile", str(report)]
    options += ["--starttls", "smtp"] if kind == "edge" else []
    checks = ["--protocols", "--std", "--fs"] + (["--vulnerable"] if kind == "edge" else [])
    done = subprocess.run(
        [program, *options, *checks, f"gate.example.test:{ports[kind]}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=840,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    rows = json.loads(report.read_text())
    found = {row["id"]: row for row in rows}
    expected = LOOKED_AT if kind == "edge" else {"TLS1", "TLS1_2", "cipherlist_NULL", "cipherlist_STRONG"}
    assert expected <= set(found), (expected - set(found), sorted(found))
    assert not [row for row in rows if row["severity"] in WEAK | FAILED], done.stdout
    assert found["TLS1_3"]["severity"] == "OK" and "offered" in found["TLS1_3"]["finding"]
    assert found["TLS1_1"]["finding"] == "not offered"
