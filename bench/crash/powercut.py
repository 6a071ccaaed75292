"""Scenario "power": under load the power is cut, again and again, and the gateway starts on what the disk kept.

Spool and Maildir lie on `cutfs`, which forgets what was not synced. The moment of a cut is counted in changes of the file
system, so it falls between any two of them, also while the gateway recovers from the cut before. How much of the rest survives
varies: nothing, everything, or a part.
"""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
import time

from bench.crash import processes
from bench.crash.bed import ROOT, Bed, Options, Result, tell
from bench.crash.processes import CrashError, Skip
from bench.crash.proof import Disturbance

NAME = "power"
QUICK_CUTS = 4
CHANCES = (0.0, 0.0, 0.5, 0.5, 0.9, 1.0)
# The proof knows from cutfs which outcomes were durable. This is for how long one may not be: half a second, and behind what
# disk and machine are busy with.
GRACE_S = 10.0
# between the cut and the end of all processes: the gateway has to live with a disk that is gone
DYING_S = (0.0, 0.0, 0.5, 2.0)
STARTING_SHARE = 0.25  # of the cuts: while the gateway starts
MOST_CHANGES = 400
SOON_CHANGES = 40  # behind an answer to the operator: far below half a second
OPERATORS = ("", "hold", "release")  # what the operator was told last before a cut, in turns
CUT_LIMIT_S = 60.0
BACK_LIMIT_S = 60.0


class Disk:
    """The file system process and its mount."""

    def __init__(self, bed: Bed) -> None:
        self.mount = bed.disk
        self.image = bed.directory / "image"
        self.syncs = bed.syncs_book
        self._process: subprocess.Popen[bytes] | None = None

    def power_on(self) -> None:
        """Mount what the last cut has left."""
        command = [sys.executable, "-m", "bench.crash.cutfs", "--mount", self.mount, "--image", self.image]
        command += ["--syncs", self.syncs]
        self._process = processes.start(
            list(map(str, command)), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        if self._read(BACK_LIMIT_S) != b"ready\n":
            raise CrashError("cutfs did not start")

    def plan_cut(self, after: int, chance: float, seed: int) -> None:
        """The power goes before the `after`-th change from now."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(f"cut {after} {chance} {seed}\n".encode())

    def wait_cut(self, limit_s: float) -> float:
        """When the power went; 0 if it did not in time."""
        word, _, at_s = self._read(limit_s).partition(b" ")
        return float(at_s) if word == b"cut" else 0.0

    def _read(self, limit_s: float) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], limit_s)
        return self._process.stdout.readline() if readable else b""

    def close(self) -> None:
        """Unmount and end; what was not written by a cut is gone."""
        processes.unmount(self.mount)
        processes.stop(self._process)
        self._process = None


def run(options: Options) -> Result:
    """The whole scenario."""
    if os.geteuid() != 0:
        raise Skip("mounting a file system needs root")
    if not os.path.exists("/dev/fuse"):
        raise Skip("/dev/fuse is missing")
    processes.enter_private_mounts()
    rng = random.Random(f"{options.seed} {NAME}")
    count = QUICK_CUTS if options.quick else options.cuts
    with Bed(NAME, options, rate=200.0) as bed:
        disk = Disk(bed)
        try:
            disk.power_on()
            bed.gateway.start()
            bed.start_load()
            for number in range(1, count + 1):
                chance = rng.choice(CHANCES)
                what = _cut_once(bed, disk, rng, chance, OPERATORS[number % len(OPERATORS)])
                tell(
                    f"{NAME}: {number} of {count}: {what}, {chance:.0%} of the rest survives, {bed.count_accepted()} accepted so far"
                )
            back_s = bed.wait_accepted(time.monotonic(), BACK_LIMIT_S, "after the last cut")
            bed.run_load(1.0)
            result = bed.finish(GRACE_S)
        finally:
            bed.gateway.close()
            disk.close()
        result.figures |= {"cuts": count, "accepted_again_s": round(back_s, 2)}
        result.figures["damage_reports"] = bed.gateway.count_events("damaged")
        return result


def _cut_once(bed: Bed, disk: Disk, rng: random.Random, chance: float, operator: str) -> str:
    """One cut, and a new start of all; what was cut."""
    bed.wait_accepted(time.monotonic(), BACK_LIMIT_S, "before the cut")
    bed.run_load(rng.uniform(0.2, 1.5))
    if operator:
        bed.hold_all()
    if operator == "release":
        bed.run_load(rng.uniform(0.0, 0.5))
        bed.release_all()
    disk.plan_cut(rng.randint(1, SOON_CHANGES if operator else MOST_CHANGES), chance, rng.getrandbits(32))
    if not (cut_s := disk.wait_cut(CUT_LIMIT_S)):
        raise CrashError("nothing was written, so no cut came")
    time.sleep(rng.choice(DYING_S))
    _start_anew(bed, disk, cut_s)
    what = f"behind the {operator}" if operator else "under load"
    while rng.random() < STARTING_SHARE:
        disk.plan_cut(rng.randint(1, 30), rng.choice(CHANCES), rng.getrandbits(32))
        bed.gateway.launch()
        cut_s = disk.wait_cut(3.0)
        if cut_s:
            what += ", again while starting"
            time.sleep(rng.choice(DYING_S))
        _start_anew(bed, disk, cut_s or time.monotonic())
    bed.gateway.start()
    if operator:
        bed.check_operator(f"after a power cut behind the {operator}")
        bed.release_all()
    return what


def _start_anew(bed: Bed, disk: Disk, cut_s: float) -> None:
    """The machine is off: nothing runs, and the disk has what it kept."""
    if bed.gateway.process is not None:
        bed.gateway.kill_all()
    disk.close()
    disk.power_on()
    bed.disturbances.append(Disturbance("power", cut_s, time.monotonic()))
    bed.held_since_s = time.monotonic()
