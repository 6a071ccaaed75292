"""`python -m bench.crash`: runs the scenarios, prints one table, and exits 0 only if nothing was lost.

python -m bench.crash [--quick] [--only SCENARIO ...] [--kills N] [--cuts N] [--seed TEXT] [--json FILE] [--keep]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.crash import faults, fulldisk, kills, powercut
from bench.crash.apart import run_apart
from bench.crash.bed import Options, Result, tell
from bench.crash.report import build_report

SCENARIOS: dict[str, Callable[[Options], Result]] = {
    module.NAME: module.run for module in (kills, fulldisk, faults, powercut)
}


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    defaults = Options()
    parser = argparse.ArgumentParser(
        prog="python -m bench.crash",
        description="Break the gateway under load, and prove that no acknowledged mail is lost.",
    )
    parser.add_argument("--quick", action="store_true", help="a short run of each scenario")
    parser.add_argument("--only", nargs="+", choices=list(SCENARIOS), metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument(
        "--kills", type=int, default=defaults.kills, help="how many in the scenario kills (default %(default)s)"
    )
    parser.add_argument("--cuts", type=int, default=defaults.cuts, help="how many power cuts (default %(default)s)")
    parser.add_argument("--seed", default=defaults.seed, help="of all that is random here (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--directory", type=Path, default=defaults.directory, help="where to work, on a disk")
    parser.add_argument("--keep", action="store_true", help="keep the directory of a scenario that failed")
    return parser.parse_args(arguments)


def describe_machine() -> str:
    """What the figures were measured on."""
    return f"{os.cpu_count()} CPUs, {platform.system()} {platform.release()}, Python {platform.python_version()}, {'root' if os.geteuid() == 0 else 'not root'}"


def main(arguments: list[str]) -> int:
    """0 if every scenario that ran lost nothing, else 1."""
    parsed = parse_arguments(arguments)
    options = Options(parsed.quick, parsed.kills, parsed.cuts, parsed.seed, parsed.directory.resolve(), parsed.keep)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))  # so that everything is ended and unmounted then, too
    results: list[Result] = []
    for name in parsed.only or SCENARIOS:
        began_s = time.monotonic()
        tell(f"{name} ...")
        results.append(run_apart(name, SCENARIOS[name], options))
        results[-1].figures["seconds"] = round(time.monotonic() - began_s, 1)
    machine = describe_machine()
    print(build_report(results, machine))
    if parsed.json:
        document = {
            "machine": machine,
            "quick": options.quick,
            "seed": options.seed,
            "results": [dataclasses.asdict(r) for r in results],
        }
        parsed.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(result.is_good for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
