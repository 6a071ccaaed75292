"""Coverage-guided fuzzing with atheris: `make fuzz`, or

    .venv/bin/python tests/fuzz [--seconds 60 | --runs 10000] [--findings DIRECTORY] [TARGET ...]

Each target runs in a process of its own, from its seeds and from what earlier runs found interesting (kept below
`var/fuzz`). An input that breaks a target is written there, printed, and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FINDINGS = HERE.parents[1] / "var" / "fuzz"
sys.path.insert(0, str(HERE.parent))
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
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--list", action="store_true", help="print the names of the targets")
    options = parser.parse_args()
    if options.one:
        return fuzz(options.one, options.findings, options.runs, options.seconds)
    from fuzz.all_targets import TARGETS  # not at the top: a child imports it under atheris' instrumentation

    if options.list:
        print("\n".join(TARGETS))
        return 0
    unknown = [name for name in options.targets if name not in TARGETS]
    if unknown:
        print(f"no such target: {', '.join(unknown)}; there are {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    broken = []
    for name in options.targets or TARGETS:
        print(f"{name} ...", flush=True)
        limits = ["--runs", str(options.runs), "--seconds", str(options.seconds), "--findings", str(options.findings)]
        done = subprocess.run([sys.executable, str(HERE), "--one", name, *limits], check=False, capture_output=True)
        lines = done.stderr.decode(errors="replace").splitlines() + done.stdout.decode(errors="replace").splitlines()
        print(
            "  " + next((line for line in reversed(lines) if line.startswith("Done")), f"exit status {done.returncode}")
        )
        if done.returncode:
            broken.append(name)
            print("\n".join(f"  {line}" for line in lines[-40:]))
    print(f"broken: {', '.join(broken)}" if broken else "nothing broke")
    return 1 if broken else 0


def fuzz(name: str, findings: Path, runs: int, seconds: int) -> int:
    """This process for one target; atheris ends it itself."""
    import atheris  # only where it is asked for: it is big, and not built for every machine

    with atheris.instrument_imports(include=["gatepost"], enable_loader_override=False):
        from fuzz.all_targets import TARGETS
    target = TARGETS[name]
    corpus = findings / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    dictionary = findings / f"{name}.tokens"
    dictionary.write_text(
        "".join(f'"{"".join(f"{chr(92)}x{octet:02x}" for octet in token)}"\n' for token in target.tokens)
    )
    limits = [f"-runs={runs}"] if runs >= 0 else [f"-max_total_time={seconds}"]
    atheris.Setup(
        [
            sys.argv[0], *limits, f"-max_len={target.max_bytes}", f"-timeout={SECONDS_FOR_ONE_INPUT}",
            *([f"-dict={dictionary}"] if target.tokens else []), f"-artifact_prefix={findings}/{name}-", str(corpus),
        ],
        target.run,
    )  # fmt: skip
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
