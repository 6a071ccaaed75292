"""Which result type a connection counts as (RFC 8460 4.3), and counting."""

from __future__ import annotations

import ssl

import pytest

from gatepost.delivery.mx import Target
from gatepost.delivery.tlspolicy import Plan, PolicyFacts, StsTrial
from gatepost.delivery.tlsresults import MAX_COUNTED, TlsResults, classify
from gatepost.model import TlsSeen
from gatepost.smtp.outgoing import Problem, Tls

TARGET = Target("mx.a.test", "192.0.2.1", 25, False, 10)
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def way(**fields) -> Plan:
    return Plan(CONTEXT, None, frozenset(), False, **fields)


class Bed:
    """A TlsResults whose batches are kept, and whose timer is called by hand."""

    def __init__(self) -> None:
        self.sent: list[TlsSeen] = []
        self.timers = []
        self.results = TlsResults(self.sent.extend, lambda delay_s, call: self.timers.append(call))


@pytest.mark.parametrize(
    ("kind", "text", "result"),
    [
        ("unsecured", "the host does not offer STARTTLS", "starttls-not-supported"),
        (
            "tls",
            "TLS failed: certificate not verified: Hostname mismatch, certificate is not valid for 'x'.",
            "certificate-host-mismatch",
        ),
        ("tls", "TLS failed: certificate not verified: certificate has expired", "certificate-expired"),
        (
            "tls",
            "TLS failed: certificate not verified: self-signed certificate in certificate chain",
            "certificate-not-trusted",
        ),
        (
            "tls",
            "TLS failed: certificate not verified: unable to get local issuer certificate",
            "certificate-not-trusted",
        ),
        ("tls", "TLS failed: certificate not verified: certificate is not yet valid", "validation-failure"),
        ("tls", "no certificate matches the TLSA records of mx.a.test", "validation-failure"),
        ("tls", "TLS failed: wrong version number", "validation-failure"),
        (
            "lookup",
            "mx.a.test cannot be used: the look-up of its TLSA records at x failed or is bogus (SERVFAIL)",
            "dnssec-invalid",
        ),
        ("unsecured", "mx.a.test cannot be used: there are no TLSA records for it", "dane-required"),
        ("unsecured", "mx.a.test cannot be used: the TLSA records of mx.a.test cannot be used", "tlsa-invalid"),
        ("unsecured", "mx.a.test cannot be used: the MTA-STS policy of a.test does not name it", "validation-failure"),
    ],
)
def test_result_types(kind, text, result):
    assert classify(Problem("tls", kind, text)) == result


def test_the_same_is_counted_and_sent_at_once():
    bed = Bed()
    facts = PolicyFacts("sts", "a.test", ("mode: enforce",))
    for _ in range(3):
        bed.results.secured("a.test", way(facts=facts), TARGET, "192.0.2.9", True)
    bed.results.failed("a.test", way(), TARGET, "192.0.2.9", Problem("tls", "unsecured", "no STARTTLS"))
    assert len(bed.timers) == 1
    bed.timers[0]()
    assert bed.sent == [
        TlsSeen("a.test", "sts", "a.test", ("mode: enforce",), "mx.a.test", "192.0.2.1", "192.0.2.9", "", "", 3),
        TlsSeen("a.test", "no-policy-found", "a.test", (), "mx.a.test", "192.0.2.1", "192.0.2.9", "starttls-not-supported", "no STARTTLS"),
    ]  # fmt: skip
    bed.results.flush()
    assert len(bed.sent) == 2


def test_trouble_that_keeps_no_mail_back_is_told():
    bed = Bed()
    trial = StsTrial(CONTEXT)
    assert trial.context(None) is CONTEXT
    assert trial.goes_on(CONTEXT, "TLS failed: certificate not verified: certificate has expired")
    assert trial.context(None) is None
    assert not trial.goes_on(CONTEXT, "again")
    troubles = [
        way(trial=trial),
        way(facts=PolicyFacts("sts", "a.test", (), "validation-failure: the policy does not name mx.a.test")),
        way(facts=PolicyFacts("sts", "a.test", (), "sts-policy-fetch-error: status 404")),
    ]
    for each in troubles:
        bed.results.secured("a.test", each, TARGET, "", True)
    bed.results.secured("a.test", way(), TARGET, "", False)
    bed.results.flush()
    assert [row.result for row in bed.sent] == [
        "certificate-expired", "validation-failure", "sts-policy-fetch-error", "starttls-not-supported",
    ]  # fmt: skip


def test_next_hops_of_our_own_and_mail_without_tls_are_not_counted():
    bed = Bed()
    bed.results.secured("", way(), TARGET, "", True)
    bed.results.failed("", way(), TARGET, "", Problem("tls", "tls", "x"))
    bed.results.secured("a.test", way(tls=Tls.NEVER), TARGET, "", False)
    assert not bed.timers


def test_endlessly_different_results_are_bounded():
    bed = Bed()
    for number in range(MAX_COUNTED + 10):
        bed.results.secured(f"d{number}.test", way(), TARGET, "", True)
    bed.results.flush()
    assert len(bed.sent) == MAX_COUNTED
