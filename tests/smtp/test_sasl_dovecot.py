"""Dovecot's authentication protocol, as its client."""

from __future__ import annotations

from binascii import a2b_base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.smtp.sasl.dovecot import DovecotConversation, DovecotError, Verdict

HELLO = b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t2\nCOOKIE\tab\nDONE\n"


def ready() -> DovecotConversation:
    made = DovecotConversation()
    assert made.hello().startswith(b"VERSION\t1\t")
    assert made.feed(HELLO) == [] and made.is_ready
    return made


def test_a_request_and_its_answers() -> None:
    made = ready()
    number, line = made.ask("anna", "p\tw\n", remote="192.0.2.1", local="2001:db8::1", is_secured=True)
    words = line.rstrip(b"\n").split(b"\t")
    assert line.count(b"\n") == 1
    assert words[:3] == [b"AUTH", b"%d" % number, b"PLAIN"]
    assert {b"service=smtp", b"rip=192.0.2.1", b"lip=2001:db8::1", b"secured"} <= set(words)
    assert words[-1].startswith(b"resp=") and a2b_base64(words[-1][5:]) == b"\0anna\0p\tw\n"
    assert made.feed(b"OK\t1\tuser=anna@x\tsystem_groups_user=y\nFAIL\t2\tuser=b\nFAIL\t3\ttemp\n") == [
        Verdict(1, "anna@x"),
        Verdict(2),
        Verdict(3, is_unknown=True),
    ]
    second, _ = made.ask("anna", "x", remote="::1", local="::1", is_secured=False)
    assert second == number + 1


@pytest.mark.parametrize(
    "bad",
    [
        b"VERSION\t2\t0\n", b"OK\n", b"OK\tx\tuser=a\n", b"OK\t1\n", b"OK\t1\tuser=\n", b"OK\t1\tuser=\xff\n", b"OK\t1\tuser=a\x01nb\n",
        b"CONT\t1\tabc\n", b"x" * 9000, b"x" * 9000 + b"\n", b"FAIL\t99999999999\n",
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_no_answer(bad: bytes) -> None:
    with pytest.raises(DovecotError):
        ready().feed(bad)


@given(st.binary(max_size=80), st.integers(0, 80))
def test_however_it_is_cut(data: bytes, cut: int) -> None:
    def read(*pieces: bytes) -> tuple[list[Verdict], bool]:
        made, found = ready(), []
        try:
            for piece in pieces:
                found += made.feed(piece)
        except DovecotError:
            return [], True
        return found, False

    data = b"OK\t7\tuser=a\n" + data
    whole, parts = read(data), read(data[:cut], data[cut:])
    assert parts[1] == whole[1]
    assert whole[1] or parts == whole
