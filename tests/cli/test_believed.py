"""explain, check and replay decide with the recipients that the gateway would use, and say whose they are."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gatepost.cli.believed import believe
from gatepost.cli.main import cli
from gatepost.config.load import load_config
from gatepost.privsep import recipientlists
from gatepost.privsep.recipientlists import RecipientLists

PEOPLE = [f"p{number:02}" for number in range(20)]
CONFIG = """
hostname = "mx.example.net"
listen = ["192.0.2.5:25"]
spool = "{spool}"
domains = ["example.net"]
next_hop = "smtp://10.0.0.5:25"
recipients_file = "people"
"""


class Bed:
    """A configuration whose list of recipients a gateway has kept, and the file as it is now."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.spool = directory / "spool"
        self.config = directory / "gatepost.toml"
        self.config.write_text(CONFIG.format(spool=self.spool))
        self.config.chmod(0o600)
        self.write(PEOPLE)
        lists = RecipientLists(str(self.spool))
        lists.at_start(load_config(str(self.config)))
        lists.commit(lambda *_, **__: None)
        self.kept = self.spool / "run" / recipientlists.NAME

    def write(self, people: list[str]) -> None:
        (self.directory / "people").write_text("\n".join(people) + "\n")

    def run(self, *arguments: str, status: int = 0) -> str:
        done = CliRunner().invoke(cli, [*arguments, "--config", str(self.config)])
        assert done.exit_code == status, done.output
        return done.output

    def notes(self) -> list[str]:
        return believe(load_config(str(self.config)))[1].notes


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path)


@pytest.fixture
def running(bed: Bed) -> Iterator[dict[str, Any]]:
    """A gateway that answers; what it says of its lists can be changed."""
    answer: dict[str, Any] = {"lists": [], "held": [], "confirmed": [], "unwritten": ""}
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(bed.spool / "run" / "control.sock"))
        (bed.spool / "run" / "control.sock").chmod(0o600)
        server.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    request = json.loads(connection.makefile("rb").readline())
                    assert request["what"] == "recipients_lists" and not request["arguments"]
                    connection.sendall(json.dumps(answer).encode() + b"\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield answer
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def explain(bed: Bed, who: str) -> str:
    return bed.run("explain", "--ip", "8.8.8.8", "--to", f"{who}@example.net")


def test_a_list_that_has_lost_many_is_not_believed(bed: Bed, running: dict[str, Any]) -> None:
    bed.write(PEOPLE[:2])
    text = explain(bed, "p19")
    assert "S: 250 2.1.5" in text and "the running gateway goes on with the 20 recipients of before" in text
    assert "the file now has 2, and 18 are gone (p02" in text and "gatepost recipients confirm example.net" in text
    assert "recipients: as the running gateway has them" in text
    assert "S: 550 5.1.1" in explain(bed, "nobody")
    data = json.loads(bed.run("explain", "--json", "--ip", "8.8.8.8", "--to", "p19@example.net"))
    assert data["lists"]["held"][0]["gone"] == 18 and len(data["lists"]["notes"]) == 2
    checked = bed.run("check")
    assert "20 listed recipients" in checked and "has lost 18 of 20 recipients" in checked


def test_a_list_that_has_lost_few_is(bed: Bed, running: dict[str, Any]) -> None:
    bed.write(PEOPLE[:18])
    assert "S: 550 5.1.1" in explain(bed, "p19") and "S: 250" in explain(bed, "p17")
    assert bed.notes() == ["recipients: as the running gateway has them, and takes from their files at its next reload"]


def test_a_file_that_was_mended_since_the_gateway_read_it(bed: Bed, running: dict[str, Any]) -> None:
    running["held"] = [{"name": "example.net", "kept": 20, "found": 1, "gone": 19, "sample": []}]
    assert "its file is good again" in bed.notes()[-1]


def test_without_a_running_gateway_it_is_what_one_would_start_with(bed: Bed) -> None:
    bed.write(PEOPLE[:2])
    text = explain(bed, "p19")
    assert "S: 250 2.1.5" in text and "a gateway that starts goes on with the 20 recipients" in text
    assert "as it would have them if it started now; no gateway answers" in text
    bed.kept.unlink()
    text = explain(bed, "p19")
    assert "S: 550 5.1.1" in text and "no gateway answers" in text and "goes on with" not in text


@pytest.mark.parametrize("is_held", [False, True])
def test_what_is_kept_cannot_be_read(bed: Bed, running: dict[str, Any], is_held: bool) -> None:
    bed.kept.write_bytes(b"\xc1")
    bed.write(PEOPLE[:2])
    running["held"] = [{"name": "example.net", "kept": 20, "found": 2, "gone": 18, "sample": []}] if is_held else []
    [note] = [note for note in bed.notes() if "cannot be read" in note]
    assert ("it holds back example.net, so this is not what it would do" in note) is is_held


def test_nothing_is_said_where_no_file_lists_recipients(bed: Bed) -> None:
    bed.config.write_text(bed.config.read_text().replace('recipients_file = "people"', 'recipients = ["anna"]'))
    assert bed.notes() == [] and "no gateway answers" not in explain(bed, "anna")


def test_looking_changes_nothing(bed: Bed) -> None:
    before = bed.kept.read_bytes(), bed.kept.stat().st_mtime_ns
    bed.write(PEOPLE[:2])
    explain(bed, "p19")
    assert (bed.kept.read_bytes(), bed.kept.stat().st_mtime_ns) == before
