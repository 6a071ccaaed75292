"""The self-test of the host and from inside out: clock, disk, paths, processes, queue, ledger. Looks only; changes nothing."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from gatepost.config.paths import inspect_paths
from gatepost.config.schema import Config
from gatepost.privsep.attest import attest
from gatepost.selftest.result import FAILED, OK, SKIPPED, WARNING, Result

BUILT_AFTER_S = 1_750_000_000  # 2025: a clock before that has not been set
MAX_OFFSET_S = 2.0
NEARLY_FULL = 2  # times the limits at which mail is refused
_STA_UNSYNC, _TIME_ERROR = 0x0040, 5


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2), as far as it is read."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    ]


def check_clock(wall: Callable[[], float] = time.time) -> list[Result]:
    """Is the clock set, does it run as the monotonic one does, does somebody keep it right?"""
    now_s = wall()
    good = now_s > BUILT_AFTER_S
    told = "" if good else time.strftime("it says %Y-%m-%d", time.gmtime(now_s))
    results = [
        Result("clock", "is set", OK if good else FAILED, told, "set it: dates and time-outs of mail depend on it")
    ]
    return [*results, _runs_evenly(wall), _is_kept()]


def _runs_evenly(wall: Callable[[], float]) -> Result:
    """Two readings of both clocks: whoever sets the wall clock in steps shows between them."""
    began_s, began_wall_s = time.monotonic(), wall()
    while time.monotonic() - began_s < 0.05:
        pass
    difference_s = abs((wall() - began_wall_s) - (time.monotonic() - began_s))
    good = difference_s < MAX_OFFSET_S
    return Result("clock", "runs evenly", OK if good else WARNING, "" if good else f"it jumped by {difference_s:.1f} s")


def _is_kept() -> Result:
    name, advice = "is kept right", "run chrony, ntpd or systemd-timesyncd"
    timex = _Timex()
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    if state < 0:
        return Result("clock", name, SKIPPED, f"adjtimex: {os.strerror(ctypes.get_errno())}")
    if state == _TIME_ERROR or timex.status & _STA_UNSYNC:
        return Result("clock", name, WARNING, "no time service keeps it", advice)
    return Result("clock", name, OK, f"error at most {timex.maxerror / 1e6:.3f} s")


def check_disk(config: Config) -> list[Result]:
    """Room on the file system of the spool, long before mail is refused."""
    try:
        facts = os.statvfs(config.spool)
    except OSError as error:
        return [Result("disk", "spool", FAILED, f"{config.spool}: {error.strerror}")]
    results = []
    for name, free, limit in (
        ("room for the spool", facts.f_bavail * facts.f_frsize, config.queue.min_free_bytes),
        ("inodes for the spool", facts.f_favail, config.queue.min_free_inodes),
    ):
        if facts.f_files == 0 and name.startswith("inodes"):
            continue  # a file system without a fixed number of them
        verdict = FAILED if free < limit else WARNING if free < NEARLY_FULL * limit else OK
        told = f"{free} free, mail is refused below {limit}"
        results.append(Result("disk", name, verdict, told, "make room, or move the spool"))
    return results


def check_paths(config: Config, config_path: str, starter: int) -> list[Result]:
    """What `gatepost check` finds of paths."""
    problems = inspect_paths(config, config_path, starter)
    if not problems:
        return [Result("paths", "owners and modes", OK)]
    return [
        Result(
            "paths",
            problem.path,
            FAILED,
            f"{problem.problem} (mode {problem.mode}, owner {problem.owner})",
            problem.command,
        )
        for problem in problems
    ]


def check_processes(config: Config, rows: Sequence[dict[str, Any]]) -> list[Result]:
    """Every live process against the table of roles."""
    results = []
    try:
        reports = attest(config, rows)
    except OSError as error:
        return [Result("processes", "supervisor/0", FAILED, str(error), "run it as root")]
    for report in reports:
        name = f"{report.role}/{report.instance}"
        if report.differences:
            results.append(Result("processes", name, FAILED, "; ".join(report.differences), "see gatepost privs"))
        else:
            results.append(Result("processes", name, OK))
    return results


def check_inside(status: dict[str, Any]) -> list[Result]:
    """What the gateway says of itself."""
    accepting, reason = status["spool"]["accepting"], status["spool"]["reason"]
    ledger = status["ledger"]
    total = sum(ledger[part] for part in ("delivered", "bounced", "expired", "discarded", "queued"))
    total += ledger.get("lost_to_damage", 0)
    not_ready = [
        f"{row['role']}/{row['instance']}" for row in status["roles"] if row["state"] not in ("ready", "draining")
    ]
    return [
        Result("inside", "the spool takes mail", OK if accepting else FAILED, reason or "", "see gatepost status"),
        _simple("the ledger balances", ledger["accepted"] == total, f"accepted {ledger['accepted']}, settled {total}"),
        _simple("every process is ready", not not_ready, ", ".join(not_ready)),
        *[Result("inside", "weakened", WARNING, note, "see docs/security.md") for note in status["notes"]],
    ]


def _simple(name: str, good: bool, told: str) -> Result:
    return Result("inside", name, OK if good else FAILED, "" if good else told)
