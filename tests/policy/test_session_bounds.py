"""A policy with more classes of sessions than the proof tries together: each rule is tried by itself, and the proof stays bounded."""

from __future__ import annotations

from gatepost.config.schema import Config, Domain, Relay, RelayRule
from gatepost.policy.sessions import MAX_PRODUCT, sessions_of


def config_with(count: int) -> Config:
    rules = [
        RelayRule(
            name=f"r{number}", networks=[f"10.{number}.0.0/16"], identities=[f"user{number}"], certificates=[f"c{number}"],
            reverse_paths=[f"@d{number}.test"],
        )
        for number in range(count)
    ]  # fmt: skip
    domains = {"ours.test": Domain(next_hop=["smtp://127.0.0.1:26"])}
    return Config(hostname="g.test", listen=[], spool="/s", domains=domains, relay=Relay(rules=rules))


def test_few_rules_are_tried_in_every_combination() -> None:
    sessions, is_whole = sessions_of(config_with(1))
    assert is_whole and 0 < sum(1 for _ in sessions) <= MAX_PRODUCT


def test_many_rules_are_tried_one_by_one_and_boundedly() -> None:
    sessions, is_whole = sessions_of(config_with(200))
    assert not is_whole
    tried = list(sessions)
    assert len(tried) <= MAX_PRODUCT
    assert {session.identity for session in tried} >= {f"user{number}" for number in range(200)}  # none is left out
