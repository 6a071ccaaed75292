"""What happens when a role is killed, the supervisor is killed, the gateway is stopped, or started twice or without root."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import pytest
from integration.gateway import Gateway, is_root
from integration.load import Load
from integration.nexthop import NextHop
from integration.nobody import NOBODY, as_nobody, find_python
from integration.peers.process import WAIT_S, Family
from integration.talk import Talk, message, send
from peers import wait_until

from gatepost.privsep.restart import WINDOW_S, Restarts

ROLES = ("receiver", "queue", "deliverer", "resolver", "control", "maildir")


def start(directory: Path, hop: NextHop, **options: str) -> Gateway:
    gateway = Gateway(directory, next_hop=hop.name, **options)
    gateway.boxes = gateway.directory / "boxes"
    gateway.extra += f'[domains."box.test"]\nnext_hop = "maildir:{gateway.boxes}/{{local}}"\n'
    return gateway


@pytest.fixture(scope="module")
def hop():
    with NextHop() as hop:
        yield hop


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, hop):
    with start(tmp_path_factory.mktemp("gate"), hop) as gateway:
        yield gateway


@pytest.fixture
def own_gateway(tmp_path, hop):
    """One that the test may break."""
    with start(tmp_path, hop) as gateway:
        yield gateway


def kill(gateway: Gateway, role: str) -> None:
    """Kill a role, wait until it is back."""
    pid = gateway.roles()[role]
    os.kill(pid, signal.SIGKILL)
    died = gateway.wait_for_event("role_died", pid=pid)
    assert died["why"] == "killed by SIGKILL"

    def back() -> dict | None:
        return next(
            (row for row in gateway.events("role_ready") if row["name"] == role and row["time"] > died["time"]), None
        )

    wait_until(back, f"{role} is back")


def seconds_between(earlier: dict, later: dict) -> float:
    return (datetime.fromisoformat(later["time"]) - datetime.fromisoformat(earlier["time"])).total_seconds()


@pytest.mark.parametrize("role", ROLES)
def test_a_role_that_is_killed_is_back_and_nothing_is_lost(gateway, hop, role):
    before = gateway.roles()
    with Load(gateway) as load:
        wait_until(lambda: len(load.acknowledged) > 5, "some messages")
        kill(gateway, role)
        count = len(load.acknowledged)
        wait_until(lambda: len(load.acknowledged) > count + 5, "more messages")
    load.wait_until_all_arrived(hop)
    after = gateway.roles()
    assert {name for name in before if before[name] != after[name]} == {role}


@pytest.mark.parametrize("role", ["queue", "deliverer", "resolver", "control"])
def test_a_session_survives_the_death_of(gateway, hop, role):
    with Talk(gateway.port) as idle, Talk(gateway.port) as talk:
        idle.hello()
        talk.hello()
        talk.envelope([f"through-{role}@example.test"])
        talk.say(b"DATA\r\n", b"354")
        talk.sock.sendall(message("in the middle")[:40])
        kill(gateway, role)
        talk.say(message("in the middle")[40:] + b".\r\n", b"250 2.0.0 Queued")
        idle.send(f"after-{role}@example.test", message("after"))
    hop.wait_to(f"through-{role}@example.test")
    hop.wait_to(f"after-{role}@example.test")


def test_the_operator_is_answered_while_the_queue_is_away(gateway):
    """Control waits for it; whoever is started as ready can be asked."""
    pid = gateway.roles()["queue"]
    os.kill(pid, signal.SIGKILL)
    assert gateway.ledger()["accepted"] >= 0
    wait_until(lambda: gateway.roles()["queue"] != pid, "the queue is back")


def test_a_large_message_in_the_middle_of_the_queues_death_is_deferred(gateway, hop):
    """Its body file was opened by the queue that died: nothing of it was acknowledged, the client sends it again."""
    content = message("large", b"0123456789" * 7 + b"\r\n") + b"0123456789\r\n" * 100_000
    with Talk(gateway.port) as talk:
        talk.hello()
        talk.envelope(["large@example.test"])
        talk.say(b"DATA\r\n", b"354")
        talk.sock.sendall(content[:600_000])
        wait_until(lambda: largest_body(gateway) > 500_000, "it lies in a body file")
        kill(gateway, "queue")
        gateway.stats()  # the receiver has noticed before it answers
        talk.say(content[600_000:] + b".\r\n", b"451 4.3.0")
        talk.send("large@example.test", content)
    assert hop.wait_to("large@example.test").content.endswith(content)


def largest_body(gateway: Gateway) -> int:
    """Octets in the largest body file."""
    return max((path.stat().st_size for path in (gateway.spool / "bodies").iterdir()), default=0)


def test_a_message_for_a_maildir_outlives_the_role_that_writes_it(gateway):
    with Load(gateway, domain="box.test") as load:
        wait_until(lambda: len(load.acknowledged) > 5, "some messages")
        kill(gateway, "maildir")
        count = len(load.acknowledged)
        wait_until(lambda: len(load.acknowledged) > count + 5, "more messages")
    for recipient in load.acknowledged:
        new = gateway.boxes / recipient.partition("@")[0] / "new"
        wait_until(lambda new=new: new.is_dir() and list(new.iterdir()), f"{recipient} has its message")


def test_the_ledger_balances_after_all_that(gateway):
    wait_until(lambda: gateway.ledger()["queued"] == 0, "an empty queue")
    assert not gateway.events("bug") and not gateway.events("internal_error")


def test_a_role_that_keeps_dying_is_started_more_and_more_slowly(own_gateway):
    for _ in range(8):
        kill(own_gateway, "resolver")
    died = [row for row in own_gateway.events("role_died") if row["name"] == "resolver"]
    started = [row for row in own_gateway.events("role_started") if row["name"] == "resolver"][1:]
    restarts = Restarts()
    for end, begin in zip(died, started, strict=True):
        wanted_s = restarts.delay_s("resolver", datetime.fromisoformat(end["time"]).timestamp())
        assert seconds_between(end, begin) >= wanted_s - 0.01  # events have milliseconds
    assert wanted_s >= 0.4 or seconds_between(died[0], died[-1]) > WINDOW_S


def test_roles_end_when_the_supervisor_is_killed(own_gateway):
    family = Family(own_gateway.process.pid)
    assert len(family.list_living()) == 1 + len(ROLES)
    with Talk(own_gateway.port) as talk:
        talk.hello()
        own_gateway.kill()
        assert talk.is_closed()
    own_gateway.start()  # what it left behind is in nobody's way
    send(own_gateway.port, "after-the-kill@example.test")


def test_sigterm_finishes_the_message_under_way_and_ends_idle_sessions(own_gateway, hop):
    with Talk(own_gateway.port) as idle, Talk(own_gateway.port) as talk:
        idle.hello()
        talk.hello()
        talk.envelope(["last@example.test"])
        talk.say(b"DATA\r\n", b"354")
        talk.sock.sendall(message("last")[:30])
        own_gateway.process.send_signal(signal.SIGTERM)
        idle.expect(b"421 4.3.2")
        assert idle.is_closed()
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", own_gateway.port), timeout=60)
        talk.say(message("last")[30:] + b".\r\n", b"250 2.0.0 Queued")
        talk.expect(b"421 4.3.2")
        assert talk.is_closed()
    assert own_gateway.process.wait(WAIT_S) == 0
    own_gateway.start()
    hop.wait_to("last@example.test")
    assert own_gateway.ledger()["accepted"] == 1
    assert not own_gateway.events("role_died")


def test_a_second_signal_ends_at_once_and_loses_nothing(own_gateway, hop):
    hop.held = True
    try:
        send(own_gateway.port, "held@example.test")
        own_gateway.process.send_signal(signal.SIGTERM)
        own_gateway.wait_for_event("stopping")
        own_gateway.process.send_signal(signal.SIGTERM)
        own_gateway.process.wait(WAIT_S)
    finally:
        hop.release()
    own_gateway.start()
    hop.wait_to("held@example.test")
    wait_until(lambda: own_gateway.ledger()["delivered"] == 1, "it is delivered")


@pytest.mark.parametrize("socket_line", ["", 'control_socket = "{directory}/other.sock"'], ids=["same", "other"])
def test_a_second_gateway_on_the_same_spool_refuses(gateway, hop, tmp_path, socket_line):
    other = start(tmp_path, hop, top=socket_line.format(directory=gateway.directory))
    other.spool = gateway.spool
    done = subprocess.run(other.configure(), capture_output=True, text=True, timeout=60, check=False)
    other.stop()
    assert done.returncode == 2
    assert ("another gateway answers" if not socket_line else "in use by another queue") in done.stderr
    assert "ready" not in done.stdout
    send(gateway.port, "still-there@example.test")


# --- rights ------------------------------------------------------------------------------------------------------------


def test_privs_says_as_declared(gateway):
    # Roles were killed before; one that is not locked in yet has tried nothing, and one that is gone has no records.
    wait_until(lambda: all(row["state"] == "ready" for row in gateway.processes()), "all are ready")
    done = gateway.run("privs")
    assert done.stdout.endswith("as declared\n"), done.stdout
    for report in gateway.ask("privs")["processes"]:
        assert not report["differences"]
        if report["role"] != "supervisor":
            assert report["tried"] == report["refused"] > 10
            assert report["kernel"]["seccomp"] == "filter" and report["kernel"]["no_new_privs"]
            assert not is_root() or (report["kernel"]["uids"][1] != 0 and report["kernel"]["root"] != "/")


@pytest.fixture
def nobodys_gateway(hop, tmp_path_factory):
    """A gateway that another user than root starts, below a directory of that user."""
    directory = Path(tempfile.mkdtemp(prefix="gatepost-nobody-"))
    directory.chmod(0o755)
    python = find_python(directory)
    os.chown(directory, NOBODY, NOBODY)
    gateway = NobodysGateway(directory, next_hop=hop.name)
    gateway.python = python
    gateway.boxes = directory / "boxes"
    gateway.extra = f'[domains."box.test"]\nnext_hop = "maildir:{gateway.boxes}/{{local}}"\n'
    try:
        with gateway:
            yield gateway
    finally:
        shutil.rmtree(directory)


class NobodysGateway(Gateway):
    """As its user would type it."""

    python = ""

    def configure(self) -> list[str]:
        super().configure()
        os.chown(self.config, NOBODY, NOBODY)
        return as_nobody(self.python, "-I", "-m", "gatepost", "run", "--config", str(self.config))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = as_nobody(self.python, "-I", "-m", "gatepost", *arguments, "--config", str(self.config))
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_without_root_everything_works_and_privs_says_so(nobodys_gateway, hop):
    gateway = nobodys_gateway
    send(gateway.port, ["nobody@example.test", "nobody@box.test"])
    hop.wait_to("nobody@example.test")
    wait_until(lambda: list((gateway.boxes / "nobody").glob("new/*")), "the message in the Maildir")
    done = gateway.run("privs")
    assert done.stdout.endswith("as declared\n"), done.stdout + done.stderr
    for report in gateway.ask("privs")["processes"]:
        assert report["kernel"]["uids"] == [NOBODY] * 4
        if report["role"] != "supervisor":
            assert os.readlink(f"/proc/{report['pid']}/root") == "/" and report["kernel"]["seccomp"] == "filter"
            assert "no chroot" in report["says"], report["says"]
    kill(gateway, "queue")
    assert gateway.run("reload").returncode == 0
    send(gateway.port, "nobody2@example.test")
    hop.wait_to("nobody2@example.test")


def test_an_interpreter_that_cannot_be_executed_ends_the_start(tmp_path, hop):
    gateway = start(tmp_path, hop)
    gateway.write_config()
    code = (
        "import sys; sys.executable = '/nonexistent/python'; sys.argv = ['gatepost', 'run', '--config', sys.argv[1]]; "
        "from gatepost.cli import main; main()"
    )
    command = [sys.executable, "-I", "-c", code, str(gateway.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    gateway.stop()
    assert done.returncode == 2
    assert "not started" in done.stderr and "/nonexistent/python" in done.stderr
