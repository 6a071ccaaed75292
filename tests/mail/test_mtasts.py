"""TXT records and policy files of MTA-STS (RFC 8461 3.1, 3.2, 4.1)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.mail.mtasts import (
    MAX_AGE_S,
    MAX_MX,
    MAX_POLICY_BYTES,
    Policy,
    StsError,
    is_match,
    parse_policy,
    parse_record,
)

GOOD = b"version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        (["v=STSv1;id=1"], "1"),
        (["v=STSv1 ;\tid=a1 ; "], "a1"),
        (["v=STSv1; x-ext=1:2; id=7; id=8"], "7"),
        (["v=spf1 -all", "v=STSv1; id=7"], "7"),  # what is no record of ours does not count
    ],
)
def test_good_records(texts: list[str], expected: str) -> None:
    assert parse_record(texts) == expected


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        ([], "no TXT records"),
        (["v=spf1 -all"], "no TXT records"),
        (["v=STSv1; id=1", "v=STSv1; id=2"], "2 TXT records"),
        (["v=STSv1"], "no TXT records"),
        (["v=stsv1; id=1"], "no TXT records"),
        (["v=STSv12; id=1"], "no TXT records"),
        (["v=STSv1;"], "no id"),
        (["v=STSv1; id="], "malformed"),
        (["v=STSv1; id=a-b"], "letters and digits"),
        (["v=STSv1; id=" + "1" * 33], "letters and digits"),
        (["v=STSv1; id=1; junk"], "malformed"),
        (["v=STSv1; id=1;; x=2"], "malformed"),
        (["v=STSv1; id=1; x=\xe9"], "malformed"),
        (["v=STSv1; id=1"] + ["x"] * 20, "1 TXT record "),
    ],
)
def test_bad_records(texts: list[str], why: str) -> None:
    with pytest.raises(StsError, match=why):
        parse_record(texts)


def test_a_good_policy_and_what_a_report_quotes() -> None:
    policy = parse_policy(GOOD)
    assert policy == Policy("enforce", 604800, ("mail.example.com", "*.example.net"))
    assert policy.lines == GOOD.decode().split("\r\n")[:-1]
    assert parse_policy(GOOD.replace(b"\r\n", b"\n").rstrip(b"\n")) == policy
    assert parse_policy(GOOD + b"\n\r\n") == policy  # many files end so
    assert parse_policy("\n".join(policy.lines).encode()) == policy


def test_of_a_repeated_field_the_first_counts_and_unknown_ones_do_not() -> None:
    data = GOOD + b"mode: none\nmax_age: 5\nversion: STSv2\nx-new: \xc3\xbc a: b\n"
    assert parse_policy(data) == parse_policy(GOOD)


def test_mode_none_needs_no_host() -> None:
    assert parse_policy(b"version:STSv1\nmode:none\nmax_age:0") == Policy("none", 0)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "line 1 of the policy is not"),
        (b"\n", "line 1 of the policy is not"),
        (GOOD.replace(b"STSv1", b"STSv2"), "version"),
        (GOOD.replace(b"enforce", b"Enforce"), "mode"),
        (GOOD.replace(b"mode: enforce\r\n", b""), "mode"),
        (GOOD.replace(b"604800", str(MAX_AGE_S + 1).encode()), "max_age"),
        (GOOD.replace(b"604800", b"-1"), "max_age"),
        (GOOD.replace(b"604800", "٣".encode()), "max_age"),
        (GOOD.replace(b"max_age: 604800\r\n", b""), "max_age"),
        (b"version: STSv1\nmode: testing\nmax_age: 1\n", "names no mx"),
        (GOOD.replace(b"mail.example.com", b"*.*.example.com"), "no host name"),
        (GOOD.replace(b"mail.example.com", b"*"), "no host name"),
        (GOOD.replace(b"mail.example.com", b"m\xc3\xa4il.example.com"), "no host name"),
        (GOOD.replace(b"mail.example.com", b"a." * 128 + b"b"), "no host name"),
        (GOOD + b"\r\nx: y\r\n", "line 6 of the policy is not"),
        (GOOD + b"<html>\n", "not a name and a value"),
        (GOOD + b"mx:\n", "not a name and a value"),
        (GOOD + b"x: \x00\n", "control character"),
        (GOOD + b"x: a\rb\n", "not a name and a value|control character"),
        (GOOD + b"x: \xff\n", "not UTF-8"),
        (GOOD + b"x: " + b"y" * MAX_POLICY_BYTES, "octets"),
        (GOOD + b"a:b\n" * 1000, "lines"),
        (GOOD + b"".join(b"mx: h%d.example\n" % n for n in range(MAX_MX)), "hosts"),
    ],
)
def test_bad_policies(data: bytes, why: str) -> None:
    with pytest.raises(StsError, match=why):
        parse_policy(data)


def test_hosts() -> None:
    policy = parse_policy(GOOD)
    assert is_match(policy, "mail.example.com")
    assert is_match(policy, "mail.example.com.")
    assert is_match(policy, "a.example.net")
    for host in ("a.b.example.net", "example.net", "example.com", "xmail.example.com", "com", ""):
        assert not is_match(policy, host), host


@settings(max_examples=150)
@given(
    st.binary(max_size=300)
    | st.lists(st.sampled_from(GOOD.splitlines(True) + [b"mx: \n", b"\xff", b"mode: none\n"])).map(b"".join)
)
def test_any_octets_give_a_policy_or_a_reason(data: bytes) -> None:
    try:
        policy = parse_policy(data)
    except StsError as error:
        assert str(error).isprintable()
        return
    assert parse_policy("\n".join(policy.lines).encode()) == policy
    assert 0 <= policy.max_age_s <= MAX_AGE_S


@settings(max_examples=150)
@given(
    st.lists(st.text(max_size=60) | st.text(alphabet="v=STSv1;id 7\t", max_size=40).map("v=STSv1;".__add__), max_size=3)
)
def test_any_texts_give_an_id_or_a_reason(texts: list[str]) -> None:
    try:
        found = parse_record(texts)
    except StsError as error:
        assert str(error).isprintable()
        return
    assert found.isascii() and found.isalnum() and len(found) <= 32
