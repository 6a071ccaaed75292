"""What every scenario needs: a directory, a sink, a gateway, load, and the proof at the end.

with Bed(...) as bed:
    bed.gateway.start(); bed.start_load()
    ... break something, and note it in bed.disturbances ...
    result = bed.finish()
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from bench.crash import processes
from bench.crash.books import Arrival, Sent, Sync, read_book
from bench.crash.gateway import PARTS, Gateway, find_kind
from bench.crash.processes import CrashError
from bench.crash.proof import Disturbance, Hold, Proof, prove

ROOT = Path(__file__).resolve().parents[2]
DRAIN_LIMIT_S = 180.0
_numbers = itertools.count(1)


@dataclasses.dataclass
class Options:
    """Of the whole program."""

    quick: bool = False
    kills: int = 120
    cuts: int = 25
    seed: str = "1"
    directory: Path = ROOT / "bench" / ".cache"
    keep: bool = False  # the directory of a scenario that failed

    @property
    def back_goal_s(self) -> float:
        """How soon the service must be back after a fault; a short run may share its machine with anything."""
        return 60.0 if self.quick else 2.0


@dataclasses.dataclass
class Result:
    """What a scenario showed."""

    scenario: str
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)
    skipped: str = ""

    @property
    def is_good(self) -> bool:
        return not self.problems


def tell(text: str) -> None:
    """Progress, for who waits."""
    print(text, file=sys.stderr, flush=True)


class Bed:
    """One gateway with all that is around it."""

    def __init__(
        self, name: str, options: Options, *, rate: float = 0.0, clients: int = 12, queue_settings: str = ""
    ) -> None:
        self.name = name
        self.options = options
        self.rate = rate
        self.clients = clients
        self.disturbances: list[Disturbance] = []
        self.held = self.released = self.checked = 0
        self.held_since_s = float("inf")  # from when on nothing that is held is under way
        self.holds: list[Hold] = []
        self.problems: list[str] = []
        self._holding: set[str] = set()
        self._let_go: set[str] = set()
        options.directory.mkdir(parents=True, exist_ok=True)
        self.directory = Path(tempfile.mkdtemp(prefix=f"crash-{name}-", dir=options.directory))
        self.directory.chmod(0o755)
        self.disk = self.directory / "disk"
        self.disk.mkdir(mode=0o755)
        self.sent_book = self.directory / "sent.jsonl"
        self.arrived_book = self.directory / "arrived.jsonl"
        self.syncs_book = self.directory / "syncs.jsonl"  # of a disk that says what it has kept
        self.sink_port = processes.take_port()
        self.gateway = Gateway(self.directory, self.disk, self.sink_port, queue_settings)
        self._sink: subprocess.Popen[bytes] | None = None
        self._load: subprocess.Popen[bytes] | None = None
        self._sent: list[Sent] = []
        self._sent_read = 0
        self._is_done = False
        self._pauses = processes.Pauses()

    def __enter__(self) -> Self:
        seed = f"{self.options.seed} {self.name}"
        command = [
            sys.executable,
            "-m",
            "bench.crash.sink",
            "--port",
            self.sink_port,
            "--book",
            self.arrived_book,
            "--seed",
            seed,
        ]
        self._sink = processes.start(list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE)
        assert self._sink.stdout is not None
        if self._sink.stdout.readline() != b"ready\n":
            self.close()
            raise CrashError("the sink did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything; the directory goes unless it is wanted."""
        self._pauses.close()
        processes.stop(self._load)
        self.gateway.close()
        processes.stop(self._sink)
        if self.options.keep and not self._is_done:
            tell(f"{self.name}: kept {self.directory}")
        else:
            shutil.rmtree(self.directory, ignore_errors=True)

    # --- load -------------------------------------------------------------------------------------------------------

    def start_load(self) -> None:
        """Clients go on until `stop_load`; ids are new each time."""
        number = next(_numbers)
        command = [sys.executable, "-m", "bench.crash.load", "--port", self.gateway.port, "--book", self.sent_book]
        command += ["--submission", self.gateway.submission]
        command += ["--prefix", f"r{number}", "--clients", self.clients, "--rate", self.rate]
        command += ["--seed", f"{self.options.seed} {self.name} {number}"]
        self._load = processes.start(list(map(str, command)), cwd=ROOT, stdout=subprocess.DEVNULL)

    def stop_load(self) -> None:
        """Wait for the transactions under way."""
        processes.stop(self._load, timeout_s=60.0)
        self._load = None

    def hold_all(self) -> None:
        """The operator holds everything that is in the queue now; attempts under way go on."""
        self.held += int(self.gateway.tell("hold", all=True)["count"])
        self._holding = {key for key, is_held in self.gateway.list_held().items() if is_held}
        self._let_go.clear()
        self.held_since_s = float("inf")

    def release_all(self) -> None:
        """And lets all of it go, with what its route has held."""
        self._end_hold()
        before = self.gateway.list_held()
        self.released += int(self.gateway.tell("release", all=True)["count"])
        after = self.gateway.list_held()
        self._let_go = {key for key in before if not after.get(key, True)}
        if held := [key for key in before if after.get(key)]:
            self.problems.append(f"{len(held)} messages are held behind `queue release --all`: {held[:5]}")

    def _end_hold(self) -> None:
        self.holds.append(Hold(frozenset(self._holding), self.held_since_s, time.monotonic()))
        self._holding.clear()

    def check_operator(self, when: str) -> None:
        """What the operator was told last must be so: what is held is held, and what is released is not."""
        now = self.gateway.list_held()
        if free := [key for key in self._holding if not now.get(key, True)]:
            self.problems.append(f"{len(free)} messages are not held any more {when}: {free[:5]}")
        if held := [key for key in self._let_go if now.get(key)]:
            self.problems.append(f"{len(held)} messages are held again {when}: {held[:5]}")
        self.checked += len(self._holding) + len(self._let_go)

    def check_alive(self) -> None:
        """CrashError if something died that nobody killed."""
        if self._load is not None and self._load.poll() is not None:
            raise CrashError("the load has ended by itself")
        if self._sink is None or self._sink.poll() is not None:
            raise CrashError("the sink has ended by itself")
        if self.gateway.process is not None and self.gateway.process.poll() is not None:
            raise CrashError(
                f"the gateway has ended by itself: {self.gateway.process.returncode}\n{self.gateway.last_words()}"
            )

    def read_sent(self) -> list[Sent]:
        """All transactions that have ended so far."""
        more, self._sent_read = read_book(self.sent_book, Sent, self._sent_read)
        self._sent += more  # type: ignore[arg-type]
        return self._sent

    def count_accepted(self) -> int:
        """Messages answered 250 so far."""
        return sum(row.code == 250 for row in self.read_sent())

    def wait_accepted(self, since_s: float, limit_s: float, what: str) -> float:
        """Seconds from `since_s` to the first 250 for a message begun after it; CrashError after `limit_s`."""

        def first() -> float:
            start = self._sent_read and max(0, len(self._sent) - 2000)
            rows = self.read_sent()[start:]
            return min((row.ended_s for row in rows if row.code == 250 and row.begun_s >= since_s), default=0.0)

        self.check_alive()
        return processes.wait_until(first, f"a message is accepted {what}", limit_s) - since_s

    def run_load(self, seconds: float) -> None:
        """Let time go by under load."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.check_alive()
            time.sleep(min(left, 0.1))

    # --- the end ----------------------------------------------------------------------------------------------------

    def read_arrivals(self) -> list[Arrival]:
        """Of the sink and of the Maildir."""
        arrived, _ = read_book(self.arrived_book, Arrival)
        return [*arrived, *self.gateway.read_box()]  # type: ignore[list-item]

    def finish(self, grace_s: float = 0.0) -> Result:
        """Let the queue drain, stop the gateway, prove. The gateway must run."""
        result = Result(self.name)
        if self._load is not None:
            self.stop_load()
        drain_from_s = time.monotonic()
        self.release_all()
        ledger: dict[str, int] = {}
        try:
            ledger = self.gateway.wait_drained(DRAIN_LIMIT_S, self._let_go)
        except CrashError as error:
            result.problems.append(f"{error}: {self.gateway.ask('ledger')[1]}")
        drained_s = time.monotonic() - drain_from_s
        (self.directory / "disturbances.json").write_bytes(msgspec.json.encode(self.disturbances))
        arrivals = self.read_arrivals()
        syncs, _ = read_book(self.syncs_book, Sync)
        proof = prove(
            self.read_sent(),
            arrivals,
            self.disturbances,
            self.gateway.read_delivered(),
            grace_s,
            syncs=syncs,  # type: ignore[arg-type]
            holds=self.holds,
            is_busy=self.options.quick,
            pause_s=self._pauses.longest_s,
        )
        result.problems += self.problems + proof.problems()
        result.problems += self._check_ledger(ledger)
        result.problems += check_counts(ledger, proof)
        if status := self.gateway.stop():
            result.problems.append(f"the gateway ended with {status} on SIGTERM")
        status, report = self.gateway.ask("queue", "fsck")
        findings = report.get("findings", [])
        result.figures["fsck_notes"] = len(findings)
        if status:
            serious = [finding for finding in findings if finding.get("serious")]
            result.problems.append(f"queue fsck: {str(serious or report)[:1000]}")
        for name in ("bug", "internal_error"):
            if events := self.gateway.read_events(name):
                result.problems.append(f"{len(events)} events {name!r} in the log, the first: {events[0]}")
        result.figures |= self._figures(proof, ledger) | {"drained_s": round(drained_s, 1)}
        self._is_done = result.is_good
        return result

    def _check_ledger(self, ledger: dict[str, int]) -> list[str]:
        status, _ = self.gateway.ask("ledger")
        found = [] if status == 0 else [f"`gatepost ledger` ended with {status}"]
        if ledger and ledger["accepted"] != sum(ledger[part] for part in PARTS):
            found.append(f"the ledger does not balance: {ledger}")
        found += [
            f"{ledger[key]} recipients are {key} in the ledger"
            for key in ("expired", "discarded", "lost_to_damage")
            if ledger.get(key)
        ]
        return found

    def _figures(self, proof: Proof, ledger: dict[str, int]) -> dict[str, Any]:
        return {
            "transactions": proof.messages,
            "acknowledged_messages": proof.acknowledged_messages,
            "acknowledged_recipients": proof.acknowledged,
            "unanswered_recipients": proof.unanswered,
            "refused_but_arrived": proof.refused_arrived,
            "arrived_recipients": proof.arrived,
            "bounced_recipients": proof.bounced,
            "notices": dict(sorted(proof.notices.items())),
            "notices_twice": proof.notices_twice,
            "kinds": dict(sorted(proof.kinds.items())),
            "held_by_operator": self.held,
            "released": self.released,
            "operator_checked": self.checked,
            "file_system": find_kind(self.disk),
            "lost": len(proof.lost),
            "duplicates": proof.duplicates,
            "unexplained_duplicates": len(proof.unexplained),
            "longest_excuse_s": round(proof.longest_excuse_s, 2),
            "longest_pause_s": round(self._pauses.longest_s, 2),
            "replies": dict(sorted(proof.replies.items())),
            "ledger": ledger,
        }


def check_counts(ledger: dict[str, int], proof: Proof) -> list[str]:
    """What the gateway counted must lie between what was acknowledged and what was sent, both with its own notices."""
    if not ledger:
        return []
    found = []
    low = proof.acknowledged + proof.own_notices
    high = low + proof.unanswered + proof.refused_arrived
    if not low <= ledger["accepted"] <= high:
        found.append(
            f"the ledger has {ledger['accepted']} accepted; clients saw {proof.acknowledged} acknowledged and {high - low} without answer, "
            f"and {proof.own_notices} notices came"
        )
    if not proof.bounced <= ledger["bounced"] <= proof.bounced + proof.unanswered + proof.refused_arrived:
        found.append(f"the ledger has {ledger['bounced']} bounced; of what was acknowledged {proof.bounced} were to be")
    return found


@contextlib.contextmanager
def as_result(name: str, results: list[Result]):
    """A scenario that cannot go on is one that failed."""
    try:
        yield
    except processes.Skip as reason:
        is_wanted = os.environ.get("CI") == "true" and os.geteuid() == 0
        results.append(Result(name, problems=[f"must run here: {reason}"] if is_wanted else [], skipped=str(reason)))
    except CrashError as error:
        results.append(Result(name, problems=[str(error)]))
