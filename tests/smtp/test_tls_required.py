"""The field "TLS-Required: No" (RFC 8689 3), however the header is cut into blocks."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.smtp.data import Content

FOUND = [
    b"TLS-Required: No\r\nA: b\r\n\r\nx\r\n",
    b"A: b\r\nReceived: x\r\ntls-required:NO \r\nReceived: y\r\n\r\n",
    b"A: b\r\nTLS-Required:\r\n no\r\n\r\n",
]
NOT_FOUND = [
    b"A: b\r\n\r\nTLS-Required: No\r\n",
    b"A: b\r\nX-TLS-Required: No\r\n\r\n",
    b"TLS-Required: Not now\r\n\r\n",
    b"TLS-Required: Yes\r\n\r\n",
    b"TLS-Required: \r\nA: no\r\n\r\n",
]


@pytest.mark.parametrize("text", FOUND + NOT_FOUND)
@given(cuts=st.lists(st.integers(0, 60), max_size=6), chunked=st.booleans())
def test_it_is_found_in_the_header_only(text, cuts, chunked):
    content = Content()
    at = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    for number, (begin, end) in enumerate(itertools.pairwise(at)):
        if chunked:
            content.feed_chunk(text[begin:end], last=number == len(at) - 2)
        else:
            content.feed(text[begin:end])
    if not chunked:
        content.feed(b".\r\n")
    assert content.tls_optional is (text in FOUND)
    assert content.received_hops == text.lower().count(b"received:")
