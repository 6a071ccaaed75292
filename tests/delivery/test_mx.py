"""From DNS answers to hosts: RFC 5321 5.1, RFC 7505, and what hostile zones say."""

from __future__ import annotations

import random

import pytest

from gatepost.delivery.mx import (
    MAX_ADDRESSES_PER_HOST,
    Answer,
    MxHost,
    RouteFailure,
    Target,
    domain_hosts,
    host_addresses,
    is_own,
    mx_targets,
    order,
    parse_literal,
)
from gatepost.model import NextHopTrouble, Result

NOTHING = Answer("nodata", ())
OWN_NAMES = frozenset({"gate.test"})
OWN_ADDRESSES = frozenset({"198.51.100.1:25", "2001:db8::99"})


def ok(*records: str) -> Answer:
    return Answer("ok", records)


def targets(hosts: list[tuple[int, str]], addresses: dict[str, tuple[Answer, Answer]], **fields: bool):
    return mx_targets(
        "d.test",
        [MxHost(*host) for host in hosts],
        addresses,
        port=25,
        own_names=OWN_NAMES,
        own_addresses=OWN_ADDRESSES,
        **fields,
    )


def test_hosts_in_order_without_duplicates():
    answer = ok("20 b.test", "10 A.Test.", "20 a.test", "30 c.test")
    assert domain_hosts("d.test", answer, 10) == [(10, "a.test"), (20, "b.test"), (30, "c.test")]
    assert domain_hosts("d.test", answer, 2) == [(10, "a.test"), (20, "b.test")]


def test_implicit_mx():
    assert domain_hosts("d.test", NOTHING, 10) == [(0, "d.test")]


@pytest.mark.parametrize(
    ("answer", "result", "status"),
    [
        (Answer("nxdomain", ()), Result.FAILED, "5.1.2"),
        (Answer("tempfail", ()), Result.DEFERRED, "4.4.3"),
        (Answer("never heard of", ()), Result.DEFERRED, "4.4.3"),
        (ok("0 ."), Result.FAILED, "5.1.10"),
        (ok("10 192.0.2.1"), Result.FAILED, "5.4.4"),
        (ok("10 "), Result.FAILED, "5.4.4"),
        (ok("10 a..b", "10 -x.test", "x a.test", "999999 a.test", "10 a b"), Result.FAILED, "5.4.4"),
    ],
)
def test_no_hosts(answer: Answer, result: Result, status: str):
    found = domain_hosts("d.test", answer, 10)
    assert isinstance(found, RouteFailure)
    assert (found.result, found.status) == (result, status)
    assert (found.trouble is NextHopTrouble.DOWN) == (result is Result.DEFERRED)


def test_null_mx_beside_real_ones_is_ignored():
    assert domain_hosts("d.test", ok("0 .", "10 a.test"), 10) == [(10, "a.test")]


def test_bad_names_beside_good_ones_are_ignored():
    assert domain_hosts("d.test", ok("5 10.0.0.1", "10 a_b.test"), 10) == [(10, "a_b.test")]


def test_targets_of_hosts():
    found = targets(
        [(10, "a.test"), (20, "b.test")],
        {"a.test": (ok("192.0.2.1"), ok("2001:db8::1")), "b.test": (ok("192.0.2.2"), NOTHING)},
    )
    assert [target.address for target in found] == ["192.0.2.1", "2001:db8::1", "192.0.2.2"]
    assert found[0].label == "a.test[192.0.2.1]:25"


def test_ipv6_first_if_wanted_and_never_too_many():
    many = ok(*[f"192.0.2.{n}" for n in range(1, 20)])
    assert host_addresses((many, ok("2001:db8::1")), True)[0] == "2001:db8::1"
    assert len(host_addresses((many, NOTHING), False)) == MAX_ADDRESSES_PER_HOST
    assert host_addresses((ok("2001:db8::1", "rubbish", "192.0.2.1"), NOTHING), False) == ["192.0.2.1"]


def test_ourselves_and_worse_hosts_are_dropped():
    good = (ok("192.0.2.1"), NOTHING)
    hosts = [(10, "a.test"), (20, "gate.test"), (20, "b.test"), (30, "c.test")]
    found = targets(hosts, {"a.test": good, "b.test": good, "c.test": good})
    assert [target.name for target in found] == ["a.test"]


@pytest.mark.parametrize("own", [(ok("198.51.100.1"), NOTHING), (NOTHING, ok("2001:db8::99"))])
def test_ourselves_by_address(own: tuple[Answer, Answer]):
    good = (ok("192.0.2.1"), NOTHING)
    found = targets([(10, "a.test"), (20, "we.test"), (30, "c.test")], {"a.test": good, "we.test": own, "c.test": good})
    assert [target.name for target in found] == ["a.test"]
    found = targets([(10, "we.test"), (10, "a.test")], {"we.test": own, "a.test": good})
    assert isinstance(found, RouteFailure) and (found.result, found.status) == (Result.FAILED, "5.4.6")


def test_a_failed_lookup_defers_only_if_nothing_else_is_left():
    failed = (Answer("tempfail", ()), Answer("tempfail", ()))
    good = (ok("192.0.2.1"), NOTHING)
    found = targets([(10, "a.test"), (20, "b.test")], {"a.test": failed, "b.test": good})
    assert [target.name for target in found] == ["b.test"]
    found = targets([(10, "a.test"), (20, "gate.test"), (30, "b.test")], {"a.test": failed, "b.test": good})
    assert isinstance(found, RouteFailure) and found.result is Result.DEFERRED


def test_hosts_without_address_fail():
    found = targets([(10, "a.test")], {"a.test": (NOTHING, Answer("nxdomain", ()))})
    assert isinstance(found, RouteFailure) and (found.result, found.status) == (Result.FAILED, "5.4.4")


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "0.0.0.0", "0.1.2.3", "169.254.169.254", "224.0.0.1", "255.255.255.255"]
)
def test_addresses_that_no_domain_may_send_us_to(address: str):
    found = targets([(10, "a.test")], {"a.test": (ok(address), NOTHING)})
    assert isinstance(found, RouteFailure) and found.status == "5.4.4"


@pytest.mark.parametrize("address", ["::1", "::", "fe80::1", "ff02::1", "::ffff:127.0.0.1"])
def test_ipv6_addresses_that_no_domain_may_send_us_to(address: str):
    found = targets([(10, "a.test")], {"a.test": (NOTHING, ok(address))})
    assert isinstance(found, RouteFailure)


def test_loopback_if_allowed():
    assert len(targets([(10, "a.test")], {"a.test": (ok("127.0.0.1"), NOTHING)}, loopback=True)) == 1


def test_literals():
    assert parse_literal("[192.0.2.1]") == "192.0.2.1"
    assert parse_literal("[IPv6:2001:DB8::1]") == "2001:db8::1"
    for text in ("192.0.2.1", "[192.0.2.1", "[2001:db8::1]", "[example.org]", "[]", "[IPv6:192.0.2.1]"):
        assert parse_literal(text) == ""


def test_is_own():
    assert is_own("198.51.100.1", 25, OWN_ADDRESSES) and not is_own("198.51.100.1", 26, OWN_ADDRESSES)
    assert is_own("2001:db8::99", 26, OWN_ADDRESSES)
    assert is_own("2001:db8::7", 25, frozenset({"[2001:db8::7]:25"}))


def test_order_mixes_equal_preferences_only():
    hosts = [Target(name, address, 25, False, preference) for preference, name, address in [
        (10, "a.test", "192.0.2.1"), (10, "a.test", "192.0.2.2"), (10, "b.test", "192.0.2.3"),
        (20, "c.test", "192.0.2.4"),
    ]]  # fmt: skip
    firsts = set()
    rng = random.Random(7)
    for _ in range(50):
        names = [target.address for target in order(hosts, rng)]
        assert names[-1] == "192.0.2.4"
        assert abs(names.index("192.0.2.1") - names.index("192.0.2.2")) == 1
        firsts.add(names[0])
    assert firsts == {"192.0.2.1", "192.0.2.3"}


def test_a_backup_must_be_among_the_hosts():
    addresses = {"a.test": (ok("192.0.2.1"), NOTHING), "me.test": (ok("198.51.100.1"), NOTHING)}
    found = targets([(10, "a.test")], addresses, is_backup=True)
    assert isinstance(found, RouteFailure) and (found.result, found.status) == (Result.DEFERRED, "4.4.6")
    for own in ("me.test", "gate.test"):
        assert [target.name for target in targets([(10, "a.test"), (20, own)], addresses, is_backup=True)] == ["a.test"]
    unsure = targets(
        [(10, "a.test"), (20, "b.test")], addresses | {"b.test": (Answer("tempfail", ()), NOTHING)}, is_backup=True
    )
    assert isinstance(unsure, RouteFailure) and unsure.status == "4.4.3"
