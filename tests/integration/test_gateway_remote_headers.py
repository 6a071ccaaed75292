"""Header fields rewritten out of a web service: the end of the message waits for what all its addresses become."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from certificates import Authority
from integration.gateway import Gateway
from integration.nexthop import NextHop
from integration.talk import Talk
from peers import wait_until
from webserver import WebServer

RULE = (
    '[[rewrite.rules]]\nname = "faces"\ndirections = ["outbound", "inbound"]\n'
    'parts = ["reverse-path", "header-senders", "header-recipients"]\n'
    'domains = ["inside.test"]\ntables = ["http:faces"]\n'
)
USER = "user@example.test"
CLOSE = {"Connection": "close"}


class Bed(Gateway):
    web: WebServer
    hop: NextHop

    def knows(self, address: str, face: str, gate: threading.Event | None = None) -> None:
        """The web service has this address; with `gate` it answers when that is set."""
        answer = (200, CLOSE, b'{"to": "%b"}' % face.encode())

        def slowly(_: object) -> tuple[int, dict[str, str], bytes]:
            assert gate is None or gate.wait(60)
            return answer

        self.web.answers["localhost", "/" + quote(address, safe="")] = slowly

    def is_asked(self, address: str) -> bool:
        return any(asked.path == "/" + quote(address, safe="") for asked in self.web.asked)

    def held_bytes(self) -> int:
        return self.stats()["receiver/0"]["held_bytes"]


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    directory = tmp_path_factory.mktemp("faces")
    directory.chmod(0o755)
    authority = Authority(directory)
    with WebServer({"localhost": authority.issue("web", ["DNS:localhost"])}) as web, NextHop() as hop:
        source = (
            f'[sources.faces]\ntype = "http"\nurl = "https://localhost:{web.port}/{{key}}"\nfield = "to"\n'
            f'ca_file = "{authority.file}"\nretry_s = 0.1\ntimeout_s = 15\n'
        )
        extra = RULE + source + "[smtp]\nbody_file_bytes = 65536\n[processes]\nreceivers = 1\n"
        with Bed(directory, next_hop=hop.name, extra=extra) as bed:
            bed.web, bed.hop = web, hop
            yield bed
            bed.assert_no_bugs()


def header(sender: str, *recipients: str) -> bytes:
    return f"From: The One <{sender}>\r\nTo: {', '.join(recipients)}\r\nSubject: faces\r\n\r\n".encode()


def sent(bed: Bed, subject: bytes) -> bytes:
    """The content of the message with this in it, as it came."""
    found = wait_until(lambda: [taken.content for taken in bed.hop.taken if subject in taken.content], "the message")
    return found[0]  # type: ignore[index]


def test_all_addresses_of_a_header_are_asked_together(bed: Bed) -> None:
    bed.knows("a1@inside.test", "anna@example.test")
    bed.knows("b1@inside.test", "bob@example.test")
    waits = bed.stats()["receiver/0"]["waits"]
    with Talk(bed.port) as talk:
        talk.hello()
        talk.send(USER, header("a1@inside.test", "b1@inside.test", "c1@inside.test", "d@far.test") + b"first\r\n")
        talk.send(USER, header("a1@inside.test", "B1@inside.test") + b"again\r\n")
    content = sent(bed, b"first")
    assert b"From: The One <anna@example.test>\r\n" in content
    assert b"To: bob@example.test, c1@inside.test, d@far.test\r\n" in content
    assert b"To: bob@example.test\r\n" in sent(bed, b"again")
    assert bed.stats()["receiver/0"]["waits"] - waits == 1  # one for the first message, none for what is known


@pytest.mark.parametrize("size", [10, 300_000, 2_000_000])
@pytest.mark.parametrize("by", ["data", "bdat"])
def test_what_comes_behind_the_header_is_kept_whole(bed: Bed, by: str, size: int) -> None:
    name = f"w{by}{size}"
    gate = threading.Event()
    bed.knows(f"{name}@inside.test", f"{name}@example.test", gate)
    lines = b"".join(b"line %d of the text\r\n" % number for number in range(size // 20))
    content = header(f"{name}@inside.test") + name.encode() + b"\r\n" + lines
    with Talk(bed.port) as talk:
        talk.hello()
        talk.envelope([USER])
        if by == "data":
            talk.say(b"DATA\r\n", b"354")
            pieces = [content[:40], content[40:200], content[200:], b".\r\n"]
        else:
            half = len(content) // 2
            pieces = [
                b"BDAT %d\r\n" % half + content[:half],
                b"BDAT %d LAST\r\n" % (len(content) - half) + content[half:],
            ]

        def say() -> None:
            for piece in pieces:
                talk.sock.sendall(piece)

        sender = threading.Thread(target=say)
        sender.start()
        wait_until(lambda: bed.is_asked(f"{name}@inside.test"), "the question")
        gate.set()
        sender.join(60)
        if by == "bdat":
            talk.expect(b"250")
        talk.expect(b"250 2")
        talk.send(USER, header("x@far.test") + name.encode() + b" next\r\n")
    found = sent(bed, name.encode() + b"\r\n")
    assert found.endswith(header(f"{name}@example.test") + name.encode() + b"\r\n" + lines)
    assert wait_until(lambda: bed.held_bytes() == 0, "nothing is held")


def test_a_message_given_up_while_it_waits_leaves_nothing(bed: Bed) -> None:
    gate = threading.Event()
    bed.knows("r1@inside.test", "r@example.test", gate)
    bed.knows("r2@inside.test", "r@example.test")
    first = header("r1@inside.test") + b"given up\r\n"
    with Talk(bed.port) as talk:
        talk.hello()
        talk.envelope([USER])
        talk.say(b"BDAT %d\r\n%bRSET\r\nMAIL FROM:<r2@inside.test>\r\n" % (len(first), first), b"250")
        talk.expect(b"250")
        talk.expect(b"250 2.1.0")
        gate.set()
        talk.say(b"RCPT TO:<%b>\r\n" % USER.encode(), b"250")
        talk.data(header("x@far.test") + b"the other\r\n")
    assert b"given up" not in sent(bed, b"the other")
    assert wait_until(lambda: bed.held_bytes() == 0, "nothing is held")
    assert not any(b"given up" in taken.content for taken in bed.hop.taken)


@pytest.mark.parametrize("end", [b"", b".\r\n"])
def test_a_client_that_goes_while_it_waits_leaves_nothing(bed: Bed, end: bytes) -> None:
    name = f"g{len(end)}@inside.test"
    gate = threading.Event()
    bed.knows(name, "g@example.test", gate)
    with Talk(bed.port) as talk:
        talk.hello()
        talk.envelope([USER])
        talk.say(b"DATA\r\n", b"354")
        talk.sock.sendall(header(name) + b"text of it\r\n" * 500 + end)
        wait_until(lambda: bed.is_asked(name), "the question")
        wait_until(lambda: bed.held_bytes() > 5000, "its text")
    wait_until(lambda: bed.held_bytes() == 0, "nothing is held")
    gate.set()
    with Talk(bed.port) as talk:
        talk.hello()


def test_while_the_source_is_down_the_message_is_put_off(bed: Bed) -> None:
    bed.web.close()
    accepted = len(bed.told("accepted"))
    with Talk(bed.port) as talk:
        talk.hello()
        talk.envelope([USER])
        talk.data(header("new@inside.test") + b"down\r\n", b"451 4.3.0")
        talk.send(USER, header("x@far.test") + b"not about it\r\n")
    assert len(bed.told("accepted")) == accepted + 1
    bed.web.open()
    bed.knows("new@inside.test", "new@example.test")

    def again() -> bool:
        with Talk(bed.port) as talk:
            talk.hello()
            talk.envelope([USER])
            return talk.data(header("new@inside.test") + b"up again\r\n", b"").startswith(b"250")

    wait_until(again, "the source is back")
    assert b"<new@example.test>" in sent(bed, b"up again")
