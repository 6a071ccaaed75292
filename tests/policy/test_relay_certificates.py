"""The right of a client certificate: authority, name and fingerprint of one row, for any certificate whatever."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.policy.relay import CertificateRight, ClientCertificate, RecipientDomain, decide, permit_of_certificate

ANCHORS = ["a" * 64, "b" * 64]
PRINTS = ["1" * 64, "2" * 64, "3" * 64]
NAMES = [
    "client.test",
    "other.test",
    "x.wild.test",
    "y.x.wild.test",
    "wild.test",
    "user@client.test",
    "192.0.2.1",
    "*.wild.test",
]
PATTERNS = ["client.test", "other.test", "*.wild.test", "user@client.test", "192.0.2.1"]

rows = st.builds(
    CertificateRight,
    st.frozensets(st.sampled_from(ANCHORS), max_size=2),
    st.lists(st.sampled_from(PATTERNS), max_size=2).map(tuple),
    st.frozensets(st.sampled_from(PRINTS), max_size=2),
)
names = st.lists(st.tuples(st.sampled_from(["dns", "email", "ip"]), st.sampled_from(NAMES)).map(":".join), max_size=3)


def fits(pattern: str, name: str) -> bool:
    """The meaning, written another way."""
    if not pattern.startswith("*."):
        return pattern == name
    labels = name.split(".")
    return "*" not in name and "@" not in name and len(labels) == 3 and labels[1:] == pattern.split(".")[1:]


@settings(max_examples=300, deadline=None)
@given(st.lists(rows, max_size=3), names, st.sampled_from(["", *PRINTS]), st.sampled_from(["", *ANCHORS]))
def test_a_right_needs_the_authority_and_what_its_row_names(rights, shown, fingerprint, anchor):
    plain = [name.partition(":")[2] for name in shown]
    expected = any(
        anchor in right.anchors
        and (right.names or right.fingerprints)
        and (not right.names or any(fits(pattern, name) for pattern in right.names for name in plain))
        and (not right.fingerprints or fingerprint in right.fingerprints)
        for right in rights
    )
    permit = permit_of_certificate(rights, shown, fingerprint, anchor)
    assert (permit is not None) == bool(anchor and expected)
    if permit is not None:
        assert permit.name in plain or permit.name == f"sha256:{fingerprint}"


def test_without_an_anchor_there_is_no_right():
    right = CertificateRight(frozenset(["", "a" * 64]), ("client.test",))
    assert permit_of_certificate([right], ["dns:client.test"], "1" * 64, "") is None
    assert permit_of_certificate([right], ["dns:client.test"], "1" * 64, "a" * 64) == ClientCertificate("client.test")


@pytest.mark.parametrize(
    "name", ["evil-client.test", "client.test.evil.test", "client.tes", "*", "*.test", "", "CLIENT.TEST "]
)
def test_near_misses(name):
    right = CertificateRight(frozenset(["a" * 64]), ("client.test", "*.wild.test"))
    assert permit_of_certificate([right], [f"dns:{name}"], "1" * 64, "a" * 64) is None


def test_the_decision_with_a_certificate():
    permit = ClientCertificate("client.test")
    assert decide(permit, False) is permit and permit.text == "certificate client.test"
    assert decide(permit, True) == RecipientDomain()
