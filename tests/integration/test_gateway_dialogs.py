"""Every dialog (tests/dialogs) against running gateways, each turn whole and octet by octet; what they accept arrives, and nothing else.

The same dialogs run on the bare session in `smtp/test_server_dialogs.py`; which gateway a dialog gets is said in `dialogbed.py`.
"""

from __future__ import annotations

import contextlib
import re
import ssl
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from dialogscript import Script, read_scripts
from integration.dialogbed import BALANCER, KEYS, NO_KEYS, DialogGateway, Group, Surroundings, door_of, group
from integration.nexthop import EXTENSIONS, NextHop, Taken
from integration.peers.process import wait_until

SCRIPTS = read_scripts()
SERVED = [script for script in SCRIPTS if not NO_KEYS.keys() & script.settings.keys()]
GONE = (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
SESSION_ID = re.compile(r"\(([0-9A-Z]{16,})\)$")
QUEUED = re.compile(r"250 2\.0\.0 Queued as ([0-9A-Z]{16,})")
OUR_FIELD = re.compile(rb"Received: from [^\r\n]+(?:\r\n\t[^\r\n]+)*\r\n")
OUR_ID = re.compile(rb" id ([0-9A-Z]{16,})[;\r]")


class Bed:
    """The gateways, by the name of the dialog; `accepted` is every id that a reply named."""

    def __init__(self, hop: NextHop) -> None:
        self.hop = hop
        self.gateways: dict[str, DialogGateway] = {}
        self.accepted: list[str] = []

    def find(self, message_id: str) -> Taken | None:
        """The message of that id, if it has arrived."""
        return next((one for one in list(self.hop.taken) if split(one)[0] == message_id), None)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    directory = tmp_path_factory.mktemp("dialogs")
    hop = NextHop(extensions=[*EXTENSIONS, "CHUNKING", "BINARYMIME"])
    with contextlib.ExitStack() as stack:
        bed = Bed(stack.enter_context(hop))
        around = stack.enter_context(Surroundings(directory))

        def start(one: Group) -> DialogGateway:
            made = directory / one.scripts[0].name
            made.mkdir()
            gateway = DialogGateway(made, one, hop, around)
            stack.callback(gateway.stop)
            bed.gateways |= {script.name: gateway for script in one.scripts}
            return gateway.start()

        with ThreadPoolExecutor(3) as pool:  # a start is work for the processor
            gateways = list(pool.map(start, group(SERVED)))
        yield bed
        for gateway in gateways:
            gateway.assert_no_bugs()


class Client:
    """A client that does not read before the end of a turn."""

    def __init__(self, gateway: DialogGateway, script: Script) -> None:
        self.gateway = gateway
        self.door = door_of(script)
        self.session = ""
        self._use(gateway.connect(self.door))

    def _use(self, sock: object) -> None:
        self.sock = sock
        self.file = sock.makefile("rb")  # type: ignore[attr-defined]

    def secure(self) -> None:
        """STARTTLS, behind the greeting."""
        self.sock.sendall(b"STARTTLS\r\n")
        assert self.hear(1) == ["220 2.0.0 Begin TLS"]
        self._use(self.gateway.secure(self.sock))

    def send(self, octets: bytes, way: str) -> None:
        """In one piece, or each octet by itself; that the other side has closed meanwhile is seen by who reads."""
        pieces = [octets] if way == "whole" else [octets[at : at + 1] for at in range(len(octets))]
        if self.door.source == BALANCER:
            pieces[0] = b"PROXY TCP4 127.0.0.1 127.0.0.1 40000 25\r\n" + pieces[0]
        with contextlib.suppress(*GONE):
            for piece in pieces:
                self.sock.sendall(piece)

    def hear(self, count: int) -> list[str]:
        """So many lines, or as many as come before the other side closes; the id of the session is s1 in them."""
        lines = []
        with contextlib.suppress(*GONE):
            while len(lines) < count and (line := self.file.readline()):
                assert line.endswith(b"\r\n"), line
                lines.append(self._show(line[:-2].decode("ascii")))
        return lines

    def _show(self, line: str) -> str:
        match = SESSION_ID.search(line)
        if match is None:
            return line
        self.session = self.session or match[1]
        assert match[1] == self.session, line
        return f"{line[: match.start()]}(s1)"

    def close(self) -> None:
        self.file.close()
        self.sock.close()


def converse(gateway: DialogGateway, script: Script, way: str) -> list[str]:
    """The dialog; the ids of what was accepted."""
    heard = []
    with contextlib.closing(Client(gateway, script)) as client:
        for number, turn in enumerate(script.turns):
            if turn.sent:
                client.send(turn.sent, way)
            lines = client.hear(len(turn.replies))
            assert len(lines) == len(turn.replies), (turn, lines)
            for expected, line in zip(turn.replies, lines, strict=True):
                assert re.fullmatch(expected, line), (turn, lines)
            if turn.closes:
                assert client.hear(1) == [], turn
            elif number == 0 and client.door.listener == "starttls":
                client.secure()
            heard += lines
    assert script.turns[-1].closes  # else there might be more to hear
    return list(dict.fromkeys(match[1] for match in map(QUEUED.fullmatch, heard) if match))


def split(taken: Taken) -> tuple[str, bytes]:
    """The id in our Received field, with which every message must begin, and what is behind the field."""
    field = OUR_FIELD.match(taken.content)
    assert field is not None, taken
    found = OUR_ID.search(field[0])
    assert found is not None, taken
    return found[1].decode(), taken.content[field.end() :]


def ways(scripts: list[Script]) -> Iterator[object]:
    """Dialogs by way; octet by octet makes no sense where the point is that the client does not wait."""
    for script in scripts:
        missing = [reason for name, reason in NO_KEYS.items() if name in script.settings]
        marks = [pytest.mark.skip(f"{script.name}: {reason}") for reason in missing]
        for way in ("whole",) if script.unpaced else ("whole", "octets"):
            yield pytest.param(script, way, id=f"{script.name}-{way}", marks=marks)


@pytest.mark.parametrize(("script", "way"), list(ways(SCRIPTS)))
def test_dialog_with_the_gateway(bed: Bed, script: Script, way: str) -> None:
    gateway = bed.gateways[script.name]
    accepted = converse(gateway, script, way)
    bed.accepted += accepted
    assert len(accepted) == len(script.messages)
    for message_id, message in zip(accepted, script.messages, strict=True):
        taken = wait_until(lambda one=message_id: bed.find(one), f"{message_id} at the next hop\n{gateway.describe()}")
        if taken.verb == "DATA" and message and not message.endswith(b"\r\n"):
            message += b"\r\n"  # by DATA a line ends it
        assert split(taken)[1] == message


def test_nothing_else_arrived(bed: Bed) -> None:
    ledgers = {gateway: gateway.wait_until_empty() for gateway in dict.fromkeys(bed.gateways.values())}
    assert all(ledger["accepted"] == ledger["delivered"] for ledger in ledgers.values()), ledgers
    assert Counter(split(one)[0] for one in bed.hop.taken) == Counter(bed.accepted)
    assert sum(ledger["accepted"] for ledger in ledgers.values()) == sum(len(one.recipients) for one in bed.hop.taken)


def test_few_dialogs_are_left_out() -> None:
    named = {name for script in SCRIPTS for name in script.settings}
    assert named <= KEYS.keys() | NO_KEYS.keys()
    assert {script.name for script in SCRIPTS} - {script.name for script in SERVED} == {
        "early-talker-allowed",
        "size-exceeded-without-end",
    }
