"""Runs a small role in a process of its own: the sandbox is for good, so no test may lock in the process of pytest."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gatepost

NOBODY = 65534

PRELUDE = """
import asyncio, contextlib, ctypes, errno, faulthandler, io, json, linecache, logging, mmap, os, signal, socket, stat
import struct, sys, threading, time, traceback
from concurrent.futures import ThreadPoolExecutor
import uvloop
from gatepost.privsep import kernel, landlock, sandbox, seccomp, trying
from gatepost.privsep.rights import *

RECEIVER = RoleRights(name="receiver", user="nobody", may_accept=True, nofile=4096,
    syscalls=BASE | READ_WRITE | THREADS | SOCKET_ACCEPT | SYNC | POSITIONED,
    descriptors=frozenset({"tcp-listen", "tcp", "file-append", "unix-seqpacket"}))
QUEUE = RoleRights(name="queue", user="nobody", root="spool", landlock_fs=(("/", "read-write"),),
    syscalls=BASE | READ_WRITE | THREADS | SYNC | RESIZE | POSITIONED | FILES)
DELIVERER = RoleRights(name="deliverer", user="nobody", may_connect=True, socket_families=frozenset({"inet", "inet6"}),
    syscalls=BASE | READ_WRITE | THREADS | POSITIONED | SOCKET_CONNECT)
ROOT, NOBODY = sys.argv[1], 65534


def become_nobody():
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def lock(rights, root=ROOT, **options):
    return sandbox.lock_in(rights, root=root, uid=NOBODY, gid=NOBODY, **options)


def answer(value):
    print(json.dumps(value), flush=True)


def error_of(act, *arguments):
    try:
        act(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

"""

# nobody may not be able to read the interpreter
STARTS = {"root": "", "nobody": "sandbox.preload()\nbecome_nobody()\n"}


@pytest.fixture(params=["root", "nobody"])
def started_as(request: pytest.FixtureRequest) -> str:
    """Root, with a user and a root directory to change to; and an ordinary user, with neither."""
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("needs root")
    return str(request.param)


@pytest.fixture
def root_directory() -> Iterator[Path]:
    """An empty directory that every user may enter, which pytest's own are not."""
    directory = Path(tempfile.mkdtemp(prefix="gatepost-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def spool_directory(root_directory: Path) -> Path:
    """The same, owned by the user of the role."""
    if os.geteuid() == 0:
        os.chown(root_directory, NOBODY, NOBODY)
    root_directory.chmod(0o700)
    return root_directory


@pytest.fixture
def start_role(root_directory: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `body` behind the prelude; the process is ended with the test."""
    running: list[subprocess.Popen[str]] = []

    def start(
        body: str, started_as: str = "root", interpreter: str = sys.executable, pass_fds: tuple[int, ...] = ()
    ) -> subprocess.Popen[str]:
        # Enough for another interpreter of the same version to find the packages of this one.
        packages = os.pathsep.join([str(Path(gatepost.__file__).parents[1]), sysconfig.get_path("platlib")])
        environment = {**os.environ, "PYTHONPATH": packages}
        process = subprocess.Popen(
            [interpreter, "-c", PRELUDE + STARTS[started_as] + body, str(root_directory), *map(str, pass_fds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            pass_fds=pass_fds,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def run_role(start_role: Callable[..., subprocess.Popen[str]]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `body` to its end."""

    def run(body: str, started_as: str = "root", **options: object) -> subprocess.CompletedProcess[str]:
        process = start_role(body, started_as, **options)
        output, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    return run


@pytest.fixture
def ask_role(run_role: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., Any]:
    """Run `body` to its end, which has to be a good one, and return what it answered last."""

    def ask(body: str, started_as: str = "root") -> Any:
        result = run_role(body, started_as)
        assert result.returncode == 0, f"ended with {result.returncode}: {result.stderr[-3000:]}"
        return json.loads(result.stdout.splitlines()[-1])

    return ask
