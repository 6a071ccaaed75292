"""The samples are what they say, and the judge of arrivals is strict."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest

from gatepost.mail import header

_spec = importlib.util.spec_from_file_location("gatepost_sample_corpus", Path(__file__).with_name("corpus.py"))
corpus = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = corpus
_spec.loader.exec_module(corpus)

OURS = (
    b"Received: from a ([192.0.2.1])\r\n\tby gw.example.test with ESMTP id M1;\r\n\tTue, 14 Nov 2023 22:13:20 +0000\r\n"
)
ON_TOP = b"Return-Path: <sender@outside.test>\r\nDelivered-To: user@example.test\r\n" + OURS
SENT = corpus.HEADER + b"X-Folded: a\r\n\tb\r\n\r\nbody\r\n.\r\nend\r\n"


@pytest.fixture(scope="module")
def own():
    return list(corpus.own_samples())


@pytest.fixture(scope="module")
def from_cpython():
    try:
        return list(corpus.cpython_samples())
    except corpus.Missing as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


def test_there_are_a_few_hundred_of_all_shapes(own):
    names = [name for name, _ in own]
    assert len(names) == len(set(names)) >= 400
    assert len({content for _, content in own}) >= 380
    assert {name.partition("/")[0] for name in names} == {
        "ends", "dots", "lines", "sizes", "bytes", "header", "mime", "random",
    }  # fmt: skip


def test_they_are_always_the_same(own):
    assert list(corpus.own_samples()) == own
    assert list(corpus.own_samples(2)) != own


def test_a_strict_server_may_accept_them(own):
    for name, content in own:
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", content), name
        found, _ = header.split_header(content)
        assert header.count_received(found) <= 45, name
        assert len(found) < 200_000, name
    assert sum(len(content) for _, content in own) < 20_000_000


def test_sizes_are_what_they_say(own):
    for name, content in own:
        edge = re.fullmatch(r"sizes/edge-(\d+)([+-]\d+)", name)
        if edge:
            assert len(content) == int(edge[1]) + int(edge[2])


def test_those_of_cpython_are_all_there(from_cpython):
    assert len(from_cpython) >= 45
    for name, content in from_cpython:
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", content), name


def test_what_arrives_as_sent_is_the_same(own):
    for name, content in own:
        arrived = content if content.endswith(b"\r\n") or not content else content + b"\r\n"
        assert corpus.same_message(content, ON_TOP + arrived, arrived_lf=False) is None, name
        assert corpus.same_message(content, content, arrived_lf=False) is None, name
        lf = (ON_TOP + arrived).replace(b"\r\n", b"\n")
        assert corpus.same_message(content, lf, arrived_lf=True) is None, name


def test_any_change_is_seen(own):
    """Each sample with one octet lost, doubled or changed."""
    for number, (name, content) in enumerate(own):
        if len(content) < 4 or len(content) > 300_000:
            continue
        place = number * 7919 % (len(content) - 3)
        for changed in (
            content[:place] + content[place + 1 :],
            content[:place] + b"#" + content[place:],
            content[:place] + bytes([content[place] ^ 0x20]) + content[place + 1 :],
            content + b"\r\n\r\n",
        ):
            if changed != content:
                assert corpus.same_message(content, OURS + changed, arrived_lf=False) is not None, name


@pytest.mark.parametrize(
    ("arrived", "part"),
    [
        (OURS + SENT.replace(b"\r\n.\r\n", b"\r\n..\r\n"), "body"),
        (OURS + SENT.replace(b"\r\n.\r\n", b"\r\n"), "body"),
        (OURS + SENT + b"\r\n", "body"),
        (OURS + SENT[:-2], "body"),
        (OURS + SENT.replace(b"a\r\n\tb", b"a b"), "header"),
        (OURS + SENT.replace(b"To:", b"TO:"), "header"),
        (OURS + b"X-Other: new\r\n" + SENT, "header"),
        (b"X-Other: new\r\n" + OURS + SENT, "header"),
        (OURS + SENT.replace(b"\r\n\r\n", b"\r\nX-New: 1\r\n\r\n", 1), "header"),
        (OURS + b"\r\n" + SENT, "header"),
        (OURS, "header"),
        (b"", "header"),
        (OURS + SENT.replace(b"\r\n", b"\n"), "header"),
    ],
)
def test_a_difference_is_told_with_its_place(arrived, part):
    told = corpus.same_message(SENT, arrived, arrived_lf=False)
    assert told is not None
    assert told.startswith(f"{part} differs at octet ")


def test_a_message_that_begins_with_trace_fields_keeps_them():
    sent = b"Received: by old.test\r\nReturn-Path: <old@outside.test>\r\n" + SENT
    assert corpus.same_message(sent, ON_TOP + sent, arrived_lf=False) is None
    assert corpus.same_message(sent, ON_TOP + SENT, arrived_lf=False) is not None
    assert corpus.same_message(sent, ON_TOP + b"Received: by old.test\r\n" + SENT, arrived_lf=False) is not None


def test_only_a_missing_last_line_end_may_come():
    sent = SENT + b"no end"
    assert corpus.same_message(sent, OURS + sent + b"\r\n", arrived_lf=False) is None
    assert corpus.same_message(sent, OURS + sent, arrived_lf=False) is None
    assert corpus.same_message(sent, OURS + sent + b"\r\n\r\n", arrived_lf=False) is not None
    assert corpus.same_message(SENT, OURS + SENT + b"\r\n", arrived_lf=False) is not None


def test_lf_where_crlf_was_to_arrive_is_seen():
    lf = (OURS + SENT).replace(b"\r\n", b"\n")
    assert corpus.same_message(SENT, lf, arrived_lf=True) is None
    assert corpus.same_message(SENT, lf, arrived_lf=False) is not None
    assert corpus.same_message(SENT, OURS + SENT, arrived_lf=True) is not None


def test_without_cpythons_samples_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(corpus.Missing, match=r"libpython3\.\d+-testsuite"):
        list(corpus.cpython_samples())
