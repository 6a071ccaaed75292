"""Message smuggling: no octets but CRLF.CRLF end a message, and whoever tries gets nothing in.

Each variant stands between the text of a message and a second, smuggled transaction; it is sent whole and cut at every
place around it, on strict sessions and on repairing ones, with DATA and with BDAT.
"""

from __future__ import annotations

import pytest

from gatepost.smtp.reply import Reply
from gatepost.smtp.server import Body, Event, Mail, Rcpt, ServerSession, ServerSettings, Violation

FAULTY = [
    b"\n.\n", b"\n.\r\n", b"\r.\r\n", b"\r.\r", b"\n.\r", b"\r.\n", b"\r\n.\r", b"\r\n.\n", b"\r\n.\r\r\n",
    b"\r\r\n.\r\n", b"\n\n.\r\n", b"\r\n\r.\r\n", b"\r\n\n.\r\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n\0.\n", b"\0\r\n.\r\n", b"\r\0\n.\r\n",
    b"\r\n.\r\0\n", b"\n\r.\n\r", b"\r\n..\n", b"\n..\r\n", b"\r\n.\n.\r\n", b"\r\n\r\n\r\n.\r.\r\n",
]  # fmt: skip
HARMLESS = [
    b"\r\n..\r\n", b"\r\n. \r\n", b"\r\n .\r\n", b"\r\n.\t\r\n", b"\x85.\x85", b"\x0b.\x0b", b"\x0c.\x0c", b"\x1c.\x1c",
    "\u2028.\u2028".encode(), b"\r\n.\xc2\xa0\r\n", b"\r\n.\x8d\r\n", b"\xe5\x98\x8a.\xe5\x98\x8d",
]  # fmt: skip
SMUGGLED = b"MAIL FROM:<evil@client.example>\r\nRCPT TO:<victim@example.test>\r\nDATA\r\nevil\r\n.\r\nQUIT\r\n"
SETTINGS = ServerSettings(hostname="mx.example.test")
REPAIRING = ServerSettings(hostname="mx.example.test", repair=True)


def drive(session: ServerSession, octets: bytes) -> tuple[list[Event], bytes]:
    events = []
    session.feed(octets)
    while (event := session.next_event()) is not None:
        events.append(event)
        if event.needs_answer:
            session.answer()
    return events, session.take_output()


def begin(settings: ServerSettings) -> ServerSession:
    session = ServerSession(settings, "s1")
    session.greet()
    for line in (b"EHLO x\r\n", b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@example.test>\r\n"):
        drive(session, line)
    return session


def ways(variant: bytes) -> list[list[bytes]]:
    """The variant in its surroundings, whole, cut at every place, and octet by octet."""
    before, after = b"Subject: x\r\n\r\ntext", SMUGGLED
    whole = before + variant + after
    cuts = range(len(before) - 1, len(before) + len(variant) + 2)
    return [[whole], *([whole[:at], whole[at:]] for at in cuts), [whole[at : at + 1] for at in range(len(whole))]]


def play(settings: ServerSettings, blocks: list[bytes]) -> tuple[ServerSession, list[Event], bytes]:
    session = begin(settings)
    assert drive(session, b"DATA\r\n")[1].startswith(b"354")
    events, output = [], b""
    for block in blocks:
        more, said = drive(session, block)
        events += more
        output += said
    return session, events, output


@pytest.mark.parametrize("variant", FAULTY, ids=repr)
def test_forbidden_octets_refuse_and_close(variant: bytes) -> None:
    for blocks in ways(variant):
        session, events, output = play(SETTINGS, blocks)
        assert output == b"550 5.6.11 Message lines end with CR LF, and hold no other CR, LF or NUL (s1)\r\n"
        assert session.closing
        assert not any(isinstance(event, Mail | Rcpt) for event in events)
        assert not any(isinstance(event, Body) and event.last for event in events)
        violations = [event for event in events if isinstance(event, Violation)]
        assert [event.kind in ("bare-cr", "bare-lf", "nul") for event in violations] == [True]


@pytest.mark.parametrize("variant", FAULTY, ids=repr)
def test_repair_never_ends_a_message_there_either(variant: bytes) -> None:
    """But for CRLF.CRLF itself, of which some variants are made up."""
    for blocks in ways(variant):
        session, events, output = play(REPAIRING, blocks)
        if b"\0" in variant:
            assert output.startswith(b"550 5.6.11 ")
            assert session.closing
        elif b"\r\n.\r\n" in variant:
            assert any(event.last for event in events if isinstance(event, Body))
        else:
            assert not any(isinstance(event, Mail | Rcpt) for event in events)
            content = b"".join(event.content for event in events if isinstance(event, Body))
            assert b"evil\r\n" in content
            assert content.count(b"\r\n") == content.count(b"\r") == content.count(b"\n")


@pytest.mark.parametrize("variant", HARMLESS, ids=repr)
def test_lookalikes_are_text(variant: bytes) -> None:
    for blocks in ways(variant):
        _session, events, output = play(SETTINGS, blocks)
        assert output == b"250 2.0.0 Message accepted\r\n221 2.0.0 Goodbye\r\n"
        assert not any(isinstance(event, Mail | Rcpt) for event in events)
        assert b"MAIL FROM:<evil@client.example>\r\n" in b"".join(e.content for e in events if isinstance(e, Body))


@pytest.mark.parametrize("variant", FAULTY, ids=repr)
def test_chunks_hold_no_forbidden_octets(variant: bytes) -> None:
    text = b"text" + variant + SMUGGLED
    for octets in (text, text[: len(text) // 2]):
        session = begin(SETTINGS)
        events, output = drive(session, b"BDAT %d LAST\r\n%s" % (len(octets), octets))
        assert output.startswith(b"550 5.6.11 ")
        assert session.closing
        assert not any(isinstance(event, Mail | Rcpt) or (isinstance(event, Body) and event.last) for event in events)


@pytest.mark.parametrize(
    "line", [b"RSET\n", b"RSET\r", b"RSET\r\r\n", b"RS\0ET\r\n", b"RSET\n\r\n", b"RSET\0\r\n"], ids=repr
)
@pytest.mark.parametrize("settings", [SETTINGS, REPAIRING], ids=["strict", "repair"])
def test_command_lines_hold_none(line: bytes, settings: ServerSettings) -> None:
    session = begin(settings)
    events, output = drive(session, line + b"QUIT\r\n")
    if settings.repair and line.startswith(b"RSET\n"):
        assert output.startswith(b"250 2.0.0 Ok\r\n")  # a bare LF ends a command of a listed network
        return
    assert output.startswith(b"500 5.5.2 ")
    assert output.count(b"\r\n") == 1
    assert session.closing
    assert [type(event).__name__ for event in events] == ["Violation", "Reset"]


def test_nothing_is_believed_after_a_fault() -> None:
    session = begin(SETTINGS)
    drive(session, b"RSET\n")
    assert drive(session, b"EHLO x\r\n") == ([], b"")
    session.answer(Reply(250, "0.0", "late"))
    assert session.take_output() == b""
