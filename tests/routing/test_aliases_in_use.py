"""Aliases: several targets, nested, owners, loops, limits; what is refused and what takes its place; routes by sender."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatepost.config.errors import ConfigErrors
from gatepost.config.load import load_config
from gatepost.config.schema import Config
from gatepost.model import Address
from gatepost.policy.engine import Engine
from gatepost.policy.explain import Explainer
from gatepost.policy.proof import prove
from gatepost.routing.route import Refusal, Route
from gatepost.routing.router import Router

CONFIG = """hostname = "gate.example.net"
listen = "192.0.2.1:25"
spool = "/var/spool/gatepost"
aliases = "file:aliases"
alias_domains = ["ours.example"]
alias_max_recipients = 20
virtual = "file:virtual"
sender_routes = "file:senders"
detail_separator = "+"

[domains."ours.example"]
next_hop = "smtp://10.0.0.5:25"
recipients = ["anna", "bob", "carl", "self"]
[domains."other.example"]
next_hop = "lmtp://10.0.0.6:24"
recipients = ["zoe", "anna"]

[relay]
networks = ["10.0.0.0/8"]
"""
ALIASES = """# people
postmaster: anna
team: anna, bob,
  zoe@other.example
all: team, carl, Bob, outside@else.example
owner-all: carl
list: all, anna
self: self, bob
final: \\all
half: anna, gone
dead: gone, lost
hole: /dev/null
one: two
two: three@ours.example
three: one
deep: virtual@other.example
"quoted name": anna
root: anna
mail.er-daemon: root
"""
VIRTUAL = """virtual@other.example anna@ours.example, zoe@other.example
both@other.example zoe@other.example, team@ours.example
"""
SENDERS = """boss@ours.example smtp://10.0.0.20:25
ours.example smtp://10.0.0.21:25
.below.example hold:
<> smtp://10.0.0.22:25
bad.example error:5.7.1 not with this sender
"""


def load(directory: Path, aliases: str = ALIASES, text: str = CONFIG) -> Config:
    for name, content in (("aliases", aliases), ("virtual", VIRTUAL), ("senders", SENDERS)):
        (directory / name).write_text(content)
    path = directory / "gatepost.toml"
    path.write_text(text)
    path.chmod(0o600)
    return load_config(str(path))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return load(tmp_path_factory.mktemp("conf"))


@pytest.fixture(scope="module")
def router(config: Config) -> Router:
    return Router(config)


def resolve(router: Router, text: str) -> Route | Refusal:
    local, _, domain = text.rpartition("@")
    return router.resolve(Address(text, local, domain))


def addresses(router: Router, text: str) -> list[str]:
    found = resolve(router, text)
    assert isinstance(found, Route), found
    return [one.address for one in found.expansion.routes] if found.expansion else [found.address or text]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("anna@ours.example", ["anna@ours.example"]),
        ("team@ours.example", ["anna@ours.example", "bob@ours.example", "zoe@other.example"]),
        ("TEAM+x@ours.example", ["anna@ours.example", "bob@ours.example", "zoe@other.example"]),
        ("all@ours.example", ["anna@ours.example", "bob@ours.example", "zoe@other.example", "carl@ours.example", "outside@else.example"]),
        ("self@ours.example", ["self@ours.example", "bob@ours.example"]),
        ("half@ours.example", ["anna@ours.example"]),
        ("hole@ours.example", ["hole@ours.example"]),
        ("deep@ours.example", ["anna@ours.example", "zoe@other.example"]),
        ("both@other.example", ["zoe@other.example", "anna@ours.example", "bob@ours.example"]),
        ("postmaster@ours.example", ["anna@ours.example"]),
        ("mail.er-daemon@ours.example", ["anna@ours.example"]),
        ("zoe@other.example", ["zoe@other.example"]),
    ],
)  # fmt: skip
def test_who_is_behind_an_address(router: Router, text: str, wanted: list[str]) -> None:
    assert addresses(router, text) == wanted


def test_each_goes_its_way_and_the_right_is_that_of_the_alias(router: Router) -> None:
    found = resolve(router, "all@ours.example")
    assert isinstance(found, Route) and found.ours and found.expansion is not None
    ways = {one.address: one.next_hop for one in found.expansion.routes}
    assert ways["zoe@other.example"] == "lmtp://10.0.0.6:24"
    assert ways["outside@else.example"] == "mx:else.example"
    hole = resolve(router, "hole@ours.example")
    assert isinstance(hole, Route) and hole.next_hop == "discard:"


def test_owners(router: Router) -> None:
    found = resolve(router, "list@ours.example")
    assert isinstance(found, Route) and found.expansion is not None
    assert {one.reverse_path for one in found.expansion.routes} == {"owner-all@ours.example"}
    team = resolve(router, "team@ours.example")
    assert isinstance(team, Route) and team.expansion is not None
    assert {one.reverse_path for one in team.expansion.routes} == {""}


@pytest.mark.parametrize(
    ("text", "status", "cause"),
    [
        (
            "one@ours.example",
            "550 5.4.6",
            "one@ours.example -> two@ours.example -> three@ours.example -> one@ours.example",
        ),
        ("dead@ours.example", "550 5.1.1", "gone@ours.example"),
        ("team@other.example", "550 5.1.1", ""),
        ("final@ours.example", "550 5.1.1", "all@ours.example"),
        ("nobody@ours.example", "550 5.1.1", ""),
    ],
)
def test_refusals(router: Router, text: str, status: str, cause: str) -> None:
    found = resolve(router, text)
    assert isinstance(found, Refusal)
    assert f"{found.code} {found.code // 100}.{found.detail}" == status and cause in found.cause
    assert "->" not in found.text


def test_too_many(tmp_path: Path) -> None:
    many = ", ".join(f"u{number}@else.example" for number in range(21))
    found = resolve(Router(load(tmp_path, f"many: {many}\n")), "many@ours.example")
    assert isinstance(found, Refusal) and (found.code, found.detail) == (550, "2.4")
    assert "more than 20" in found.cause


def test_a_fan_out_is_bounded(tmp_path: Path) -> None:
    """Each leads to the next twice: 2 to the 18 walks if nothing stopped it."""
    lines = [f"a{number}: a{number + 1}, x{number}@else.example" for number in range(30)]
    found = resolve(Router(load(tmp_path, "\n".join(lines) + "\n")), "a0@ours.example")
    assert isinstance(found, Refusal) and found.detail == "4.6"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('x: "|/usr/bin/vacation anna"', "is a program; no role may run a program: let it take mail by LMTP"),
        ("x: |/bin/cat", "LMTP"),
        ("x: /var/mail/archive", "maildir:"),
        ("x: :include:/etc/mail/list", "list manager"),
        ("x: a b", "is not an address"),
        ("x:", "leads nowhere"),
        ("no colon here", "is no alias"),
        ("x: anna\nX: bob", "given twice"),
    ],
)
def test_what_an_alias_cannot_be(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(ConfigErrors, match="aliases:") as raised:
        load(tmp_path, f"# one\n{line}\n")
    assert problem in str(raised.value)


def test_a_program_in_a_virtual_table(tmp_path: Path) -> None:
    load(tmp_path)
    (tmp_path / "virtual").write_text("x@ours.example |/bin/cat\n")
    with pytest.raises(ConfigErrors, match="LMTP"):
        load_config(str(tmp_path / "gatepost.toml"))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [('alias_domains = ["ours.example"]\n', "", "for which domains"), ('["ours.example"]', '["a.example"]', "is not one of the domains")],
)  # fmt: skip
def test_their_domains(tmp_path: Path, old: str, new: str, problem: str) -> None:
    with pytest.raises(ConfigErrors, match=problem):
        load(tmp_path, text=CONFIG.replace(old, new, 1))


def test_the_proof_holds_and_explain_shows_the_chain(config: Config) -> None:
    assert prove(config).holds
    engine = Engine(config)
    facts = engine.facts_of("198.51.100.1")
    text = "\n".join(Explainer(config, engine).rcpt(facts, Address("list@ours.example", "list", "ours.example")).text())
    assert "list@ours.example -> all, anna" in text and "all@ours.example -> team, carl" in text
    loop = "\n".join(Explainer(config, engine).rcpt(facts, Address("one@ours.example", "one", "ours.example")).text())
    assert "one@ours.example -> two@ours.example" in loop


@pytest.mark.parametrize(
    ("sender", "answer"),
    [
        ("boss@ours.example", "smtp://10.0.0.20:25"),
        ("BOSS@ours.example", "smtp://10.0.0.20:25"),
        ("x@ours.example", "smtp://10.0.0.21:25"),
        ("x@a.below.example", "held mx:else.example"),
        ("", "smtp://10.0.0.22:25"),
        ("x@bad.example", "550 5.7.1 not with this sender"),
        ("x@none.example", "mx:else.example"),
    ],
)
def test_routes_by_sender(config: Config, sender: str, answer: str) -> None:
    engine = Engine(config)
    facts = engine.facts_of("10.0.0.1")
    facts.reverse_path = sender
    verdict = engine.decide_rcpt(facts, Address("x@else.example", "x", "else.example"))
    if verdict.code:
        assert f"{verdict.code} {verdict.status} {verdict.text}" == answer
    else:
        assert verdict.route is not None
        assert ("held " if verdict.route.hold else "") + verdict.route.next_hop == answer
    ours = engine.decide_rcpt(facts, Address("anna@ours.example", "anna", "ours.example"))
    assert ours.route is not None and ours.route.next_hop == "smtp://10.0.0.5:25"
    stranger = engine.facts_of("198.51.100.1")
    stranger.reverse_path = sender
    assert engine.decide_rcpt(stranger, Address("x@else.example", "x", "else.example")).check == "relay"


RULE = """[[relay.rules]]
name = "court"
anyone = true
domains = ["ours"]
reverse_paths = ["@court.example"]
next_hop = "smtp://10.0.0.7:25"
"""


@pytest.mark.parametrize(
    ("sender", "hold", "hops"),
    [
        ("a@odd.example", "quarantined by the access table: look", {"smtp://10.0.0.5:25", "lmtp://10.0.0.6:24"}),
        ("a@court.example", "", {"smtp://10.0.0.7:25"}),
        ("a@drop.example", "", {"discard:"}),
    ],
)
def test_what_is_said_of_the_message_holds_for_all_of_them(
    tmp_path: Path, sender: str, hold: str, hops: set[str]
) -> None:
    (tmp_path / "access").write_text("From:odd.example QUARANTINE:look\nFrom:drop.example DISCARD\n")
    engine = Engine(load(tmp_path, text='access = "sendmail-access:access"\n' + CONFIG + RULE))
    facts = engine.facts_of("198.51.100.1")
    facts.reverse_path = sender
    route = engine.decide_rcpt(facts, Address("team@ours.example", "team", "ours.example")).route
    assert route is not None and route.hold == hold
    assert {one.next_hop for one in (route.expansion.routes if route.expansion else (route,))} == hops
    assert (route.expansion is None) == ("discard:" in hops)
