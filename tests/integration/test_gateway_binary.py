"""BINARYMIME (RFC 3030) through the gateway: unchanged to who takes it, returned where nobody can, never by DATA."""

from __future__ import annotations

import pytest
from integration.nexthop import EXTENSIONS, NextHop
from integration.peers.process import wait_until
from integration.queuebed import queue_bed
from integration.talk import HELLO, Talk

CONTENT = (
    b"From: a@senders.test\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\n"
    b"Content-Transfer-Encoding: binary\r\n\r\n"
    b"\0\x01\r\n.\r\nMAIL FROM:<evil@example.org>\r\nRCPT TO:<victim@example.test>\r\nDATA\r\n\xff\n\r.\r\n..\r\n no end"
)


def send_binary(port: int, recipient: str, sender: str, content: bytes = CONTENT) -> str:
    with Talk(port) as talk:
        assert b"BINARYMIME" in talk.say(HELLO, b"250")
        talk.envelope([recipient], sender, "BODY=BINARYMIME")
        talk.say(b"DATA\r\n", b"503")
        return talk.bdat(content, 50).split()[-1].decode()


@pytest.fixture(scope="module")
def bed(tmp_path_factory):
    directory = tmp_path_factory.mktemp("gate")
    with NextHop(extensions=(*EXTENSIONS, "CHUNKING", "BINARYMIME")) as binary:
        extra = (
            f'[domains."binary.test"]\nnext_hop = "{binary.name}"\n'
            f'[domains."box.test"]\nnext_hop = "maildir:{directory}/boxes/{{local}}"\n'
        )
        with queue_bed(directory, extra, defer_after_s=1) as bed:
            bed.binary, bed.boxes = binary, directory / "boxes"
            yield bed


@pytest.mark.parametrize("size", [0, 300_000])
def test_it_arrives_octet_for_octet(bed, size):
    recipient = f"r{size}@binary.test"
    send_binary(bed.gateway.port, recipient, "a@senders.test", CONTENT + b"\0\r" * size)
    taken = bed.binary.wait_to(recipient)
    assert taken.verb == "BDAT"
    assert "BODY=BINARYMIME" in taken.parameters
    assert taken.content.endswith(CONTENT + b"\0\r" * size)


def test_it_is_kept_octet_for_octet_while_it_waits(bed):
    """Also when it moves to a file of its own."""
    bed.binary.close()
    message_id = send_binary(bed.gateway.port, "later@binary.test", "a@senders.test")
    bed.outcome("deferred", message_id)
    wait_until(lambda: list(bed.gateway.spool.glob(f"deferred/*/{message_id}.eml")), "a file of its own")
    bed.binary.open()
    assert bed.binary.wait_to("later@binary.test").content.endswith(CONTENT)


def test_it_is_returned_where_the_next_hop_cannot_take_it(bed):
    message_id = send_binary(bed.gateway.port, "r@example.test", "back@senders.test")
    dsn = bed.dsn_to("back@senders.test")
    assert bed.outcome("bounced", message_id)["status"] == "5.6.1"
    assert b"Status: 5.6.1" in dsn.content
    assert b"victim" not in dsn.content
    assert bed.inside.find("r@example.test") is None
    assert bed.inside.find("victim@example.test") is None


def test_a_maildir_has_it_octet_for_octet(bed):
    send_binary(bed.gateway.port, "m@box.test", "a@senders.test")
    (file,) = wait_until(lambda: list((bed.boxes / "m" / "new").glob("*")), "the message in the Maildir")
    assert file.read_bytes().endswith(CONTENT)
