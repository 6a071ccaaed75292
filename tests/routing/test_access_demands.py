"""TLS_ lines of an access table: the order in which they are asked, which is sendmail's, and what becomes of each at RCPT or MAIL."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gatepost.config.encoded import decode_config, encode_config
from gatepost.config.schema import Config, Domain
from gatepost.config.tables import LoadedConfig, table_key
from gatepost.config.warnings import warnings_of
from gatepost.model import TlsPeer
from gatepost.policy.engine import Engine, Phase
from gatepost.policy.record import (
    FORM,
    FORM_WITH_TLS,
    FactRecord,
    RecordedRecipient,
    decode_records,
    encode_records,
)
from gatepost.policy.replay import Replay
from gatepost.routing.tables.sendmail_access import AccessTable

TEXT = """\
TLS_Clt:10.1.2.3      OK
TLS_Clt:10.1.2        VERIFY
TLS_Clt:10            ENCR:112
TLS_Clt:192.0.2       PERM+ENCR:256
TLS_Clt:IPv6:2001:db8 TEMP+ENCR:128
TLS_Srv:mx.a.example  VERIFY
TLS_Srv:a.example     ENCR:128
TLS_Srv:10.9          ENCR:112
TLS_Srv:              ENCR:40
TLS_Rcpt:anna@a.example  VERIFY:256
TLS_Rcpt:postmaster@     OK
TLS_Rcpt:a.example       ENCR:256
"""


@pytest.fixture
def table(tmp_path: Path) -> AccessTable:
    return AccessTable.of_data(load(tmp_path))


def load(directory: Path, text: str = TEXT):
    path = directory / "access"
    path.write_text(text)
    return AccessTable.load(str(path))


def word(demand: object) -> str:
    if not demand:
        return "nothing is said" if demand is False else "none"
    return f"{'VERIFY' if demand.is_verified else 'ENCR'}:{demand.bits}"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("10.1.2.3", "none"), ("10.1.2.4", "VERIFY:0"), ("10.1.3.1", "ENCR:112"), ("11.1.1.1", "nothing is said"),
        ("2001:db8::1", "ENCR:128"), ("::ffff:10.1.2.4", "VERIFY:0"),
    ],
)  # fmt: skip
def test_clients(table: AccessTable, address: str, found: str):
    assert word(table.tls_client(address)) == found


@pytest.mark.parametrize(
    ("name", "address", "found"),
    [
        ("mx.a.example", "10.9.1.1", "VERIFY:0"), ("mx2.a.example", "10.9.1.1", "ENCR:128"), ("b.example", "10.9.1.1", "ENCR:112"),
        ("b.example", "192.0.2.1", "ENCR:40"), ("10.9.1.1", "10.9.1.1", "ENCR:112"), ("xa.example", "192.0.2.1", "ENCR:40"),
    ],
)  # fmt: skip
def test_servers(table: AccessTable, name: str, address: str, found: str):
    assert word(table.tls_server(name, address)) == found


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("anna@a.example", "VERIFY:256"), ("anna+x@a.example", "VERIFY:256"), ("bob@a.example", "ENCR:256"),
        ("bob@sub.a.example", "ENCR:256"), ("postmaster@a.example", "none"), ("anna@b.example", "nothing is said"),
    ],
)  # fmt: skip
def test_recipients(table: AccessTable, address: str, found: str):
    local, _, domain = address.partition("@")
    assert word(table.tls_recipient(local, domain)) == found


def config_of(directory: Path, text: str = TEXT) -> LoadedConfig:
    data = load(directory, text)
    name = f"sendmail-access:{directory}/access"
    plain = Config(
        hostname="gate.test", listen=["127.0.0.1:25"], spool="/s", access=[name],
        domains={"ours.test": Domain(next_hop=["smtp://127.0.0.1:9"])},
    )  # fmt: skip
    values = msgspec.structs.asdict(plain)
    return LoadedConfig(**values, tables={table_key("access", name): data})


def verdict(config: Config, client: str, tls: TlsPeer | None, reverse_path: str = "") -> str:
    engine = Engine(config)
    facts = engine.facts_of(client)
    facts.tls, facts.reverse_path = tls, reverse_path
    found = engine.decide(Phase.MAIL, facts)
    return f"{found.code} {found.status} {found.text}" if found.code else "accepted"


def test_replies_are_those_of_sendmail_and_say_what_to_do(tmp_path: Path):
    config = config_of(tmp_path)
    strong = TlsPeer(256)
    assert verdict(config, "10.5.5.5", None) == "454 4.7.0 encryption too weak 0 less than 112; use STARTTLS first"
    assert verdict(config, "10.5.5.5", strong) == "accepted"
    assert verdict(config, "192.0.2.9", TlsPeer(128)).startswith("503 5.7.0 encryption too weak 128 less than 256; ")
    assert verdict(config, "2001:db8::9", None).startswith("403 4.7.0 encryption too weak 0 less than 128")
    assert verdict(config, "10.1.2.9", strong).startswith("454 4.7.0 not authenticated; ")
    assert verdict(config, "10.1.2.3", None) == "accepted"
    assert verdict(config, "198.51.100.1", None) == "accepted"


def test_a_client_at_a_socket_of_this_host_and_a_record_without_tls_are_not_judged(tmp_path: Path):
    config = config_of(tmp_path, "TLS_Clt: ENCR:112\n")
    assert verdict(config, "local", None) == "accepted"
    assert verdict(config, "198.51.100.1", TlsPeer(-1)) == "accepted"
    assert verdict(config, "198.51.100.1", None).startswith("454")


def test_what_a_certificate_says_cannot_end_the_reply(tmp_path: Path):
    config = config_of(tmp_path, "TLS_Clt: VERIFY+CN:good.example\n")
    said = verdict(config, "198.51.100.1", TlsPeer(256, True, True, "x\r\n250 ok"))
    assert "\r" not in said and "\n" not in said and "x??250 ok" in said


def test_the_deliverer_gets_the_lines_about_servers_and_no_other(tmp_path: Path):
    config = config_of(tmp_path, TEXT + "From:bad.example REJECT\n")
    (data,) = decode_config(encode_config(config, "deliverer")).tables.values()
    assert all(key.startswith(("tls_srv:", "tls_rcpt:")) for key in data.entries) and len(data.entries) == 7
    assert not decode_config(encode_config(config, "queue")).tables


def test_a_certificate_that_nobody_asks_for_is_told(tmp_path: Path):
    keys = [warning.key for warning in warnings_of(config_of(tmp_path, "TLS_Clt:10 VERIFY\n"))]
    assert "tls.client_certificates" in keys
    for text in ("TLS_Clt:10 ENCR:128\n", "TLS_Srv:10 VERIFY\n"):
        keys = [warning.key for warning in warnings_of(config_of(tmp_path, text))]
        assert "tls.client_certificates" not in keys


def test_replay_knows_what_tls_a_session_had(tmp_path: Path):
    replay = Replay(config_of(tmp_path, "TLS_Clt:198 ENCR:112\n"))

    def refused(form: int, tls: TlsPeer | None) -> int:
        record = FactRecord(
            "S", "M", 1000.0, "198.51.100.1", has_mail=True, reverse_path="a@b.test", form=form, tls=tls
        )
        record.recipients = [
            RecordedRecipient("anna@ours.test", next_hop="smtp://127.0.0.1:9", permit="recipient-domain")
        ]
        difference = replay.compare(decode_records(encode_records([record])))
        return sum(change.count for change in difference.changes if "454" in change.after)

    assert refused(FORM, None) == 1
    assert refused(FORM, TlsPeer(128)) == 0
    assert refused(FORM_WITH_TLS - 1, None) == 0  # of before TLS was recorded: not known, and so not refused
