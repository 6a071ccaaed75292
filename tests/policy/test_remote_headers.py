"""A header whose addresses a table over the network has: what is asked, in how many rounds, and that nothing is told before."""

from __future__ import annotations

import pytest

from gatepost.config.schema import Config, Domain, Rewrite, RewriteRule, Source
from gatepost.model import NeedsAnswer, Question
from gatepost.policy.engine import Engine
from gatepost.policy.rewriting import MAX_QUESTIONS, HeaderOutcome, RewriteFailed
from gatepost.routing.answers import Answer, Answers
from gatepost.routing.table import TableUnavailable

CONFIG = Config(
    hostname="gate.example.net",
    listen=["192.0.2.1:25"],
    spool="/var/spool/gatepost",
    domains={"ours.example": Domain(next_hop=["smtp://10.0.0.5:25"])},
    detail_separator="+",
    rewrite=Rewrite(
        rules=[
            RewriteRule(name="faces", directions=["inbound"], domains=["in.example"], tables=["http:faces"]),
            RewriteRule(
                name="again", directions=["inbound"], domains=["step.example"], tables=["http:faces"], repeat=True
            ),
        ]
    ),
    sources={"faces": Source(type="http", field="to")},
)
FACES = {
    "a@in.example": "anna@ours.example",
    "b@in.example": "b@step.example",
    "b@step.example": "c@step.example",
    "x@in.example": "a@b,c@d",
}


def rewritten(text: str, faces: dict[str, str] = FACES, failed: str = "") -> tuple[HeaderOutcome, list[list[Question]]]:
    answers = Answers()
    engine = Engine(CONFIG, answers=answers)
    assert engine.rewriting is not None
    facts = engine.facts_of("203.0.113.9")
    rounds: list[list[Question]] = []
    given: dict[Question, Answer] = {}
    while len(rounds) < 16:
        answers.give(given)
        try:
            return engine.rewriting.header(facts, text.encode()), rounds
        except NeedsAnswer as needed:
            rounds.append(needed.questions)
            given |= {one: Answer(None if failed else faces.get(one.key), failed) for one in needed.questions}
    raise AssertionError("no end")


def test_one_round_for_all_addresses() -> None:
    done, rounds = rewritten(
        "From: <a@in.example>\r\nTo: A@In.Example, n@in.example, z@far.example\r\nCc: m@in.example\r\n\r\n"
    )
    assert done.header.startswith(b"From: <anna@ours.example>\r\nTo: anna@ours.example, n@in.example,")
    assert [{one.key for one in asked} for asked in rounds] == [{"a@in.example", "n@in.example", "m@in.example"}]
    assert [change.before for change in done.changes] == ["a@in.example", "A@In.Example"]


def test_what_an_answer_leads_to_is_another_round() -> None:
    done, rounds = rewritten("From: b@in.example\r\n\r\n")
    assert done.header == b"From: c@step.example\r\n\r\n" and len(rounds) == 3


def test_very_many_addresses_are_several_rounds() -> None:
    many = [f"u{number}@in.example" for number in range(MAX_QUESTIONS + 50)]
    done, rounds = rewritten("To: " + ",\r\n ".join(many) + "\r\n\r\n", {address: f"f-{address}" for address in many})
    assert len(done.changes) == len(many) and [len(asked) for asked in rounds] == [MAX_QUESTIONS, 50]


def test_a_header_without_such_addresses_asks_nothing() -> None:
    assert rewritten("From: a@far.example\r\nSubject: a@in.example\r\n\r\n")[1] == []


def test_what_cannot_be_had_or_makes_no_sense_is_no_answer() -> None:
    with pytest.raises(TableUnavailable):
        rewritten("From: a@in.example\r\n\r\n", failed="connection refused")
    with pytest.raises((TableUnavailable, RewriteFailed)):
        rewritten("From: x@in.example\r\n\r\n")
