"""The masquerade guard and the rates of rules."""

from __future__ import annotations

from gatepost.config.schema import Policy, RelayRule
from gatepost.policy.masquerade import MasqueradeGuard
from gatepost.policy.rates import RuleRates
from gatepost.policy.relayrules import RelayRules

POLICY = Policy(masquerade_names=10, masquerade_senders=10, masquerade_suspend_s=600.0, masquerade_addresses=16)
OURS = frozenset({"example.net"})


def test_many_names_with_many_outside_senders_lose_the_trust() -> None:
    guard = MasqueradeGuard(POLICY, OURS)
    found = [guard.observe("10.0.0.1", f"host{n}", f"x@s{n}.example", 100.0 + n) for n in range(10)]
    assert found[:9] == [None] * 9
    suspicion = found[9]
    assert suspicion is not None and len(suspicion.names) == len(suspicion.senders) == 10
    assert "expect_many" in suspicion.advice
    assert guard.is_suspended("10.0.0.1", 200.0) and not guard.is_suspended("10.0.0.2", 200.0)
    assert not guard.is_suspended("10.0.0.1", 109.0 + 601.0)


def test_one_mail_server_or_one_office_keeps_it() -> None:
    guard = MasqueradeGuard(POLICY, OURS)
    for n in range(200):
        assert guard.observe("10.0.0.1", "mail.example.net", f"x@s{n}.example", 100.0) is None  # forwards for lists
        assert guard.observe("10.0.0.2", f"pc{n}", "anna@example.net", 100.0) is None  # an office behind NAT
        assert guard.observe("10.0.0.3", f"pc{n}", "", 100.0) is None
        assert guard.observe("10.0.0.4", f"pc{n}", f"x@s{n}.example", 3700.0 * n) is None  # not within an hour


def test_our_own_bridge_is_suspected_sooner() -> None:
    guard = MasqueradeGuard(POLICY, OURS, lambda address: "the container bridge docker0")
    assert guard.observe("172.17.0.1", "a", "x@one.example", 1.0) is None
    found = guard.observe("172.17.0.1", "b", "x@two.example", 2.0)
    assert found is not None and "docker0" in found.advice


def test_memory_is_bounded() -> None:
    guard = MasqueradeGuard(POLICY, OURS)
    for n in range(1000):
        guard.observe(f"10.0.{n >> 8}.{n & 255}", "a" * 5000, "x@" + "b" * 5000, float(n))
    assert len(guard._watched) == POLICY.masquerade_addresses
    for n in range(100):
        for k in range(10):
            guard.observe(f"10.1.0.{n}", f"h{k}", f"x@{k}.example", 2000.0)
    assert len(guard._suspended) == POLICY.masquerade_addresses


def test_rates() -> None:
    rules = RelayRules(
        [RelayRule(name="r", networks=["10.0.0.0/8"], max_per_hour=20), RelayRule(name="free", networks=["11.0.0.0/8"])]
    )
    rates = RuleRates(rules.rules, receivers=2)
    assert [rates.take("r", 0.0) for _ in range(11)] == [True] * 10 + [False]
    assert not rates.take("r", 10.0)
    assert rates.take("r", 800.0) and rates.take("r", 800.0) and not rates.take("r", 800.0)  # two drained meanwhile
    assert all(rates.take("free", 0.0) for _ in range(100))
