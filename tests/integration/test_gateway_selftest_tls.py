"""`gatepost selftest` against a real gateway with certificates and submission listeners, good ones and bad ones."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from certificates import Authority, config_rows
from integration.gateway import COMMAND, Gateway
from integration.peers.process import take_port

from gatepost.selftest.talk import SOURCE

INJECTIONS = 3


class Bed:
    """A gateway with one certificate; `asks(ca)` is what the self-test finds when that authority is trusted."""

    def __init__(self, directory, names, days: int = 60) -> None:
        directory.chmod(0o755)
        self.authority = Authority(directory)
        certificate = self.authority.issue("gate", names, days=days)
        self.ports = {"submission": take_port(), "submissions": take_port()}
        listeners = "".join(
            f'[[listeners]]\naddress = "127.0.0.1:{port}"\nkind = "{kind}"\n' for kind, port in self.ports.items()
        )
        extra = f'{listeners}{config_rows(certificate)}[auth]\nusers_file = "{directory}/users"\n'
        self.gateway = Gateway(directory, recipients=["user"], extra=extra)
        self.gateway.write_config()
        command = ["user", "add", "user@example.test", "--stdin", "--config", str(self.gateway.config)]
        subprocess.run([*COMMAND, *command], input="correct horse\n", text=True, check=True, capture_output=True)

    def asks(self, trusted: str = "") -> dict[tuple[str, str], dict]:
        """By group without its place, and name, with the kind of port before it."""
        command = [*COMMAND, "selftest", "--only", "smtp", "--json", "--config", str(self.gateway.config)]
        # that one holds no authority
        environment = {**os.environ, "SSL_CERT_FILE": trusted or str(self.gateway.config)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        self.exit_status = done.returncode
        kinds = {f"port {port})": kind for kind, port in self.ports.items()} | {f"port {self.gateway.port})": "edge"}
        found = {}
        for row in json.loads(done.stdout)["results"]:
            kind = next(kind for end, kind in kinds.items() if row["group"].endswith(end))
            found[kind, row["name"]] = row
        return found


@pytest.fixture(scope="module")
def bed(tmp_path_factory):
    bed = Bed(tmp_path_factory.mktemp("bed"), ["DNS:gate.example.test"])
    with bed.gateway as gateway:
        yield bed
        gateway.assert_no_bugs()


CERTIFICATE = "certificate for gate.example.test"


def test_all_is_well_and_every_question_is_asked(bed):
    found = bed.asks(str(bed.authority.file))
    assert bed.exit_status == 0, [row for row in found.values() if row["verdict"] == "failed"]
    for kind in ("edge", "submission"):
        injected = [name for of, name in found if of == kind and "behind STARTTLS" in name]
        assert len(injected) == INJECTIONS and all(found[kind, name]["verdict"] == "ok" for name in injected)
    for kind in ("edge", "submission", "submissions"):
        assert found[kind, CERTIFICATE]["verdict"] == "ok" and found[kind, CERTIFICATE]["detail"] in (
            "good for 59 days",
            "good for 60 days",
        )
    in_clear = {"AUTH is not offered in clear", "STARTTLS is offered", "AUTH in clear"}
    assert in_clear <= {name for kind, name in found if kind == "submission"}
    assert found["submissions", "clear text on the TLS port"]["verdict"] == "ok"
    for kind in ("submission", "submissions"):
        assert found[kind, "AUTH is offered inside TLS"]["verdict"] == "ok"
        relaying = [row for (of, name), row in found.items() if of == kind and "without a login, inside TLS" in name]
        assert len(relaying) == 3 and {row["verdict"] for row in relaying} == {"ok"}
    assert bed.gateway.ledger()["accepted"] == 0


def test_it_stays_marked_inside_tls_and_locks_nobody_out(bed):
    bed.asks(str(bed.authority.file))
    rows = [row for row in bed.gateway.told() if "address" in row]
    assert rows and {row["address"] for row in rows} == {SOURCE}
    assert not bed.gateway.events("auth_failed")


def test_an_authority_that_nobody_knows_is_a_warning_for_servers_and_fails_for_people(bed):
    found = bed.asks()
    assert bed.exit_status == 1
    verdicts = {kind: found[kind, CERTIFICATE]["verdict"] for kind in ("edge", "submission", "submissions")}
    assert verdicts == {"edge": "warning", "submission": "failed", "submissions": "failed"}
    assert "known authority" in found["submission", CERTIFICATE]["advice"]


@pytest.mark.parametrize(
    ("names", "days", "edge", "people", "told"),
    [
        (["DNS:other.test"], 60, "warning", "failed", "Hostname mismatch"),
        (["DNS:gate.example.test"], 5, "warning", "warning", "it expires in "),
    ],
)
def test_a_certificate_for_another_name_or_soon_expired(tmp_path, names, days, edge, people, told):
    bed = Bed(tmp_path, names, days)
    with bed.gateway:
        found = bed.asks(str(bed.authority.file))
        for kind, verdict in (("edge", edge), ("submission", people), ("submissions", people)):
            assert found[kind, CERTIFICATE]["verdict"] == verdict, found[kind, CERTIFICATE]
            assert told in found[kind, CERTIFICATE]["detail"]
