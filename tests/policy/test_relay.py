"""The relay decision: membership of networks against the `ipaddress` module, and local parts that are routes."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.config.schema import Auth, Config, Domain
from gatepost.model import Address
from gatepost.policy.engine import Engine
from gatepost.policy.relay import (
    AddressRange,
    AddressSet,
    ClientCertificate,
    ClientPermit,
    Identity,
    Permits,
    RecipientDomain,
    decide,
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
    assert decide(nobody.of_client("127.0.0.1"), False) is None
    assert decide(nobody.of_client("127.0.0.1"), True) == RecipientDomain()
    assert decide(None, False) is None
    permits = Permits(["10.0.0.0/8"])
    assert decide(permits.of_client("10.9.9.9"), False) == AddressRange("10.0.0.0/8")
    assert decide(permits.of_client("10.9.9.9"), True) == RecipientDomain()
    assert decide(permits.of_client("11.0.0.0"), False) is None
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


NAMES = st.text(min_size=1, max_size=20)
RIGHTS = (
    st.none()
    | st.builds(AddressRange, st.sampled_from(NETWORKS))
    | st.builds(ClientCertificate, NAMES)
    | st.builds(Identity, NAMES)
)


@settings(max_examples=200, deadline=None)
@given(RIGHTS, st.booleans())
def test_relaying_needs_a_right_of_the_closed_set(right: ClientPermit | None, ours: bool) -> None:
    permit = decide(right, ours)
    assert permit == (RecipientDomain() if ours else right)
    assert (permit is None) == (right is None and not ours)
    if isinstance(permit, Identity):
        assert permit.text == f"identity {permit.user}"


@settings(max_examples=100, deadline=None)
@given(NAMES, st.booleans())
def test_an_identity_relays_only_where_there_are_users(user: str, has_users: bool) -> None:
    domains = {"ours.test": Domain(next_hop=["smtp://10.0.0.1:25"])}
    auth = Auth(users_file="/users" if has_users else None)
    engine = Engine(Config(hostname="gate.ours.test", listen=[], spool="/s", domains=domains, auth=auth))
    facts = engine.facts_of("198.51.100.7")
    far = Address("x@far.test", "x", "far.test")
    assert engine.decide_rcpt(facts, far).code == 550
    facts.helo = facts.reverse_path = user
    assert engine.decide_rcpt(facts, far).code == 550
    engine.authenticate(facts, user)
    verdict = engine.decide_rcpt(facts, far)
    assert (verdict.code, verdict.permit) == ((0, f"identity {user}") if has_users else (550, ""))
