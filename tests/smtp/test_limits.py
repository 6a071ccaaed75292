"""LIMITS (RFC 9422): what is announced, what is read, and how many recipients fit."""

from __future__ import annotations

import pytest

from gatepost.smtp.limits import Limits, build_limits, parse_limits


def test_there_and_back():
    limits = Limits(10, 20, 30)
    assert build_limits(limits) == "MAILMAX=10 RCPTMAX=20 RCPTDOMAINMAX=30"
    assert parse_limits(build_limits(limits)) == limits
    assert build_limits(Limits(rcptmax=1_000_000)) == ""


@pytest.mark.parametrize(
    ("argument", "found"),
    [
        ("", None),
        ("RCPTMAX", None),
        ("RCPTMAX=0", None),
        ("RCPTMAX=1234567", None),
        ("RCPTMAX=-1 MAILMAX=²", None),
        ("UNKNOWN=3", None),
        ("rcptmax=5  X=1 RCPTMAX=6", Limits(rcptmax=5)),
    ],
)
def test_what_is_read(argument, found):
    assert parse_limits(argument) == found


@pytest.mark.parametrize(
    ("limits", "count"),
    [
        (Limits(), 4),
        (Limits(rcptmax=3), 3),
        (Limits(rcptmax=9), 4),
        (Limits(rcptdomainmax=1), 2),
        (Limits(rcptdomainmax=2), 4),
        (Limits(rcptmax=1, rcptdomainmax=1), 1),
    ],
)
def test_how_many_fit(limits, count):
    assert limits.count_fitting(["a", "a", "b", "a"]) == count
