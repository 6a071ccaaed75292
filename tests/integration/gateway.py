"""The gateway itself as a process of a test, started as a user starts it: `gatepost run --config FILE`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from integration.peers.process import WAIT_S, Family, PeerProcess, take_port, wait_until

from gatepost.cli.ask import ask
from gatepost.config.load import load_config

COMMAND = [sys.executable, "-I", "-m", "gatepost"]
COMMAND_S = (
    150.0  # longer than any command waits for its answer by itself (cli/ask.py): it says better what did not come
)
PARTS = ("delivered", "bounced", "expired", "discarded", "queued")


def gatepost(*arguments: str, timeout_s: float = COMMAND_S) -> subprocess.CompletedProcess[str]:
    """Run one command of the gateway."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=timeout_s, check=False)


class Gateway(PeerProcess):
    """`with Gateway(tmp_path, next_hop="smtp://127.0.0.1:PORT") as gateway:`.

    `extra` is TOML behind the generated part, `top` TOML in front of its first table. The client's network is not trusted unless
    `networks` says so: everything comes from 127.0.0.1.
    """

    def __init__(
        self,
        directory: Path,
        *,
        next_hop: str | Sequence[str] = "smtp://127.0.0.1:9",
        recipients: Sequence[str] | None = None,
        networks: Sequence[str] = ("127.0.0.2/32",),
        relay_next_hop: str | None = None,
        top: str = "",
        extra: str = "",
    ) -> None:
        super().__init__(directory)
        self.port = take_port()
        self.listen = "127.0.0.1"
        self.config = self.directory / "gatepost.toml"
        self.spool = self.directory / "spool"
        self.events_file = self.directory / "events.jsonl"
        self.next_hop = next_hop
        self.recipients = recipients
        self.networks = list(networks)
        self.relay_next_hop = relay_next_hop
        self.top = top
        self.extra = extra
        self._printed_before = 0

    def write_config(self) -> None:
        """The configuration file; called again before each start."""
        relay = f"next_hop = {json.dumps(self.relay_next_hop)}\n" if self.relay_next_hop else ""
        recipients = f"recipients = {json.dumps(list(self.recipients))}\n" if self.recipients is not None else ""
        next_hop = self.next_hop if isinstance(self.next_hop, str) else list(self.next_hop)
        queue = (
            ""
            if "[queue]" in self.extra
            else "[queue]\nallow_volatile = true\nnext_hop_retry_s = 1.0\nretry_min_s = 1.0\n"
        )
        text = (
            f'hostname = "gate.example.test"\nlisten = ["{self.listen}:{self.port}"]\nspool = "{self.spool}"\n{self.top}\n'
            f'[domains."example.test"]\nnext_hop = {json.dumps(next_hop)}\n{recipients}\n'
            f"[relay]\nnetworks = {json.dumps(self.networks)}\n{relay}\n{queue}"
            f'[events]\noutput = "{self.events_file}"\n{self.extra}\n'
        )
        self.config.write_text(text)
        self.config.chmod(0o600)

    def configure(self) -> list[str]:
        self.write_config()
        self._printed_before = len(self.read_log())
        return self.command()

    def command(self) -> list[str]:
        """`gatepost run` about this one, without writing its configuration anew."""
        return [*COMMAND, "run", "--config", str(self.config)]

    def is_ready(self) -> bool:
        return "ready on" in self.read_log()[self._printed_before :]

    def kill(self, *, with_roles: bool = False) -> None:
        """Kill the supervisor, and wait until its roles, which then end by themselves or are killed too, have let go of ports and spool."""
        assert self.process is not None
        family = Family(self.process.pid)
        family.list_living()
        if with_roles:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        wait_until(lambda: not family.list_living(), "all roles have ended")

    # --- asking it --------------------------------------------------------------------------------------------------

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the gateway about this one."""
        return gatepost(*arguments, "--config", str(self.config))

    def ask(self, *arguments: str) -> Any:
        """The JSON answer of a command; it must succeed."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def stats(self) -> dict[str, dict[str, int]]:
        """The counters of each role, by "role/instance"."""
        return ask(load_config(str(self.config)), "stats")

    def processes(self) -> list[dict[str, Any]]:
        """What the supervisor says of each process: role, generation, pid, state."""
        return ask(load_config(str(self.config)), "roles")

    def ledger(self) -> dict[str, int]:
        """The ledger, which must balance."""
        ledger = ask(load_config(str(self.config)), "ledger")
        assert "error" not in ledger, ledger
        assert ledger["accepted"] == sum(ledger[part] for part in PARTS), ledger
        return ledger

    def wait_until_empty(self) -> dict[str, int]:
        """The ledger, once nothing is queued: a next hop has a message before the queue knows that it has."""

        def look() -> dict[str, int] | None:
            ledger = self.ledger()
            return ledger if ledger["queued"] == 0 else None

        return wait_until(look, "an empty queue") or {}

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """The events so far, or those of one name."""
        if not self.events_file.exists():
            return []
        whole, _, _ = self.events_file.read_text().rpartition("\n")  # a line may be on its way
        rows = [json.loads(line) for line in whole.splitlines()]
        return [row for row in rows if not name or row["event"] == name]

    def told(self, name: str = "") -> list[dict[str, Any]]:
        """The events after every role has written what it had to tell: it answers a question only behind that."""
        self.stats()
        return self.events(name)

    def wait_for_event(self, name: str, timeout_s: float = WAIT_S, **fields: Any) -> dict[str, Any]:
        """The first event with these fields."""

        def find() -> dict[str, Any] | None:
            for row in self.events(name):
                if all(row.get(key) == value for key, value in fields.items()):
                    return row
            return None

        try:
            return wait_until(find, f"event {name} {fields}", timeout_s)  # type: ignore[return-value]
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.describe()}") from error

    def describe(self) -> str:
        """For a failing test: what it printed and its last events."""
        return self.read_log() + "\n".join(json.dumps(row) for row in self.events()[-30:])

    def roles(self) -> dict[str, int]:
        """Role -> process id, of the newest generation."""
        found: dict[str, int] = {}
        for row in sorted(self.events("role_ready"), key=lambda row: row["generation"]):
            found[row["name"].partition("/")[0]] = row["pid"]
        return found

    def assert_no_bugs(self) -> None:
        """No exception that nobody expected, no death, no unknown event."""
        bad = [
            row
            for row in self.events()
            if row["event"] in ("bug", "error", "role_died", "internal_error", "event_unknown")
        ]
        assert not bad, bad

    def dialog(self, *commands: bytes, source: str = "127.0.0.1") -> list[bytes]:
        """A conversation: the greeting and the whole reply to each command; empty where the connection was closed."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60, source_address=(source, 0)) as sock:
            file = sock.makefile("rb")
            replies = [read_reply(file)]
            for command in commands:
                try:
                    sock.sendall(command)
                    replies.append(read_reply(file))
                except (ConnectionResetError, BrokenPipeError):
                    replies.append(b"")
            return replies


def read_reply(file: Any) -> bytes:
    """One reply of one or more lines."""
    lines = []
    while line := file.readline():
        lines.append(line)
        if line[3:4] != b"-":
            break
    return b"".join(lines)


def is_root() -> bool:
    return os.geteuid() == 0
