"""A decision takes the same steps with ten rules and with thousands: calls are counted, not time."""

from __future__ import annotations

import sys

import pytest

from bench.policy import NOW_S, config_of, mixes_of
from gatepost.policy.engine import Engine

MOST_CALLS = 25  # of Python functions for the facts of a connection and one decision


def calls_of(engine: Engine, client: str, reverse_path: str, address: object) -> int:
    calls = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    previous = sys.getprofile()
    sys.setprofile(profile)
    try:
        facts = engine.facts_of(client, "192.0.2.5", "S")
        facts.reverse_path, facts.now_s = reverse_path, NOW_S
        engine.decide_rcpt(facts, address)  # type: ignore[arg-type]
    finally:
        sys.setprofile(previous)
    return calls


@pytest.mark.parametrize("mix", list(mixes_of(10)))
def test_the_number_of_rules_and_entries_does_not_count(mix: str) -> None:
    most = {}
    for size in (10, 5000):
        engine = Engine(config_of(size))
        most[size] = max(calls_of(engine, *session) for session in mixes_of(size)[mix])
    assert most[5000] <= most[10] <= MOST_CALLS
