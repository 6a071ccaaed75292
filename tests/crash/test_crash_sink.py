"""The sink and the kinds of message: what it reads of BDAT and of notices, and that the load asks for everything there is."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from bench.crash.books import Arrival, Book, read_book
from bench.crash.content import build_binary_bodies, build_header, read_content, read_notice
from bench.crash.kinds import KINDS, choose_kind, is_gone
from bench.crash.sink import SinkSession
from gatepost.mail.header import split_header
from gatepost.model import Envelope, Outcome, Recipient, Result
from gatepost.queue.bounce import build_dsn


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False


def talk(tmp_path: Path, *parts: bytes) -> tuple[bytes, list[Any]]:
    """What a sink that is never late answers to the parts, and what it writes down."""

    async def run() -> bytes:
        rng = random.Random()
        rng.random = lambda: 0.99  # type: ignore[method-assign]
        session, wire = SinkSession(Book(str(tmp_path / "book")), 0.0, rng), Wire()
        session.connection_made(wire)  # type: ignore[arg-type]
        for part in parts:
            session.data_received(part)
        return wire.written

    return asyncio.run(run()), read_book(tmp_path / "book", Arrival)[0]


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_chunks_come_octet_for_octet(tmp_path, size):
    [(body, crc), *_] = build_binary_bodies(random.Random(1), 2)
    text = b"Received: from a by b id 0660E1; x\r\n" + build_header("r1c1n1", crc) + body[:3000]
    text = text.replace(b"%08x" % crc, b"%08x" % crc32(body[:3000]))
    stream = b"MAIL FROM:<a@b.test> BODY=BINARYMIME\r\nRCPT TO:<c@d.test>\r\nRCPT TO:<gone@d.test>\r\n"
    stream += b"BDAT 100\r\n" + text[:100] + b"BDAT %d LAST\r\n" % (len(text) - 100) + text[100:] + b"NOOP\r\n"
    said, [row] = talk(tmp_path, *[stream[at : at + size] for at in range(0, len(stream), size)])
    assert [line[:3] for line in said.split(b"\r\n")[1:-1]] == [b"250", b"250", b"550", b"250", b"250", b"250"]
    assert (row.id, row.recipients, row.is_whole, row.notice) == ("r1c1n1", ["c@d.test"], True, "")


def test_a_notice_is_read_as_the_gateway_writes_it():
    to = [Recipient(f"{name}@d.test", "d.test", "smtp://192.0.2.1:25") for name in ("gone", "u1")]
    envelope = Envelope(
        "M1", "s", "sender@senders.test", to, 0.0, "192.0.2.9", "h", "p", envelope_id="r1c1n1", ret="FULL"
    )
    content = build_header("r1c1n1", 1) + b"text\r\n"
    rows = [(recipient, Outcome(n, Result.FAILED, "rcpt", 550, "5.1.1", "gone")) for n, recipient in enumerate(to)]
    _, chunks = build_dsn(
        "failed", envelope, rows, hostname="gate.test", original_header=split_header(content)[0], original_content=content, now_s=1.0,
        message_id="N1",
    )  # fmt: skip
    assert read_notice(b"".join(chunks)) == ("r1c1n1", "N1", [("gone@d.test", "failed"), ("u1@d.test", "failed")])


def test_a_header_must_have_been_rewritten():
    content = build_header("r1c1n1", crc32(b"x\r\n"), "load@inside.test", "load@senders.test") + b"x\r\n"
    assert read_content(content)[2] is False
    assert read_content(content.replace(b"From: load@inside.test", b"From: load@senders.test"))[2] is True


def test_every_kind_is_sent():
    rng = random.Random(1)
    assert {choose_kind(rng).name for _ in range(2000)} == {kind.name for kind in KINDS}
    assert sum(kind.share for kind in KINDS) == pytest.approx(1.0)
    for kind in KINDS:
        # else nobody knows what its notice is about
        assert not any(map(is_gone, kind.recipients)) or "ENVID" in kind.mail
