"""`error:` and `hold:` wherever a next hop may stand: in domains, at the top, in [relay], in rules, in tables; and quarantine."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatepost.config.errors import ConfigErrors
from gatepost.config.load import load_config
from gatepost.config.schema import Config
from gatepost.model import Address
from gatepost.policy.engine import Engine
from gatepost.policy.proof import prove
from gatepost.policy.verdict import Verdict

CONFIG = """hostname = "gate.example.net"
listen = "192.0.2.1:25"
spool = "/var/spool/gatepost"
routes = "file:routes"
access = "sendmail-access:access"

[domains."plain.example"]
next_hop = "smtp://10.0.0.5:25"
[domains."closed.example"]
next_hop = "error:550 5.7.1 closed, write to plain.example"
recipients = ["anna"]
[domains."later.example"]
next_hop = ["hold:smtp://10.0.0.6:25,smtp://10.0.0.7:25"]
[domains."wait.example"]
next_hop = "lmtp://10.0.0.8:24"
[domains.".below.example"]
next_hop = "hold:mx"

[relay]
networks = ["10.0.0.0/8"]
next_hop = "hold:"
[[relay.rules]]
name = "no more"
networks = ["10.1.0.0/16"]
domains = ["competitor.example"]
next_hop = "error:5.7.1 not to them"
[[relay.rules]]
name = "look at it"
anyone = true
domains = ["ours"]
reverse_paths = ["@court.example"]
next_hop = "hold:smtp://10.0.0.2:25"
"""
ROUTES = """gone.example error:5.1.6 moved away
odd.example hold:smtp://10.0.0.9:25
wait.example hold:
"""
ACCESS = """Connect:192.0.2.3   QUARANTINE:odd client
From:odd.example    QUARANTINE:odd sender
From:bad.example    REJECT
To:odd@plain.example QUARANTINE:odd recipient
"""


def load(directory: Path, text: str = CONFIG) -> Config:
    (directory / "access").write_text(ACCESS)
    (directory / "routes").write_text(ROUTES)
    path = directory / "gatepost.toml"
    path.write_text(text)
    path.chmod(0o600)
    return load_config(str(path))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(load(tmp_path_factory.mktemp("conf")))


def rcpt(engine: Engine, to: str, client: str = "198.51.100.1", reverse_path: str = "a@x.example") -> Verdict:
    facts = engine.facts_of(client, "192.0.2.1")
    facts.reverse_path = reverse_path
    local, _, domain = to.rpartition("@")
    return engine.decide_rcpt(facts, Address(to, local, domain))


@pytest.mark.parametrize(
    ("to", "client", "answer"),
    [
        ("x@plain.example", "198.51.100.1", "smtp://10.0.0.5:25"),
        ("anna@closed.example", "198.51.100.1", "550 5.7.1 closed, write to plain.example"),
        ("bob@closed.example", "198.51.100.1", "550 5.1.1"),
        ("x@later.example", "198.51.100.1", "held smtp://10.0.0.6:25,smtp://10.0.0.7:25"),
        ("x@wait.example", "198.51.100.1", "held lmtp://10.0.0.8:24"),
        ("x@one.below.example", "198.51.100.1", "held mx:one.below.example"),
        ("x@gone.example", "10.0.0.1", "550 5.1.6 moved away"),
        ("x@odd.example", "10.0.0.1", "held smtp://10.0.0.9:25"),
        ("x@odd.example", "198.51.100.1", "550 5.7.1 We do not relay"),
        ("x@else.example", "10.0.0.1", "held mx:else.example"),
        ("x@[192.0.2.77]", "10.0.0.1", "held mx:[192.0.2.77]"),
        ("x@competitor.example", "10.1.0.1", "550 5.7.1 not to them"),
        ("x@competitor.example", "10.2.0.1", "held mx:competitor.example"),
    ],
)
def test_where_it_stands(engine: Engine, to: str, client: str, answer: str) -> None:
    assert told(rcpt(engine, to, client)).startswith(answer)


def told(verdict: Verdict) -> str:
    if verdict.code:
        return f"{verdict.code} {verdict.status} {verdict.text}"
    assert verdict.route is not None
    return ("held " if verdict.route.hold else "") + verdict.route.next_hop


def test_a_rule_that_holds(engine: Engine) -> None:
    verdict = rcpt(engine, "x@plain.example", reverse_path="judge@court.example")
    assert told(verdict) == "held smtp://10.0.0.2:25"
    assert told(rcpt(engine, "x@plain.example")) == "smtp://10.0.0.5:25"


@pytest.mark.parametrize(
    ("to", "client", "path", "hold"),
    [
        ("x@plain.example", "192.0.2.3", "a@x.example", "odd client"),
        ("x@plain.example", "198.51.100.1", "a@odd.example", "odd sender"),
        ("odd@plain.example", "198.51.100.1", "a@x.example", "odd recipient"),
        ("x@plain.example", "192.0.2.4", "", ""),
    ],
)
def test_quarantine_holds_and_keeps_the_route(engine: Engine, to: str, client: str, path: str, hold: str) -> None:
    verdict = rcpt(engine, to, client, path)
    assert verdict.route is not None
    assert verdict.route.next_hop == "smtp://10.0.0.5:25"
    assert verdict.route.hold == (f"quarantined by the access table: {hold}" if hold else "")


def test_an_error_gives_no_right(tmp_path: Path) -> None:
    proof = prove(load(tmp_path))
    assert proof.holds, proof.lines()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('next_hop = ["hold:smtp://a.test", "smtp://b.test"]', "cannot be combined"),
        ('next_hop = ["error:550 5.1.1 x", "smtp://b.test"]', "cannot be combined"),
        ('next_hop = "hold:"', "does not say where the mail goes in the end"),
        ('next_hop = "pipe:/usr/bin/procmail"', "LMTP on TCP"),
    ],
)
def test_what_makes_no_sense(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(ConfigErrors, match=problem):
        load(tmp_path, CONFIG.replace('next_hop = "smtp://10.0.0.5:25"', line, 1))
