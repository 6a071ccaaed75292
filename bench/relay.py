"""Measures Gatepost and other mail servers side by side as relay gateways on loopback.

    bench/relay.py [--quick] [--only SCENARIO ...] [--peers NAME ...] [--json FILE]

Every server takes mail from smtp-source, queues it durably below the same directory and passes it on to smtp-sink. A round
ends when the sink has the last message. The servers take turns (A B A B A B) so that noise of the machine hits all; the
table shows medians of three rounds. CPU time is that of all processes of a server; PSS is sampled in a round of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import measure
import tlsload
from measure import Sink
from peers import PEERS, VARIANTS
from peers.peer import RECIPIENT, Peer, PeerError
from report import build_tables

BENCH = Path(__file__).resolve().parent
MAX_MESSAGES = 60_000
ROUNDS = 3
ROUND_S = 6.0
QUICK_ROUND_S = 1.5
ROUND_TIMEOUT_S = 180.0
SETTLE_S = 0.5  # after the last message, for what a server does behind it: its CPU time counts
PSS_EVERY_S = 0.4


@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """Messages of one size, sent in one way."""

    size_bytes: int
    keep: bool
    fewest: int  # messages of a round, however slow the server
    tls: str = ""  # "messages" or "handshakes": over STARTTLS, by bench/tlsload.py


@dataclasses.dataclass(frozen=True, slots=True)
class Idle:
    """Sessions that have said EHLO and nothing more."""

    sessions: int
    tls: bool = False


SCENARIOS: dict[str, Load | Idle] = {
    "4k": Load(4096, keep=False, fewest=200),
    "4k-kept": Load(4096, keep=True, fewest=200),
    "100k": Load(100 * 1024, keep=False, fewest=100),
    "1m": Load(1024 * 1024, keep=False, fewest=40),
    "tls-kept": Load(4096, keep=True, fewest=200, tls="messages"),
    "tls-handshakes": Load(0, keep=False, fewest=200, tls="handshakes"),
    "idle-1000": Idle(1000),
    "idle-tls-1000": Idle(1000, tls=True),
    "idle-10000": Idle(10000),
}


@dataclasses.dataclass(slots=True)
class Contender:
    """A running server, its sink, and how many messages make a round."""

    peer: Peer
    sink: Sink
    messages: int = 0

    def stop(self) -> None:
        """End both."""
        self.peer.stop()
        self.sink.stop()


def tell(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def start_contender(kind: type[Peer], directory: Path, idle_sessions: int = 0, *, tls: bool = False) -> Contender:
    """A fresh server with an empty queue and its sink."""
    sink = Sink()
    peer = kind(directory / kind.name, sink.port)
    peer.idle_sessions = idle_sessions
    peer.tls = tls
    try:
        peer.start()
    except (OSError, shutil.Error) as error:
        Contender(peer, sink).stop()
        raise PeerError(f"{kind.name} does not start: {error}") from error
    except BaseException:
        Contender(peer, sink).stop()
        raise
    return Contender(peer, sink)


def run_round(contender: Contender, load: Load, messages: int, *, sample_pss: bool = False) -> dict[str, float]:
    """One round; rate, CPU seconds per 1,000 messages, and the largest PSS if it is sampled."""
    accounting = contender.peer.accounting
    assert accounting is not None
    largest, next_sample = 0, 0.0

    def sample() -> None:
        nonlocal largest, next_sample
        if time.monotonic() >= next_sample:
            largest = max(largest, accounting.pss_bytes())
            next_sample = time.monotonic() + PSS_EVERY_S

    os.sync()
    before = accounting.cpu_s()
    if load.tls:
        elapsed = tlsload.send_load(
            contender.sink,
            contender.peer.port,
            RECIPIENT,
            messages,
            load.size_bytes,
            contender.peer.sessions,
            load.tls,
            ROUND_TIMEOUT_S,
            sample if sample_pss else None,
        )
    else:
        elapsed = send_plain(contender, load, messages, sample if sample_pss else None)
    time.sleep(SETTLE_S)
    used = accounting.cpu_s() - before
    result = {"messages": messages, "seconds": elapsed, "rate": messages / elapsed, "cpu_s": used * 1000 / messages}
    if sample_pss:
        result["pss_bytes"] = largest
    return result


def send_plain(contender: Contender, load: Load, messages: int, tick: Callable[[], None] | None) -> float:
    """By smtp-source; the seconds it took."""
    return measure.send_load(
        contender.sink,
        contender.peer.port,
        RECIPIENT,
        messages,
        load.size_bytes,
        contender.peer.sessions,
        keep=load.keep,
        timeout_s=ROUND_TIMEOUT_S,
        tick=tick,
    )


def choose_messages(load: Load, rate: float, round_s: float) -> int:
    """So many that the server needs about `round_s` for them."""
    return int(min(MAX_MESSAGES, max(load.fewest, rate * round_s)))


def summarise(rounds: list[dict[str, float]], memory: dict[str, float]) -> dict[str, object]:
    """The medians of the rounds and the memory of the round in which it was sampled."""
    return {
        "rate": statistics.median(one["rate"] for one in rounds),
        "cpu_s_per_1000": statistics.median(one["cpu_s"] for one in rounds),
        "pss_bytes": memory["pss_bytes"],
        "rounds": rounds,
    }


def measure_load(
    name: str, load: Load, kinds: list[type[Peer]], directory: Path, round_s: float
) -> dict[str, dict[str, object]]:
    """All servers, interleaved."""
    results: dict[str, dict[str, object]] = {}
    contenders: dict[str, Contender] = {}
    rounds: dict[str, list[dict[str, float]]] = {}
    try:
        for kind in kinds:
            if load.tls and not kind.speaks_tls:
                results[kind.name] = {"skipped": "not set up for TLS here"}
                continue
            try:
                contenders[kind.name] = contender = start_contender(kind, directory, tls=bool(load.tls))
                rate = run_round(contender, load, load.fewest)["rate"]  # warms up, too
                rate = run_round(contender, load, choose_messages(load, rate, round_s / 3))["rate"]
            except PeerError as error:
                drop(contenders, results, name, kind.name, error)
                continue
            contender.messages = choose_messages(load, rate, round_s)
            rounds[kind.name] = []
        for number in range(ROUNDS):
            for peer_name, contender in list(contenders.items()):
                try:
                    one = run_round(contender, load, contender.messages)
                except PeerError as error:
                    drop(contenders, results, name, peer_name, error)
                    continue
                rounds[peer_name].append(one)
                tell(f"{name} round {number + 1} {peer_name}: {one['rate']:.0f}/s, {one['cpu_s']:.2f} CPU s per 1,000")
        for peer_name, contender in list(contenders.items()):
            try:
                memory = run_round(contender, load, contender.messages, sample_pss=True)
            except PeerError as error:
                drop(contenders, results, name, peer_name, error)
                continue
            results[peer_name] = summarise(rounds[peer_name], memory)
    finally:
        for contender in contenders.values():
            contender.stop()
    return results


def drop(
    contenders: dict[str, Contender],
    results: dict[str, dict[str, object]],
    scenario: str,
    peer_name: str,
    error: PeerError,
) -> None:
    """A server that failed is out of this scenario; the others go on."""
    tell(f"{scenario} {peer_name}: {error}")
    results[peer_name] = {"failed": str(error)}
    if peer_name in contenders:
        contenders.pop(peer_name).stop()


def measure_idle(name: str, idle: Idle, kinds: list[type[Peer]], directory: Path) -> dict[str, dict[str, object]]:
    """All servers, one after the other."""
    results: dict[str, dict[str, object]] = {}
    for kind in kinds:
        if idle.tls and not kind.speaks_tls:
            results[kind.name] = {"skipped": "not set up for TLS here"}
            continue
        if kind.idle_limit is not None and idle.sessions > kind.idle_limit:
            results[kind.name] = {"skipped": kind.idle_note}
            continue
        try:
            contender = start_contender(kind, directory, idle.sessions, tls=idle.tls)
        except PeerError as error:
            drop({}, results, name, kind.name, error)
            continue
        accounting = contender.peer.accounting
        assert accounting is not None
        try:
            measure.send_load(
                contender.sink, contender.peer.port, RECIPIENT, 200, 4096, kind.sessions, keep=False, timeout_s=60
            )
            open_idle = tlsload.open_idle_sessions if idle.tls else measure.open_idle_sessions
            for sock in open_idle(contender.peer.port, kind.sessions):
                sock.close()
            time.sleep(SETTLE_S)
            before = accounting.pss_bytes()
            sockets = open_idle(contender.peer.port, idle.sessions)
            time.sleep(SETTLE_S)
            after = accounting.pss_bytes()
            for sock in sockets:
                sock.close()
        except PeerError as error:
            drop({}, results, name, kind.name, error)
        else:
            results[kind.name] = {"pss_bytes": after, "more_bytes": after - before, "note": kind.idle_note}
            tell(f"{name} {kind.name}: {(after - before) / 1e6:.1f} MB more, {after / 1e6:.1f} MB in all")
        finally:
            contender.stop()
    return results


def choose_peers(names: list[str] | None, cache: Path) -> tuple[list[type[Peer]], dict[str, str]]:
    """The servers that can run here, and why the others cannot."""
    kinds, missing = [], {}
    for name in names or [name for name in PEERS if name not in VARIANTS]:
        try:
            reason = PEERS[name].prepare(cache)
        except (OSError, PeerError) as error:
            reason = str(error)
        if reason is None:
            kinds.append(PEERS[name])
        else:
            missing[name] = reason
            tell(f"{name} is not measured: {reason}")
    return kinds, missing


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure Gatepost and other mail servers as relay gateways.")
    parser.add_argument("--quick", action="store_true", help="rounds of one to two seconds: a smoke test")
    parser.add_argument("--only", nargs="+", choices=list(SCENARIOS), metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), metavar="NAME", help=", ".join(PEERS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--directory", type=Path, help="where all servers queue; default below bench/.cache")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Measure and print; 1 if a server failed in a scenario, 2 if the bench cannot run."""
    options = parse_arguments(arguments)
    for program in ("smtp-source", "smtp-sink"):
        if not shutil.which(program):
            tell(f"{program} is missing: install the package postfix")
            return 2
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    cache = BENCH / ".cache"
    cache.mkdir(exist_ok=True)
    kinds, missing = choose_peers(options.peers, cache)
    round_s = QUICK_ROUND_S if options.quick else ROUND_S
    results: dict[str, dict[str, dict[str, object]]] = {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped then, too
    directory = Path(tempfile.mkdtemp(prefix="run-", dir=options.directory or cache))
    directory.chmod(0o755)
    try:
        for name, scenario in SCENARIOS.items():
            if options.only and name not in options.only:
                continue
            if isinstance(scenario, Load):
                results[name] = measure_load(name, scenario, kinds, directory, round_s)
            else:
                results[name] = measure_idle(name, scenario, kinds, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    document = {
        "machine": measure.read_machine(),
        "quick": options.quick,
        "sessions": {kind.name: kind.sessions for kind in kinds},
        "versions": {kind.name: kind.version() for kind in kinds},
        "missing": missing,
        "results": results,
    }
    print(build_tables(document))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if any("failed" in one for scenario in results.values() for one in scenario.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
