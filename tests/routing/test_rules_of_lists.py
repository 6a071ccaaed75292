"""A rule whose next hop depends on the recipient, for an address that stands for several: each member has its own."""

from __future__ import annotations

import pytest

from gatepost.routing.route import Expansion, Route
from gatepost.routing.router import led_by

MEMBERS = (
    Route("smtp://10.0.0.5:25", "ours.example", True, "anna@ours.example"),
    Route("mx:far.example", "far.example", True, "bob@far.example"),
    Route("discard:", "ours.example", True, "gone@ours.example"),
)
LIST = Route("smtp://10.0.0.5:25", "ours.example", True, "anna@ours.example", expansion=Expansion(MEMBERS, ()))


@pytest.mark.parametrize(
    ("next_hop", "hold", "expected"),
    [
        ("mx", False, ["mx:ours.example", "mx:far.example", "discard:"]),
        ("hold:", True, ["smtp://10.0.0.5:25", "mx:far.example", "discard:"]),
        ("hold:mx", True, ["mx:ours.example", "mx:far.example", "discard:"]),
        ("smtp://10.0.0.9:25", False, ["smtp://10.0.0.9:25"] * 2 + ["discard:"]),
    ],
)
def test_each_member_goes_where_the_rule_sends_its_own_domain(next_hop: str, hold: bool, expected: list[str]) -> None:
    led = led_by(next_hop, LIST)
    assert isinstance(led, Route) and led.expansion is not None
    assert [route.next_hop for route in led.expansion.routes] == expected
    assert bool(led.hold) is hold
