"""Parsers of MAIL and RCPT parameters: what they mean, their limits, and that nothing raises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.smtp import parameters
from gatepost.smtp.extensions import EXTENSIONS
from gatepost.smtp.reply import BAD_PARAMETER, Reply

PARSERS = {key: parser for row in EXTENSIONS for table in (row.mail, row.rcpt) for key, parser in table.items()}


@pytest.mark.parametrize("keyword", PARSERS)
@given(value=st.none() | st.binary(max_size=600))
def test_any_octets_give_a_value_or_a_refusal(keyword, value):
    found = PARSERS[keyword](value, 1000)
    assert isinstance(found, (int, str, bool, bytes, Reply))
    if isinstance(found, Reply):
        assert found.code in (501, 552)
    elif isinstance(found, str):  # it goes into commands of ours
        assert not set(found) & set("\r\n\0 ")


def test_notify_as_bits():
    assert parameters.parse_notify(b"never", 0) == 1
    assert parameters.parse_notify(b"SUCCESS,FAILURE,DELAY", 0) == 14
    assert parameters.parse_notify(b"delay", 0) == 8


def test_lengths():
    """RFC 3461 4.2, 4.4."""
    assert parameters.parse_envelope_id(b"x" * 100, 0) == "x" * 100
    assert parameters.parse_envelope_id(b"x" * 101, 0) == BAD_PARAMETER
    assert parameters.parse_original(b"rfc822;" + b"x" * 493, 0) == "rfc822;" + "x" * 493
    assert parameters.parse_original(b"rfc822;" + b"x" * 494, 0) == BAD_PARAMETER


@pytest.mark.parametrize("value", [b"utf-8;\xff", b"utf-8;\\y", b"utf-8;a b", b"utf-8;\xc2\x85", "utf-8;a=é".encode()])
def test_utf8_addresses_are_refused_where_they_are_not_well_formed(value):
    assert parameters.parse_original(value, 0) == BAD_PARAMETER
