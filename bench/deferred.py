"""Measures Gatepost with a large queue for a dead next hop: what live mail and a restart pay for it.

    bench/deferred.py [--messages 100000] [--json FILE]

Two domains: one whose next hop is the sink, one whose next hop is a closed port. First the throughput of live mail with an
empty queue, then with the queue full of mail for the dead one; then a restart after SIGTERM and one after SIGKILL, each until
the ready line and until the sink has a live message. Everything is as shipped except `defer_after_s`, which is short so
that the mail is in the deferred store, where it would be after minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import measure
from measure import Sink
from peers.gatepost import PROGRAM, Gatepost
from peers.peer import DOMAIN, RECIPIENT, PeerError, take_port
from relay import tell

BENCH = Path(__file__).resolve().parent
DEAD_DOMAIN = "dead.test"
SIZE_BYTES = 4096
SESSIONS = 40
ROUNDS = 3
ROUND_MESSAGES = 15_000
DEFER_AFTER_S = 5
QUIET_SHARE = 0.05  # of a CPU; below it the gateway has finished what it does behind a load
CONFIG = """\
hostname = "gatepost.{domain}"
listen = ["127.0.0.1:{port}"]
spool = "{spool}"

[domains."{domain}"]
next_hop = ["smtp://127.0.0.1:{sink_port}"]

[domains."{dead}"]
next_hop = ["smtp://127.0.0.1:{dead_port}"]

[queue]
defer_after_s = {defer_after_s}
"""


class GatepostWithDeadHop(Gatepost):
    """Keeps its spool over a restart."""

    def configure(self) -> list[str]:
        config = self.directory / "gatepost.toml"
        text = CONFIG.format(
            domain=DOMAIN,
            port=self.port,
            spool=self.directory / "spool",
            sink_port=self.sink_port,
            dead=DEAD_DOMAIN,
            dead_port=take_port(),
            defer_after_s=DEFER_AFTER_S,
        )
        config.write_text(text)
        config.chmod(0o640)
        return [str(PROGRAM), "run", "--config", str(config)]

    def restart(self, signal_number: int) -> float:
        """End every process, by the first one (SIGTERM) or at once (SIGKILL); seconds from the new start to its greeting."""
        assert self.process is not None and self.accounting is not None
        if signal_number == signal.SIGKILL:
            for pid in self.accounting.pids():
                os.kill(pid, signal.SIGKILL)
        self.end_processes(self.process, self.accounting)
        self.accounting.close()
        start = time.monotonic()
        self.start(timeout_s=300)
        return time.monotonic() - start


def wait_until_quiet(gatepost: Gatepost, timeout_s: float = 600.0) -> float:
    """Wait until the gateway uses next to no CPU time; the seconds waited."""
    assert gatepost.accounting is not None
    start = time.monotonic()
    while time.monotonic() < start + timeout_s:
        before = gatepost.accounting.cpu_s()
        time.sleep(2)
        if gatepost.accounting.cpu_s() - before < 2 * QUIET_SHARE:
            return time.monotonic() - start
    raise PeerError(f"the gateway is not quiet after {timeout_s:.0f} s")


def measure_live(gatepost: Gatepost, sink: Sink, messages: int) -> float:
    """Messages/s for the live next hop, the median of some rounds."""
    rates = []
    for _ in range(ROUNDS):
        seconds = measure.send_load(
            sink, gatepost.port, RECIPIENT, messages, SIZE_BYTES, SESSIONS, keep=False, timeout_s=300
        )
        rates.append(messages / seconds)
        tell(f"live: {rates[-1]:.0f}/s")
    return statistics.median(rates)


def fill_queue(gatepost: Gatepost, messages: int) -> float:
    """Queue mail for the dead next hop; messages/s accepted."""
    start = time.monotonic()
    with measure.open_source(
        gatepost.port, f"bench@{DEAD_DOMAIN}", messages, SIZE_BYTES, SESSIONS, keep=False
    ) as source:
        if source.wait(1800) != 0:
            raise PeerError(f"smtp-source ended with {source.returncode}: {source.communicate()[1].strip()[-300:]}")
    return messages / (time.monotonic() - start)


def measure_restart(gatepost: GatepostWithDeadHop, sink: Sink, signal_number: int) -> dict[str, float]:
    """Seconds until it greets and until a live message is through."""
    greeting_s = gatepost.restart(signal_number)
    delivery_s = measure.send_load(sink, gatepost.port, RECIPIENT, 1, SIZE_BYTES, 1, keep=False, timeout_s=300)
    tell(f"restart after {signal.Signals(signal_number).name}: greets after {greeting_s:.2f} s")
    return {"greeting_s": greeting_s, "first_delivery_s": greeting_s + delivery_s}


def measure_all(gatepost: GatepostWithDeadHop, sink: Sink, messages: int, live: int) -> dict[str, object]:
    """The whole scenario on a running gateway."""
    measure_live(gatepost, sink, max(200, live // 10))
    empty = measure_live(gatepost, sink, live)
    assert gatepost.accounting is not None
    empty_pss = gatepost.accounting.pss_bytes()
    accepted = fill_queue(gatepost, messages)
    tell(f"{messages} messages for the dead next hop accepted, {accepted:.0f}/s")
    settled_s = wait_until_quiet(gatepost)
    full_pss = gatepost.accounting.pss_bytes()
    full = measure_live(gatepost, sink, live)
    wait_until_quiet(gatepost)
    return {
        "deferred": messages,
        "accepted_rate": accepted,
        "settled_s": settled_s,
        "live_rate_empty": empty,
        "live_rate_full": full,
        "full_to_empty": full / empty,
        "pss_bytes_empty": empty_pss,
        "pss_bytes_full": full_pss,
        "restart_sigterm": measure_restart(gatepost, sink, signal.SIGTERM),
        "restart_sigkill": measure_restart(gatepost, sink, signal.SIGKILL),
    }


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure Gatepost with a large queue for a dead next hop.")
    parser.add_argument("--messages", type=int, default=100_000, help="for the dead next hop")
    parser.add_argument("--live", type=int, default=ROUND_MESSAGES, help="for the live one, in a round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args(arguments)
    reason = None if shutil.which("smtp-source") else "smtp-source is missing: install the package postfix"
    cache = BENCH / ".cache"
    cache.mkdir(exist_ok=True)
    reason = reason or GatepostWithDeadHop.prepare(cache)
    if reason is not None:
        tell(reason)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = Path(tempfile.mkdtemp(prefix="deferred-", dir=cache))
    directory.chmod(0o755)
    sink = Sink()
    gatepost = GatepostWithDeadHop(directory / "gatepost", sink.port)
    try:
        gatepost.start()
        figures = measure_all(gatepost, sink, options.messages, options.live)
    except PeerError as error:
        tell(f"failed: {error}")
        return 1
    finally:
        gatepost.stop()
        sink.stop()
        shutil.rmtree(directory, ignore_errors=True)
    document = {"machine": measure.read_machine(), "version": Gatepost.version(), "results": figures}
    print(json.dumps(document, indent=1))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
