"""The relay decision: membership of networks against the `ipaddress` module, and local parts that are routes."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.policy.relay import (
    AddressRange,
    AddressSet,
    Permits,
    RecipientDomain,
    decide,
    decide_for,
    is_routed_local,
)

NETWORKS = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "192.0.2.0/25",
    "192.0.2.128/25",
    "203.0.113.7/32",
    "2001:db8::/32",
    "2001:db8:1::/48",
    "fe80::/64",
    "::1/128",
    "::ffff:198.51.100.0/120",
]
PARSED = [ipaddress.ip_network(text) for text in NETWORKS]
SET = AddressSet(NETWORKS)

v4 = st.integers(0, 2**32 - 1) | st.sampled_from(
    [
        int(net.network_address) + offset
        for net in PARSED
        if net.version == 4
        for offset in (-1, 0, 1, net.num_addresses)
    ]
)
v6 = st.integers(0, 2**128 - 1) | st.sampled_from(
    [
        max(0, int(net.network_address) + offset)
        for net in PARSED
        if net.version == 6
        for offset in (-1, 0, net.num_addresses)
    ]
)


def expected(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    plain = getattr(address, "ipv4_mapped", None) or address
    if plain in ipaddress.ip_network("198.51.100.0/24"):
        return True
    return any(plain in network for network in PARSED if network.version == plain.version)


@settings(max_examples=300, deadline=None)
@given(v4.map(ipaddress.IPv4Address) | v6.map(ipaddress.IPv6Address))
def test_membership_is_that_of_ipaddress(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert (str(address) in SET) == expected(address)
    if address.version == 4:
        assert (f"::ffff:{address}" in SET) == expected(address)


def test_the_widest_network_is_named() -> None:
    assert SET.match("10.1.2.3") == "10.0.0.0/8"
    assert SET.match("::ffff:10.1.2.3") == "10.0.0.0/8"
    assert SET.match("192.0.2.200") == "192.0.2.128/25"
    assert SET.match("fe80::1%eth0") == "fe80::/64"
    assert SET.match("198.51.100.1") == "::ffff:198.51.100.0/120"
    assert SET.match("203.0.113.8") is None


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_no_text_that_is_no_address_is_a_member(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        assert text not in SET


@pytest.mark.parametrize(
    "text",
    ["", "local", "10", "10.1", "010.0.0.1", "10.0.0.1 ", "10.0.0.1:25", "0x0a000001", "\0", "10.0.0.1\0", "\ud800"],
)
def test_near_misses(text: str) -> None:
    assert text not in SET


def test_nothing_is_granted_by_default() -> None:
    nobody = Permits([])
    assert decide_for(nobody, "127.0.0.1", False) is None
    assert decide_for(nobody, "127.0.0.1", True) == RecipientDomain()
    assert decide(None, False) is None
    permits = Permits(["10.0.0.0/8"])
    assert decide_for(permits, "10.9.9.9", False) == AddressRange("10.0.0.0/8")
    assert decide_for(permits, "10.9.9.9", True) == RecipientDomain()
    assert decide_for(permits, "11.0.0.0", False) is None
    assert (AddressRange("10.0.0.0/8").text, RecipientDomain().text) == ("network 10.0.0.0/8", "recipient-domain")


@pytest.mark.parametrize(
    "local",
    ["user%other.example", "other.example!user", "a!b!c", '"user@other.example"', '"user\\@other.example"',
     '"@relay.example:user"', '"@a,@b:user"', '"host::user"', '"a%b"', '"a!b"', "a%b%c", "%", "user＠other.example",
     "user％other.example", "host！user", "user﹫other", "user@other.example", '"user＠other"'],
)  # fmt: skip
def test_local_parts_that_are_routes(local: str) -> None:
    assert is_routed_local(local)


@pytest.mark.parametrize(
    "local", ["user", "first.last", "user+tag", "SRS0=abc=xy=example.org=user", "zoë", '"two words"', "a/b", "-x"]
)
def test_local_parts_that_are_not(local: str) -> None:
    assert not is_routed_local(local)
