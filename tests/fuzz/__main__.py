"""Coverage-guided fuzzing with atheris: `make fuzz`, or

    .venv/bin/python tests/fuzz [--seconds 60 | --runs 10000] [--seed N] [--findings DIRECTORY] [TARGET ...]

Each target runs in a process of its own, from its seeds and from what earlier runs found interesting (kept below
`var/fuzz`). An input that breaks a target is written there, printed, and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
FINDINGS = HERE.parents[1] / "var" / "fuzz"
sys.path.insert(0, str(HERE.parent))

from fuzz.target import BREAKS, Target

SECONDS_FOR_ONE_INPUT = 60


def main() -> int:
    """0 if no target broke."""
    parser = argparse.ArgumentParser(prog="tests/fuzz", description="Fuzz the parsers of what others send.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="names of targets; all of them if none is given")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    parser.add_argument("--runs", type=int, default=-1, help="inputs for each target, instead of seconds")
    parser.add_argument(
        "--findings", type=Path, default=FINDINGS, help="where corpora and findings are kept (default var/fuzz)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="the same one makes up the same inputs (default 0: others each time)"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the targets")
    options = parser.parse_args()
    targets = load_targets(instrumented=not options.list)
    if options.list:
        print("\n".join(targets))
        return 0
    by_name = {**targets, BREAKS.name: BREAKS}
    unknown = [name for name in options.targets if name not in by_name]
    if unknown:
        print(f"no such target: {', '.join(unknown)}; there are {', '.join(targets)}", file=sys.stderr)
        return 2
    options.findings.mkdir(parents=True, exist_ok=True)
    broken = []
    for name in options.targets or targets:
        print(f"{name} ...", flush=True)
        status, lines = run_apart(lambda name=name: fuzz(name, by_name[name], options))
        print("  " + next((line for line in reversed(lines) if line.startswith("Done")), f"exit status {status}"))
        if status:
            broken.append(name)
            print("\n".join(f"  {line}" for line in lines[-40:]))
    print(f"broken: {', '.join(broken)}" if broken else "nothing broke")
    return 1 if broken else 0


def load_targets(instrumented: bool) -> dict[str, Target]:
    """All targets by name; instrumenting what they use takes seconds, so it is done once, before the processes part."""
    if not instrumented:
        return importlib.import_module("fuzz.all_targets").TARGETS
    import atheris  # only where it is asked for: it is big, and not built for every machine

    with atheris.instrument_imports(include=["gatepost"], enable_loader_override=False):
        return importlib.import_module("fuzz.all_targets").TARGETS


def run_apart(work: Callable[[], None]) -> tuple[int, list[str]]:
    """Exit status and output of a process of its own that does this: an input that breaks it, or hangs, breaks only that."""
    with tempfile.TemporaryFile() as output:
        sys.stdout.flush()
        if (pid := os.fork()) == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            work()
            os._exit(0)
        _, waited = os.waitpid(pid, 0)
        output.seek(0)
        return os.waitstatus_to_exitcode(waited), output.read().decode(errors="replace").splitlines()


def fuzz(name: str, target: Target, options: argparse.Namespace) -> None:
    """This process for one target; atheris ends it itself."""
    import atheris

    findings, runs, seconds = options.findings, options.runs, options.seconds
    corpus = findings / name
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    dictionary = findings / f"{name}.tokens"
    dictionary.write_text(
        "".join(f'"{"".join(f"{chr(92)}x{octet:02x}" for octet in token)}"\n' for token in target.tokens)
    )
    limits = [f"-runs={runs}"] if runs >= 0 else [f"-max_total_time={seconds}"]
    atheris.Setup(
        [
            sys.argv[0], *limits, f"-seed={options.seed}", f"-max_len={target.max_bytes}", f"-timeout={SECONDS_FOR_ONE_INPUT}",
            *([f"-dict={dictionary}"] if target.tokens else []), f"-artifact_prefix={findings}/{name}-", str(corpus),
        ],
        target.run,
    )  # fmt: skip
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
