"""Runs a scenario in a process of its own, so that its mount namespace, its children and whatever it breaks end with it.

The process gives its result back as JSON. One that dies without is a scenario that failed; it is never taken for one that was skipped.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable

import msgspec

from bench.crash import processes
from bench.crash.bed import Options, Result, as_result


def run_apart(name: str, scenario: Callable[[Options], Result], options: Options) -> Result:
    """The result of one scenario; SystemExit here ends the scenario first, which unmounts and removes what it has made."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os._exit(_run(name, scenario, options, writing))
    os.close(writing)
    try:
        with open(reading, "rb") as file:
            data = file.read()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        raise
    _, status = os.waitpid(pid, 0)
    if not data:
        return Result(
            name, problems=[f"its process ended without a result (status {os.waitstatus_to_exitcode(status)})"]
        )
    return msgspec.json.decode(data, type=Result)


def _run(name: str, scenario: Callable[[Options], Result], options: Options, writing: int) -> int:
    processes.die_with_parent()
    results: list[Result] = []
    try:
        with as_result(name, results):
            results.append(scenario(options))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except Exception as error:  # noqa: BLE001 - a mistake of the scenario's is told like any other failure
        results = [Result(name, problems=[f"{type(error).__name__}: {error}"])]
        sys.excepthook(type(error), error, error.__traceback__)
    with open(writing, "wb") as file:
        file.write(msgspec.json.encode(results[-1]))
    return 0
