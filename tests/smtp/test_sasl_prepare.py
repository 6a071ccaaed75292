"""SASLprep: the examples of RFC 4013, what is refused, and that it is done only once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.smtp.sasl.prepare import NotPreparable, prepare_name, saslprep


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        ("zoe\u0308", "zo\u00eb"),
        ("\u05d0\u05d1", "\u05d0\u05d1"),
        ("", ""),
    ],
)
def test_examples(text: str, prepared: str) -> None:
    assert saslprep(text) == prepared


@pytest.mark.parametrize(
    "text", ["\x07", "a\x7f", "\u0627\u0031", "a\u05d0", "\u200e", "\ue000", "\ufffd", "a\u0000", "\u2028"]
)
def test_refused(text: str) -> None:
    with pytest.raises(NotPreparable):
        saslprep(text)


def test_names() -> None:
    assert prepare_name("Anna@Example.TEST") == "anna@example.test"
    for bad in ("", "a b", "\u00ad", "a\u2003b"):
        with pytest.raises(NotPreparable):
            prepare_name(bad)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=20))
def test_any_text(text: str) -> None:
    try:
        prepared = saslprep(text)
    except NotPreparable:
        return
    assert saslprep(prepared) == prepared
