"""Fuzz targets of SMTP: sessions of both sides, paths, replies, SASL. Fed whole and in pieces: the same events."""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Sequence

from fuzz.target import Target, cuts_of

from gatepost.model import ScramVerifier
from gatepost.smtp.address import MAX_PATH_BYTES, PathError, parse_path
from gatepost.smtp.client import ClientSession, ClientSettings, Transaction
from gatepost.smtp.command import PathCommand, parse_mail, parse_rcpt
from gatepost.smtp.events import Body, Data, Mail, Rcpt, Reset, Violation
from gatepost.smtp.introduction import XCLIENT, XFORWARD, parse_attributes
from gatepost.smtp.reply import Reply
from gatepost.smtp.replyreader import RemoteReply, ReplyError, ReplyReader
from gatepost.smtp.sasl import MECHANISMS
from gatepost.smtp.sasl.mechanism import (
    CertificateOf,
    Challenge,
    Done,
    Malformed,
    PasswordOf,
    Security,
    TokenOf,
    VerifierOf,
)
from gatepost.smtp.server import ServerSession
from gatepost.smtp.settings import ServerSettings

TURN = b"\xfd"  # never in SMTP or UTF-8: the client waits for the replies here
STRAY_TURN = re.compile(rb"(?<!\n)\xfd")
BEGINS_NEW_TURN = re.compile(rb"(?i)(?:DATA|[EL]HLO|HELO|STARTTLS|AUTH|XCLIENT)[^\n]*\n(?!\Z|\xfd)")
REPLY_LINE = re.compile(rb"[2345][0-9]{2}(?:[ -][ -~]*)?").fullmatch

FORBIDDEN_IN_TEXT = {
    chr(code) for code in (*range(10), *range(11, 32), *range(127, 160), 0x2028, 0x2029, 0x202E, 0x2066)
}

SMALL = ServerSettings(
    hostname="mx", max_command_bytes=128, max_message_bytes=60, max_swallowed_bytes=60, max_errors=6, max_received_hops=1,
    max_recipients=3, max_idle_commands=9, max_header_bytes=40, max_transactions=3, starttls=True,
)  # fmt: skip
REPAIRING = ServerSettings(**{name: getattr(SMALL, name) for name in SMALL.__struct_fields__} | {"repair": True})


# --- the server's side -----------------------------------------------------------------------------------------------


def drive(session: ServerSession, pieces: Sequence[Sequence[bytes]]) -> tuple[list[object], bytes]:
    """What came of turns in pieces, in a form that does not depend on the pieces."""
    found: list[object] = []
    content: list[bytes] = []
    session.greet()
    for turn in pieces:
        for piece in turn:
            session.feed(piece)
            while (event := session.next_event()) is not None:
                if event.needs_answer:
                    is_refused = isinstance(event, Rcpt) and event.forward_path.local == "x"
                    session.answer(Reply(550, "7.1", "No") if is_refused else None)
                if isinstance(event, Body):
                    content.append(event.content)
                    if event.last:
                        found.append(b"".join(content))
                elif isinstance(event, Violation):
                    assert event.detail.isprintable() and len(event.detail) <= 200
                    found.append((event.kind, event.reply))
                else:
                    content.clear()
                    found.append(event)
    return found, session.take_output()


def in_pieces(turn: bytes, edges: Sequence[int]) -> list[bytes]:
    places = sorted({0, len(turn), *(edge % (len(turn) + 1) for edge in edges)})
    return [turn[begin:end] for begin, end in itertools.pairwise(places)] or [b""]


BAD_TEXT = {"bare-lf", "bare-cr", "nul", "header", "hops", "size", "loop", "long-line", "limit"}


def until_bad_text(found: list[object], output: bytes) -> tuple[list[object], bytes]:
    """Of a text with two faults, the one that is seen first is told, and that depends on the pieces; refused it is either way."""
    for number, event in enumerate(found):
        if (
            isinstance(event, tuple)
            and event[0] in BAD_TEXT
            and number
            and any(isinstance(one, Data) for one in found[:number])
        ):
            return found[:number], b""
    return found, output


def run_session(data: bytes) -> None:
    """Commands, DATA and BDAT, behind EHLO. A first octet LF: with bare CR and LF repaired."""
    data = STRAY_TURN.sub(b"", data)
    turns = [b"EHLO c.test\r\n", *data.split(TURN)]
    settings = REPAIRING if data[:1] == b"\n" else SMALL
    whole = drive(ServerSession(settings, "s"), [[turn] for turn in turns])
    # What follows in the same read where nothing may is refused only if it is seen; behind HELO that is everything.
    if b"HELO" not in data.upper() and BEGINS_NEW_TURN.search(data) is None:
        for edges in (cuts_of(data), range(len(data))):
            pieces = drive(ServerSession(settings, "s"), [in_pieces(turn, edges) for turn in turns])
            assert until_bad_text(*pieces) == until_bad_text(*whole)
    found, output = whole
    in_transaction = False
    for event in found:
        if isinstance(event, Mail):
            assert not in_transaction
            in_transaction = True
        elif isinstance(event, Reset | bytes):
            assert in_transaction
            in_transaction = False
    for line in output.split(b"\r\n")[:-1]:
        assert REPLY_LINE(line), line


def run_attributes(data: bytes) -> None:
    """XCLIENT and XFORWARD: what is taken is plain words, and addresses are addresses in their one form."""
    for table in (XCLIENT, XFORWARD):
        found = parse_attributes(data, table)
        if isinstance(found, Reply):
            assert found.code == 501
            continue
        assert found
        for name, value in found.items():
            assert name in table
            assert value is None or (value.isascii() and value.isprintable() and " " not in value)
            if value and name.endswith("ADDR"):
                address = ipaddress.ip_address(value)
                assert str(address) == value and getattr(address, "ipv4_mapped", None) is None


def run_path(data: bytes) -> None:
    """MAIL and RCPT: what is accepted is within the limits, and means the same when it is read again."""
    offer = SMALL.offer
    for parsed in (parse_mail(data, offer.mail, 1000), parse_rcpt(data, offer.rcpt, 1000, smtputf8=True)):
        assert isinstance(parsed, PathCommand | Reply)
        if isinstance(parsed, Reply):
            assert parsed.code >= 500
        elif parsed.path is not None:
            check_path(parsed.path.text, parsed.path.domain)
    for smtputf8, forward in itertools.product((False, True), repeat=2):
        try:
            path = parse_path(data, smtputf8=smtputf8, forward=forward)
        except PathError as error:
            assert error.reason.isprintable()
        else:
            assert path is not None or data == b"<>"
            if path is not None and path.domain:
                check_path(path.text, path.domain)


def check_path(text: str, domain: str) -> None:
    assert len(text.encode()) + 2 <= MAX_PATH_BYTES
    assert not set(text) & set("\r\n\0")
    if domain:
        again = parse_path(f"<{text}>".encode(), smtputf8=True, forward=True)
        assert again is not None and (again.text, again.domain) == (text, domain)


# --- the client's side -----------------------------------------------------------------------------------------------


def read_replies(pieces: Sequence[bytes]) -> tuple[list[RemoteReply], str]:
    reader = ReplyReader()
    found: list[RemoteReply] = []
    for piece in pieces:
        try:
            found += reader.feed(piece)
        except ReplyError as error:
            return found + error.replies, "broken"
    return found, ""


def run_replies(data: bytes) -> None:
    """Replies of another server: the same however they are cut; nothing in them can act on a terminal or a log line."""
    whole = read_replies([data])
    singly = read_replies([data[at : at + 1] for at in range(len(data))])
    assert singly[0][: len(whole[0])] == whole[0] and singly[1] == whole[1]
    for reply in whole[0]:
        assert 200 <= reply.code <= 599
        assert not set(reply.text) & FORBIDDEN_IN_TEXT


class _Message(Transaction):
    __slots__ = ()

    def read(self, offset: int, count: int) -> bytes:
        return b"Subject: x\r\n\r\n.dot\r\n"[offset : offset + count]


def run_client(data: bytes) -> None:
    """A whole client session against a server that says anything: it ends, every message has one outcome, nothing else is sent."""
    messages = [_Message("a@b.test", ["c@d.test", "e@d.test"], 20) for _ in range(2)]
    waiting = list(messages)
    session = ClientSession(
        ClientSettings("gate.test", lmtp=data[:1] == b"L"), lambda: waiting.pop() if waiting else None
    )
    finished = []
    for piece in in_pieces(data, cuts_of(data)):
        session.receive(piece)
        while session.take_output():
            pass
        finished += session.take_finished()
    session.close("lost", "the connection was lost")
    finished += session.take_finished()
    assert len(finished) == len({id(one) for one in finished}) == len(messages) - len(waiting)


# --- SASL ------------------------------------------------------------------------------------------------------------

_SECURITY = Security(bindings={"tls-server-end-point": (b"\0" * 32,)}, certificate_user="anna@example.test")
_VERIFIER = ScramVerifier("sha256", 4096, b"salt", b"k" * 32, b"s" * 32)


def run_sasl(data: bytes) -> None:
    """Every mechanism hears the same octets as its messages: it says what it says, or Malformed, and lets nobody in."""
    messages: list[bytes | None] = list(data.split(b"\xff"))
    for mechanism in MECHANISMS.values():
        exchange = mechanism(messages[0], _SECURITY, len(data) % 2 == 0)
        rest = iter(messages[1:])
        try:
            said = next(exchange)
            for _ in range(8):
                if isinstance(said, Challenge):
                    message = next(rest, None)
                    if message is None:
                        break
                    said = exchange.send(message)
                elif isinstance(said, VerifierOf):
                    said = exchange.send(_VERIFIER)
                elif isinstance(said, PasswordOf | TokenOf | CertificateOf):
                    said = exchange.send("" if isinstance(said, TokenOf) else False)
        except Malformed as error:
            assert str(error).isprintable()
        except StopIteration as end:
            assert isinstance(end.value, Done) and not end.value.granted


_TRANSACTION = b"MAIL FROM:<a@b.test> SIZE=3\r\nRCPT TO:<c@d.test>\r\n"
TARGETS = (
    Target(
        "session",
        run_session,
        (
            _TRANSACTION + b"DATA\r\n" + TURN + b"Subject: x\r\n\r\n..text\r\n.\r\nQUIT\r\n",
            _TRANSACTION + b"BDAT 3\r\nabcBDAT 2 LAST\r\n\r\nQUIT\r\n",
            b"\nMAIL FROM:<>\nRCPT TO:<x@d>\r\nRSET\r\nSTARTTLS\r\n",
            _TRANSACTION + b"DATA\r\n" + TURN + b"a\n.\r\nMAIL FROM:<s@m>\r\n.\r\n",
        ),
        (TURN, b"\r\n", b"\n.\r\n", b"\r\n.\n", b"BDAT 0 LAST\r\n", b"RSET\r\n", b"DATA\r\n", b"RCPT TO:<x@c>\r\n", b"\0", b"\r", b"NOOP\r\n",
         b"BODY=8BITMIME", b"SMTPUTF8", b"VRFY a\r\n", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"AUTH PLAIN\r\n"),
    ),
    Target(
        "path",
        run_path,
        (b"MAIL FROM:<a@b.test> SIZE=10 BODY=8BITMIME", b'RCPT TO:<"a b"@[192.0.2.1]>', b"<@a,@b:c@d.test>", b"<Postmaster>", b"<>",
         "RCPT TO:<bücher@bücher.example>".encode(), b"<a@[IPv6:2001:db8::1]>"),
        (b"<", b">", b"@", b'"', b"\\", b"[IPv6:", b"%", b"!", b" SMTPUTF8", b"SIZE=", "ü".encode(), b"xn--", b"MAIL FROM:", b"RCPT TO:"),
        600,
    ),
    Target(
        "attributes",
        run_attributes,
        (b"NAME=a.test ADDR=192.0.2.1 PORT=25 PROTO=ESMTP HELO=a+2Eb", b"ADDR=IPV6:2001:db8::1 LOGIN=[UNAVAILABLE]", b"SOURCE=LOCAL IDENT=1", b"ADDR=IPV6:::ffff:1"),
        (b"NAME=", b"ADDR=", b"+0D+0A", b"+", b"=", b" ", b"IPV6:", b"::ffff:192.0.2.1", b"[TEMPUNAVAIL]", b"%lo", b"DESTPORT=65536"),
        300,
    ),
    Target(
        "replies",
        run_replies,
        (b"250-a.test\r\n250-SIZE 10\r\n250 DSN\r\n", b"550 5.1.1 No such user\r\n", b"250 ok\n", b"250-a\r\n550 b\r\n"),
        (b"250 ", b"250-", b"\r\n", b"\n", b"5.1.1 ", b"\x1b[31m", "\u202e".encode(), b"\xff"),
    ),
    Target(
        "client",
        run_client,
        (
            b"220 mx\r\n250-mx\r\n250-PIPELINING\r\n250 8BITMIME\r\n250 a\r\n250 b\r\n250 c\r\n354 go\r\n250 done\r\n",
            b"220 mx\r\n250 mx\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n451 later\r\n250 ok\r\n221 bye\r\n",
            b"554 no\r\n", b"220 mx\r\n250-mx\r\n250-CHUNKING\r\n250 PIPELINING\r\n250 a\r\n250 b\r\n250 c\r\n250 d\r\n",
        ),
        (b"220 ", b"250 ", b"250-", b"354 ", b"421 ", b"550 5.7.1 ", b"\r\n", b"PIPELINING", b"CHUNKING", b"STARTTLS", b"DSN", b"SIZE 1"),
    ),
    Target(
        "sasl",
        run_sasl,
        (b"n,,n=user,r=abc\xffc=biws,r=abc,p=AAAA", b"\0user\0password", b"user\xffpassword", b"n,a=u,\x01auth=Bearer abc\x01\x01",
         b"user=u\x01auth=Bearer t\x01\x01", b"p=tls-server-end-point,,n=user,r=abc\xffc=AAAA,r=abc,p=AAAA"),
        (b"n,,", b"y,,", b"p=tls-server-end-point,,", b"n=", b"r=", b",", b"=2C", b"=3D", b"\0", b"\x01", b"\xff", b"c=biws", b"p=", b"m=", b"auth=Bearer "),
        1000,
    ),
)  # fmt: skip
