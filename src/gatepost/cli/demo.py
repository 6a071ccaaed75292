"""`gatepost demo`: a gateway, an inside server and an outside sender on loopback, five exchanges with their transcript, the ledger."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import click

from gatepost.cli.ask import NotRunning, ask
from gatepost.cli.inside_server import InsideServer
from gatepost.cli.ledger import ledger_lines, settled
from gatepost.cli.options import json_option
from gatepost.cli.output import complain, emit
from gatepost.config.load import load_config
from gatepost.config.schema import Config

START_WAIT_S = 60.0
DELIVERY_WAIT_S = 30.0
MAX_MESSAGE_BYTES = 1_000_000

_CONFIG = """\
hostname = "gate.example.test"
listen = ["127.0.0.1:{port}"]
spool = "{directory}/spool"

[domains."example.test"]
next_hop = "smtp://127.0.0.1:{inside}"
recipients = ["alice", "bob"]

[relay]
networks = ["127.0.0.2/32"]  # nobody in this demonstration comes from there

[smtp]
max_message_bytes = {limit}

[queue]
allow_volatile = true  # a demonstration may lie on tmpfs
next_hop_retry_s = 1.0
retry_min_s = 1.0

[events]
output = "{directory}/events.log"
"""


class DemoFailed(Exception):
    """An exchange did not go as it must."""


class _Talk:
    """An SMTP conversation that is noted down: C: what we say, S: what the gateway answers."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._file = self._sock.makefile("rb")
        self.transcript: list[str] = []
        self._hear()

    def say(self, line: str, expect: int) -> None:
        self.transcript.append(f"C: {line}")
        self._sock.sendall(line.encode() + b"\r\n")
        self._check(expect)

    def say_text(self, lines: list[str], expect: int) -> None:
        self.transcript += [f"C: {line}" for line in lines] + ["C: ."]
        self._sock.sendall("".join(f"{line}\r\n" for line in [*lines, "."]).encode())
        self._check(expect)

    def end(self) -> list[str]:
        self.say("QUIT", 221)
        self._sock.close()
        return self.transcript

    def _check(self, expect: int) -> None:
        code = self._hear()
        if code != expect:
            raise DemoFailed("\n".join([*self.transcript, f"-- {expect} was expected"]))

    def _hear(self) -> int:
        while True:
            line = self._file.readline().decode("utf-8", "replace").rstrip("\r\n")
            if not line:
                raise DemoFailed("\n".join([*self.transcript, "-- the gateway closed the connection"]))
            self.transcript.append(f"S: {line}")
            if line[3:4] != "-":
                return int(line[:3])


def _message(port: int, to: str, subject: str) -> list[str]:
    talk = _Talk(port)
    talk.say("EHLO sender.example.net", 250)
    talk.say("MAIL FROM:<carol@example.net>", 250)
    talk.say(f"RCPT TO:<{to}>", 250)
    talk.say("DATA", 354)
    talk.say_text(
        [
            "From: carol@example.net",
            f"To: {to}",
            f"Subject: {subject}",
            "",
            "Hello from outside.",
            "..a line with a dot",
        ],
        250,
    )
    return talk.end()


def _refused(port: int, mail: str, to: str, at_mail: int, at_rcpt: int) -> list[str]:
    talk = _Talk(port)
    talk.say("EHLO sender.example.net", 250)
    talk.say(mail, at_mail)
    if at_mail == 250:
        talk.say(f"RCPT TO:<{to}>", at_rcpt)
    return talk.end()


@click.command()
@json_option
def demo(as_json: bool) -> None:
    """Show five exchanges on loopback, and the ledger.

    Starts a gateway, an inside server and an outside sender, and plays a delivery, a refused relay, an unknown recipient, a message
    that is too large, and a next hop that is down and comes back. Everything lies in a temporary directory and is gone afterwards. The exit status is 0 if every exchange went as it must and the
    ledger balances.
    """
    try:
        exchanges, ledger = _play()
    except (DemoFailed, NotRunning) as error:
        complain("gatepost: the demonstration failed:", *str(error).splitlines())
        sys.exit(1)
    lines = []
    for number, (title, transcript) in enumerate(exchanges, 1):
        lines += [f"{number}. {title}", *(f"   {line}" for line in transcript), ""]
    emit(
        {"exchanges": [{"title": t, "transcript": s} for t, s in exchanges], "ledger": ledger},
        as_json,
        lines + ledger_lines(ledger),
    )
    if ledger["accepted"] != settled(ledger):
        sys.exit(1)


def _play() -> tuple[list[tuple[str, list[str]]], dict[str, int]]:
    with tempfile.TemporaryDirectory(prefix="gatepost-demo-") as directory:
        os.chmod(directory, 0o755)  # a role that has no root directory of its own must reach the spool
        inside = InsideServer()
        port = _free_port()
        path = os.path.join(directory, "gatepost.toml")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
            file.write(_CONFIG.format(port=port, inside=inside.port, directory=directory, limit=MAX_MESSAGE_BYTES))
        config = load_config(path)
        with _running(path, directory):
            exchanges = _exchange(config, port, inside)
            ledger = ask(config, "ledger")
        inside.close()
        return exchanges, ledger


def _exchange(config: Config, port: int, inside: InsideServer) -> list[tuple[str, list[str]]]:
    shown = []
    transcript = _message(port, "alice@example.test", "a first message")
    inside.wait_for(1, DELIVERY_WAIT_S)
    shown.append(("Delivered: mail from outside for our domain", [*transcript, *inside.summary()]))
    shown.append(
        (
            "Refused: a stranger who wants to relay to the world",
            _refused(port, "MAIL FROM:<carol@example.net>", "victim@example.org", 250, 550),
        )
    )
    shown.append(
        (
            "Refused: a recipient who does not exist",
            _refused(port, "MAIL FROM:<carol@example.net>", "nobody@example.test", 250, 550),
        )
    )
    shown.append(
        (
            "Refused: a message that is too large",
            _refused(port, f"MAIL FROM:<carol@example.net> SIZE={MAX_MESSAGE_BYTES * 10}", "", 552, 0),
        )
    )
    inside.stop()
    transcript = _message(port, "bob@example.test", "while the inside server is down")
    queued = _wait_until_deferred(config)
    inside.start()
    inside.wait_for(2, DELIVERY_WAIT_S)
    _wait_until_empty(config)
    title = "Kept: the inside server is down, then up again"
    shown.append(
        (
            title,
            [*transcript, f"-- inside server down, in the queue: {queued}", "-- inside server up", *inside.summary()],
        )
    )
    return shown


def _wait_until_deferred(config: Config) -> str:
    end = time.monotonic() + DELIVERY_WAIT_S
    while time.monotonic() < end:
        listed = ask(config, "list")
        if listed["messages"] and listed["messages"][0]["reason"]:
            row = listed["messages"][0]
            return f"{row['id']} for {', '.join(row['recipients'])} ({row['reason']})"
        time.sleep(0.05)
    raise DemoFailed("the message for the server that is down is not in the queue")


def _wait_until_empty(config: Config) -> None:
    end = time.monotonic() + DELIVERY_WAIT_S
    while time.monotonic() < end:
        if not ask(config, "list")["total"]:
            return
        time.sleep(0.05)
    raise DemoFailed("the queue does not become empty")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def _running(config_path: str, directory: str) -> Iterator[None]:
    """The gateway as a process of its own, as `gatepost run` starts it."""
    with open(os.path.join(directory, "stderr.log"), "wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-I", "-m", "gatepost", "run", "--config", config_path],
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline().decode()
        if "ready" not in line:
            with open(os.path.join(directory, "stderr.log"), encoding="utf-8", errors="replace") as log:
                raise DemoFailed("the gateway did not start:\n" + log.read())
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(START_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
