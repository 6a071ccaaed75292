"""The tables of outcomes: complete, consistent, and one outcome for each recipient whatever happened."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.delivery.attempt import ERROR_RULES, REPLY_RULES, is_stale, judge_problem, judge_reply, judge_transaction
from gatepost.model import NextHopTrouble, Result
from gatepost.smtp.client import Problem, Transaction
from gatepost.smtp.replyreader import RemoteReply

STAGES = ("greeting", "helo", "tls", "auth", "mail", "rcpt", "data", "body")


def reply(code: int, status: str = "") -> RemoteReply:
    return RemoteReply(code, status, f"{code} {status} text")


@pytest.mark.parametrize("stage", STAGES)
def test_every_refusal_has_a_rule_and_a_status_of_its_class(stage: str):
    for code, status in itertools.product(range(400, 600), ("", "x.7.1")):
        status = status.replace("x", str(code // 100))
        verdict = judge_reply(stage, reply(code, status))
        assert verdict.result in (Result.DEFERRED, Result.FAILED)
        assert verdict.status[0] == ("5" if verdict.result is Result.FAILED else "4")
        if code < 500:
            assert verdict.result is Result.DEFERRED


def test_every_problem_has_a_rule():
    for stage in (*STAGES, "connect"):
        for kind in ("lost", "timeout", "protocol", "read", "unfit"):
            verdict = judge_problem(Problem(stage, kind, "text", None, "5.6.3" if kind == "unfit" else ""))
            assert (verdict.result is Result.FAILED) == (kind == "unfit")
    assert {stage for stage, _ in REPLY_RULES} == set(STAGES)
    assert {stage for stage, _ in ERROR_RULES} <= {"", *STAGES, "connect"}


def test_after_the_dot_no_other_host_is_tried():
    for kind in ("lost", "timeout", "protocol"):
        assert not judge_problem(Problem("body", kind, "text")).elsewhere
        assert judge_problem(Problem("data", kind, "text")).elsewhere


def test_long_replies_are_cut():
    assert len(judge_reply("rcpt", RemoteReply(550, "", "550 " + "x" * 5000)).text) == 1000


def test_stale():
    transaction = Transaction("", ["a@x"], 1)
    assert not is_stale(transaction)
    transaction.problem = Problem("mail", "lost", "gone")
    assert is_stale(transaction)
    transaction.mail = reply(421)
    transaction.problem = Problem("mail", "reply", "421 bye", reply(421))
    assert is_stale(transaction)
    transaction.mail = reply(250)
    transaction.problem = Problem("rcpt", "lost", "gone")
    assert not is_stale(transaction)
    transaction.mail = None
    transaction.problem = Problem("mail", "unfit", "no", None, "5.6.3")
    assert not is_stale(transaction)


def test_delivered_status_without_enhanced_code():
    transaction = Transaction("", ["a@x"], 1)
    transaction.mail, transaction.rcpts, transaction.accepted = reply(250), [reply(250)], [0]
    transaction.data, transaction.ends = reply(354), [reply(250)]
    judgement = judge_transaction(transaction, [7], "host", may_retry=True)
    assert [(o.recipient, o.result, o.status) for o in judgement.outcomes] == [(7, Result.DELIVERED, "2.0.0")]
    assert judgement.trouble is NextHopTrouble.NONE


CODES = st.sampled_from([250, 251, 421, 450, 452, 550, 552])


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_one_judgement_for_each_recipient_whatever_happened(data: st.DataObject):
    count = data.draw(st.integers(1, 5))
    transaction = Transaction("", [f"r{n}@x" for n in range(count)], 1)
    if data.draw(st.booleans()):
        transaction.mail = reply(data.draw(st.sampled_from([250, 450, 550])))
        for position in range(data.draw(st.integers(0, count))):
            answer = reply(data.draw(CODES))
            if answer.code < 300 and transaction.mail.code < 300:
                transaction.accepted.append(position)
            transaction.rcpts.append(answer)
        if transaction.accepted and len(transaction.rcpts) == count and data.draw(st.booleans()):
            transaction.data = reply(data.draw(st.sampled_from([354, 451, 554])))
            if transaction.data.code == 354:
                transaction.dot_sent = True
                ends = data.draw(st.sampled_from([0, 1, len(transaction.accepted)]))
                transaction.ends = [reply(data.draw(st.sampled_from([250, 451, 554]))) for _ in range(ends)]
    if data.draw(st.booleans()):
        kind = data.draw(st.sampled_from(["lost", "timeout", "protocol", "reply"]))
        answer = reply(421) if kind == "reply" else None
        transaction.problem = Problem("body" if transaction.dot_sent else "rcpt", kind, "text", answer)
    may_retry = data.draw(st.booleans())
    judgement = judge_transaction(transaction, list(range(count)), "host", may_retry=may_retry)
    outcomes = judgement.outcomes + [outcome for _, outcome in judgement.elsewhere]
    assert sorted([outcome.recipient for outcome in outcomes] + judgement.again) == list(range(count))
    assert may_retry or not judgement.elsewhere
    good = sum(end.code < 300 for end in transaction.ends)
    delivered = [outcome for outcome in outcomes if outcome.result is Result.DELIVERED]
    assert bool(delivered) == bool(good)
    assert {outcome.recipient for outcome in delivered} <= set(transaction.accepted)
    for outcome in outcomes:
        assert outcome.status[0] == {Result.DELIVERED: "2", Result.DEFERRED: "4", Result.FAILED: "5"}[outcome.result]
