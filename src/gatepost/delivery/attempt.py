"""The one place that turns (stage that failed, reply or error) into another host, DEFERRED or FAILED. Pure.

Two tables say it all: `REPLY_RULES` for what the host answered, `ERROR_RULES` for what went wrong without an answer.
Each rule names whether another host of the next hop is tried first, what the result is when there is none, and what it
says of the next hop itself.

Invariants: unsure means deferred; whoever got a 250 to the final dot is delivered, whatever comes after; a recipient
gets exactly one outcome; the class of the status agrees with the result (RFC 3463 2). RFC 5321 4.2.1, 4.5.3.1.10.
"""

from __future__ import annotations

from typing import NamedTuple

from gatepost.model import NextHopTrouble, Outcome, Result
from gatepost.smtp.client import Problem, Transaction
from gatepost.smtp.outgoing import PROBE
from gatepost.smtp.replyreader import RemoteReply

MAX_TEXT = 1000

_DEFERRED, _FAILED = Result.DEFERRED, Result.FAILED
_NONE, _BUSY, _DOWN = NextHopTrouble.NONE, NextHopTrouble.BUSY, NextHopTrouble.DOWN


class Rule(NamedTuple):
    """A row of the tables."""

    elsewhere: bool
    result: Result
    trouble: NextHopTrouble


# By (stage, code), else by (stage, first digit of the code).
REPLY_RULES: dict[tuple[str, int], Rule] = {
    # 5xx in the greeting is about us or the whole host, not about a recipient: the next host, and if all refuse, wait
    # for the operator of either side. Postfix does the same (smtp_skip_5xx_greeting).
    ("greeting", 4): Rule(True, _DEFERRED, _BUSY),
    ("greeting", 5): Rule(True, _DEFERRED, _DOWN),
    ("greeting", 521): Rule(True, _FAILED, _NONE),  # RFC 7504: this host never takes mail
    ("greeting", 556): Rule(True, _FAILED, _NONE),
    ("tls", 4): Rule(True, _DEFERRED, _BUSY),  # 421 to STARTTLS
    ("tls", 5): Rule(True, _DEFERRED, _NONE),
    ("helo", 4): Rule(True, _DEFERRED, _BUSY),
    ("helo", 5): Rule(True, _FAILED, _NONE),  # both EHLO and HELO refused, by every host
    # A login that is refused is our operator's matter, not the sender's: mail waits, and the next hop is left alone for a while, since
    # hosts lock out who tries again and again.
    ("auth", 4): Rule(True, _DEFERRED, _BUSY),
    ("auth", 5): Rule(True, _DEFERRED, _DOWN),
    ("mail", 421): Rule(True, _DEFERRED, _BUSY),
    ("mail", 4): Rule(True, _DEFERRED, _NONE),
    ("mail", 5): Rule(False, _FAILED, _NONE),
    ("rcpt", 421): Rule(True, _DEFERRED, _BUSY),
    ("rcpt", 452): Rule(False, _DEFERRED, _NONE),
    ("rcpt", 552): Rule(False, _DEFERRED, _NONE),  # RFC 5321 4.5.3.1.10: means 452, too many recipients
    ("rcpt", 4): Rule(True, _DEFERRED, _NONE),
    ("rcpt", 5): Rule(False, _FAILED, _NONE),
    ("data", 421): Rule(True, _DEFERRED, _BUSY),
    ("data", 4): Rule(True, _DEFERRED, _NONE),
    ("data", 5): Rule(False, _FAILED, _NONE),
    ("body", 421): Rule(False, _DEFERRED, _BUSY),
    ("body", 4): Rule(False, _DEFERRED, _NONE),
    ("body", 5): Rule(False, _FAILED, _NONE),
}

# By (stage, kind of problem), else by kind alone with stage "".
ERROR_RULES: dict[tuple[str, str], tuple[Rule, str]] = {
    ("connect", "lost"): (Rule(True, _DEFERRED, _DOWN), "4.4.1"),
    ("connect", "timeout"): (Rule(True, _DEFERRED, _DOWN), "4.4.1"),
    # Behind the final dot it may have been delivered: a duplicate is better than a loss, but not on two hosts at once.
    # The content may be what it stumbles over, so this says little of the next hop.
    ("body", "lost"): (Rule(False, _DEFERRED, _BUSY), "4.4.2"),
    ("body", "timeout"): (Rule(False, _DEFERRED, _BUSY), "4.4.2"),
    ("body", "protocol"): (Rule(False, _DEFERRED, _BUSY), "4.5.0"),
    # The policy asks for TLS, or for a certificate that fits, and the host has none: it waits. Another policy may hold for
    # other mail to this next hop, so this says nothing of it.
    # TLSA records or a policy cannot be had (RFC 7672 2.1.2): "necessary information was not available" (RFC 3463 3.8).
    ("tls", "lookup"): (Rule(True, _DEFERRED, _NONE), "4.7.5"),
    ("tls", "unsecured"): (Rule(True, _DEFERRED, _NONE), "4.7.4"),
    ("tls", "refused"): (Rule(True, _FAILED, _NONE), "5.7.0"),  # PERM+ in the access table
    ("tls", "tls"): (Rule(True, _DEFERRED, _NONE), "4.7.5"),
    ("tls", "lost"): (Rule(True, _DEFERRED, _NONE), "4.7.5"),
    ("tls", "timeout"): (Rule(True, _DEFERRED, _NONE), "4.7.5"),
    ("tls", "protocol"): (Rule(True, _DEFERRED, _NONE), "4.7.5"),
    ("auth", "auth"): (Rule(True, _DEFERRED, _DOWN), "4.7.0"),
    ("", "lost"): (Rule(True, _DEFERRED, _DOWN), "4.4.2"),
    ("", "timeout"): (Rule(True, _DEFERRED, _DOWN), "4.4.2"),
    ("", "protocol"): (Rule(True, _DEFERRED, _DOWN), "4.5.0"),
    ("", "read"): (Rule(False, _DEFERRED, _NONE), "4.3.0"),
    ("", "unsafe"): (Rule(True, _FAILED, _NONE), "5.7.30"),  # REQUIRETLS: RFC 8689 4.2.1, another host may keep it
    ("", "unfit"): (Rule(False, _FAILED, _NONE), "5.5.0"),  # always with a status of its own
}

# Enhanced status for a reply without one: (stage or "", code) -> without the class digit, which follows the result.
_DERIVED: dict[tuple[str, int], str] = {
    ("", 421): "3.2",
    ("", 450): "2.0",
    ("", 451): "3.0",
    ("", 452): "3.1",
    ("rcpt", 452): "5.3",
    ("rcpt", 552): "5.3",
    ("", 500): "5.2",
    ("", 501): "5.4",
    ("", 502): "5.1",
    ("", 503): "5.1",
    ("", 504): "5.4",
    ("", 521): "3.2",
    ("", 530): "7.0",
    ("rcpt", 551): "1.6",
    ("mail", 552): "3.4",
    ("body", 552): "3.4",
    ("mail", 553): "1.8",
    ("rcpt", 553): "1.3",
    ("", 555): "5.4",
    ("", 556): "1.10",
}


class Verdict(NamedTuple):
    """What a reply or an error means: for the recipients it concerns, and for the next hop."""

    elsewhere: bool
    result: Result
    trouble: NextHopTrouble
    stage: str
    code: int
    status: str
    text: str

    def outcome(self, recipient: int, host: str) -> Outcome:
        """As the outcome of one recipient."""
        return Outcome(recipient, self.result, self.stage, self.code, self.status, self.text, host)


class Judgement(NamedTuple):
    """What one transaction came to. Positions are those in its `forward_paths`.

    `elsewhere` may do better on another host, with the outcome they get if there is none; `again` were over what the
    host takes in one transaction, and are due for another one at once.
    """

    outcomes: list[Outcome]
    trouble: NextHopTrouble
    elsewhere: list[tuple[int, Outcome]]
    again: list[int]


def judge_reply(stage: str, reply: RemoteReply) -> Verdict:
    """The meaning of a reply that refuses (4xx, 5xx)."""
    code = reply.code
    rule = REPLY_RULES.get((stage, code)) or REPLY_RULES[stage, code // 100]
    digit = "5" if rule.result is _FAILED else "4"
    if reply.status:
        status = digit + reply.status[1:]
    else:
        status = f"{digit}.{_DERIVED.get((stage, code)) or _DERIVED.get(('', code), '0.0')}"
    return Verdict(rule.elsewhere, rule.result, rule.trouble, stage, code, status, reply.text[:MAX_TEXT])


def judge_problem(problem: Problem) -> Verdict:
    """The meaning of what went wrong without an answer to the step."""
    if problem.reply is not None and problem.reply.code >= 400:
        return judge_reply(problem.stage, problem.reply)
    found = ERROR_RULES.get((problem.stage, problem.kind)) or ERROR_RULES["", problem.kind]
    rule, status = found
    return Verdict(*rule, problem.stage, 0, problem.status or status, problem.text[:MAX_TEXT])


def is_stale(transaction: Transaction) -> bool:
    """Whether a kept connection turned out to be over before the transaction had begun: nothing was lost but time."""
    problem = transaction.problem
    if problem is None or problem.kind in ("unfit", "unsafe", "read"):
        return False
    if transaction.mail is None:
        return True
    return problem.stage == "mail" and problem.reply is not None and problem.reply.code == 421


def judge_transaction(transaction: Transaction, indices: list[int], host: str, *, may_retry: bool) -> Judgement:
    """Outcomes of a transaction that ended; `indices` are its recipients in the envelope, `host` its host's label.

    With `may_retry` false there is no other host: everybody gets an outcome.
    """
    ends = transaction.ends
    if transaction.problem is None and len(transaction.accepted) == len(indices) and len(ends) == 1:
        end = ends[0]
        if end.code < 300:  # nearly always
            status = end.status or "2.0.0"
            text = end.text[:MAX_TEXT]
            delivered = Result.DELIVERED
            outcomes = [Outcome(index, delivered, "body", end.code, status, text, host) for index in indices]
            return Judgement(outcomes, _NONE, [], [])
    return _judge_each(transaction, indices, host, may_retry)


def _judge_each(transaction: Transaction, indices: list[int], host: str, may_retry: bool) -> Judgement:
    ends = transaction.ends
    rank = {position: number for number, position in enumerate(transaction.accepted)}
    shared = _shared_verdict(transaction)
    judgement = Judgement([], _NONE, [], [])
    trouble = _NONE
    progress = any(end.code < 300 for end in ends)
    for position, index in enumerate(indices):
        reply = None
        if position in rank:
            stage = "body"
            if transaction.body_type == PROBE:
                stage, reply = "rcpt", transaction.rcpts[position]
            elif rank[position] < len(ends):
                reply = ends[rank[position]]
            elif ends and transaction.problem is None:
                reply = ends[0]  # SMTP: one reply for all
        elif position < len(transaction.rcpts) and _is_mail_good(transaction):
            reply = transaction.rcpts[position]
            stage = "rcpt"
        if reply is None:
            verdict = shared
        elif reply.code < 300:
            status = reply.status or "2.0.0"
            text = reply.text[:MAX_TEXT]
            judgement.outcomes.append(Outcome(index, Result.DELIVERED, stage, reply.code, status, text, host))
            continue
        else:
            verdict = judge_reply(stage, reply)
        trouble = max(trouble, verdict.trouble)
        if progress and verdict.stage == "rcpt" and verdict.code in (452, 552):
            judgement.again.append(position)
        elif may_retry and verdict.elsewhere:
            judgement.elsewhere.append((position, verdict.outcome(index, host)))
        else:
            judgement.outcomes.append(verdict.outcome(index, host))
    return judgement._replace(trouble=trouble)


def _is_mail_good(transaction: Transaction) -> bool:
    return transaction.mail is not None and transaction.mail.code < 300


def _shared_verdict(transaction: Transaction) -> Verdict:
    """What holds for every recipient without a reply of its own."""
    mail = transaction.mail
    if mail is not None and mail.code >= 400:
        return judge_reply("mail", mail)
    if transaction.problem is not None:
        verdict = judge_problem(transaction.problem)
        if transaction.dot_sent and verdict.code == 0 and verdict.stage == "body":
            verdict = verdict._replace(text=f"{verdict.text}; it may have been delivered"[:MAX_TEXT])
        return verdict
    if transaction.data is not None and transaction.data.code >= 400:
        return judge_reply("data", transaction.data)
    return judge_problem(Problem("data", "protocol", "the transaction ended without an answer"))
