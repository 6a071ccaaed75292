"""Addresses in header fields: where they stand, what may change and what never does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.mail.addressfield import find_addresses
from gatepost.mail.headerrewrite import broken_signatures, hide_received, rewrite_addresses


def masquerade(local: str, domain: str, is_sender: bool) -> tuple[str, str] | None:
    return (f"{local}@out.test", "rule") if domain.lower() == "in.test" else None


def texts(value: bytes) -> list[bytes] | None:
    spans = find_addresses(value)
    return None if spans is None else [value[span.start : span.end] for span in spans]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b" a@b.c", [b"a@b.c"]),
        (b" A B <a@b.c>", [b"a@b.c"]),
        (b' "x, <y@z.q>" <a@b.c>, d@e.f', [b"a@b.c", b"d@e.f"]),
        (b" (a@x.y (b@z.w) \\) c)\r\n\ta@b.c (d)", [b"a@b.c"]),
        (b" =?utf-8?q?J=C3=B6rg?= <j@b.c>", [b"j@b.c"]),
        ("J\u00f6rg <j\u00f6rg@b\u00fccher.example>".encode(), ["j\u00f6rg@b\u00fccher.example".encode()]),
        (b" g: a@b.c, d@e.f;, h@i.j", [b"a@b.c", b"d@e.f", b"h@i.j"]),
        (b" undisclosed-recipients:;", []),
        (b" root, a@b.c,, MAILER-DAEMON", [b"a@b.c"]),
        (b' "a b"@b.c', [b'"a b"@b.c']),
        (b" < a@b.c >", [b"a@b.c"]),
        (b" a@[192.0.2.1]", [b"a@[192.0.2.1]"]),
        (b" John Q. Public <a@b.c>", [b"a@b.c"]),
        (b"", []),
        (b" a@b.c d", None),
        (b" a@b <c@d.e>", None),
        (b" a @b.c", None),
        (b" a(x)@b.c", None),
        (b" <@route.test:a@b.c>", None),
        (b" <a@b.c", None),
        (b" a@b.c>", None),
        (b" g: a@b.c", None),
        (b" g: h: a@b.c;;", None),
        (b" (never closed", None),
        (b' "never closed', None),
        (b" <>", None),
        (b" " + b"(" * 40 + b")" * 40 + b"a@b.c", None),
        (b" a\x00@b.c", None),
    ],
)
def test_addresses_of_a_field(value: bytes, found: list[bytes] | None) -> None:
    assert texts(value) == found


HEADER = (
    b'From: =?utf-8?q?=C3=84nne?= (c (n) <z@in.test>)\r\n\t"x, y@in.test" <a@in.test>\r\n'
    b"Subject: from a@in.test\r\nTO: g: a@in.test, <c@x.test>;,\r\n d@IN.test\r\nCc: bad a@in.test c\r\n\r\n"
)


def test_only_addresses_change_octet_for_octet() -> None:
    result = rewrite_addresses(HEADER, masquerade, 100)
    wanted = (
        HEADER.replace(b"<a@in.test>", b"<a@out.test>")
        .replace(b"g: a@in.test", b"g: a@out.test")
        .replace(b"d@IN.test", b"d@out.test")
    )
    assert result.header == wanted
    assert [(change.field, change.before) for change in result.changes] == [
        ("From", "a@in.test"),
        ("TO", "a@in.test"),
        ("TO", "d@IN.test"),
    ]
    assert [kept.field for kept in result.kept] == ["Cc"]


def test_more_addresses_than_the_limit_are_left_and_told() -> None:
    header = b"To: " + b", ".join(b"a@in.test" for _ in range(6)) + b"\r\nFrom: a@in.test\r\n"
    result = rewrite_addresses(header, masquerade, 5)
    assert result.header == header.replace(b"From: a@in.test", b"From: a@out.test")
    assert [kept.field for kept in result.kept] == ["To"]


def test_no_line_becomes_too_long() -> None:
    header = b"To: " + b"x" * 980 + b" <a@in.test>\r\n"
    result = rewrite_addresses(header, lambda *_: ("a@a-longer-domain.test", "rule"), 5)
    assert result.header == header and [kept.reason for kept in result.kept] == ["a line of it would become too long"]


_ATOM = st.text(st.sampled_from("abcXYZ019-_=?"), min_size=1, max_size=8)
_SPACE = st.sampled_from([" ", "\r\n ", "\r\n\t", " (comment) ", " (a (nested) \\) one) ", "\t"])
_ADDRESS = st.builds(
    lambda local, domain: f"{local}@{domain}", _ATOM, st.sampled_from(["in.test", "x.test", "In.Test"])
)
_NAME = st.sampled_from(["", "Anna", '"Anna, B."', '"a@in.test"', "=?utf-8?q?=C3=A4?=", "\u00c4nne", "A. B."])


@st.composite
def _elements(draw: st.DrawFn) -> tuple[str, str]:
    """An element of a list, and what it must become."""
    before, after = draw(_SPACE), draw(_SPACE)
    address = draw(_ADDRESS)
    local, _, domain = address.partition("@")
    new = f"{local}@out.test" if domain.lower() == "in.test" else address
    if name := draw(_NAME):
        return f"{before}{name}{after}<{address}>", f"{before}{name}{after}<{new}>"
    return f"{before}{address}{after}", f"{before}{new}{after}"


@settings(max_examples=150, deadline=None)
@given(st.lists(_elements(), min_size=1, max_size=6), st.booleans())
def test_no_octet_outside_of_an_address_changes(elements: list[tuple[str, str]], in_group: bool) -> None:
    def field(index: int) -> bytes:
        text = ",".join(element[index] for element in elements)
        return (f"Cc: friends:{text};\r\n" if in_group else f"Cc:{text}\r\n").encode()

    around = b"Subject: a@in.test\r\n%sX-Cc: a@in.test\r\n"
    result = rewrite_addresses(around % field(0), masquerade, 100)
    assert result.header == around % field(1) and not result.kept


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_any_octets_come_back_if_nothing_is_replaced(octets: bytes) -> None:
    header = b"From:" + octets
    assert rewrite_addresses(header, lambda *_: None, 100).header == header
    assert hide_received(header, lambda address: True)[0] is not None
    broken_signatures(header, ["from"])


def test_hostile_fields_cost_linear_time() -> None:
    for piece in (b"(", b'"', b"a@", b"<", b"\\", b"a@b,", b"(\\", b"[", b"=?x?", b";:"):
        find_addresses(piece * 60_000)
    hide_received(b"Received: " + b"[1.1.1.1" * 20_000 + b"\r\n", lambda address: False)
    hide_received(b"Received: from x ([10.0.0.1]) by y;" + b"\r\n " * 20_000 + b"\r\n", lambda address: True)


def test_received_of_inside_hosts_keeps_its_place_and_date() -> None:
    inside = (
        b"Received: from pc (pc [10.0.0.3])\r\n\tby mail with SMTP id 1;\r\n\tMon, 1 Jan 2024 00:00:00 +0000 (UTC)\r\n"
    )
    outside = b"Received: from a ([192.0.2.1]) by b ([10.0.0.9]); Mon, 1 Jan 2024 00:00:00 +0000\r\n"
    v6 = b"received: from x ([IPv6:fd00::1]) by b; no date here with [10.0.0.3]\r\n"
    header = inside + b"Subject: x\r\n" + outside + v6
    done, count = hide_received(header, lambda address: address.startswith(("10.", "fd00:")))
    assert count == 2
    assert done == (
        b"Received: (a host inside);\r\n\tMon, 1 Jan 2024 00:00:00 +0000 (UTC)\r\nSubject: x\r\n"
        + outside
        + b"Received: (a host inside)\r\n"
    )
    assert done.lower().count(b"received:") == header.lower().count(b"received:")


def test_signatures_over_changed_fields_are_found() -> None:
    header = (
        b"DKIM-Signature: v=1; d=a.test; h=From:\r\n\tTo : Subject; b=x\r\n"
        b"DKIM-Signature: v=1; d=b.test; h=Subject; b=x\r\nARC-Message-Signature: i=1; d = c.test; h=cc; b=x\r\n"
    )
    assert broken_signatures(header, ["To", "FROM"]) == [("a.test", ["from", "to"])]
    assert broken_signatures(header, ["Cc"]) == [("c.test", ["cc"])]
    assert broken_signatures(header, []) == []
