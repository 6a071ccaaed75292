"""TLSA records against certificates: which can be used, what matches, whatever octets come."""

from __future__ import annotations

import hashlib
import ssl

import pytest
from certificates import Authority
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.delivery.dane import (
    Tlsa,
    find_anchors,
    is_end_entity,
    is_match,
    is_usable,
    parse_tlsa,
    public_key_of,
    usable_records,
)

SHA256, SHA512 = "00" * 32, "11" * 64


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> tuple[bytes, bytes]:
    """A host's certificate and its authority's, DER."""
    authority = Authority(tmp_path_factory.mktemp("ca"))
    leaf = authority.issue("mx", ["DNS:mx.example.test"])
    return tuple(ssl.PEM_cert_to_DER_cert(path.read_text()) for path in (leaf, authority.file))


def record(usage: int, selector: int, matching: int, certificate: bytes) -> Tlsa:
    """What a tool would publish for a certificate; the key by another implementation than ours."""
    data = certificate
    if selector:
        key = x509.load_der_x509_certificate(certificate).public_key()
        data = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = {0: lambda d: d, 1: lambda d: hashlib.sha256(d).digest(), 2: lambda d: hashlib.sha512(d).digest()}
    return Tlsa(usage, selector, matching, digest[matching](data))


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
def test_each_selector_and_matching_type(chain, selector, matching):
    leaf, authority = chain
    assert is_match(record(3, selector, matching, leaf), leaf)
    assert not is_match(record(3, selector, matching, leaf), authority)
    assert is_end_entity([record(3, selector, matching, leaf)], chain)
    assert not is_end_entity([record(3, selector, matching, authority)], chain)
    assert find_anchors([record(2, selector, matching, authority)], chain) == [authority]
    assert parse_tlsa(str(Tlsa(3, selector, 1, b"\x01" * 32))) == Tlsa(3, selector, 1, b"\x01" * 32)


def test_a_usage_is_not_another(chain):
    leaf, authority = chain
    assert not is_end_entity([record(2, 1, 1, leaf)], chain)
    assert find_anchors([record(3, 1, 1, authority)], chain) == []
    assert find_anchors([record(2, 1, 1, leaf)], chain) == []  # the host's own is no authority
    assert find_anchors([record(2, 1, 1, authority)], []) == [] and not is_end_entity([record(3, 1, 1, leaf)], [])


def test_a_whole_authority_in_a_record_need_not_be_sent(chain):
    leaf, authority = chain
    assert find_anchors([record(2, 0, 0, authority)], [leaf]) == [authority]
    assert find_anchors([record(2, 1, 0, authority)], [leaf]) == []


@pytest.mark.parametrize(
    ("text", "usable"),
    [
        (f"3 1 1 {SHA256}", True),
        (f"2 0 2 {SHA512}", True),
        ("3 0 0 3000", True),
        (f"0 1 1 {SHA256}", False),  # RFC 7672 3.1.3
        (f"1 1 1 {SHA256}", False),
        (f"255 1 1 {SHA256}", False),
        (f"3 2 1 {SHA256}", False),
        (f"3 1 3 {SHA256}", False),
        (f"3 1 1 {SHA512}", False),  # not the length of the digest
        (f"3 1 2 {SHA256}", False),
        ("3 1 0 ", False),
        ("3 1 1", False),
        ("nonsense", False),
    ],
)
def test_which_records_can_be_used(text, usable):
    assert bool(usable_records([text])) is usable


def test_of_several_digests_only_the_strongest_counts():
    kept = usable_records([f"3 1 1 {SHA256}", f"3 1 2 {SHA512}", f"3 0 1 {SHA256}", f"2 1 1 {SHA256}", "3 1 0 30"])
    assert [(r.usage, r.selector, r.matching) for r in kept] == [(3, 1, 2), (3, 0, 1), (2, 1, 1), (3, 1, 0)]


def test_too_many_records_are_as_if_none_could_be_used():
    assert usable_records(f"3 1 1 {number:064x}" for number in range(1000)) == ()


@given(st.binary(max_size=300))
@settings(max_examples=200)
def test_whatever_the_octets_only_value_error_comes(octets):
    for record_of in (Tlsa(3, 1, 1, b"\0" * 32), Tlsa(2, 1, 0, octets)):
        is_match(record_of, octets)
    try:
        assert public_key_of(octets) in octets
    except ValueError:
        pass


@given(st.data())
@settings(max_examples=100)
def test_a_damaged_certificate_never_raises_and_seldom_matches(chain, data):
    leaf = bytearray(chain[0])
    leaf[data.draw(st.integers(0, len(leaf) - 1))] ^= data.draw(st.integers(1, 255))
    assert not is_match(record(3, 0, 1, chain[0]), bytes(leaf))
    is_match(record(3, 1, 1, chain[0]), bytes(leaf))
    try:
        public_key_of(bytes(leaf[: data.draw(st.integers(0, len(leaf)))]))
    except ValueError:
        pass


@given(st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.binary(max_size=80)))
@settings(max_examples=200)
def test_a_usable_record_has_known_numbers_and_fitting_data(fields):
    if is_usable(Tlsa(*fields)):
        usage, selector, matching, data = fields
        assert usage in (2, 3) and selector in (0, 1)
        assert {0: len(data) > 0, 1: len(data) == 32, 2: len(data) == 64}[matching]
