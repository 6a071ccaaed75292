"""The resolver's answer about MTA-STS, and what becomes of it: a plan, and what a report says."""

from __future__ import annotations

import pytest

from gatepost.config.schema import Config, Tls
from gatepost.delivery.stsanswer import read_sts_answer
from gatepost.delivery.tlspolicy import PolicyFacts, StsPolicy, TlsPolicies, facts_of, plan_sts
from gatepost.ipc.messages import LookupDone
from gatepost.smtp.outgoing import Tls as Asks

LINES = ["version: STSv1", "mode: testing", "mx: *.a.test", "max_age: 60"]
POLICIES = TlsPolicies(Config(hostname="g.test", listen=[], spool="", domains={}, tls=Tls(ca_file="/ca")), {})


def test_a_policy():
    done = LookupDone(0, "ok", ["7", "59", *LINES], 59, reason="sts-policy-fetch-error: gone")
    assert read_sts_answer(done) == StsPolicy(
        "testing", ("*.a.test",), "7", tuple(LINES), "sts-policy-fetch-error: gone"
    )


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        (LookupDone(0, "nodata", [], 300), None),
        (
            LookupDone(0, "nodata", [], 300, reason="sts-policy-invalid: x"),
            StsPolicy("none", (), failure="sts-policy-invalid: x"),
        ),
        (LookupDone(0, "tempfail", [], 0, reason="busy"), StsPolicy("unknown", (), failure="busy")),
    ],
)
def test_no_policy(done, expected):
    assert read_sts_answer(done) == expected


@pytest.mark.parametrize("records", [[], ["7"], ["7", "1", "nonsense"]])
def test_an_answer_that_makes_no_sense_is_not_known(records):
    assert read_sts_answer(LookupDone(0, "ok", records, 1)).mode == "unknown"


def test_mail_waits_while_it_is_not_known():
    found = plan_sts(POLICIES, POLICIES.general, StsPolicy("unknown", (), failure="busy"), "mx.a.test", "a.test")
    assert found.tls is Asks.ALWAYS
    assert found.problem.kind == "lookup"
    assert "busy" in found.problem.text


@pytest.mark.parametrize(("host", "is_tried"), [("mx.a.test", True), ("mx.b.test", False), ("x.mx.a.test", False)])
def test_testing_tries_the_certificate_of_named_hosts_and_never_holds_back(host, is_tried):
    sts = StsPolicy("testing", ("*.a.test",), "7", tuple(LINES))
    found = plan_sts(POLICIES, POLICIES.general, sts, host, "a.test")
    assert found.may_be_clear and found.problem is None and not found.is_verified
    assert (found.trial is not None) is is_tried
    trouble = "" if is_tried else f"validation-failure: the policy does not name {host}"
    assert facts_of("a.test", host, found, sts) == PolicyFacts("sts", "a.test", tuple(LINES), trouble)


def test_what_a_report_says_without_a_policy():
    plain = plan_sts(POLICIES, POLICIES.general, StsPolicy("none", ()), "mx.a.test", "a.test")
    assert facts_of("a.test", "mx.a.test", plain, None) == PolicyFacts("no-policy-found", "a.test")
    failed = StsPolicy("none", (), failure="sts-webpki-invalid: expired")
    assert facts_of("a.test", "mx.a.test", plain, failed) == PolicyFacts("sts", "a.test", (), failed.failure)
