"""A reload: a new generation takes over with the new configuration, and nothing that was under way notices."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from typing import Self

import pytest
from integration.gateway import COMMAND, Gateway
from integration.load import Load
from integration.nexthop import NextHop
from integration.talk import Talk, message, send
from peers import take_port, wait_until


@pytest.fixture(scope="module")
def hop():
    with NextHop() as hop:
        yield hop


@pytest.fixture(scope="module")
def the_gateway(tmp_path_factory, hop):
    with Gateway(tmp_path_factory.mktemp("gate"), next_hop=hop.name) as gateway:
        yield gateway


@pytest.fixture
def gateway(the_gateway, hop):
    """One gateway for all, which has its first configuration, no old generation and no events when a test begins."""
    the_gateway.recipients, the_gateway.extra = None, ""
    text = the_gateway.config.read_text()
    the_gateway.write_config()
    if the_gateway.config.read_text() != text:
        by_command(the_gateway)
    wait_until(lambda: len(the_gateway.processes()) == 6, "the old generation has ended")
    the_gateway.stats()  # each role has written its events of before
    the_gateway.events_file.write_text("")
    hop.taken.clear()
    yield the_gateway
    the_gateway.assert_no_bugs()


def by_command(gateway: Gateway) -> None:
    done = gateway.run("reload")
    assert (done.returncode, done.stdout) == (0, "reloaded\n"), done.stderr


def by_signal(gateway: Gateway) -> None:
    count = len(gateway.events("reloaded"))
    gateway.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(gateway.events("reloaded")) > count, "the reload")


def newest(gateway: Gateway) -> dict[str, int]:
    """Role -> process id of the newest generation, as the supervisor says."""
    rows = sorted(gateway.processes(), key=lambda row: row["generation"])
    return {row["role"]: row["pid"] for row in rows}


class Hammer:
    """Connects again and again, and counts the connections that were refused or not greeted with 220."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.greeted = 0
        self.refused: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with Talk(self.port) as talk:
                    if talk.greeting.startswith(b"220"):
                        self.greeted += 1
                    else:
                        self.refused.append(repr(talk.greeting))
            except OSError as error:
                self.refused.append(repr(error))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)


@pytest.mark.parametrize("reload", [by_command, by_signal])
def test_the_new_configuration_holds_and_old_sessions_go_on(gateway, hop, reload):
    before = newest(gateway)
    with Talk(gateway.port) as old:
        old.hello()
        old.envelope(["old@example.test"])
        old.say(b"DATA\r\n", b"354")
        old.sock.sendall(message("old")[:20])
        gateway.recipients = ["new"]
        gateway.extra += "[smtp]\nmax_message_bytes = 12345\n"
        gateway.write_config()
        reload(gateway)
        with Talk(gateway.port) as new:
            assert b"250-SIZE 12345\r\n" in new.hello()
            new.say(b"MAIL FROM:<a@b.example>\r\n", b"250")
            new.say(b"RCPT TO:<old@example.test>\r\n", b"550 5.1.1")
            new.say(b"RCPT TO:<new@example.test>\r\n", b"250")
            new.data(message("new"))
        old.say(message("old")[20:] + b".\r\n", b"250 2.0.0 Queued")
        old.send("another@example.test", message("by the old generation"))
    for user in ("old", "new", "another"):
        hop.wait_to(f"{user}@example.test")
    after = newest(gateway)
    assert after["queue"] == before["queue"]
    assert sorted(role for role in before if before[role] == after[role]) == ["queue", "supervisor"]
    for role, pid in before.items():
        if role not in ("queue", "supervisor"):
            gateway.wait_for_event("role_ended", pid=pid)
    assert len(gateway.told("accepted")) == 3


def test_it_is_answered_when_nobody_accepts_with_the_old_configuration_any_more(gateway):
    """An old receiver that is slow could still take a connection of somebody who has heard that the reload is done."""
    receiver = newest(gateway)["receiver"]
    gateway.extra += "[smtp]\nmax_message_bytes = 12345\n"
    gateway.write_config()
    os.kill(receiver, signal.SIGSTOP)
    try:
        with subprocess.Popen([*COMMAND, "reload", "--config", str(gateway.config)]) as command:
            draining = ("receiver", "draining")
            wait_until(lambda: draining in [(r["role"], r["state"]) for r in gateway.processes()], "the take-over")
            assert not gateway.events("reloaded") and command.poll() is None
            os.kill(receiver, signal.SIGCONT)
            assert command.wait(60) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(receiver, signal.SIGCONT)
    with Talk(gateway.port) as talk:
        assert b"250-SIZE 12345\r\n" in talk.hello()


def test_no_connection_is_refused_and_no_message_lost(gateway, hop):
    with Hammer(gateway.port) as hammer, Load(gateway) as load:
        for number in range(3):
            by_command(gateway)
            count = hammer.greeted
            wait_until(lambda count=count: hammer.greeted > count + 10, f"connections after reload {number}")
    assert hammer.refused == []
    load.wait_until_all_arrived(hop)
    assert load.failures == []


def test_a_bad_configuration_changes_nothing_and_all_its_errors_are_told(gateway, hop):
    good = gateway.config.read_text()
    before = newest(gateway)
    gateway.config.write_text(good.replace('hostname = "gate', 'hostnam = "gate') + "[smtp]\nmax_errors = -1\n")
    done = gateway.run("reload")
    assert done.returncode == 2
    for text in ("everything goes on as before", "hostnam", "max_errors"):
        assert text in done.stderr
    gateway.process.send_signal(signal.SIGHUP)
    refused = str(gateway.wait_for_event("reload_refused")["errors"])
    assert "hostnam" in refused and "max_errors" in refused
    gateway.config.write_text(good)
    assert newest(gateway) == before
    send(gateway.port, "still@example.test")
    hop.wait_to("still@example.test")


def test_what_hangs_on_the_spool_cannot_be_changed(gateway):
    gateway.config.write_text(
        gateway.config.read_text().replace(f'spool = "{gateway.spool}', f'spool = "{gateway.spool}2')
    )
    done = gateway.run("reload")
    assert done.returncode == 1
    gateway.write_config()
    by_signal(gateway)


def test_a_listen_address_is_added_and_removed(gateway):
    port, other = gateway.port, take_port()
    listen = f'listen = ["127.0.0.1:{port}"]'
    text = gateway.config.read_text()
    gateway.config.write_text(text.replace(listen, f'listen = ["127.0.0.1:{port}", "127.0.0.1:{other}"]'))
    by_command(gateway)
    with Talk(port) as talk:
        assert talk.greeting.startswith(b"220")
    with Talk(other) as talk:
        assert talk.greeting.startswith(b"220")
        gateway.config.write_text(text.replace(listen, f'listen = ["127.0.0.1:{other}"]'))
        by_command(gateway)
        talk.hello()  # a session of the old generation goes on

        def is_refused() -> bool:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=60).close()
            except ConnectionRefusedError:
                return True
            return False

        wait_until(is_refused, "the removed address is closed")
    send(other, "user@example.test")


def test_an_address_in_use_changes_nothing(gateway, hop):
    before = newest(gateway)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        text = gateway.config.read_text()
        gateway.config.write_text(text.replace("listen = [", f'listen = ["{address}", '))
        done = gateway.run("reload")
        gateway.config.write_text(text)
    assert done.returncode == 1 and address in done.stderr
    assert newest(gateway) == before
    send(gateway.port, "user@example.test")


def test_a_domain_with_a_maildir_is_added(gateway, hop):
    with Talk(gateway.port) as talk:
        talk.hello()
        talk.say(b"MAIL FROM:<a@b.example>\r\n", b"250")
        talk.say(b"RCPT TO:<user@box.test>\r\n", b"550 5.7.1")
    boxes = gateway.directory / "boxes"
    gateway.extra += f'[domains."box.test"]\nnext_hop = "maildir:{boxes}/{{local}}"\n'
    gateway.write_config()
    by_command(gateway)
    send(gateway.port, ["user@box.test", "user@example.test"])
    wait_until(lambda: list((boxes / "user").glob("new/*")), "the message in the new Maildir")
    hop.wait_to("user@example.test")


@pytest.mark.parametrize("reload", [by_command, by_signal])
def test_the_event_file_is_reopened_as_logrotate_wants_it(gateway, hop, reload):
    send(gateway.port, "before@example.test")
    hop.wait_to("before@example.test")
    gateway.wait_for_event("delivered", recipient="before@example.test")
    rotated = gateway.events_file.rename(gateway.events_file.with_suffix(".1"))
    reload(gateway)
    send(gateway.port, "after@example.test")
    hop.wait_to("after@example.test")
    gateway.wait_for_event("accepted", recipient="after@example.test")
    gateway.wait_for_event("delivered", recipient="after@example.test")
    assert b"after@example.test" not in rotated.read_bytes()
    names = {row["name"] for row in gateway.events("role_started")}
    assert names == {"resolver", "control", "deliverer", "receiver"}
    assert len(gateway.events("reloaded")) == 1


def started(gateway: Gateway, role: str) -> int | None:
    return next((row["pid"] for row in gateway.events("role_started") if row["name"] == role), None)


def reload_and_kill_the_new_receiver(gateway: Gateway) -> bool:
    """Whether the kill came before the new generation had taken over: this process may be kept waiting for its turn."""
    gateway.process.send_signal(signal.SIGHUP)
    pid = wait_until(lambda: started(gateway, "receiver"), "the new receiver")
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: gateway.events("reload_refused") or gateway.events("reloaded"), "the end of the reload")
    if gateway.events("reload_refused"):
        return True
    wait_until(lambda: len(gateway.processes()) == 6, "the old generation has ended")
    wait_until(lambda: pid not in [row["pid"] for row in gateway.processes()], "the supervisor knows of the death")
    wait_until(lambda: [row["state"] for row in gateway.processes()] == ["ready"] * 6, "all are ready")
    gateway.events_file.write_text("")
    return False


def test_a_new_generation_that_does_not_start_is_given_up(gateway, hop):
    before = newest(gateway)
    while not reload_and_kill_the_new_receiver(gateway):
        before = newest(gateway)
    refused = gateway.wait_for_event("reload_refused")
    assert "receiver/0 of the new generation did not start: killed by SIGKILL" in str(refused["errors"])
    send(gateway.port, "user@example.test")
    hop.wait_to("user@example.test")
    for role, process in before.items():
        assert os.path.exists(f"/proc/{process}"), role
    by_command(gateway)
    gateway.events_file.write_text("")  # the death was ours


def test_the_queue_that_dies_after_a_reload_comes_back_to_both_generations(gateway, hop):
    with Talk(gateway.port) as old:
        old.hello()
        by_command(gateway)
        pid = newest(gateway)["queue"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: [r for r in gateway.events("role_ready") if r["name"] == "queue"], "the new queue")
        old.send("old@example.test", message("old"))
        send(gateway.port, "new@example.test")
        hop.wait_to("old@example.test")
        hop.wait_to("new@example.test")
        with Load(gateway) as load:
            wait_until(lambda: len(load.acknowledged) > 5, "messages")
        load.wait_until_all_arrived(hop)
    gateway.events_file.write_text("")  # the death was ours
