"""The gateway under test, started as a user starts it: `gatepost run --config FILE`. Finds, kills and restarts its processes.

It runs as shipped: durable, and locked in as far as the user may. Settings that only make a run shorter (waits of seconds
instead of minutes, small segments) are in `CONFIG`. It sends signals only to the supervisor it started and to that one's children.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Container
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.crash import processes
from bench.crash.books import Arrival
from bench.crash.content import read_content
from bench.crash.kinds import TEAM, TEAM_MEMBERS
from bench.crash.processes import CrashError
from bench.crash.sink import FLAPPING_ADDRESS, MX_DOMAINS
from gatepost.cli.ask import NotRunning, ask_at
from gatepost.roles.operator import MAX_LISTED
from gatepost.spool.layout import VOLATILE, find_filesystem

COMMAND = [sys.executable, "-I", "-m", "gatepost"]
START_LIMIT_S = 60.0
STOP_LIMIT_S = 60.0
ANSWER_LIMIT_S = 60.0
PARTS = ("delivered", "bounced", "expired", "discarded", "queued")
CONFIG = """\
hostname = "gate.outside.test"
listen = ["127.0.0.1:{port}"]
spool = "{spool}"
aliases = "file:{aliases}"
alias_domains = ["fixed.test"]

[[listeners]]
address = "127.0.0.1:{submission}"
kind = "submission"
require_tls = false

[domains."fixed.test"]
next_hop = "smtp://127.0.0.1:{sink_port}"

[domains."senders.test"]
next_hop = "smtp://127.0.0.1:{sink_port}"

[domains."held.test"]
next_hop = "hold:smtp://127.0.0.1:{sink_port}"

[domains."pool.test"]
next_hop = "pool:inside"

[pools.inside]
retry_s = 0.3
[[pools.inside.members]]
next_hop = "smtp://{flapping}:{sink_port}"
[[pools.inside.members]]
next_hop = "smtp://127.0.0.1:{sink_port}"

{mx_domains}

[domains."box.test"]
next_hop = "maildir:{box}"

[relay]
networks = ["127.0.0.0/8"]

[[rewrite.rules]]
name = "one face"
domains = ["inside.test"]
to_domain = "senders.test"

[queue]
retry_min_s = 1.2
retry_max_s = 2.0
next_hop_retry_s = 0.2
defer_after_s = 0.5
allow_volatile = {volatile}
segment_bytes = 2097152
{queue}

[delivery]
port = {sink_port}
max_messages_per_connection = 20

[dns]
servers = ["127.0.0.1:{sink_port}"]
timeout_s = 0.5

[events]
output = "{events}"
"""


def find_kind(path: Path) -> str:
    """The kind of file system that is mounted there now."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return find_filesystem(str(path.resolve()), file.read())


def is_volatile(path: Path) -> bool:
    """Whether a gateway as shipped would refuse a spool here: a container's own file system, for example.

    For kills it does not matter: what was written stays written. The scenarios about disks mount their own.
    """
    return find_kind(path) in VOLATILE


class Gateway:
    """One gateway on one spool, over any number of lives."""

    def __init__(self, directory: Path, disk: Path, sink_port: int, queue_settings: str = "") -> None:
        """Configuration and log go below `directory`, spool and Maildir below `disk`."""
        self.config = directory / "gatepost.toml"
        self.aliases = directory / "aliases"
        self.events = directory / "events.jsonl"
        self.output = directory / "output"
        self.spool = disk / "spool"
        self.box = disk / "box"
        self.port = processes.take_port()
        self.submission = processes.take_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.family: dict[int, str] = {}  # every process of this life that was seen, and when it was born
        self.clock_offset_s = time.time() - time.monotonic()
        self.disk = disk
        self.sink_port = sink_port
        self.queue_settings = queue_settings

    def write_config(self) -> None:
        """Behind all mounts, because what is mounted decides one setting."""
        self.aliases.write_text(f"{TEAM.partition('@')[0]}: {', '.join(TEAM_MEMBERS)}\n")
        self.aliases.chmod(0o644)
        self.config.write_text(
            CONFIG.format(
                port=self.port,
                submission=self.submission,
                spool=self.spool,
                box=self.box,
                sink_port=self.sink_port,
                flapping=FLAPPING_ADDRESS,
                aliases=self.aliases,
                mx_domains="\n".join(f'[domains."mx{n}.test"]\nnext_hop = "mx"' for n in range(MX_DOMAINS)),
                events=self.events,
                queue=self.queue_settings,
                volatile="true" if is_volatile(self.disk) else "false",
            )
        )
        self.config.chmod(0o600)

    # --- life -------------------------------------------------------------------------------------------------------

    def launch(self) -> None:
        """Start it and do not wait."""
        if not self.config.exists():
            self.write_config()
        with open(self.output, "ab") as errors:
            self.process = processes.start(
                [*COMMAND, "run", "--config", self.config], stdout=subprocess.PIPE, stderr=errors
            )
        self.family = {self.process.pid: processes.born(self.process.pid)}

    def wait_ready(self) -> None:
        """Until it has printed its line; CrashError if it ends or takes too long."""
        assert self.process is not None and self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], START_LIMIT_S)
        line = self.process.stdout.readline() if readable else b""
        if b"ready" not in line:
            raise CrashError(f"the gateway did not start: {line!r}\n{self.last_words()}")

    def start(self) -> None:
        self.launch()
        self.wait_ready()

    def last_words(self) -> str:
        """The end of its output and of its event log."""
        texts = [path.read_text(errors="replace")[-1500:] for path in (self.output, self.events) if path.exists()]
        return "\n".join(texts)

    def roles(self) -> dict[str, int]:
        """Process id of every live role, by name."""
        if self.process is None:
            return {}
        found = {}
        for pid in processes.list_children(self.process.pid):
            arguments = processes.read_arguments(pid)
            if "gatepost.roles" in arguments:
                found[arguments[arguments.index("gatepost.roles") + 1]] = pid
                self.family.setdefault(pid, processes.born(pid))
        return found

    def kill_role(self, name: str) -> int:
        """SIGKILL for one role; its process id, or 0 if it does not live at the moment."""
        pid = self.roles().get(name, 0)
        return pid if pid and processes.send_signal(pid, self.family[pid], signal.SIGKILL) else 0

    def kill_supervisor(self) -> None:
        """SIGKILL for the supervisor alone, then wait until its roles have ended of themselves."""
        self.roles()
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        processes.wait_until(lambda: not self.living(), "the roles end when their supervisor is gone", STOP_LIMIT_S)
        self._forget()

    def kill_all(self) -> None:
        """SIGKILL for the supervisor and every role."""
        self.roles()
        for pid, started in self.family.items():
            processes.send_signal(pid, started, signal.SIGKILL)
        processes.wait_until(lambda: not self.living(), "killed processes are gone", STOP_LIMIT_S)
        assert self.process is not None
        self.process.wait()
        self._forget()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.roles()
        self.process.terminate()
        try:
            status = self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill_all()
            return -1
        processes.wait_until(lambda: not self.living(), "the roles end with their supervisor", STOP_LIMIT_S)
        self._forget()
        return status

    def living(self) -> list[int]:
        """Processes of this life that have not ended."""
        return [pid for pid, started in self.family.items() if started and processes.born(pid) == started]

    def _forget(self) -> None:
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None

    def close(self) -> None:
        """Nothing of it is left."""
        if self.process is not None:
            self.kill_all()

    # --- what it says -----------------------------------------------------------------------------------------------

    def ask(self, *command: str) -> tuple[int, Any]:
        """A command with --json; its exit status and answer."""
        done = subprocess.run(
            [*COMMAND, *command, "--config", str(self.config), "--json"],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        try:
            return done.returncode, json.loads(done.stdout)
        except ValueError:
            return done.returncode, {"error": (done.stdout + done.stderr).strip()}

    def knock(self) -> None:
        """Connect to the control socket, and ask nothing."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(1.0)
            sock.connect(str(self.spool / "run" / "control.sock"))

    def tell(self, verb: str, **arguments: Any) -> Any:
        """A question over the control socket, without the time that a command takes; asked until there is an answer."""
        path = str(self.spool / "run" / "control.sock")

        def ask() -> tuple[Any] | None:
            try:
                answer = ask_at(path, verb, **arguments)
            except (NotRunning, OSError):
                return None
            return None if isinstance(answer, dict) and "error" in answer else (answer,)

        return processes.wait_until(ask, f"an answer to {verb}", ANSWER_LIMIT_S)[0]  # type: ignore[index]

    def list_held(self) -> dict[str, bool]:
        """Each message in the queue, and whether it is held."""
        return {row["id"]: row["held"] for row in self.tell("list", limit=MAX_LISTED)["messages"]}

    def wait_drained(self, timeout_s: float, known: Container[str]) -> dict[str, int]:
        """Wait until nothing is queued; the ledger. What its route holds and came behind the last release (`known`) is released."""

        def look() -> dict[str, int] | None:
            ledger = self.tell("ledger")
            if ledger["messages_queued"] == 0 and ledger["notices_waiting"] == 0:
                return ledger
            held = [key for key, is_held in self.list_held().items() if is_held]
            if again := [key for key in held if key in known]:
                raise CrashError(f"{len(again)} messages are held though they were released: {again[:5]}")
            if held:
                self.tell("release", ids=held)
            return None

        return processes.wait_until(look, "the queue is empty", timeout_s)  # type: ignore[return-value]

    def read_delivered(self) -> dict[tuple[str, str], list[float]]:
        """When the queue noted each delivery, by its message id and recipient, on the monotonic clock."""
        found: dict[tuple[str, str], list[float]] = {}
        if not self.events.exists():
            return found
        with open(self.events, "rb") as file:
            for line in file:
                if b'"event":"delivered"' not in line:
                    continue
                event = json.loads(line)
                at_s = datetime.fromisoformat(event["time"]).timestamp() - self.clock_offset_s
                found.setdefault((event["id"], event["recipient"]), []).append(at_s)
        return found

    def count_events(self, name: str) -> int:
        """How many events of a name the log has."""
        wanted = f'"event":"{name}"'.encode()
        if not self.events.exists():
            return 0
        with open(self.events, "rb") as file:
            return sum(wanted in line for line in file)

    def read_events(self, name: str) -> list[dict[str, Any]]:
        """The events of a name in the log, oldest first."""
        wanted = f'"event":"{name}"'.encode()
        if not self.events.exists():
            return []
        with open(self.events, "rb") as file:
            return [json.loads(line) for line in file if wanted in line]

    def read_box(self) -> list[Arrival]:
        """What lies in the Maildir."""
        found = []
        new = self.box / "new"
        for name in os.listdir(new) if new.is_dir() else ():
            content = (new / name).read_bytes()
            at_s = (new / name).stat().st_mtime - self.clock_offset_s
            recipient = content.partition(b"Delivered-To: ")[2].partition(b"\n")[0].decode()
            message_id, gateway_id, is_whole = read_content(content)
            found.append(Arrival(message_id, gateway_id, at_s, at_s, [recipient], is_whole))
        return found
