"""`-bs`: commands that come all at once, with any line ends, reach the gateway one by one, and the message as it was meant."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sendmail.pieces import Pieces

from gatepost.sendmail.passing import MAX_KEPT_BYTES, Passing
from gatepost.sendmail.sysexits import EX_DATAERR, EX_NOPERM, EX_OK, EX_OSERR, EX_TEMPFAIL

SESSION = b"EHLO me\nMAIL FROM:<a@x.test>\nRCPT TO:<b@x.test>\nDATA\nSubject: x\n\n..\nend\n.\nNOOP\nQUIT\n"
COMMANDS = [b"EHLO me", b"MAIL FROM:<a@x.test>", b"RCPT TO:<b@x.test>", b"DATA", b"NOOP", b"QUIT"]
TEXT = b"Subject: x\r\n\r\n..\r\nend\r\n"


class Gateway(threading.Thread):
    """As strict as the real one: whatever comes before the reply to the command before is noted as a fault."""

    def __init__(self, sock: socket.socket, greeting: bytes = b"220-gate\r\n220 here\r\n") -> None:
        super().__init__(daemon=True)
        self._sock = sock
        self._greeting = greeting
        self._data = b""
        self.commands: list[bytes] = []
        self.texts: list[bytes] = []
        self.faults: list[bytes] = []
        self.closes_at: bytes = b"none"
        self.start()

    def run(self) -> None:
        with self._sock:
            self._reply(self._greeting)
            while (end := self._read_until(b"\r\n")) is not None and self._take(end):
                pass

    def _read_until(self, mark: bytes) -> bytes | None:
        while mark not in self._data:
            if not (more := self._sock.recv(65536)):
                return None
            self._data += more
        found, _, self._data = self._data.partition(mark)
        return found

    def _read_octets(self, count: int) -> None:
        while len(self._data) < count:
            self._data += self._sock.recv(65536)
        self.texts.append(self._data[:count])
        self._data = self._data[count:]

    def _take(self, line: bytes) -> bool:
        self.commands.append(line)
        if b"\n" in line:
            self.faults.append(line)
        verb = line[:4].upper()
        if verb == self.closes_at:
            self._reply(b"421 4.3.2 going\r\n")
            return False
        if verb == b"EHLO":
            self._reply(b"250-gate\r\n250 PIPELINING\r\n")
        elif verb == b"DATA":
            self._reply(b"354 go on\r\n")
            self._data = b"\r\n" + self._data
            text = self._read_until(b"\r\n.\r\n")
            if text is None:
                return False
            self.texts.append(text[2:] + b"\r\n")
            self._reply(b"250 taken\r\n")
        elif verb == b"BDAT":
            self._read_octets(int(line.split()[1]))
            self._reply(b"250 taken\r\n")
        else:
            self._reply(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
        return verb != b"QUIT"

    def _reply(self, octets: bytes) -> None:
        if self._data:
            self.faults.append(self._data)
        self._sock.sendall(octets)


def converse(
    write: Callable[[int, int], None], greeting: bytes = b"220 here\r\n", closes_at: bytes = b"none"
) -> tuple[int, bytes, Gateway]:
    """Run with `write(to the program, from it)`, which closes the first; exit status, what is left to read, the gateway."""
    ours, theirs = socket.socketpair()
    gateway = Gateway(theirs, greeting)
    gateway.closes_at = closes_at
    source, to_source = os.pipe()
    from_sink, sink = os.pipe()
    statuses: list[int] = []

    def run() -> None:
        with ours:
            statuses.append(Passing(ours, source, sink).run())
        os.close(sink)

    program = threading.Thread(target=run, daemon=True)
    program.start()
    write(to_source, from_sink)
    said = b""
    while True:
        try:
            part = os.read(from_sink, 65536)
        except OSError:  # the test has closed it
            break
        if not part:
            break
        said += part
    program.join(60)
    gateway.join(60)
    assert not program.is_alive() and not gateway.is_alive()
    os.close(source)
    return statuses[0], said, gateway


def at_once(text: bytes) -> Callable[[int, int], None]:
    def write(to: int, _: int) -> None:
        view = text
        while view:
            try:
                view = view[os.write(to, view) :]
            except BrokenPipeError:
                break
        os.close(to)

    return write


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_a_whole_session_at_once(ends: bytes) -> None:
    status, said, gateway = converse(at_once(SESSION.replace(b"\n", ends)))
    assert (status, gateway.faults) == (EX_OK, [])
    assert (gateway.commands, gateway.texts) == (COMMANDS, [TEXT])
    assert [line[:3] for line in said.splitlines()] == [b"220", b"250", b"250", b"250", b"250", b"354", b"250", b"250", b"221"]  # fmt: skip


def test_somebody_who_types() -> None:
    def write(to: int, heard: int) -> None:
        for line in SESSION.splitlines(keepends=True)[:4]:
            assert os.read(heard, 65536)[:1] in b"23"
            os.write(to, line)
        assert os.read(heard, 65536) == b"354 go on\r\n"
        for octet in TEXT + b".\n":
            os.write(to, bytes([octet]))
        assert os.read(heard, 65536) == b"250 taken\r\n"
        os.write(to, b"QUIT\n")
        assert os.read(heard, 65536) == b"221 bye\r\n"
        assert os.read(heard, 1) == b""  # it ends although nobody has closed its input
        os.close(to)

    status, _, gateway = converse(write)
    assert (status, gateway.faults, gateway.texts) == (EX_OK, [], [TEXT])


@pytest.mark.parametrize("end", [b"DATA\nSubject: x\n\nhalf", b"DATA\nSubject: x\n\nhalf\n", b"DATA\nhalf\n.", b"BDAT 20 LAST\nSubject: x\n\n"])  # fmt: skip
def test_who_vanishes_in_the_middle_of_a_message_has_sent_none(end: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    ours, theirs = socket.socketpair()
    source, to_source = os.pipe()
    os.write(to_source, b"MAIL FROM:<a@x.test>\n" + end)
    os.close(to_source)
    theirs.sendall(b"220 here\r\n250 ok\r\n354 go on\r\n")
    sink = os.open(os.devnull, os.O_WRONLY)
    with ours, theirs:
        assert Passing(ours, source, sink).run() == EX_DATAERR
        ours.shutdown(socket.SHUT_WR)
        heard = b""
        while part := theirs.recv(65536):
            heard += part
    assert not heard.endswith(b"\r\n.\r\n") and b"half\r\n.\r\n" not in heard
    assert "which is not sent" in capfd.readouterr().err
    os.close(sink)
    os.close(source)


def test_who_vanishes_between_commands() -> None:
    status, said, gateway = converse(at_once(b"EHLO me\nMAIL FROM:<a@x.test>\n"))
    assert (status, gateway.commands) == (EX_OK, COMMANDS[:2])
    assert said.count(b"\r\n") == 4


def test_nobody_hears_the_replies() -> None:
    def write(to: int, heard: int) -> None:
        os.close(heard)
        at_once(SESSION)(to, heard)

    status, _, gateway = converse(write)
    assert status == EX_OSERR and gateway.texts == []


@pytest.mark.parametrize(
    ("greeting", "closes_at", "status"),
    [(b"554 5.7.1 not you\r\n", b"none", EX_NOPERM), (b"421 later\r\n", b"none", EX_TEMPFAIL), (b"", b"none", EX_TEMPFAIL), (b"220 x\r\n", b"RCPT", EX_TEMPFAIL)],
)  # fmt: skip
def test_a_gateway_that_refuses_or_goes(greeting: bytes, closes_at: bytes, status: int) -> None:
    ours, theirs = socket.socketpair()
    source, to_source = os.pipe()
    os.write(to_source, SESSION)
    os.close(to_source)
    sink = os.open(os.devnull, os.O_WRONLY)
    if greeting.startswith(b"220"):
        gateway = Gateway(theirs, greeting)
        gateway.closes_at = closes_at
    else:
        theirs.sendall(greeting)
        theirs.close()
    with ours:
        assert Passing(ours, source, sink).run() == status
    os.close(sink)
    os.close(source)


def test_chunks_are_octets() -> None:
    chunk = b"a\n.\n\0\r"
    session = b"EHLO me\nbdat %d last\r\n" % len(chunk) + chunk + b"QUIT"
    status, said, gateway = converse(at_once(session))
    assert (status, gateway.texts, gateway.commands[-1]) == (EX_OK, [chunk], b"QUIT")
    assert said.endswith(b"221 bye\r\n")


def test_lines_longer_than_what_is_kept() -> None:
    long = b"x" * (3 * MAX_KEPT_BYTES)
    session = b"DATA\n" + long + b"\n.\n" + long + b"\r\nQUIT\n"
    status, _, gateway = converse(at_once(session))
    assert (status, gateway.faults) == (EX_OK, [])
    assert gateway.texts == [long + b"\r\n"] and gateway.commands == [b"DATA", long, b"QUIT"]


@given(st.lists(st.sampled_from([b"a", b"..", b"\r", b"\n", b"\r\n", b".", b".\n", b"x" * 70_000]), max_size=12))
@settings(max_examples=100, deadline=None)
def test_however_a_message_comes_in_pieces(parts: list[bytes]) -> None:
    text = b"".join(parts)
    lines = text.replace(b"\r\n", b"\n").split(b"\n")[:-1]
    is_whole = b"." in lines
    wanted = b"".join(line + b"\r\n" for line in lines[: lines.index(b".") + 1]) if is_whole else b""
    for size in (1, 3, len(text) + 1) if len(text) < 1000 else (30_011, len(text)):
        passing = Pieces([text[at : at + size] for at in range(0, len(text), size)])
        assert passing._pass_text() is is_whole
        if is_whole:
            assert passing.said == wanted
