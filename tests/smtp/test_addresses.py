"""Paths: the grammar of RFC 5321 4.1.2 and RFC 6531 3.3, its limits, and the one form in which domains come out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.model import Address
from gatepost.smtp.address import PathError, parse_domain, parse_path

LABEL = "x" * 63
DOMAIN_255 = ".".join([LABEL, LABEL, LABEL, "x" * 63])[:255]


@pytest.mark.parametrize(
    ("path", "local", "domain"),
    [
        ("<a@example.org>", "a", "example.org"),
        ("<a.b+c=d/e@EXAMPLE.Org>", "a.b+c=d/e", "example.org"),
        ("<!#$%&'*+/=?^_`{|}~-@x>", "!#$%&'*+/=?^_`{|}~-", "x"),
        ('<"a b"@example.org>', '"a b"', "example.org"),
        ('<"@<>"@example.org>', '"@<>"', "example.org"),
        (r'<"\"\\\@"@example.org>', r'"\"\\\@"', "example.org"),
        ('<""@example.org>', '""', "example.org"),
        ("<a@[192.0.2.1]>", "a", "[192.0.2.1]"),
        ("<a@[IPv6:2001:DB8:0::1]>", "a", "[IPv6:2001:db8::1]"),
        ("<a@[ipv6:::ffff:192.0.2.1]>", "a", "[IPv6:::ffff:c000:201]"),
        ("<a@1.2.3.4>", "a", "1.2.3.4"),
        ("<a@xn--bcher-kva.example>", "a", "xn--bcher-kva.example"),
        (f"<{'x' * 64}@example.org>", "x" * 64, "example.org"),
        (f"<a@{'x' * 63}.example>", "a", f"{'x' * 63}.example"),
    ],
)
def test_mailbox(path: str, local: str, domain: str) -> None:
    assert parse_path(path.encode()) == Address(path[1:-1], local, domain)


@pytest.mark.parametrize(
    ("path", "text", "domain"),
    [
        ("<bücher@example.org>", "bücher@example.org", "example.org"),
        ("<a@bücher.example>", "a@bücher.example", "xn--bcher-kva.example"),
        ("<a@BÜCHER.example>", "a@BÜCHER.example", "xn--bcher-kva.example"),
        ("<a@bücher。example>", "a@bücher。example", "xn--bcher-kva.example"),
        ('<"ü ü"@example.org>', '"ü ü"@example.org', "example.org"),
        ("<@bücher.example:a@例え.テスト>", "a@例え.テスト", "xn--r8jz45g.xn--zckzah"),
    ],
)
def test_smtputf8(path: str, text: str, domain: str) -> None:
    address = parse_path(path.encode(), smtputf8=True)
    assert address is not None
    assert (address.text, address.domain) == (text, domain)
    with pytest.raises(PathError) as raised:
        parse_path(path.encode())
    assert raised.value.needs_smtputf8


def test_null_path() -> None:
    assert parse_path(b"<>") is None
    with pytest.raises(PathError):
        parse_path(b"<>", forward=True)


def test_postmaster_without_a_domain_is_a_forward_path_only() -> None:
    assert parse_path(b"<PostMaster>", forward=True) == Address("PostMaster", "PostMaster", "")
    with pytest.raises(PathError):
        parse_path(b"<postmaster>")


def test_source_route_is_dropped() -> None:
    assert parse_path(b"<@a.example,@[192.0.2.1]:b@c.example>") == Address("b@c.example", "b", "c.example")


@pytest.mark.parametrize(
    "path",
    [
        "", "a@b", "<a@b", "a@b>", "<<a@b>>", "< a@b>", "<a@b >", "<a>", "<@>", "<@b>", "<a@>", "<a@b@c>", "<.a@b>", "<a.@b>", "<a..b@c>",
        "<a b@c>", "<a(x)@b>", '<"a@b>', '<"a"b@c>', '<a"b"@c>', '<"a\x01"@b>', '<"a\\\x01"@b>', "<a\\@b@c>", "<a,b@c>", "<a:b@c>",
        "<a@b..c>", "<a@.b>", "<a@b.>", "<a@-b>", "<a@b->", "<a@b_c>", "<a@b c>", "<a@b/c>", f"<a@{'x' * 64}>",
        "<a@[]>", "<a@[1.2.3]>", "<a@[1.2.3.256]>", "<a@[1.2.3.4>", "<a@[1.2.3.4]x>", "<a@[IPv6:]>", "<a@[IPv6:1::2::3]>", "<a@[IPv6:fe80::1%eth0]>",
        "<a@[2001:db8::1]>", "<a@[tag:x]>", "<@a:>", "<@a>", "<@a,b:c@d>", "<@a:@b:c@d>", "<@a:b@c@d>", "<@-:b@c>", "<@a,@b>",
        f"<{'x' * 65}@example.org>", f"<a@{DOMAIN_255}>", f"<{'x' * 64}@{'x.' * 95}x>",
    ],
)  # fmt: skip
def test_not_a_path(path: str) -> None:
    for smtputf8 in (False, True):
        with pytest.raises(PathError) as raised:
            parse_path(path.encode(), smtputf8=smtputf8)
        assert raised.value.reason
        assert not raised.value.needs_smtputf8


@pytest.mark.parametrize(
    "path",
    [
        b"<\xff@example.org>", b"<\xc0\x80@example.org>", b"<\xed\xa0\x80@example.org>", "<a\u0085b@example.org>".encode(),
        "<a\u2028b@example.org>".encode(), "<a@\u2100.example>".encode(), "<a@\u00ad>".encode(), "<a@-ü.example>".encode(), "<a@ü..example>".encode(),
        f"<{'ü' * 33}@example.org>".encode(), f"<a@{'ü' * 62}.example>".encode(), "<a@\u0301ü.example>".encode(),
    ],
)  # fmt: skip
def test_not_a_path_with_smtputf8_either(path: bytes) -> None:
    with pytest.raises(PathError):
        parse_path(path, smtputf8=True)


def test_path_limit_counts_the_brackets() -> None:
    domain = ".".join(["x" * 63, "x" * 63, "x" * 63])  # 191
    local = "y" * 62
    assert len(f"<{local}@{domain}>") == 256
    assert parse_path(f"<{local}@{domain}>".encode()) is not None
    with pytest.raises(PathError):
        parse_path(f"<{local}y@{domain}>".encode())


def test_domain_alone() -> None:
    assert parse_domain("EXAMPLE.org") == "example.org"
    assert parse_domain("[192.0.2.1]") == "[192.0.2.1]"


@settings(max_examples=300)
@given(
    st.binary(max_size=300) | st.text(alphabet='<>@."\\[]:,aü0-', max_size=60).map(str.encode),
    st.booleans(),
    st.booleans(),
)
def test_any_octets_are_a_path_or_a_path_error(octets: bytes, smtputf8: bool, forward: bool) -> None:
    for path in (octets, b"<" + octets + b">", b"<a@" + octets + b">"):
        try:
            address = parse_path(path, smtputf8=smtputf8, forward=forward)
        except PathError:
            continue
        if address is not None and address.domain:
            assert address.domain.isascii()
            assert address.domain == parse_domain(address.domain)
            assert address.text.startswith(address.local + "@")
            assert parse_path(f"<{address.text}>".encode(), smtputf8=smtputf8) == address
