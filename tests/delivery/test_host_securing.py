"""From what the DNS and MTA-STS say to a plan for each host: what is asked, what comes first, and that doubt never makes it clear."""

from __future__ import annotations

import asyncio

import pytest

from gatepost.config.schema import Config, Domain, Tls, TlsPolicy
from gatepost.delivery.mx import RouteFailure
from gatepost.delivery.resolve import TargetResolver
from gatepost.delivery.securing import Securing
from gatepost.delivery.tlspolicy import Plan, StsPolicy, TlsPolicies
from gatepost.ipc.messages import LookupDone
from gatepost.smtp.outgoing import Tls as Asks

EE = "3 1 1 " + "00" * 32
SECURE = {
    ("MX", "d.test"): ["10 mx.d.test", "20 backup.d.test"],
    ("A", "mx.d.test"): ["192.0.2.1"],
    ("A", "backup.d.test"): ["192.0.2.2"],
    ("TLSA", "_25._tcp.mx.d.test"): [EE],
}


class Bed:
    """A resolver over a dict of secure answers; `insecure` and `broken` name the questions that are otherwise."""

    def __init__(self, records, *, level="best", insecure=(), broken=(), canonical=None, sts=None, remembered=""):
        self.records, self.insecure, self.broken = records, set(insecure), set(broken)
        self.canonical = canonical or {}
        self.asked: list[tuple[str, str]] = []
        rows = [TlsPolicy(level=level, domains=["d.test"])]
        config = Config(
            hostname="gate.test",
            listen=[],
            spool="/s",
            domains={"x.test": Domain(next_hop=["mx"])},
            tls=Tls(policies=rows, ca_file="/ca"),
        )
        self.policies = TlsPolicies(config, {})

        async def give_sts(domain: str) -> StsPolicy | None:
            self.asked.append(("STS", domain))
            return sts

        securing = Securing(self.lookup, self.policies, sts=give_sts, remembered=lambda domain: remembered)
        self.resolver = TargetResolver(config, frozenset(), self.lookup, securing)

    async def lookup(self, kind: str, name: str) -> LookupDone:
        self.asked.append((kind, name))
        if (kind, name) in self.broken:
            return LookupDone(0, "tempfail", [], 5, reason="SERVFAIL")
        found = self.records.get((kind, name))
        secure = (kind, name) not in self.insecure
        canonical = self.canonical.get(name, "") if kind in ("A", "AAAA", "MX") else ""
        return LookupDone(0, "ok" if found else "nodata", found or [], 300, secure, "", canonical)

    def plans(self, next_hop: str = "mx:d.test") -> dict[str, Plan]:
        policy = self.policies.of(next_hop, "d.test")
        found = asyncio.run(self.resolver.resolve(next_hop, policy))
        assert not isinstance(found, RouteFailure)
        return dict(found.plans)


def levels(bed: Bed) -> dict[str, str]:
    return {host: found.level for host, found in bed.plans().items()}


def test_dane_for_the_host_that_has_it_and_the_rest_as_before():
    bed = Bed(SECURE)
    plans = bed.plans()
    assert plans["mx.d.test"].level == "dane" and plans["mx.d.test"].tls is Asks.ALWAYS
    assert plans["mx.d.test"].server_name == "mx.d.test"
    assert plans["mx.d.test"].dane.names == ("mx.d.test", "d.test")
    assert plans["backup.d.test"].level == "opportunistic" and plans["backup.d.test"].tls is Asks.IF_OFFERED


@pytest.mark.parametrize("insecure", [("MX", "d.test"), ("A", "mx.d.test"), ("TLSA", "_25._tcp.mx.d.test")])
def test_a_link_of_the_chain_that_is_not_secure_is_no_dane(insecure):
    assert levels(Bed(SECURE, insecure=[insecure]))["mx.d.test"] == "opportunistic"


def test_without_security_nothing_more_is_asked():
    bed = Bed(SECURE, insecure=[("MX", "d.test")])
    bed.plans()
    assert not [kind for kind, _ in bed.asked if kind in ("TLSA", "CNAME")]


@pytest.mark.parametrize("level", ["none", "opportunistic", "encrypt", "sts"])
def test_levels_that_do_not_want_it_do_not_ask(level):
    bed = Bed(SECURE, level=level)
    bed.plans()
    assert "TLSA" not in [kind for kind, _ in bed.asked]
    assert ("STS" in [kind for kind, _ in bed.asked]) is (level == "sts")


def test_a_look_up_that_fails_keeps_mail_from_that_host_only():
    plans = Bed(SECURE, broken=[("TLSA", "_25._tcp.mx.d.test")]).plans()
    assert plans["mx.d.test"].problem is not None and plans["mx.d.test"].problem.kind == "lookup"
    assert plans["backup.d.test"].problem is None


def test_records_that_cannot_be_used_encrypt_and_verify_nothing():
    unusable = {**SECURE, ("TLSA", "_25._tcp.mx.d.test"): ["1 1 1 " + "00" * 32, "3 9 1 00"]}
    found = Bed(unusable).plans()["mx.d.test"]
    assert (found.level, found.tls, found.is_verified, found.dane) == ("encrypt", Asks.ALWAYS, False, None)
    assert Bed(unusable, level="dane-only").plans()["mx.d.test"].problem is not None


def test_dane_only_refuses_hosts_without():
    plans = Bed(SECURE, level="dane-only").plans()
    assert plans["mx.d.test"].level == "dane"
    assert plans["backup.d.test"].problem.kind == "unsecured"


ALIAS = {
    ("MX", "d.test"): ["10 alias.d.test"],
    ("A", "alias.d.test"): ["192.0.2.1"],
    ("CNAME", "alias.d.test"): ["real.other.test"],
}


@pytest.mark.parametrize(
    ("at", "insecure", "base"),
    [
        ("real.other.test", (), "real.other.test"),
        ("alias.d.test", (), "alias.d.test"),  # nothing at the end of the chain: the first name
        ("alias.d.test", (("A", "alias.d.test"),), "alias.d.test"),  # a secure alias to where nothing is signed
        ("real.other.test", (("A", "alias.d.test"),), ""),
        ("alias.d.test", (("A", "alias.d.test"), ("CNAME", "alias.d.test")), ""),
    ],
)
def test_the_base_domain_of_an_alias(at, insecure, base):
    records = {**ALIAS, ("TLSA", f"_25._tcp.{at}"): [EE]}
    bed = Bed(records, insecure=insecure, canonical={"alias.d.test": "real.other.test"})
    found = bed.plans()["alias.d.test"]
    assert (found.dane.base if found.dane else "") == base
    if base:
        assert found.server_name == base


def test_a_domain_that_is_an_alias_may_be_named_by_either_name():
    found = Bed(SECURE, canonical={"d.test": "real.test"}).plans()["mx.d.test"]
    assert found.dane.names == ("mx.d.test", "d.test", "real.test")


def test_sts_is_for_hosts_without_tlsa_records_and_never_weakens_dane():
    bed = Bed(SECURE, sts=StsPolicy("enforce", ("other.test",)))
    plans = bed.plans()
    assert plans["mx.d.test"].level == "dane"
    assert plans["backup.d.test"].problem is not None
    assert "does not name it" in plans["backup.d.test"].problem.text


def test_sts_is_not_asked_where_every_host_has_dane():
    bed = Bed({**SECURE, ("MX", "d.test"): ["10 mx.d.test"]}, sts=StsPolicy("enforce", ("mx.d.test",)))
    bed.plans()
    assert ("STS", "d.test") not in bed.asked


def test_sts_without_authorities_waits_and_in_testing_changes_nothing():
    assert Bed(SECURE, level="sts", sts=StsPolicy("enforce", ("*.d.test",))).plans()["mx.d.test"].problem is not None
    found = Bed(SECURE, level="sts", sts=StsPolicy("testing", ("nobody.test",))).plans()["mx.d.test"]
    assert found.tls is Asks.IF_OFFERED and "testing" in found.why


def test_a_domain_that_was_verified_before_is_not_sent_in_clear():
    plans = Bed(SECURE, insecure=[("MX", "d.test")], remembered="verified by dane before").plans()
    for found in plans.values():
        assert (found.level, found.tls) == ("encrypt", Asks.ALWAYS) and "gatepost tls forget" in found.why


def test_a_next_hop_that_the_operator_names():
    records = {("A", "inside.d.test"): ["192.0.2.9"], ("TLSA", "_26._tcp.inside.d.test"): [EE]}
    hop = "smtp://inside.d.test:26"
    assert Bed(records, level="dane").plans(hop)["inside.d.test"].level == "dane"
    best = Bed(records)
    assert best.plans(hop) == {} and {kind for kind, _ in best.asked} == {"A", "AAAA"}
    assert Bed({}, level="dane-only").plans("smtp://192.0.2.9:25")["192.0.2.9"].problem is not None
