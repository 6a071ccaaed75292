"""Reverse-paths of forwarded mail: there and back, and nothing that is not signed by us."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.config.rewritevalues import parse_secrets
from gatepost.mail.srs import DAY_S, Srs, SrsError, SrsRefused, is_srs

NOW_S = 1_800_000_000.0
OLD, NEW = b"the secret of last year", b"the secret of this year"
SRS = Srs("srs.test", [NEW, OLD])


def local_of(path: str) -> str:
    return path.rpartition("@")[0]


@settings(max_examples=200, deadline=None)
@given(
    st.text(st.sampled_from("abcXYZ019-_=.+/"), min_size=1, max_size=24).filter(lambda text: not is_srs(text)),
    st.sampled_from(["a.example", "sub.domain.example", "xn--bcher-kva.example"]),
    st.integers(0, 21),
    st.booleans(),
)
def test_there_and_back(local: str, domain: str, days: int, lower: bool) -> None:
    path = SRS.forward(local, domain, NOW_S)
    assert path.endswith("@srs.test") and path.startswith("SRS0=")
    back = local_of(path).lower() if lower else local_of(path)
    assert SRS.reverse(back, NOW_S + days * DAY_S) == (local.lower() if lower else local, domain)


def test_a_second_forwarder_and_the_way_back_through_both() -> None:
    first = Srs("one.test", [b"secret of the first one"])
    third = Srs("three.test", [b"secret of the third one"])
    path = first.forward("user", "a.example", NOW_S)
    second = SRS.forward(*path.rsplit("@", 1), NOW_S)
    assert second.startswith("SRS1=")
    last = third.forward(*second.rsplit("@", 1), NOW_S)
    assert last.startswith("SRS1=") and "srs.test" not in local_of(last)  # the one in the middle is left out
    assert third.reverse(local_of(last), NOW_S) == SRS.reverse(local_of(second), NOW_S) == (local_of(path), "one.test")
    assert first.reverse(local_of(path), NOW_S) == ("user", "a.example")


def test_a_new_secret_signs_and_the_old_one_still_verifies() -> None:
    before = Srs("srs.test", [OLD]).forward("user", "a.example", NOW_S)
    assert SRS.reverse(local_of(before), NOW_S) == ("user", "a.example")
    assert SRS.forward("user", "a.example", NOW_S) != before
    with pytest.raises(SrsRefused, match="signature"):
        Srs("srs.test", [NEW]).reverse(local_of(before), NOW_S)


def test_too_old_and_a_clock_that_is_behind() -> None:
    local = local_of(SRS.forward("user", "a.example", NOW_S))
    assert SRS.reverse(local, NOW_S - DAY_S)
    for days in (22, 400, 1000, -2):
        with pytest.raises(SrsRefused, match="too old"):
            SRS.reverse(local, NOW_S + days * DAY_S)


@pytest.mark.parametrize("change", range(60))
def test_a_changed_address_is_not_turned_back(change: int) -> None:
    local = local_of(SRS.forward("user.name", "sub.a.example", NOW_S))
    at = change % len(local)
    changed = local[:at] + ("b" if local[at] != "b" else "c") + local[at + 1 :]
    if changed.lower() == local.lower():
        return
    with pytest.raises(SrsRefused):
        SRS.reverse(changed, NOW_S)


@pytest.mark.parametrize(
    "local", ["SRS0", "SRS0=", "SRS0=a=b=c", "SRS1=a=b=c", "SRS1=x=y", "srs0+====", "SRS0=" + "a" * 300, "user", ""]
)
def test_what_we_never_made(local: str) -> None:
    with pytest.raises(SrsRefused):
        SRS.reverse(local, NOW_S)


def test_what_cannot_be_rewritten_says_so() -> None:
    with pytest.raises(SrsError, match="longer"):
        SRS.forward("bounces+1234567-abcd-user=example.com", "a-long-name-of-a-sender.example", NOW_S)
    with pytest.raises(SrsError, match="cannot stand"):
        SRS.forward("a b", "a.example", NOW_S)
    with pytest.raises(SrsError, match="secret"):
        Srs("srs.test", []).forward("user", "a.example", NOW_S)


def test_secrets_file() -> None:
    assert parse_secrets(b"# newest first\n" + NEW + b"\r\n\n" + OLD + b"\n") == [NEW, OLD]
    for bad in (b"", b"# nothing\n", b"short\n"):
        with pytest.raises(ValueError, match="secret"):
            parse_secrets(bad)


def test_what_the_scheme_itself_does_not_defend() -> None:
    """docs/security.md says so; a change of the signature would be understood by no other program."""
    srs = Srs("srs.test", [b"a secret of sixteen octets or more"])
    now_s = 1_800_000_000.0
    signature, stamp, _, _ = srs.forward("mbob", "gmail.co", now_s).partition("@")[0][5:].split("=")
    assert srs.reverse(f"SRS0={signature}={stamp}=gmail.com=bob", now_s) == ("bob", "gmail.com")
    second = srs.forward("SRS0=abcdef=AB=first.test=user", "forwarder.test", now_s).partition("@")[0]
    assert srs.reverse(second, now_s + 1000 * 86400.0) == ("SRS0=abcdef=AB=first.test=user", "forwarder.test")
