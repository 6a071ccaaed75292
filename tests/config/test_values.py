"""Domain names, networks and listen addresses: one canonical form, or what to write instead."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.config.values import InvalidValue, parse_domain, parse_fqdn, parse_listen, parse_network


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Example.NET.", "example.net"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("bücher。example", "xn--bcher-kva.example"),
        ("localhost", "localhost"),
        ("3com.example", "3com.example"),
    ],
)
def test_domains(text: str, name: str) -> None:
    assert parse_domain(text) == name
    assert parse_domain(name) == name


@pytest.mark.parametrize(
    "text",
    ["", ".", "a..b", "-a.test", "a-.test", "a_b.test", "*.test", "a" * 64 + ".test", "1.2.3.4", "[1.2.3.4]", "u@a.test",
     "a b.test", "a/b.test", "xn--a.test", "0x7f", "a,b.test", "\u202ea.test", ("a" * 60 + ".") * 5 + "test"],
)  # fmt: skip
def test_what_is_no_domain(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_domain(text)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_a_domain_is_canonical_or_refused(text: str) -> None:
    try:
        name = parse_domain(text)
    except InvalidValue:
        return
    assert name.isascii() and name == name.lower() and not name.endswith(".")
    assert parse_domain(name) == name


def test_a_host_name_has_two_labels() -> None:
    assert parse_fqdn("mx.example") == "mx.example"
    with pytest.raises(InvalidValue, match=r"mx\.example\.net"):
        parse_fqdn("mx")


def test_no_network_is_wider_than_an_organisation() -> None:
    for prefix in range(8):
        with pytest.raises(InvalidValue, match="open relay"):
            parse_network(f"0.0.0.0/{prefix}")
    for prefix in range(16):
        with pytest.raises(InvalidValue, match="open relay"):
            parse_network(f"::/{prefix}")
    assert str(parse_network("10.0.0.0/8")) == "10.0.0.0/8"
    assert str(parse_network("2a00::/16")) == "2a00::/16"


@pytest.mark.parametrize(
    "text", ["::/96", "64:ff9b::/96", "2002::/16", "2001::/32", "2001::/16", "::ffff:0:0/96", "::/64"]
)
def test_no_ipv6_network_holds_the_ipv4_internet(text: str) -> None:
    with pytest.raises(InvalidValue, match="open relay"):
        parse_network(text)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_ipv4_networks(address: int, prefix: int) -> None:
    network = ipaddress.ip_network((address, prefix), strict=False)
    text = f"{ipaddress.ip_address(address)}/{prefix}"
    if prefix < 8 or network.network_address != ipaddress.ip_address(address):
        with pytest.raises(InvalidValue) as caught:
            parse_network(text)
        if prefix >= 8:
            assert f'write "{network}"' in caught.value.advice
    else:
        assert parse_network(text) == network


def test_mapped_networks_are_ipv4() -> None:
    assert str(parse_network("::ffff:10.0.0.0/104")) == "10.0.0.0/8"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("127.0.0.1:25", "127.0.0.1:25"), ("[2001:DB8::1]:587", "[2001:db8::1]:587"), ("[::]:25", "[::]:25")],
)
def test_listen(text: str, canonical: str) -> None:
    assert str(parse_listen(text)) == canonical
