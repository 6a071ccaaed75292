"""A receiver that was broken into lies to the queue: about where mail goes, told or only written, and about what the content is.

The code comes from the test, as in test_gateway_broken_into.py. It uses what its role holds: the segment, the link to the queue.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.gateway import Gateway
from integration.load import Load
from integration.nexthop import NextHop
from integration.peers.process import wait_until
from integration.talk import Talk, message, send
from integration.test_gateway_broken_into import BrokenGateway, make_interpreter

# SIGRTMIN+1: mail for next hops of the attacker's choice, told to the queue; 2: the same only written, and an end; 3: content that ends early;
# 4: its segment is emptied.
LIAR = """
import os, signal, sys

if "gatepost.roles" in sys.orig_argv and sys.orig_argv[-2] == "receiver":
    CONTENT = b"Subject: a lie\\r\\n\\r\\ntext\\r\\n"

    def role_of(frame):
        while not hasattr(frame.f_locals.get("role"), "supervisor"):
            frame = frame.f_back
        return frame.f_locals["role"]

    def put(role, name, address, next_hop, content=CONTENT, then=lambda: None, **more):
        model, segment = sys.modules["gatepost.model"], sys.modules["gatepost.spool.segment"]
        commit = sys.modules["gatepost.roles.groupcommit"]
        domain = address.rpartition("@")[2]
        envelope = model.Envelope(
            name, "liar", "evil@outside.test", [model.Recipient(address, domain, next_hop)], role.now_s(), "192.0.2.66",
            "liar", "network 0.0.0.0/0", **more,
        )
        record = segment.build_record(envelope, b"", [content], len(content))
        done = lambda reply: (os.write(2, f"LIED {name} {reply}\\n".encode()), then())
        role._commit.add(commit.Pending(record, envelope, len(content), done))
        return record

    def lie(_, frame):
        role = role_of(frame)
        put(role, "Lie1", "a@example.test", "smtp://127.0.0.1:TRAP")
        put(role, "Lie2", "a@far.test", "mx:[127.0.0.1]")
        put(role, "Lie3", "a@example.test", "maildir:BOXES/boss")
        put(role, "Lie4", "a@far.test", "smtp://127.0.0.1:HOP", hold="quarantined by the access table")
        put(role, "True1", "a@example.test", "smtp://127.0.0.1:HOP")

    def write_and_end(_, frame):
        role = role_of(frame)
        writer = role._commit._writer
        role._commit._accepted = lambda message: None  # the queue hears nothing
        put(role, "Silent1", "b@example.test", "smtp://127.0.0.1:TRAP")
        put(role, "Silent2", "b@example.test", "smtp://127.0.0.1:HOP", then=lambda: os._exit(0))  # it is written then

    def smuggle(_, frame):
        role = role_of(frame)
        inside = b"MAIL FROM:<smuggler@outside.test>\\r\\nRCPT TO:<smuggled@example.test>\\r\\nDATA\\r\\nstolen\\r\\n"
        for number, end in enumerate((b"\\r\\n.\\r\\n", b"\\n.\\n", b"\\n.\\r\\n", b"\\r\\n.\\n")):
            put(role, f"Smuggle{number}", "a@example.test", "smtp://127.0.0.1:HOP", CONTENT + b"x" + end + inside)

    def take_back(_, frame):
        os.ftruncate(role_of(frame)._commit._writer.fd, 0)

    signal.signal(signal.SIGRTMIN + 4, take_back)
    signal.signal(signal.SIGRTMIN + 1, lie)
    signal.signal(signal.SIGRTMIN + 2, write_and_end)
    signal.signal(signal.SIGRTMIN + 3, smuggle)
"""


@pytest.fixture(scope="module")
def hop() -> Iterator[NextHop]:
    with NextHop() as hop:
        yield hop


@pytest.fixture(scope="module")
def trap() -> Iterator[NextHop]:
    with NextHop() as trap:
        yield trap


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, hop: NextHop, trap: NextHop) -> Iterator[Gateway]:
    gateway = BrokenGateway(tmp_path_factory.mktemp("gate"), next_hop=hop.name)
    boxes = gateway.directory / "boxes"
    module = LIAR.replace("TRAP", trap.name.rpartition(":")[2]).replace("HOP", hop.name.rpartition(":")[2])
    gateway.python = make_interpreter(tmp_path_factory.mktemp("venv") / "venv", module.replace("BOXES", str(boxes)))
    gateway.extra = f'[domains."box.test"]\nnext_hop = "maildir:{boxes}/{{local}}"\n'
    with gateway:
        yield gateway


def held(gateway: Gateway) -> dict[str, str]:
    rows = gateway.ask("queue", "list")["messages"]
    return {row["id"]: row["reason"] for row in rows if row["held"]}


def test_next_hops_of_its_choice_are_held_and_the_rest_goes_on(gateway: Gateway, hop: NextHop, trap: NextHop) -> None:
    os.kill(gateway.roles()["receiver"], signal.SIGRTMIN + 1)
    for name in ("Lie1", "Lie2", "Lie3", "Lie4"):
        told = gateway.wait_for_event("next_hop_refused", id=name)
        assert told["receiver"].startswith("receiver/0/1/") and told["address"] == "192.0.2.66"
    assert gateway.wait_for_event("delivered", id="True1")["next_hop"] == hop.name
    reasons = held(gateway)
    assert set(reasons) == {"Lie1", "Lie2", "Lie3", "Lie4"}
    # not what the attacker says
    assert {reason.partition(" is ")[0] for reason in reasons.values()} == {"its next hop"}
    # Nobody lets them go in passing.
    assert gateway.ask("queue", "release", "--all")["count"] == 0
    assert set(held(gateway)) == set(reasons)
    assert not trap.taken and not os.listdir(gateway.directory / "boxes")
    with Load(gateway) as load:
        wait_until(lambda: len(load.acknowledged) > 5, "some messages")
    load.wait_until_all_arrived(hop)


def test_what_it_only_writes_is_held_as_well_also_over_a_crash_of_the_queue(
    gateway: Gateway, hop: NextHop, trap: NextHop
) -> None:
    receiver = gateway.roles()["receiver"]
    os.kill(receiver, signal.SIGRTMIN + 2)
    gateway.wait_for_event("next_hop_refused", id="Silent1")
    gateway.wait_for_event("delivered", id="Silent2")
    queue = gateway.roles()["queue"]
    os.kill(queue, signal.SIGKILL)
    wait_until(lambda: gateway.roles()["queue"] != queue, "another queue")
    wait_until(lambda: gateway.roles()["receiver"] != receiver, "another receiver")
    wait_until(lambda: sum(row["id"] == "Silent1" for row in gateway.events("next_hop_refused")) == 2, "told again")
    assert "Silent1" in held(gateway)
    assert gateway.ask("queue", "release", "--all")["count"] == 0
    assert not trap.taken


def test_the_operator_decides_about_each(gateway: Gateway, trap: NextHop) -> None:
    assert gateway.ask("queue", "release", "Lie1")["count"] == 1
    trap.wait_to("a@example.test")
    ids = list(held(gateway))
    assert gateway.ask("queue", "remove", *ids)["count"] == len(ids)
    ledger = wait_until(lambda: (now := gateway.ledger())["queued"] == 0 and now, "an empty queue")
    assert ledger["discarded"] == len(ids)


def test_content_cannot_become_commands(gateway: Gateway, hop: NextHop) -> None:
    os.kill(gateway.roles()["receiver"], signal.SIGRTMIN + 3)
    for number in range(4):
        gateway.wait_for_event("delivered", id=f"Smuggle{number}")
    send(gateway.port, "honest@example.test", message("honest"))
    hop.wait_to("honest@example.test")
    assert not [taken for taken in hop.taken if any("smuggled" in recipient for recipient in taken.recipients)]


def test_what_it_acknowledged_it_cannot_take_back(gateway: Gateway, hop: NextHop) -> None:
    hop.close()
    waiting = send(gateway.port, "kept@example.test", message("kept"))
    gateway.wait_for_event("deferred", id=waiting)
    receiver = gateway.roles()["receiver"]
    os.kill(receiver, signal.SIGRTMIN + 4)
    assert "SIGSYS" in gateway.wait_for_event("role_died", pid=receiver)["why"]
    hop.open()
    assert hop.wait_to("kept@example.test").content.endswith(b"text\r\n")
    wait_until(lambda: gateway.ledger()["queued"] == 0, "an empty queue")


def test_old_receivers_commit_with_their_routes_also_to_a_new_queue(
    tmp_path: Path, hop: NextHop, trap: NextHop
) -> None:
    with Gateway(tmp_path, next_hop=hop.name) as gateway:
        with Talk(gateway.port) as first, Talk(gateway.port) as second:
            for talk, name in ((first, "first"), (second, "second")):
                talk.hello()
                talk.envelope([f"{name}@example.test"])
            gateway.next_hop = trap.name
            gateway.write_config()
            assert gateway.run("reload").returncode == 0
            first.data(message("first"))
            hop.wait_to("first@example.test")
            queue = gateway.roles()["queue"]
            os.kill(queue, signal.SIGKILL)
            wait_until(lambda: gateway.roles()["queue"] != queue, "another queue")
            second.data(message("second"))
            hop.wait_to("second@example.test")
            send(gateway.port, "third@example.test", message("third"))
            trap.wait_to("third@example.test")
        assert gateway.told("next_hop_refused") == []
        wait_until(lambda: {row["generation"] for row in gateway.processes()} <= {0, 2}, "the old generation is gone")
        wait_until(lambda: gateway.ledger()["queued"] == 0, "an empty queue")
