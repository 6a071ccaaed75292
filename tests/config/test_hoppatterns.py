"""`next_hops` of a source: what may be written there, and what it lets through."""

from __future__ import annotations

import pytest

from gatepost.config.hoppatterns import parse_hop_pattern, permits
from gatepost.config.nexthop import NextHopError


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("smtp://10.0.0.5", "smtp://10.0.0.5:25"),
        ("MX", "mx"),
        ("mx:Partner.Example", "mx:partner.example"),
        ("smtp://*", "smtp://*:25"),
        ("smtp://*.Inside.Example:2525", "smtp://*.inside.example:2525"),
        ("lmtp://*.inside.example:24", "lmtp://*.inside.example:24"),
        ("mx:*", "mx:*"),
        ("pool:inside", "pool:inside"),
        ("maildir:/srv/mail/{domain}/{local}", "maildir:/srv/mail/{domain}/{local}"),
    ],
)
def test_patterns_have_one_form(text: str, pattern: str) -> None:
    assert parse_hop_pattern(text) == pattern
    assert parse_hop_pattern(pattern) == pattern


@pytest.mark.parametrize(
    "text",
    [
        "smtp://10.0.0.*:25", "smtp://a*.inside.example:25", "smtp://*.*.example:25", "smtp://inside.*:25", "smtp://*:*", "*", "pool:*",
        "maildir:/srv/*", "smtp://*.a.example:25,smtp://b.example", "smtp://a.example,smtp://b.example", "error:550 5.1.1 no", "discard:", "hold:",
        "hold:mx", "", "lmtp://*",
    ],
)  # fmt: skip
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(NextHopError):
        parse_hop_pattern(text)


@pytest.mark.parametrize(
    ("patterns", "text", "is_permitted"),
    [
        (["smtp://10.0.0.5:25"], "smtp://10.0.0.5:25", True),
        (["smtp://10.0.0.5:25"], "hold:smtp://10.0.0.5:25", True),
        (["smtp://10.0.0.5:25"], "smtp://10.0.0.5:26", False),
        (["smtp://10.0.0.5:25"], "SMTP://10.0.0.5", False),  # not the canonical text of a next hop
        (["smtp://10.0.0.5:25"], "error:550 5.1.1 no", True),
        (["smtp://10.0.0.5:25"], "discard:", True),
        (["smtp://10.0.0.5:25"], "hold:", True),
        (["mx"], "mx", True),
        (["mx"], "mx:a.example", True),
        (["mx"], "mx:b.example", False),
        (["mx:*"], "mx:b.example", True),
        (["smtp://*.in.example:25"], "smtp://a.in.example:25", True),
        (["smtp://*.in.example:25"], "smtp://a.b.in.example:25", True),
        (["smtp://*.in.example:25"], "smtp://in.example:25", False),
        (["smtp://*.in.example:25"], "smtp://evilin.example:25", False),
        (["smtp://*.in.example:25"], "smtp://a.in.example:26", False),
        (["smtp://*.in.example:25"], "lmtp://a.in.example:25", False),
        (["smtp://*.in.example:25", "smtp://10.0.0.5:25"], "smtp://a.in.example:25,smtp://10.0.0.5:25", True),
        (["smtp://*.in.example:25"], "smtp://a.in.example:25,smtp://10.0.0.5:25", False),
        (["smtp://*:25"], "smtp://[2001:db8::1]:25", True),
        (["mx:*"], "pool:inside", False),
        ([], "smtp://anything.example:25", True),
        ([], "no next hop", False),
    ],
)
def test_what_they_let_through(patterns: list[str], text: str, is_permitted: bool) -> None:
    assert permits(patterns, text, "a.example") is is_permitted
