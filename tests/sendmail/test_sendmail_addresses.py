"""Lists of addresses as callers of sendmail write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.sendmail.addresses import parse_addresses
from gatepost.sendmail.sysexits import EX_USAGE, Failure


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("root", ["root"]),
        ("Foo Bar <a@x.test>", ["a@x.test"]),
        ("a@x.test (Foo (Bar, Baz))", ["a@x.test"]),
        ("(hi) a@x.test (there), \"Q, R\" <b@x.test>, =?utf-8?Q?a=2Cb?= <c@x.test>", ["a@x.test", "b@x.test", "c@x.test"]),
        ("a@x.test, b@x.test;c@x.test d@x.test", ["a@x.test", "b@x.test", "c@x.test", "d@x.test"]),
        ("team: a@x.test, B <b@x.test>;, c@x.test", ["a@x.test", "b@x.test", "c@x.test"]),
        ("undisclosed-recipients:;", []),
        ("", []),
        ("<>", []),
        (" , ,", []),
        ("<@r1.test,@r2.test:a@x.test>", ["a@x.test"]),
        ("\\\\root, <\\\\root>", ["root", "root"]),
        ('"a b"@x.test, "c,d"@x.test', ['"a b"@x.test', '"c,d"@x.test']),
        ("a@[192.0.2.1], <b@[IPv6:2001:db8::1]>", ["a@[192.0.2.1]", "b@[IPv6:2001:db8::1]"]),
        ("Jürgen <jürgen@x.test>", ["jürgen@x.test"]),
        ("John \"J\" Doe <j@x.test>", ["j@x.test"]),
        ("host!user, a%b@x.test", ["host!user", "a%b@x.test"]),
    ],
)  # fmt: skip
def test_what_is_meant(text: str, addresses: list[str]) -> None:
    assert parse_addresses(text.replace("\\\\", "\\")) == addresses


@pytest.mark.parametrize(
    "text",
    [
        "Foo Bar", "Foo Bar, a@x.test", "Foo a@x.test", "<a@x.test", "a@x.test>", "<a@x.test> <b@x.test>", "a@x.test (open", "<a<b@x.test>>", "-oQ/tmp",
        "<-x@x.test>", "a@x.test, -f", ":include:/etc/passwd", "a\0b@x.test", "a\x7f", "x" * 300, '"open@x.test', "a@x.test\r\nRCPT TO:<b@x.test>", "a @ x.test",
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_as_a_whole(text: str) -> None:
    with pytest.raises(Failure) as caught:
        parse_addresses(text)
    assert caught.value.status == EX_USAGE and str(caught.value).isprintable()


@given(st.text(st.sampled_from('ab@.,;:<>()[]"\\ \t\r\n-é\0'), max_size=40))
@settings(max_examples=500, deadline=None)
def test_nothing_that_comes_out_can_break_a_command(text: str) -> None:
    try:
        found = parse_addresses(text)
    except Failure:
        return
    for address in found:
        assert address and not address.startswith("-")
        assert not set(address) & set("\0\r\n\t")
        assert '"' in address or not set(address) & set("<> ")
        assert parse_addresses(address) == [address]
