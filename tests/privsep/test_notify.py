"""What a service manager is told: by the notifier alone, and by a whole gateway."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import take_port
from servicebed import ManagerSocket, ServiceGateway

from gatepost.events import EventLog
from gatepost.privsep.child import Child
from gatepost.privsep.notify import Notifier
from gatepost.privsep.pulse import WATCHDOG_RETRY_S, Pulse, View


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ManagerSocket]:
    sock = ManagerSocket(str(tmp_path / "notify") if request.param == "path" else f"@gatepost-test-{os.getpid()}")
    yield sock
    sock.close()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[ServiceGateway]:
    directory = tmp_path / "gateway"
    directory.mkdir(mode=0o755)
    gateway = ServiceGateway(directory, [f"127.0.0.1:{take_port()}"])
    yield gateway
    gateway.end()


def test_every_state_is_one_datagram(manager: ManagerSocket) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": manager.address})
    notifier.status("Recovering")
    assert manager.receive() == {"STATUS": "Recovering"}
    notifier.ready("Listens on [::]:25")
    assert manager.receive() == {"READY": "1", "STATUS": "Listens on [::]:25", "MAINPID": str(os.getpid())}
    notifier.reloading()
    assert manager.receive()["RELOADING"] == "1"
    notifier.stopping()
    assert manager.receive()["STOPPING"] == "1"
    notifier.alive()
    assert manager.receive() == {"WATCHDOG": "1"}
    notifier.close()
    notifier.alive()


def test_no_text_can_add_an_assignment(manager: ManagerSocket) -> None:
    notifier = Notifier(manager.address)
    notifier.status("bad\nREADY=1")
    assert manager.receive() == {"STATUS": "bad READY=1"}
    notifier.close()


@pytest.mark.parametrize("address", [None, "", "vsock:2:1", "/nowhere/at/all"])
def test_without_anybody_who_listens_nothing_happens(address: str | None) -> None:
    notifier = Notifier(address)
    notifier.ready("x")
    notifier.alive()
    notifier.close()


def test_the_variables_are_taken_out_of_the_environment() -> None:
    environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "9000000", "WATCHDOG_PID": "1", "PATH": "/bin"}
    Notifier.from_environment(environment).close()
    assert environment == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("usec", "pid", "period_s"),
    [
        ("9000000", "own", 3.0),
        ("9000000", None, 3.0),
        ("9000000", "1", None),
        ("0", None, None),
        ("-5", None, None),
        ("soon", None, None),
    ],
)
def test_the_watchdog_is_pinged_three_times_in_its_period(usec: str, pid: str | None, period_s: float | None) -> None:
    environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": usec} | ({"WATCHDOG_PID": pid} if pid else {})
    if pid == "own":
        environment["WATCHDOG_PID"] = str(os.getpid())
    notifier = Notifier.from_environment(environment)
    notifier.close()
    assert notifier.watchdog_period_s == period_s


def test_a_gateway_tells_its_life(gateway: ServiceGateway, manager: ManagerSocket) -> None:
    gateway.start({"NOTIFY_SOCKET": manager.address})
    line = gateway.wait_ready()
    told = manager.receive()
    assert told["READY"] == "1"
    assert told["MAINPID"] == str(gateway.process.pid if gateway.process else 0)
    assert line.split(" ready on ")[1].strip() in told["STATUS"]

    gateway.signal(signal.SIGHUP)
    assert "RELOADING" in manager.receive()
    told = manager.receive()
    assert told["READY"] == "1" and "configuration 2" in told["STATUS"]

    gateway.config.write_text("hostname = 1\n")
    gateway.signal(signal.SIGHUP)
    assert "RELOADING" in manager.receive()
    told = manager.receive()
    assert told["READY"] == "1" and "configuration 2" in told["STATUS"]  # a bad configuration changes nothing

    gateway.signal(signal.SIGTERM)
    assert manager.receive()["STOPPING"] == "1"
    assert gateway.wait_end() == 0


def test_a_living_gateway_pings_the_watchdog(gateway: ServiceGateway, tmp_path: Path) -> None:
    manager = ManagerSocket(str(tmp_path / "notify"))
    gateway.start({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "300000"})
    gateway.wait_ready()
    manager.receive_until("READY")
    assert [manager.receive() for _ in range(3)] == [{"WATCHDOG": "1"}] * 3
    manager.close()


def test_the_watchdog_is_fed_only_while_every_role_has_a_process_that_answers(manager: ManagerSocket) -> None:
    notifier = Notifier(manager.address, 10.0)
    manager.sock.setblocking(False)
    wanted = [("queue", 0, 0), ("receiver", 0, 2), ("deliverer", 0, 2)]
    children = {key: Child(*key) for key in wanted}
    expected, asked = set(wanted), []
    pulse = Pulse(
        children, notifier, lambda delay_s, _: asked.append(delay_s), lambda: View(3.0, expected, EventLog(2, "x", 0))
    )
    pulse.tell_alive()
    assert manager.receive() == {"WATCHDOG": "1"} and asked == [10.0]
    for key in wanted:
        dead = children.pop(key)
        pulse.tell_alive()
        children[key] = dead
        dead.missed = 2
        pulse.tell_alive()
        dead.missed = 1  # it was pinged just now
    children[("receiver", 0, 1)] = children.pop(("receiver", 0, 2))
    pulse.tell_alive()  # a receiver that drains does not stand for the one that died
    with pytest.raises(BlockingIOError):
        manager.receive()
    assert asked[1:] == [WATCHDOG_RETRY_S] * 7
    expected.clear()  # a start or an end is under way
    pulse.tell_alive()
    assert manager.receive() == {"WATCHDOG": "1"}
    notifier.close()
