"""Scenario "disk-full": the spool's own small ext4 file system runs full under load, then has room again.

Twice by bytes: once with the gateway's reserve (it sheds before the disk is full), once without any (every write meets ENOSPC). Once by
inodes. Clients must hear 452 4.3.1, the gateway must go on by itself when there is room, and nothing acknowledged may be lost.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.crash import processes
from bench.crash.bed import Bed, Options, Result, tell
from bench.crash.books import Sent
from bench.crash.processes import CrashError, Skip
from bench.crash.proof import Disturbance

NAME = "disk-full"
DISK_BYTES = 160 * 1024 * 1024
INODES = 4096
BACK_LIMIT_S = 60.0
HEARD_S = 60.0  # the disk stays full until a client has heard of it, but no longer than this
VARIANTS = {
    "reserve": "min_free_bytes = 33554432\nmin_free_inodes = 100",
    "no reserve": "min_free_bytes = 0\nmin_free_inodes = 0",
    "inodes": "min_free_bytes = 0\nmin_free_inodes = 0",
}


def run(options: Options) -> Result:
    """All variants, one after the other."""
    if os.geteuid() != 0:
        raise Skip("mounting a file system needs root")
    for program in ("mkfs.ext4", "mount"):
        if not shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
            raise Skip(f"{program} is missing: install e2fsprogs and mount")
    processes.enter_private_mounts()
    total = Result(NAME, {"broken": "full disk, full inode table", "accepted_again_s": 0.0})
    for variant, settings in VARIANTS.items():
        if options.quick and variant == "inodes":
            continue
        result = _run_variant(variant, settings, options)
        total.figures[variant] = result.figures
        total.problems += [f"{variant}: {problem}" for problem in result.problems]
        for key in ("acknowledged_messages", "lost", "duplicates", "unexplained_duplicates"):
            total.figures[key] = total.figures.get(key, 0) + result.figures[key]
        total.figures["accepted_again_s"] = max(total.figures["accepted_again_s"], result.figures["accepted_again_s"])
    return total


def _run_variant(variant: str, settings: str, options: Options) -> Result:
    rounds, full_s = (1, 3.0) if options.quick else (3, 5.0)
    with Bed(f"{NAME}-{variant.replace(' ', '-')}", options, rate=400.0, queue_settings=settings) as bed:
        with small_disk(bed.directory / "disk.img", bed.disk):
            bed.gateway.start()
            bed.start_load()
            back = [_fill_once(bed, variant, full_s, number) for number in range(rounds)]
            result = bed.finish()
            bed.gateway.close()
        result.figures["accepted_again_s"] = round(max(back), 2)
        full = sum(map(_is_full, bed.read_sent()))
        result.figures["replies_452_4_3_1"] = full
        if not full:
            result.problems.append("no client heard 452 4.3.1")
        if max(back) > options.back_goal_s:
            result.problems.append(f"back only after {max(back):.1f} s of free disk")
        return result


def _is_full(row: Sent) -> bool:
    return row.code == 452 and "4.3.1" in row.text


@contextlib.contextmanager
def small_disk(image: Path, target: Path) -> Iterator[None]:
    """An ext4 file system in a sparse file, mounted where only this program and its children see it."""
    with open(image, "wb") as file:
        file.truncate(DISK_BYTES)
    make = ["mkfs.ext4", "-q", "-F", "-m", "0", "-N", str(INODES), str(image)]
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    for command in (make, ["mount", "-o", "loop", str(image), str(target)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path})
        if done.returncode != 0:
            raise CrashError(f"{command[0]}: {done.stderr.strip()}")
    try:
        target.chmod(0o755)
        yield
    finally:
        processes.unmount(target)


def _fill_once(bed: Bed, variant: str, full_s: float, number: int) -> float:
    """Fill the disk, stay full for a while, make room; seconds until a message is accepted again."""
    ballast = bed.disk / "ballast"
    bed.run_load(1.0)
    before = bed.count_accepted()
    heard = len(bed.read_sent())
    fill: Callable[[Path], None] = _fill_inodes if variant == "inodes" else _fill_bytes
    began_s = time.monotonic()
    deadline = began_s + full_s
    is_heard = False
    while time.monotonic() < deadline or not is_heard:  # what the queue frees meanwhile is filled again
        is_heard = (
            is_heard or any(_is_full(row) for row in bed.read_sent()[heard:]) or time.monotonic() > began_s + HEARD_S
        )
        fill(ballast)
        bed.run_load(0.05)
    shutil.rmtree(ballast)
    free_s = time.monotonic()
    bed.disturbances.append(Disturbance("queue", began_s, free_s))
    back_s = bed.wait_accepted(free_s, BACK_LIMIT_S, "after the disk has room again")
    full = sum(row.code == 452 for row in bed.read_sent())
    tell(
        f"{NAME}, {variant}: round {number + 1}: {before} accepted before, {full} refused with 452, back after {back_s:.2f} s"
    )
    return back_s


def _fill_bytes(ballast: Path) -> None:
    """Take every block that is free, down to single ones."""
    ballast.mkdir(exist_ok=True)
    with open(ballast / "bytes", "ab", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        for block in (1 << 20, 1 << 16, 1 << 12):
            with contextlib.suppress(OSError):
                while size < DISK_BYTES:
                    os.posix_fallocate(file.fileno(), size, block)
                    size += block


def _fill_inodes(ballast: Path) -> None:
    """Take every inode that is free."""
    ballast.mkdir(exist_ok=True)
    first = len(os.listdir(ballast))
    with contextlib.suppress(OSError):
        for number in range(first, first + INODES):
            os.close(os.open(ballast / f"i{number}", os.O_WRONLY | os.O_CREAT, 0o600))
