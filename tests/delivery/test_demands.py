"""What TLS_Srv and TLS_Rcpt make of a plan: they only ever ask for more."""

from __future__ import annotations

import ssl

import msgspec
import pytest

from gatepost.config.schema import Config
from gatepost.config.tables import LoadedConfig, TableData, table_key
from gatepost.delivery.attempt import judge_problem
from gatepost.delivery.demands import Demands, demands_of
from gatepost.delivery.tlspolicy import Plan, Policy, explain_failure, plan
from gatepost.model import Result
from gatepost.smtp.outgoing import Problem, Tls

PUBLIC = ssl.create_default_context()
UNVERIFIED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
OPPORTUNISTIC = Policy("opportunistic", UNVERIFIED)
NAME = "sendmail-access:/t"


def demands(entries: dict[str, str], public: ssl.SSLContext | None = PUBLIC) -> Demands:
    plain = Config(hostname="g.test", listen=[], spool="/s", domains={}, access=[NAME])
    tables = {table_key("access", NAME): TableData("sendmail-access", "/t", entries)}
    found = demands_of(LoadedConfig(**msgspec.structs.asdict(plain), tables=tables), lambda: public)
    assert found is not None
    return found


def raised(entries: dict[str, str], policy: Policy = OPPORTUNISTIC, way: Plan | None = None, **more) -> Plan:
    way = way or plan(policy, "mx.a.test")
    return demands(entries, **more).raised(policy, way, "mx.a.test", "192.0.2.1")


def test_without_lines_there_is_nothing_to_ask():
    assert demands_of(Config(hostname="g.test", listen=[], spool="/s", domains={}), lambda: PUBLIC) is None


def test_a_host_that_no_line_names_stays_as_it_is():
    assert raised({"tls_srv:b.test": "VERIFY"}) == plan(OPPORTUNISTIC, "mx.a.test")


def test_encr_means_tls_always_and_no_certificate():
    way = raised({"tls_srv:a.test": "ENCR:112"})
    assert (way.tls, way.is_verified, way.context) == (Tls.ALWAYS, False, UNVERIFIED)
    assert not way.may_be_clear and way.why == "the access table demands it"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("VERIFY", "mx.a.test"),
        ("VERIFY:128", "mx.a.test"),
        ("ENCR:1+CN:b.test", "b.test"),
        ("VERIFY+CN:Some+20Firm", "mx.a.test"),
    ],
)
def test_verify_means_a_certificate_for_that_name(value: str, name: str):
    way = raised({"tls_srv:a.test": value})
    assert (way.tls, way.is_verified, way.context, way.server_name) == (Tls.ALWAYS, True, PUBLIC, name)


def test_without_authorities_the_host_is_not_used():
    way = raised({"tls_srv:a.test": "VERIFY"}, public=None)
    assert way.problem is not None and "tls.ca_file" in way.problem.text


def test_what_is_verified_already_stays_so():
    policy = Policy("verify", UNVERIFIED, fingerprints=frozenset({"aa"}))
    way = raised({"tls_srv:a.test": "VERIFY"}, policy)
    assert way.context is UNVERIFIED and way.fingerprints == {"aa"} and way.is_verified


def test_a_policy_that_says_none_is_raised_too():
    assert raised({"tls_srv:": "ENCR:1"}, Policy("none", UNVERIFIED)).tls is Tls.ALWAYS


def test_tls_is_not_tried_where_a_line_says_so_and_nobody_demands_it():
    no = {"try_tls:a.test": "NO", "try_tls:ok.a.test": "OK", "try_tls:10.9": "NO"}
    way = raised(no)
    assert (way.tls, way.level, way.why) == (Tls.NEVER, "none", "Try_TLS in the access table says so")
    # a plan without TLS stays one
    assert demands(no).raised(OPPORTUNISTIC, way, "ok.a.test", "10.9.1.1").tls is way.tls
    tried = {
        host: demands(no).raised(OPPORTUNISTIC, plan(OPPORTUNISTIC, host), host, "10.9.1.1").tls
        for host in ("ok.a.test", "b.test")
    }
    assert tried == {"ok.a.test": Tls.IF_OFFERED, "b.test": Tls.NEVER}


@pytest.mark.parametrize("level", ["encrypt", "verify", "dane-only"])
def test_try_tls_takes_nothing_from_a_policy(level: str):
    policy = Policy(level, PUBLIC)
    assert raised({"try_tls:": "NO"}, policy) == plan(policy, "mx.a.test")
    held = plan(OPPORTUNISTIC, "mx.a.test")._replace(tls=Tls.ALWAYS, level="sts", is_verified=True)
    assert raised({"try_tls:": "NO"}, OPPORTUNISTIC, held) == held


def test_what_a_line_demands_holds_where_another_says_not_to_try():
    way = raised({"try_tls:a.test": "NO", "tls_srv:a.test": "ENCR:112"})
    assert (way.tls, way.level) == (Tls.ALWAYS, "encrypt")


def test_an_issuer_under_a_tag_needs_a_certificate():
    entries = {"tls_srv:a.test": "ENCR:1+CITag:MyCA", "citag:myca:/cn=one": "OK", "citag:other:/cn=two": "OK"}
    way = raised(entries)
    ((demand, _),) = way.demands
    assert way.is_verified and demand.extensions == (("CITAG", "/cn=one"),)


def test_recipients_with_a_demand_have_connections_of_their_own():
    found = demands({"tls_rcpt:anna@a.test": "VERIFY", "tls_rcpt:bob@a.test": "ENCR:112", "tls_rcpt:c@a.test": "OK"})
    anna, bob = (found.of_recipient(OPPORTUNISTIC, address) for address in ("Anna@A.test", "bob+x@a.test"))
    assert len({OPPORTUNISTIC.key, anna.key, bob.key}) == 3
    assert found.of_recipient(OPPORTUNISTIC, "anna@a.test") is anna
    assert found.of_recipient(OPPORTUNISTIC, "c@a.test") is OPPORTUNISTIC
    assert found.of_recipient(OPPORTUNISTIC, "d@a.test") is OPPORTUNISTIC
    way = found.raised(anna, plan(anna, "mx.a.test"), "mx.a.test", "192.0.2.1")
    assert way.is_verified and way.tls is Tls.ALWAYS


@pytest.mark.parametrize(
    ("value", "kind", "result", "status"),
    [
        ("ENCR:1", "unsecured", Result.DEFERRED, "4.7.4"),
        ("TEMP+VERIFY", "tls", Result.DEFERRED, "4.7.5"),
        ("PERM+ENCR:1", "unsecured", Result.FAILED, "5.7.0"),
        ("PERM+VERIFY", "tls", Result.FAILED, "5.7.0"),
        ("PERM+VERIFY", "timeout", Result.DEFERRED, "4.7.5"),
        ("PERM+VERIFY", "lost", Result.DEFERRED, "4.7.5"),
    ],
)
def test_only_perm_returns_mail_and_only_for_what_the_host_is(value: str, kind: str, result: Result, status: str):
    way = raised({"tls_srv:a.test": value})
    verdict = judge_problem(explain_failure(way, Problem("tls", kind, "why")))
    assert (verdict.result, verdict.status) == (result, status)
