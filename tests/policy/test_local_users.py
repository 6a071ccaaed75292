"""Users of this host: who may send, from where, and that the proof knows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatepost.config.load import load_config
from gatepost.config.schema import Config
from gatepost.model import Address
from gatepost.policy.engine import Engine
from gatepost.policy.localusers import LocalUsers
from gatepost.policy.proof import prove
from gatepost.policy.relay import LocalUser
from gatepost.roles.localclients import stranger_number

CONFIG = """
hostname = "gate.example.net"
listen = ["192.0.2.1:25"]
spool = "/var/spool/gatepost"
domains = ["example.net", ".lab.example"]
next_hop = "smtp://10.0.0.5:25"
[local]
socket = "/run/gatepost/submit"
users = ["root", "www-data", "backup"]
groups = ["mail"]
trusted = ["root", "stranger"]
senders = { www-data = ["shop+*@example.net"] }
"""
MAIL = Address("user@elsewhere.test", "user", "elsewhere.test")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "gatepost.toml"
    path.write_text(CONFIG)
    return load_config(str(path))


@pytest.mark.parametrize(
    ("user", "groups", "path", "code"),
    [
        ("www-data", (), "www-data@gate.example.net", 0),
        ("www-data", (), "WWW-Data@Gate.Example.Net", 0),
        ("www-data", (), "shop+1@example.net", 0),
        ("www-data", (), "", 0),
        ("www-data", (), "shop@example.net", 553),
        ("www-data", (), "root@gate.example.net", 553),
        ("root", (), "anyone@example.net", 0),
        ("root", (), "anyone@below.lab.example", 0),
        ("root", (), "anyone@gate.example.net", 0),
        ("root", (), "anyone@elsewhere.test", 553),
        ("member", ("mail",), "member@gate.example.net", 0),
        ("member", ("mails",), "member@gate.example.net", 550),
        ("stranger", (), "anyone@example.net", 550),  # trusted, and not listed
        ("nobody", ("nogroup",), "", 550),
        ("", (), "", 550),
    ],
)
def test_reverse_paths(config: Config, user: str, groups: tuple[str, ...], path: str, code: int) -> None:
    local, _, domain = path.partition("@")
    address = Address(path, local, domain.lower()) if path else None
    assert LocalUsers(config).check_reverse_path(user, groups, address).code == code


def test_the_right(config: Config) -> None:
    engine = Engine(config)
    facts = engine.facts_of("local/www-data")
    assert engine.decide_rcpt(facts, MAIL).code == 550
    engine.attest(facts, "stranger", ())
    assert (facts.identity, facts.client_permit) == ("", None)
    engine.attest(facts, "www-data", (), relays=False)
    assert facts.identity == "uid:www-data" and engine.decide_rcpt(facts, MAIL).code == 550
    engine.attest(facts, "www-data", ())
    assert facts.client_permit == LocalUser("www-data")
    assert engine.decide_rcpt(facts, MAIL).permit == "local user www-data"


def test_a_session_of_the_past(config: Config) -> None:
    engine = Engine(config)
    for identity, groups, code in (
        ("uid:backup", (), 0),
        ("uid:member", ("mail",), 0),
        ("uid:member", (), 550),
        ("backup", (), 550),
    ):
        facts = engine.facts_of("local/x")
        engine.recall(facts, identity, lambda user, groups=groups: groups)
        assert engine.decide_rcpt(facts, MAIL).code == code, identity


def test_the_proof_knows_it(config: Config) -> None:
    proof = prove(config)
    assert proof.holds and proof.relayed > 0


def test_the_proof_finds_an_engine_that_believes_everybody(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalUsers, "is_allowed", lambda self, user, groups: True)
    proof = prove(config)
    assert not proof.holds
    assert any("a process of the user nobody-by-this-name of this host" in line for line in proof.lines()[2:])


def test_in_a_user_namespace_one_number_is_everybody(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "sys/kernel").mkdir(parents=True)
    (tmp_path / "sys/kernel/overflowuid").write_text("65534\n")
    (tmp_path / "self/uid_map").write_text("         0          0 4294967295\n")
    assert stranger_number(str(tmp_path)) == -1
    (tmp_path / "self/uid_map").write_text("         0          0          1\n       998        998          1\n")
    assert stranger_number(str(tmp_path)) == 65534
    assert stranger_number(str(tmp_path / "nowhere")) == 65534
