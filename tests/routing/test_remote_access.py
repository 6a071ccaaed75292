"""An access table that is asked over the network: sendmail's order of keys, what waits, what is put off, and that it gives no right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gatepost.config.load import load_config
from gatepost.config.schema import Config, Domain, Policy, Relay, Source
from gatepost.model import Address, NeedsAnswer, Question
from gatepost.policy import engine as engine_module
from gatepost.policy.engine import Engine, Facts, Phase
from gatepost.policy.proof import prove
from gatepost.policy.relay import Identity
from gatepost.policy.verdict import Verdict
from gatepost.routing.answers import Answer, Answers
from gatepost.routing.tables.remote_access import MAX_DOMAIN_KEYS, RemoteAccessTable
from gatepost.routing.tables.sendmail_access import AccessTable

LINES = {
    "connect:192.0.2.1": "REJECT",
    "connect:192.0.2": "ERROR:4.7.1:450 not now",
    "connect:192.0.2.9": "OK",
    "connect:192.0.2.8": "SKIP",
    "connect:198.51.100.7": "RELAY",
    "connect:ipv6:2001:db8": "REJECT",
    "from:bad.example": "REJECT",
    "from:good@bad.example": "OK",
    "from:noreply@": "ERROR:5.7.1:550 no robots",
    "from:drop.example": "DISCARD",
    "from:all.example": "RELAY",
    "to:closed@ours.example": "REJECT",
    "to:root@": "REJECT",
    "to:else.example": "RELAY",
    "from:odd.example": "FRIEND",
    "from:wrong.example": "ERROR:421 x",
}
CONFIG = Config(
    hostname="gate.example.net",
    listen=["192.0.2.200:25"],
    spool="/var/spool/gatepost",
    domains={"ours.example": Domain(next_hop=["smtp://10.0.0.5:25"])},
    relay=Relay(networks=["10.0.0.0/8"], next_hop=["mx"]),
    access=["sql:access"],
    sources={"access": Source(type="postgresql")},
)
STRANGER = "203.0.113.9"


class Asked:
    """Runs decisions as a receiver does: each round of questions is answered, then the decision is run again."""

    def __init__(self, config: Config = CONFIG, lines: dict[str, str] = LINES, *, is_down: bool = False) -> None:
        self.troubles: list[str] = []
        self.answers = Answers(trouble=lambda source, why: self.troubles.append(why))
        self.engine = Engine(config, answers=self.answers)
        self.rounds: list[list[Question]] = []
        self._lines = lines
        self._failed = "connection refused" if is_down else ""

    def run(self, decide: Callable[[], Any]) -> Any:
        given: dict[Question, Answer] = {}
        while len(self.rounds) < 30:
            self.answers.give(given)
            try:
                return decide()
            except NeedsAnswer as needed:
                self.rounds.append(needed.questions)
                for one in needed.questions:
                    given[one] = Answer(None if self._failed else self._lines.get(one.key), self._failed)
        raise AssertionError("no end")

    def facts(self, client: str, reverse_path: str) -> Facts:
        facts = self.engine.facts_of(client)
        facts.reverse_path = reverse_path
        return facts

    def connect(self, client: str) -> str:
        facts = self.facts(client, "")
        return _text(self.run(lambda: self.engine.decide(Phase.CONNECT, facts)))

    def mail(self, reverse_path: str, client: str = STRANGER) -> str:
        facts = self.facts(client, reverse_path)
        return _text(self.run(lambda: self.engine.decide(Phase.MAIL, facts)))

    def rcpt(self, text: str, client: str = STRANGER, reverse_path: str = "x@far.example") -> str:
        local, _, domain = text.rpartition("@")
        facts = self.facts(client, reverse_path)
        return _text(self.run(lambda: self.engine.decide_rcpt(facts, Address(text, local, domain))))


def _text(verdict: Verdict) -> str:
    if verdict.code:
        return f"{verdict.code} {verdict.status}"
    return verdict.route.next_hop if verdict.route is not None else "accepted"


@pytest.mark.parametrize(
    ("client", "answer"),
    [
        ("192.0.2.1", "554 5.7.1"), ("192.0.2.2", "450 4.7.1"), ("192.0.2.9", "accepted"), ("192.0.2.8", "accepted"),
        ("2001:db8::5", "554 5.7.1"), ("::ffff:192.0.2.1", "554 5.7.1"), (STRANGER, "accepted"), ("local", "accepted"),
    ],
)  # fmt: skip
def test_clients(client: str, answer: str) -> None:
    asked = Asked()
    assert asked.connect(client) == answer
    assert len(asked.rounds) == (client != "local")  # all prefixes at once


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("x@bad.example", "550 5.7.1"), ("x@sub.bad.example", "550 5.7.1"), ("good@bad.example", "accepted"),
        ("good+tag@bad.example", "accepted"), ("noreply@any.example", "550 5.7.1"), ("x@far.example", "accepted"), ("", "accepted"),
    ],
)  # fmt: skip
def test_senders(path: str, answer: str) -> None:
    assert Asked().mail(path) == answer


@pytest.mark.parametrize(
    ("to", "answer"),
    [
        ("closed@ours.example", "550 5.2.1"), ("CLOSED@Ours.Example", "550 5.2.1"), ("root@ours.example", "550 5.2.1"),
        ("anna@ours.example", "smtp://10.0.0.5:25"), ("x@else.example", "550 5.7.1"),
    ],
)  # fmt: skip
def test_recipients(to: str, answer: str) -> None:
    assert Asked().rcpt(to) == answer


def test_mail_is_dropped() -> None:
    assert Asked().rcpt("anna@ours.example", reverse_path="x@drop.example") == "discard:"


def test_it_says_the_same_as_a_table_in_a_file(tmp_path: Path) -> None:
    lines = {
        key: value for key, value in LINES.items() if "RELAY" not in value and "odd" not in key and "wrong" not in key
    }
    path = tmp_path / "access"
    path.write_text("".join(f"{key}\t{value}\n" for key, value in lines.items()))
    here = AccessTable.of_data(AccessTable.load(str(path)))

    class Known(Answers):
        def need_answers(self, source: str, keys: Sequence[str]) -> list[Answer]:
            return [Answer(lines.get(key)) for key in keys]

    there = RemoteAccessTable("sql:access", Known())
    for client in ("192.0.2.1", "192.0.2.2", "192.0.2.8", "192.0.2.9", "2001:db8::5", STRANGER):
        assert there.connect(client) == here.connect(client)
    for text in (
        "x@bad.example",
        "good+a@bad.example",
        "noreply@b.example",
        "closed@ours.example",
        "root@ours.example",
        "a@b",
    ):
        local, _, domain = text.rpartition("@")
        assert there.sender(local, domain) == here.sender(local, domain)
        for is_ours in (True, False):
            assert there.recipient(local, domain, is_ours) == here.recipient(local, domain, is_ours)


def test_while_it_is_down_everybody_is_put_off() -> None:
    asked = Asked(is_down=True)
    assert asked.connect(STRANGER) == asked.mail("x@far.example") == asked.rcpt("anna@ours.example") == "451 4.3.0"
    assert asked.rcpt("x@else.example") == "550 5.7.1"  # no right, whatever it would say


@pytest.mark.parametrize("path", ["x@odd.example", "x@wrong.example"])
def test_a_value_without_sense_puts_off_and_is_told(path: str) -> None:
    asked = Asked()
    assert asked.mail(path) == "451 4.3.0" and len(asked.troubles) == 1


def test_in_shadow_it_holds_up_nobody() -> None:
    config = msgspec.structs.replace(CONFIG, policy=Policy(checks={"access": "shadow"}))
    assert Asked(config, is_down=True).connect(STRANGER) == "accepted"


def test_a_name_of_very_many_labels_is_few_keys() -> None:
    asked = Asked(lines={"from:example": "REJECT"})
    assert asked.mail("x@" + "a." * 100 + "example") == "550 5.7.1"
    assert len(asked.rounds[0]) <= MAX_DOMAIN_KEYS + 3


def test_a_file_in_front_of_it_answers_first(tmp_path: Path) -> None:
    (tmp_path / "access").write_text("From:bad.example REJECT\n")
    (tmp_path / "gatepost.toml").write_text(
        'hostname = "g.test"\nlisten = ["127.0.0.1:2525"]\nspool = "spool"\naccess = ["sendmail-access:access", "sql:access"]\n'
        '[domains."ours.example"]\nnext_hop = "smtp://10.0.0.5:25"\n[sources.access]\ntype = "postgresql"\nservers = ["10.0.0.9"]\n'
        'database = "mail"\nuser = "gatepost"\nquery = "SELECT value FROM access WHERE key = {key}"\n'
    )  # fmt: skip
    config = load_config(str(tmp_path / "gatepost.toml"))
    asked = Asked(config, lines={}, is_down=True)
    assert asked.mail("x@bad.example") == "550 5.7.1" and not asked.rounds
    assert asked.mail("x@other.example") == "451 4.3.0"


# --- rights -----------------------------------------------------------------------------------------------------------


def test_relay_gives_no_right() -> None:
    asked = Asked()
    assert asked.rcpt("x@else.example", "198.51.100.7", "x@all.example") == "550 5.7.1"
    assert asked.rcpt("x@else.example", "10.1.1.1") == "mx:else.example"


def test_the_proof_takes_for_granted_that_it_says_relay_of_everybody() -> None:
    without = prove(msgspec.structs.replace(CONFIG, access=[], sources={}))
    proof = prove(CONFIG)
    assert proof.holds and (proof.sessions, proof.relayed) == (without.sessions, without.relayed)


def test_the_proof_shows_a_hole_where_what_it_says_gives_a_right(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Engine._decide_rcpt

    def trusting(self: Engine, facts: Facts, address: Address) -> Verdict:
        said = self.access._client(facts)
        if said is not None and said.word == "RELAY" and facts.client_permit is None:
            facts = msgspec.structs.replace(facts, client_permit=Identity("anybody"))
        return plain(self, facts, address)

    monkeypatch.setattr(engine_module.Engine, "_decide_rcpt", trusting)
    assert not prove(CONFIG).holds
