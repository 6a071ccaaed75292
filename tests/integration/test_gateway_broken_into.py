"""An attacker runs code inside a role of the running gateway: each forbidden act fails, only that process dies, no mail is lost.

The code comes from the test: a module in a private virtual environment that the interpreter of the roles loads at its start. It waits
for a signal, then does its act inside the role that has locked itself in. Nothing of it is in the gateway.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from integration.gateway import Gateway
from integration.load import Load
from integration.nexthop import NextHop
from integration.peers.process import wait_until

import gatepost
from gatepost.privsep.roles import ROLES as TABLE

ROLES = ("receiver", "queue", "deliverer", "resolver", "control", "maildir")

# SIGUSR1: one act that the filter has to kill for. SIGUSR2: everything that has to be refused with an error, and a report.
BREAK_IN = """
import ctypes, errno, json, mmap, os, signal, socket, sys

if "gatepost.roles" in sys.orig_argv:
    role = sys.orig_argv[-2]
    libc = ctypes.CDLL(None, use_errno=True)
    supervisor = os.getppid()
    DEADLY = {
        "receiver": lambda: os.execv("/bin/sh", ["sh", "-c", "id"]),
        "queue": lambda: socket.create_connection(("127.0.0.1", 25)),
        "deliverer": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
        "resolver": lambda: os.fork(),
        "control": lambda: os.kill(supervisor, signal.SIGTERM),
        "maildir": lambda: libc.ptrace(16, supervisor, 0, 0),
    }
    ERRORS = {
        "read the password file": lambda: open("/etc/passwd").close(),
        "read the memory of the supervisor": lambda: open(f"/proc/{supervisor}/mem").close(),
        "write a file outside": lambda: open("/tmp/broken-into", "w").close(),
        "climb out": lambda: open("../" * 30 + "etc/passwd").close(),
        "open by a descriptor": lambda: open("/proc/self/fd/0/../../etc/passwd").close(),
        "its own executable": lambda: open("/proc/self/exe").close(),
        "become dumpable": lambda: checked(libc.prctl(4, 1, 0, 0, 0)),
        "io_uring": lambda: checked(libc.syscall(425, 8, ctypes.create_string_buffer(120))),
    }

    def checked(result):
        if result < 0:
            raise OSError(ctypes.get_errno(), "refused")

    def try_errors(*_):
        answers = {}
        for name, act in ERRORS.items():
            try:
                act()
                answers[name] = "done"
            except OSError as error:
                answers[name] = errno.errorcode.get(error.errno, str(error.errno))
        os.write(2, ("BROKEN-INTO " + json.dumps({"role": role, "answers": answers}) + "\\n").encode())

    def flood(_, frame):  # the channel to the supervisor, which its code holds
        while not hasattr(frame.f_locals.get("role"), "supervisor"):
            frame = frame.f_back
        sock = frame.f_locals["role"].supervisor._sock
        messages, wire = sys.modules["gatepost.ipc.messages"], sys.modules["gatepost.ipc.wire"]
        sock.setblocking(True)
        while True:
            for packet in wire.packets_of([messages.NeedAuthSocket()] * 20):
                sock.send(packet)

    signal.signal(signal.SIGRTMIN, flood)
    signal.signal(signal.SIGUSR1, lambda *_: DEADLY[role]())
    signal.signal(signal.SIGUSR2, try_errors)
"""


class BrokenGateway(Gateway):
    """A gateway whose interpreter lets the test in."""

    python = ""

    def configure(self) -> list[str]:
        return [self.python, *super().configure()[1:]]


def make_interpreter(directory: Path, module: str = BREAK_IN) -> str:
    """A private virtual environment with the module in it, and the packages of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], check=True)
    packages = directory / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    (packages / "break_in.py").write_text(module)
    sources = [str(Path(gatepost.__file__).parents[1]), sysconfig.get_path("platlib"), sysconfig.get_path("purelib")]
    (packages / "a_test.pth").write_text("\n".join([*dict.fromkeys(sources), "import break_in", ""]))
    return str(directory / "bin" / "python")


@pytest.fixture(scope="module")
def hop():
    with NextHop() as hop:
        yield hop


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, hop):
    gateway = BrokenGateway(tmp_path_factory.mktemp("gate"), next_hop=hop.name)
    gateway.python = make_interpreter(tmp_path_factory.mktemp("venv") / "venv")
    boxes = gateway.directory / "boxes"
    Path("/tmp/broken-into").unlink(missing_ok=True)
    gateway.extra = f'[domains."box.test"]\nnext_hop = "maildir:{boxes}/{{local}}"\n'
    with gateway:
        yield gateway


@pytest.mark.parametrize("role", ROLES)
def test_forbidden_acts_are_refused_and_the_role_goes_on(gateway, role):
    pid = gateway.roles()[role]
    os.kill(pid, signal.SIGUSR2)

    def report() -> dict | None:
        whole, _, _ = gateway.read_log().rpartition("\n")  # a line may be on its way
        lines = [line.partition("BROKEN-INTO ")[2] for line in whole.splitlines() if "BROKEN-INTO" in line]
        return next((row for row in map(json.loads, lines) if row["role"] == role), None)

    answers = wait_until(report, f"the report of {role}")["answers"]
    assert len(answers) == 8
    refusals = {"EACCES", "ENOENT", "EPERM", "ENOSYS", "EINVAL"}  # ENOENT: the name leads nowhere in its root directory
    assert {name: answer for name, answer in answers.items() if answer not in refusals} == {}
    assert gateway.roles()[role] == pid
    assert not os.path.exists("/tmp/broken-into")


@pytest.mark.parametrize("role", ROLES)
def test_a_forbidden_call_kills_that_process_only_and_nothing_is_lost(gateway, hop, role):
    before = gateway.roles()
    with Load(gateway) as load:
        wait_until(lambda: len(load.acknowledged) > 5, "some messages")
        os.kill(before[role], signal.SIGUSR1)
        died = gateway.wait_for_event("role_died", pid=before[role])
        assert "SIGSYS" in died["why"], died
        wait_until(lambda: gateway.roles()[role] != before[role], f"{role} is back")
        count = len(load.acknowledged)
        wait_until(lambda: len(load.acknowledged) > count + 5, "more messages")
    load.wait_until_all_arrived(hop)
    after = gateway.roles()
    assert {name for name in before if before[name] != after[name]} == {role}
    assert gateway.process.poll() is None
    ledger = gateway.wait_until_empty()
    assert ledger["accepted"] == ledger["delivered"]


def test_one_that_floods_the_supervisor_is_ended_and_the_others_go_on(gateway, hop):
    before = gateway.roles()
    os.kill(before["receiver"], signal.SIGRTMIN)
    why = gateway.wait_for_event("role_died", pid=before["receiver"])["why"]
    assert "messages in a second" in why
    wait_until(lambda: gateway.roles()["receiver"] != before["receiver"], "another receiver")
    with Load(gateway) as load:
        wait_until(lambda: len(load.acknowledged) > 5, "some messages")
    load.wait_until_all_arrived(hop)
    assert {name for name, pid in gateway.roles().items() if before[name] != pid} == {"receiver"}


def test_every_role_is_broken_into():
    assert set(ROLES) == set(TABLE)


def test_the_gateway_is_as_declared_after_all_of_it(gateway):
    assert gateway.ask("privs")["as_declared"] is True
