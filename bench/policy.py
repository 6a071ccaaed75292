"""Decisions a second with 10, 1,000 and 100,000 relay rules and table entries: `python -m bench.policy`.

One decision is what a receiver does for one recipient of a new connection: the facts of the client, then the engine's verdict. No I/O, one core,
the best of some rounds, in which the mixes take turns. Exit status 1 if the cost is not flat (1.5 times) or above 30 us.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable

from gatepost.config.schema import Config, Domain, Relay, RelayRule
from gatepost.model import Address
from gatepost.policy.engine import Engine

SIZES = (10, 1_000, 100_000)
MOST_US = 30.0
FLAT = 1.5
ROUNDS = 7
DECISIONS = 4_000
NOW_S = 1_800_000_000.0


def config_of(size: int) -> Config:
    """`size` rules, each with a network, a reverse-path and a domain of its own, and `size` recipients."""
    rules = [
        RelayRule(
            name=f"rule{number}",
            networks=[f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}/32"],
            reverse_paths=[f"@sender{number}.example"] if number % 2 else [],
            domains=[f"domain{number}.example"] if number % 3 else [],
            next_hop=["smtp://192.0.2.9:25"],
        )
        for number in range(size)
    ]
    return Config(
        hostname="mx.example.net",
        listen=["192.0.2.5:25"],
        spool="/var/spool/gatepost",
        domains={
            "example.net": Domain(
                next_hop=["smtp://192.0.2.6:25"], recipients=[f"user{number}" for number in range(size)]
            )
        },
        relay=Relay(networks=["172.16.0.0/12"], rules=rules),
    )


def mixes_of(size: int) -> dict[str, list[tuple[str, str, Address]]]:
    """Client, reverse-path and forward-path of the sessions of each kind, spread over all rules and entries."""
    picked = [(number * 7919) % size for number in range(256)]

    def ruled(number: int) -> tuple[str, str, Address]:
        domain = f"domain{number}.example" if number % 3 else "else.example"
        sender = f"x@sender{number}.example" if number % 2 else "x@other.example"
        return (
            f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
            sender,
            Address(f"y@{domain}", "y", domain),
        )

    theirs = Address("x@else.example", "x", "else.example")
    return {
        "a rule holds": [ruled(number) for number in picked],
        "a stranger, refused": [
            (f"198.51.100.{number & 255}", f"x@sender{number}.example", theirs) for number in picked
        ],
        "relay.networks": [(f"172.16.0.{number & 255}", "x@example.net", theirs) for number in picked],
        "our recipient": [
            ("198.51.100.1", "x@else.example", Address(f"user{number}@example.net", f"user{number}", "example.net"))
            for number in picked
        ],
        "unknown recipient": [
            ("198.51.100.1", "x@else.example", Address(f"no{number}@example.net", f"no{number}", "example.net"))
            for number in picked
        ],
    }


def decide_all(engine: Engine, sessions: list[tuple[str, str, Address]], count: int) -> Callable[[], float]:
    """A function that makes `count` decisions and returns the microseconds of one."""

    def run() -> float:
        begin = time.perf_counter()
        for _ in range(count // len(sessions)):
            for client, reverse_path, address in sessions:
                facts = engine.facts_of(client, "192.0.2.5", "S")
                facts.reverse_path, facts.now_s = reverse_path, NOW_S
                engine.decide_rcpt(facts, address)
        return (time.perf_counter() - begin) * 1e6 / (count // len(sessions) * len(sessions))

    return run


def measure(
    sizes: tuple[int, ...] = SIZES, rounds: int = ROUNDS, count: int = DECISIONS
) -> dict[str, dict[int, float]]:
    """Microseconds of a decision by mix and size."""
    runs = {}
    for size in sizes:
        engine = Engine(config_of(size))
        for name, sessions in mixes_of(size).items():
            runs[name, size] = decide_all(engine, sessions, count)
    gc.freeze()  # as a receiver does when it has locked itself in
    for run in runs.values():
        run()
    taken: dict[tuple[str, int], list[float]] = {key: [] for key in runs}
    for _ in range(rounds):
        for key, run in runs.items():
            taken[key].append(run())
    found: dict[str, dict[int, float]] = {}
    for (name, size), values in taken.items():
        found.setdefault(name, {})[size] = min(values)  # what else the machine did only adds
    return found


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    found = measure()
    head = " | ".join(f"{size:,}" for size in SIZES)
    print(
        f"| decision (us) | {head} | largest / smallest | decisions/s at {SIZES[-1]:,} |\n|---|{'---|' * (len(SIZES) + 2)}"
    )
    is_good = True
    for name, by_size in found.items():
        ratio = by_size[SIZES[-1]] / by_size[SIZES[0]]
        is_good = is_good and ratio <= FLAT and max(by_size.values()) <= MOST_US
        cells = " | ".join(f"{by_size[size]:.1f}" for size in SIZES)
        print(f"| {name} | {cells} | {ratio:.2f} | {1e6 / by_size[SIZES[-1]]:,.0f} |")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=2)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
