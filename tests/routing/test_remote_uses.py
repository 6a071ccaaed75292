"""Aliases, routes by sender and rewriting out of tables that are asked over the network: what is asked, how often, what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gatepost.config.schema import Config, Domain, Relay, Rewrite, RewriteRule, Source
from gatepost.model import Address, NeedsAnswer, Question
from gatepost.policy.engine import Engine, Facts
from gatepost.policy.proof import prove
from gatepost.policy.rewriting import REVERSE_PATH
from gatepost.policy.verdict import Verdict
from gatepost.routing.answers import Answer, Answers

CONFIG = Config(
    hostname="gate.example.net",
    listen=["192.0.2.1:25"],
    spool="/var/spool/gatepost",
    domains={"ours.example": Domain(next_hop=["smtp://10.0.0.5:25"], recipients=["ldap:people"])},
    relay=Relay(networks=["10.0.0.0/8"], next_hop=["mx"]),
    aliases=["ldap:lists"],
    alias_domains=["ours.example"],
    alias_max_recipients=600,
    sender_routes=["sql:senders"],
    detail_separator="+",
    rewrite=Rewrite(
        rules=[
            RewriteRule(
                name="map", parts=["reverse-path", "forward-path"], domains=["inside.example"], tables=["http:map"]
            )
        ]
    ),
    sources={
        "people": Source(type="ldap"),
        "lists": Source(type="ldap", attribute="mail"),
        "senders": Source(type="mysql", keys=["address", "domain", "any"]),
        "map": Source(type="http", field="to", keys=["address", "catch-all"]),
    },
)
PEOPLE = {f"{name}@ours.example": "" for name in ("anna", "bob", "carl", "self")}
MANY = [f"m{number}@ours.example" for number in range(500)]
TABLES: dict[str, dict[str, str]] = {
    "ldap:people": PEOPLE | dict.fromkeys(MANY, ""),
    "ldap:lists": {
        "team@ours.example": "anna,bob,zoe@else.example,anna@OURS.example",
        "all@ours.example": "team, carl, gone",
        "owner-all@ours.example": "anna",
        "one@ours.example": "two",
        "two@ours.example": "one@ours.example",
        "self@ours.example": "self,bob",
        "many@ours.example": ",".join(MANY),
        "crowd@ours.example": ",".join(f"c{number}@else.example" for number in range(601)),
        "program@ours.example": "anna,|/bin/vacation",
    },
    "sql:senders": {"boss@ours.example": "smtp://10.0.0.20:25", "ours.example": "smtp://10.0.0.21:25", "<>": "smtp://10.0.0.22:25"},
    "http:map": {"anna@inside.example": "a.smith@ours.example", "@inside.example": "@shown.example", "two@inside.example": "a@b.example,c@d.example"},
}  # fmt: skip


class Asked:
    """Runs decisions as a receiver does: each round of questions is answered, then the decision is run again."""

    def __init__(self, config: Config = CONFIG, down: str = "") -> None:
        self.troubles: list[str] = []
        self.answers = Answers(trouble=lambda source, why: self.troubles.append(source))
        self.engine = Engine(config, answers=self.answers)
        self.asked: list[Question] = []
        self.rounds = 0
        self._down = down

    def run(self, decide: Callable[[], Any]) -> Any:
        given: dict[Question, Answer] = {}
        while self.rounds < 30:
            self.answers.give(given)
            try:
                return decide()
            except NeedsAnswer as needed:
                self.rounds += 1
                assert not given.keys() & set(needed.questions), "asked again"
                self.asked += needed.questions
                for one in needed.questions:
                    failed = "connection refused" if one.source == self._down else ""
                    given[one] = Answer(None if failed else TABLES[one.source].get(one.key), failed)
        raise AssertionError("no end")

    def facts(self, client: str = "203.0.113.9", reverse_path: str = "x@far.example") -> Facts:
        facts = self.engine.facts_of(client)
        facts.reverse_path = reverse_path
        return facts

    def rcpt(self, text: str, client: str = "203.0.113.9", reverse_path: str = "x@far.example") -> Verdict:
        local, _, domain = text.rpartition("@")
        verdict: Verdict = self.run(
            lambda: self.engine.decide_rcpt(self.facts(client, reverse_path), Address(text, local, domain))
        )
        return verdict


def members(verdict: Verdict) -> list[tuple[str, str]]:
    assert verdict.accepted and verdict.route is not None and verdict.route.expansion is not None, verdict
    return [(one.address, one.reverse_path) for one in verdict.route.expansion.routes]


def test_aliases_with_details_owners_and_members_elsewhere() -> None:
    asked = Asked()
    team = ["anna@ours.example", "bob@ours.example", "zoe@else.example"]
    assert members(asked.rcpt("Team@ours.example")) == [(one, "") for one in team]
    assert members(asked.rcpt("team+x@ours.example")) == [(one, "") for one in team]
    owner = "owner-all@ours.example"
    assert members(asked.rcpt("all@ours.example")) == [(one, owner) for one in [*team, "carl@ours.example"]]
    assert members(asked.rcpt("self@ours.example")) == [("self@ours.example", ""), ("bob@ours.example", "")]
    assert asked.rcpt("anna@ours.example").route.expansion is None  # type: ignore[union-attr]
    assert asked.rcpt("nobody@ours.example").status == "5.1.1"


@pytest.mark.parametrize(
    ("text", "status", "cause"),
    [
        ("one@ours.example", "5.4.6", "one@ours.example -> two@ours.example -> one@ours.example"),
        ("crowd@ours.example", "5.2.4", "more than 600"),
        ("program@ours.example", "4.3.0", ""),
    ],
)
def test_aliases_that_are_refused(text: str, status: str, cause: str) -> None:
    asked = Asked()
    verdict = asked.rcpt(text)
    assert verdict.status == status and cause in verdict.cause
    assert asked.troubles == (["ldap:lists"] if status == "4.3.0" else [])


def test_members_are_asked_for_together() -> None:
    asked = Asked()
    assert len(members(asked.rcpt("many@ours.example"))) == 500
    assert asked.rounds <= 5 and len(asked.asked) == len(set(asked.asked)) <= 1003


@pytest.mark.parametrize("down", ["ldap:lists", "ldap:people"])
def test_a_directory_that_is_down_defers_lists_and_members(down: str) -> None:
    verdict = Asked(down=down).rcpt("team@ours.example")
    assert (verdict.code, verdict.detail) == (451, "3.0")


@pytest.mark.parametrize(
    ("sender", "next_hop"),
    [
        ("Boss@ours.example", "smtp://10.0.0.20:25"),
        ("anna@ours.example", "smtp://10.0.0.21:25"),
        ("", "smtp://10.0.0.22:25"),
        ("x@far.example", "mx:far2.example"),
    ],
)
def test_routes_by_sender(sender: str, next_hop: str) -> None:
    verdict = Asked().rcpt("u@far2.example", "10.0.0.9", sender)
    assert verdict.accepted and verdict.route is not None and verdict.route.next_hop == next_hop


def test_routes_by_sender_that_cannot_be_asked() -> None:
    asked = Asked(down="sql:senders")
    assert asked.rcpt("u@far2.example", "10.0.0.9", "boss@ours.example").status == "4.3.0"
    assert asked.rcpt("anna@ours.example", "10.0.0.9", "boss@ours.example").accepted  # its route hangs on no sender


def test_a_stranger_has_no_server_asked_for_a_sender_he_makes_up() -> None:
    asked = Asked(down="sql:senders")
    assert asked.rcpt("u@far2.example", reverse_path="made-up@ours.example").status == "5.7.1"
    assert not asked.asked


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("anna@inside.example", "a.smith@ours.example"),
        ("Bob@inside.example", "Bob@shown.example"),
        ("x@other.example", "x@other.example"),
    ],
)
def test_paths_are_rewritten(text: str, becomes: str) -> None:
    asked = Asked()
    local, _, domain = text.rpartition("@")
    rewriting = asked.engine.rewriting
    assert rewriting is not None
    found = asked.run(lambda: rewriting.path(REVERSE_PATH, asked.facts("10.0.0.9"), Address(text, local, domain)))
    assert found.address.text == becomes
    verdict = asked.rcpt(text, "10.0.0.9")
    assert verdict.status == "5.1.1" if becomes == "a.smith@ours.example" else verdict.accepted


def test_details_stay_where_a_path_is_rewritten_without_them() -> None:
    source = msgspec.structs.replace(CONFIG.sources["map"], keys=["address"])
    asked = Asked(msgspec.structs.replace(CONFIG, sources=CONFIG.sources | {"map": source}))
    rewriting = asked.engine.rewriting
    assert rewriting is not None
    address = Address("anna+x@inside.example", "anna+x", "inside.example")
    found = asked.run(lambda: rewriting.path(REVERSE_PATH, asked.facts("10.0.0.9"), address))
    assert found.address.text == "a.smith+x@ours.example"


@pytest.mark.parametrize(("text", "down"), [("anna@inside.example", "http:map"), ("two@inside.example", "")])
def test_a_path_that_cannot_be_rewritten_defers(text: str, down: str) -> None:
    asked = Asked(down=down)
    verdict = asked.rcpt(text, "10.0.0.9")
    assert (verdict.status, verdict.check) == ("4.3.0", "rewrite")
    assert verdict.cause.startswith("http:map")


def test_the_proof_holds() -> None:
    assert prove(CONFIG).holds


@pytest.mark.parametrize("down", ["", "ldap:people"])
def test_strangers_have_no_server_asked_where_mail_of_others_would_go(down: str) -> None:
    """The answer could change nothing; that a server is down is the trouble of those with a right alone."""
    asked = Asked(msgspec.structs.replace(CONFIG, routes=["ldap:people"], rewrite=Rewrite()), down=down)
    assert asked.rcpt("x@else.example").status == "5.7.1"
    assert asked.asked == []
    assert asked.rcpt("x@else.example", client="10.0.0.9").code == (451 if down else 0)
    assert {question.source for question in asked.asked} >= {"ldap:people"}
    assert asked.rcpt("x@else.example").status == "5.7.1"
