"""sendmail's access table as policy: what each phase answers, that it only takes away, and what DISCARD does."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatepost.config.load import decode_config, encode_config, load_config
from gatepost.model import Address
from gatepost.policy.engine import Engine, Facts, Phase, Step
from gatepost.policy.proof import prove
from gatepost.policy.verdict import Verdict
from gatepost.roles.clientrates import ClientRates

ACCESS = """\
Connect:10.1            RELAY
Connect:192.0.2.1       REJECT
Connect:192.0.2.2       ERROR:4.7.1:450 not now
Connect:192.0.2.3       DISCARD
Connect:192.0.2.4       OK
192.0.2                 550 no mail from this network
From:bad.example        REJECT
From:later@bad.example  ERROR:4.7.1:450 greylisted by hand
From:drop.example       DISCARD
From:look.example       QUARANTINE:spam trap
To:closed@ours.example  REJECT
To:moved@ours.example   ERROR:5.1.6:551 moved to new@else.example
To:hole@ours.example    DISCARD
To:relayed.example      RELAY
To:not.relayed.example  OK
To:no.relayed.example   REJECT
"""
CONFIG = """\
hostname = "mx.example.net"
listen = ["127.0.0.1:2525"]
spool = "spool"
domains = ["ours.example"]
next_hop = "smtp://10.0.0.5"
access = "sendmail-access:access"
"""


def engine_of(directory: Path, access: str = ACCESS, more: str = "") -> Engine:
    (directory / "access").write_text(access)
    (directory / "gatepost.toml").write_text(CONFIG + more)
    return Engine(decode_config(encode_config(load_config(str(directory / "gatepost.toml")))))


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return engine_of(tmp_path)


def facts_of(engine: Engine, client: str = "198.51.100.1", reverse_path: str = "") -> Facts:
    facts = engine.facts_of(client, "192.0.2.200")
    facts.reverse_path = reverse_path
    return facts


def rcpt(engine: Engine, text: str, client: str = "198.51.100.1", reverse_path: str = "") -> Verdict:
    local, _, domain = text.rpartition("@")
    return engine.decide_rcpt(facts_of(engine, client, reverse_path), Address(text, local, domain))


@pytest.mark.parametrize(
    ("client", "answer"),
    [
        ("198.51.100.1", ""), ("10.1.2.3", ""), ("192.0.2.1", "554 5.7.1"), ("192.0.2.2", "450 4.7.1"), ("192.0.2.3", ""),
        ("192.0.2.4", ""), ("192.0.2.5", "550 5.0.0"), ("::ffff:192.0.2.1", "554 5.7.1"), ("local", ""),
    ],
)  # fmt: skip
def test_clients(engine: Engine, client: str, answer: str) -> None:
    verdict = engine.decide(Phase.CONNECT, facts_of(engine, client))
    assert (f"{verdict.code} {verdict.status}" if verdict.code else "") == answer


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("", ""), ("x@good.example", ""), ("x@bad.example", "550 5.7.1"), ("x@sub.BAD.example.", "550 5.7.1"),
        ("Later@bad.example", "450 4.7.1"), ("x@drop.example", ""), ("x@look.example", ""), ("x@bäd.example", ""),
    ],
)  # fmt: skip
def test_senders(engine: Engine, path: str, answer: str) -> None:
    verdict = engine.decide(Phase.MAIL, facts_of(engine, reverse_path=path))
    assert (f"{verdict.code} {verdict.status}" if verdict.code else "") == answer


@pytest.mark.parametrize(
    ("text", "client", "answer"),
    [
        ("anna@ours.example", "198.51.100.1", ""), ("closed@ours.example", "198.51.100.1", "550 5.2.1"),
        ("CLOSED@ours.example", "10.1.2.3", "550 5.2.1"), ("moved@ours.example", "198.51.100.1", "551 5.1.6"),
        ("x@relayed.example", "198.51.100.1", ""), ("x@deep.relayed.example", "198.51.100.1", ""),
        ("x@not.relayed.example", "198.51.100.1", "550 5.7.1"), ("x@y.not.relayed.example", "198.51.100.1", "550 5.7.1"),
        ("x@not.relayed.example", "10.1.2.3", ""), ("x@no.relayed.example", "198.51.100.1", "550 5.7.1"),
        ("x@else.example", "198.51.100.1", "550 5.7.1"), ("x@else.example", "10.1.2.3", ""),
        ("x@else.example", "192.0.2.4", "550 5.7.1"),
    ],
)  # fmt: skip
def test_recipients(engine: Engine, text: str, client: str, answer: str) -> None:
    verdict = rcpt(engine, text, client)
    assert (f"{verdict.code} {verdict.status}" if verdict.code else "") == answer


@pytest.mark.parametrize(
    ("text", "client", "path"),
    [("hole@ours.example", "198.51.100.1", ""), ("anna@ours.example", "192.0.2.3", ""),
     ("anna@ours.example", "198.51.100.1", "x@drop.example")],
)  # fmt: skip
def test_discard_takes_the_message_and_drops_it(engine: Engine, text: str, client: str, path: str) -> None:
    verdict = rcpt(engine, text, client, path)
    assert verdict.accepted
    assert verdict.route is not None
    assert (verdict.route.next_hop, verdict.permit, verdict.check) == ("discard:", "recipient-domain", "access")


def test_discard_gives_no_right(engine: Engine) -> None:
    assert rcpt(engine, "x@else.example", "192.0.2.3").code == 550
    assert rcpt(engine, "x@else.example", reverse_path="x@drop.example").code == 550


FRIENDS = (
    "Spam:all@ours.example FRIEND\nConnect:192.0.2.1 REJECT\nFrom:bad.example REJECT\nTo:closed@ours.example REJECT\n"
)


def test_a_friend_of_spam_gets_all_and_others_are_judged_at_the_recipient(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, FRIENDS)
    bad = {"client": "192.0.2.1", "reverse_path": "x@bad.example"}
    assert engine.decide(Phase.CONNECT, facts_of(engine, "192.0.2.1")).accepted
    assert engine.decide(Phase.MAIL, facts_of(engine, reverse_path="x@bad.example")).accepted
    assert rcpt(engine, "all@ours.example", **bad).accepted
    assert rcpt(engine, "anna@ours.example", **bad).code == 550
    assert rcpt(engine, "anna@ours.example", client="192.0.2.1").code == 554
    assert rcpt(engine, "closed@ours.example").detail == "2.1"


def test_only_haters_of_spam_are_protected(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, FRIENDS.replace("FRIEND", "HATER"))
    assert rcpt(engine, "all@ours.example", reverse_path="x@bad.example").code == 550
    assert rcpt(engine, "anna@ours.example", reverse_path="x@bad.example").accepted


def test_shadow_and_off(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, more='[policy.checks]\naccess = "shadow"\n')
    facts = facts_of(engine, "192.0.2.1")
    facts.trace = []
    assert engine.decide(Phase.CONNECT, facts).accepted
    assert [step.verdict.code for step in facts.trace if isinstance(step, Step)] == [554]
    assert rcpt(engine, "hole@ours.example").route.next_hop == "smtp://10.0.0.5:25"  # type: ignore[union-attr]
    engine = engine_of(tmp_path, more='[policy.checks]\naccess = "off"\n')
    assert not engine.has_checks(Phase.CONNECT)


def test_the_proof_holds_with_rights_from_the_table(tmp_path: Path) -> None:
    engine_of(tmp_path)
    proof = prove(load_config(str(tmp_path / "gatepost.toml")), 0.0)
    assert proof.holds
    assert proof.relayed


def test_rates_are_of_the_last_minute() -> None:
    rates = ClientRates(most=2)
    assert [rates.enter("192.0.2.1", at_s) for at_s in (1000.0, 1001.0, 1030.0, 1059.0)] == [1, 2, 3, 4]
    assert rates.enter("192.0.2.1", 1064.0) == 3
    assert rates.enter("192.0.2.1", 5000.0) == 1
    assert rates.enter("2001:db8::1", 5000.0) == 1
    assert rates.enter("2001:db8::2", 5000.0) == 2  # one client has a /64
    rates.enter("192.0.2.2", 5000.0)
    assert rates.enter("192.0.2.1", 5001.0) == 1  # forgotten, as there is room for two
