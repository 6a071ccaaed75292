"""Which configurations count when the queue looks at a next hop: of generations, reloads, and a queue that was started again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from spool.spool_bed import Writer, make_spool

from gatepost.config.encoded import encode_config
from gatepost.config.schema import Config, Domain, Relay
from gatepost.ipc import messages as m
from gatepost.model import Envelope, Recipient
from gatepost.roles.nexthops import NextHops

OLD = Config(
    hostname="gate.test",
    listen=["127.0.0.1:25"],
    spool="/s",
    domains={"example.test": Domain(next_hop=["smtp://192.0.2.9:25"])},  # where the mail of the spool's tests goes
    relay=Relay(networks=[]),
)
NEW = msgspec.structs.replace(OLD, domains={"example.test": Domain(next_hop=["smtp://192.0.2.10:25"])})
THIRD = msgspec.structs.replace(OLD, domains={"example.test": Domain(next_hop=["smtp://192.0.2.11:25"])})


def envelope(*hosts: str) -> Envelope:
    to = [Recipient("a@example.test", "example.test", f"smtp://192.0.2.{host}:25") for host in hosts]
    return Envelope("m1", "s", "", to, 0.0, "192.0.2.1", "h", "x")


def queue_of(spool: Any) -> Any:
    entered: list[str] = []
    events: list[tuple[str, str]] = []
    return SimpleNamespace(
        spool=spool,
        entered=entered,
        events=events,
        event=lambda name, **fields: events.append((name, fields["id"])),
        enter=lambda entry: entered.append(entry.id),
    )


@pytest.fixture
def hops() -> NextHops:
    made = NextHops(queue_of(SimpleNamespace(entries={}, segments={})), 1, OLD)
    made.joined(("receiver", 0, 1))
    made.joined(("receiver", 1, 1))
    return made


def test_an_older_generation_counts_while_it_has_receivers(hops: NextHops) -> None:
    assert hops.permits(envelope("9")) and not hops.permits(envelope("10"))
    hops.begin(2, NEW)
    hops.joined(("receiver", 0, 2))
    hops.joined(("receiver", 1, 2))
    assert all(hops.permits(envelope(host)) for host in ("9", "10"))
    assert hops.permits(envelope("9", "10")) and not hops.permits(envelope("10", "11"))
    hops.gone(0, 1)
    hops.gone(0, 2)  # it is started again
    assert hops.permits(envelope("9"))
    hops.gone(1, 1)
    assert not hops.permits(envelope("9")) and hops.permits(envelope("10"))


def test_several_older_ones_count_and_one_without_receivers_does_not(hops: NextHops) -> None:
    hops.begin(2, NEW)  # none of its receivers is linked when the next comes
    hops.begin(3, THIRD)
    assert hops.permits(envelope("9")) and not hops.permits(envelope("10")) and hops.permits(envelope("11"))


def test_a_queue_that_was_started_again_waits_for_older_generations(tmp_path: Path) -> None:
    spool = make_spool(tmp_path / "spool")
    spool.recover()
    Writer(spool).append("a1", "b1")
    Writer(spool, "receiver/0/1/77").take("c1")
    spool.commit()
    spool.abandon()
    spool = make_spool(tmp_path / "spool")
    queue = queue_of(spool)
    hops = NextHops(queue, 2, NEW)
    spool.recover()
    assert {entry.id: entry.refused for entry in spool.entries.values()} == {"a1": True, "b1": True, "c1": False}
    hops.tell(spool.entries["a1"])
    assert queue.events == []  # not certain yet
    hops.add_older(m.OldGeneration(1, encode_config(OLD, "queue")))
    assert sorted(queue.entered) == ["a1", "b1"]
    assert not any(entry.held or entry.refused for entry in spool.entries.values())
    hops.joined(("receiver", 0, 1))
    assert queue.events == []
    spool.close()


def test_what_no_generation_explains_is_told_when_all_are_known(tmp_path: Path) -> None:
    spool = make_spool(tmp_path / "spool")
    spool.recover()
    Writer(spool).append("a1")
    spool.abandon()
    spool = make_spool(tmp_path / "spool")
    queue = queue_of(spool)
    hops = NextHops(queue, 2, NEW)
    spool.recover()
    hops.tell(spool.entries["a1"])
    hops.add_older(m.OldGeneration(1, encode_config(THIRD, "queue")))
    hops.joined(("receiver", 0, 2))
    assert queue.events == [("next_hop_refused", "a1")] and queue.entered == []
    hops.add_older(m.OldGeneration(1, encode_config(OLD, "queue")))  # too late: the operator has been told
    assert spool.entries["a1"].refused
    spool.close()
