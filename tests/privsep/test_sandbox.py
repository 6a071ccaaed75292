"""A role that has locked itself in works, and can do nothing else."""

from __future__ import annotations

import array
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Ask = Callable[..., Any]
Start = Callable[..., "subprocess.Popen[str]"]


# --- what a role does all day ---------------------------------------------------------------------------------------------

ECHO = """
listening = socket.create_server(("127.0.0.1", 0), backlog=256)
listening.setblocking(False)
peer = socket.socket(fileno=int(sys.argv[2]))
sandbox.before_loop()
loop = uvloop.new_event_loop()
pool = ThreadPoolExecutor(4)
segment = None
journal = []


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data):
        loop.create_task(self.store(data))

    async def store(self, data):
        os.writev(segment, [data, b"\\n"])
        if len(journal) % 100 == 0:
            await loop.run_in_executor(pool, os.fdatasync, segment)
        journal.append(len(data))
        self.transport.write(data)


def take():
    global segment
    message, descriptors, _, _ = socket.recv_fds(peer, 100, 4)
    if message == b"end":
        loop.stop()
        return
    segment = descriptors[0]
    assert stat.S_ISREG(os.fstat(segment).st_mode)
    socket.send_fds(peer, [b"thanks"], [segment])


async def serve():
    await loop.create_server(Echo, sock=listening)
    loop.add_reader(peer, take)
    loop.add_signal_handler(signal.SIGTERM, loop.stop)
    await loop.run_in_executor(pool, bytearray, 300_000)
    for _ in range(3):
        thread = threading.Thread(target=bytearray, args=(50_000_000,))
        thread.start()
        thread.join()
    try:
        linecache.getline("/etc/passwd", 1)
        raise RuntimeError("a mishap")
    except RuntimeError:
        logging.exception("seen")

sandbox.warm_loop(loop)
line = lock(RECEIVER)
loop.run_until_complete(serve())
answer({"port": listening.getsockname()[1], "line": line})
loop.run_forever()
faulthandler.dump_traceback(file=sys.stderr)
answer({"echoed": len(journal), "size": os.fstat(segment).st_size, "back": os.pread(segment, 6, 0).decode()})
loop.close()
"""


def test_a_locked_in_server_serves(start_role: Start, started_as: str, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, open(tmp_path / "segment", "a+b", buffering=0) as segment:
        process = start_role(ECHO, started_as, pass_fds=(theirs.fileno(),))
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first, process.stderr and process.stderr.read()
        port = json.loads(first)["port"]
        socket.send_fds(ours, [b"a segment"], [segment.fileno()])
        thanks, descriptors, _, _ = socket.recv_fds(ours, 100, 1)
        assert thanks == b"thanks"
        assert os.path.samestat(os.fstat(descriptors[0]), os.fstat(segment.fileno()))
        os.close(descriptors[0])
        for number in range(1000):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"%05d" % number)
                assert client.recv(100) == b"%05d" % number
        ours.send(b"end")
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors[-3000:]
    assert json.loads(output) == {"echoed": 1000, "size": 6000, "back": "00000\n"}
    assert "RuntimeError: a mishap" in errors
    assert "Current thread" in errors


@pytest.mark.skipif(
    not os.path.exists("/usr/bin/python3.11") or sys.version_info[:2] != (3, 11),
    reason="needs Debian's own Python 3.11",
)
def test_it_serves_with_the_python_of_debian(start_role: Start, started_as: str, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, open(tmp_path / "segment", "a+b", buffering=0) as segment:
        process = start_role(ECHO, started_as, interpreter="/usr/bin/python3.11", pass_fds=(theirs.fileno(),))
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first, process.stderr and process.stderr.read()
        ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [segment.fileno()]))])
        ours.recv(100)
        with socket.create_connection(("127.0.0.1", json.loads(first)["port"])) as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
        ours.send(b"end")
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors[-3000:]
    assert json.loads(output)["echoed"] == 1


def test_the_line_names_the_rights(ask_role: Ask, started_as: str) -> None:
    line = str(ask_role("sandbox.before_loop(); answer(lock(RECEIVER))", started_as))
    assert line.startswith("receiver: ")
    assert ("root /tmp" in line) == (started_as == "root")
    assert ("no chroot" in line) == (started_as == "nobody")
    assert "no capabilities, no_new_privs" in line
    assert "landlock abi" in line
    assert "seccomp kill" in line
    assert "sockets none" in line


# --- what it cannot do ----------------------------------------------------------------------------------------------------

# Each act runs in a process of its own that was locked in as a receiver; SIGSYS is what a break-in gets.
DEADLY = {
    "execute a program": "os.execv('/bin/true', ['true'])",
    "fork": "os.fork()",
    "vfork": "raw('vfork')",
    "make a TCP socket": "socket.socket()",
    "make a raw socket": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "connect": "pair.connect('/x')",
    "bind": "pair.bind('/x')",
    "internet socketpair": "socket.socketpair(socket.AF_INET)",
    "unlink": "os.unlink('/x')",
    "make a directory": "os.mkdir('/x')",
    "rename": "os.rename('/x', '/y')",
    "change a mode": "os.chmod('/x', 0o777)",
    "signal another process": "os.kill(1, 0)",
    "signal its group": "os.kill(0, 0)",
    "map executable memory": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
    "make memory executable": "raw('mprotect', page, 4096, 5)",
    "a new namespace by clone": "raw('clone', 0x10000000 | 17)",
    "attach a BPF program": "pair.setsockopt(socket.SOL_SOCKET, 50, 0)",
    "attach a classic filter": "pair.setsockopt(socket.SOL_SOCKET, 26, bytes(16))",
    "use kernel TLS": "pair.setsockopt(socket.IPPROTO_TCP, 31, b'tls')",
    "raise its limits": "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))",
    "chroot": "os.chroot('/')",
    "become root": "os.setresuid(0, 0, 0)",
    "ptrace": "raw('ptrace')",
    "memfd": "os.memfd_create('x')",
    "bpf": "raw('bpf')",
    "keyctl": "raw('keyctl')",
    "userfaultfd": "raw('userfaultfd')",
    "perf_event_open": "raw('perf_event_open')",
    "process_vm_readv": "raw('process_vm_readv')",
    "unshare": "raw('unshare')",
    "mount": "raw('mount')",
    "openat2": "raw('openat2')",
    "another filter": "raw('seccomp')",
    "a call of 32-bit x86": "raw_number(0x40000000)",
}

DIE = """
import resource
sandbox.before_loop()
libc = ctypes.CDLL(None, use_errno=True)
page = ctypes.addressof(ctypes.create_string_buffer(8192)) & ~4095
numbers = {name: seccomp.number_of(name) for name in
           "vfork mprotect clone ptrace bpf keyctl userfaultfd perf_event_open process_vm_readv unshare mount openat2 seccomp".split()}

def raw_number(number, *arguments):
    if libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]) < 0:
        raise OSError(ctypes.get_errno(), "raw")

def raw(name, *arguments):
    raw_number(numbers[name], *arguments)

fates = {}
for name, act in json.loads(sys.stdin.read()).items():
    child = os.fork()
    if child == 0:
        try:
            pair, other = socket.socketpair()
            code = compile(act, "act", "eval")
            lock(RECEIVER)
            eval(code)
        except BaseException as error:
            os.write(2, repr(error).encode())
        os._exit(0)
    fates[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
answer(fates)
"""


def test_every_forbidden_act_is_death(start_role: Start, started_as: str) -> None:
    process = start_role(DIE, started_as)
    output, errors = process.communicate(json.dumps(DEADLY), timeout=60)
    assert process.returncode == 0, errors[-3000:]
    fates = json.loads(output)
    assert fates.keys() == DEADLY.keys()
    assert {name: fate for name, fate in fates.items() if fate != -31} == {}, errors[-3000:]  # 31: SIGSYS


# What Python or glibc tries of its own accord is refused with an error.
REFUSED = {
    "open": ("open('/etc/passwd')", "EACCES"),
    "open for writing": ("open('x', 'w')", "EACCES"),
    "stat": ("os.stat('/etc/passwd')", "EACCES"),
    "lstat": ("os.lstat('/etc/passwd')", "EACCES"),
    "access": ("os.readlink('/proc/self/exe')", "EACCES"),
    "list": ("os.listdir('/')", "EACCES"),
    "working directory": ("os.getcwd()", "EACCES"),
    "io_uring": ("raw_io_uring()", "ENOSYS"),
    "terminal": ("os.tcgetpgrp(0)", "ENOTTY"),
    "dumpable": ("prctl(4, 1)", "EINVAL"),
    "seccomp by prctl": ("prctl(22, 2)", "EINVAL"),
}

REFUSE = """
libc = ctypes.CDLL(None, use_errno=True)
number = seccomp.number_of("io_uring_setup")

def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")

def raw_io_uring():
    checked(libc.syscall(ctypes.c_long(number), 8, ctypes.create_string_buffer(120)))

def prctl(option, value):
    checked(libc.prctl(option, value, 0, 0, 0))

sandbox.before_loop()
acts = {name: compile(act, "act", "eval") for name, (act, _) in json.loads(sys.stdin.read()).items()}
lock(RECEIVER)
answer({name: error_of(eval, act) for name, act in acts.items()})
"""


def test_what_python_tries_by_itself_gets_an_error(start_role: Start, started_as: str) -> None:
    process = start_role(REFUSE, started_as)
    output, errors = process.communicate(json.dumps(REFUSED), timeout=60)
    assert process.returncode == 0, errors[-3000:]
    assert json.loads(output) == {name: expected for name, (_, expected) in REFUSED.items()}


def test_io_uring_is_gone_before_the_loop(ask_role: Ask, started_as: str) -> None:
    body = """
sandbox.before_loop()
loop = uvloop.new_event_loop()
answer([os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{n}")])
"""
    links = ask_role(body, started_as)
    assert "anon_inode:[eventpoll]" in links
    assert not [link for link in links if "io_uring" in link]


def test_a_warm_loop_refuses_connections_when_descriptors_run_out(ask_role: Ask, started_as: str) -> None:
    body = """
import dataclasses
listening = socket.create_server(("127.0.0.1", 0))
listening.setblocking(False)
client = socket.create_connection(listening.getsockname(), timeout=60)
sandbox.before_loop()
loop = uvloop.new_event_loop()
sandbox.warm_loop(loop)

async def serve():
    with contextlib.suppress(OSError):
        while True:
            os.eventfd(0)
    await loop.create_server(asyncio.Protocol, sock=listening)
    return await loop.run_in_executor(None, error_of, client.recv, 1)

lock(dataclasses.replace(RECEIVER, nofile=64))
answer(loop.run_until_complete(serve()))
"""
    assert ask_role(body, started_as) == "done"  # closed at once, not left waiting


# --- roles with more ------------------------------------------------------------------------------------------------------


def test_a_role_that_connects_connects_and_cannot_listen(ask_role: Ask, started_as: str) -> None:
    body = """
listening = socket.create_server(("127.0.0.1", 0))
port = listening.getsockname()[1]
sandbox.before_loop()
loop = uvloop.new_event_loop()
lock(DELIVERER, denied="errno")

async def talk():
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.setblocking(False)
    await loop.sock_connect(datagrams, ("127.0.0.1", port))
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=datagrams)
    transport.sendto(b"x")
    transport.close()

asyncio.set_event_loop(loop)
loop.run_until_complete(talk())
new = socket.socket()
answer([
    error_of(socket.create_connection, ("127.0.0.1", port)), error_of(new.bind, ("127.0.0.1", 0)), error_of(new.listen),
    error_of(socket.socket, socket.AF_UNIX), error_of(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW),
    error_of(socket.socket, socket.AF_INET, socket.SOCK_RAW), error_of(open, "/etc/passwd"),
])
"""
    expected = ["done", "EPERM", "EPERM", "EAFNOSUPPORT", "EAFNOSUPPORT", "EPERM", "EACCES"]
    assert ask_role(body, started_as) == expected


def test_landlock_alone_denies_tcp(ask_role: Ask, started_as: str) -> None:
    body = """
listening = socket.create_server(("127.0.0.1", 0))
port = listening.getsockname()[1]
seen = []
def behind_landlock():
    seen.append(error_of(socket.create_connection, ("127.0.0.1", port)))
    seen.append(error_of(socket.socket().bind, ("127.0.0.1", 0)))
    if landlock.probe_abi() < 4:
        seen[:] = ["EACCES", "EACCES"]
lock(RECEIVER, after_landlock=behind_landlock)
answer(seen)
"""
    assert ask_role(body, started_as) == ["EACCES", "EACCES"]


QUEUE_WORK = """
lock(QUEUE, denied="errno")
os.mkdir("active")
os.mkdir("deferred")
with open("active/1", "wb") as file:
    file.write(b"mail")
    file.flush()
    os.fsync(file.fileno())
os.link("active/1", "active/2")
os.rename("active/1", "deferred/1")
with open("deferred/1", "r+b") as file:
    os.posix_fallocate(file.fileno(), 0, 100)
    os.truncate(file.fileno(), 4)
directory = os.open("deferred", os.O_RDONLY | os.O_DIRECTORY)
os.fsync(directory)
os.close(directory)
os.unlink("active/2")
os.rmdir("active")
os.statvfs(".")
answer({
    "here": sorted(os.listdir(".")), "mode": oct(os.stat("deferred/1").st_mode), "mail": open("deferred/1").read(),
    "outside": error_of(open, OUTSIDE), "write outside": error_of(open, OUTSIDE + "-new", "w"),
    "climb": error_of(open, "../" * 20 + "etc/passwd"), "socket": error_of(socket.socket),
    "link": error_of(os.symlink, "/etc/passwd", "x"), "device": error_of(os.mkfifo, "x"),
    "root": sorted(os.listdir("/")) if CHROOTED else error_of(os.listdir, "/"),
})
"""


def test_the_queue_works_below_its_directory_only(
    ask_role: Ask, started_as: str, spool_directory: Path, tmp_path: Path
) -> None:
    tmp_path.parent.chmod(0o755)
    outside = tmp_path / "public"
    outside.write_text("readable by all, if nothing refuses it")
    outside.chmod(0o644)
    chrooted = started_as == "root"
    result = ask_role(f"OUTSIDE, CHROOTED = {str(outside)!r}, {chrooted}\n" + QUEUE_WORK, started_as)
    nowhere = "ENOENT" if chrooted else "EACCES"
    assert result == {
        "here": ["deferred"],
        "mode": "0o100600",
        "mail": "mail",
        "outside": nowhere,
        "write outside": nowhere,
        "climb": nowhere,
        "socket": "EPERM",
        "link": "EPERM",
        "device": "EPERM",
        "root": ["deferred"] if chrooted else "EACCES",
    }


def test_landlock_holds_the_queue_where_seccomp_would_not(ask_role: Ask, spool_directory: Path) -> None:
    body = """
seen = {}
def behind_landlock():
    seen["outside"] = error_of(open, "/etc/os-release")
    seen["inside"] = error_of(open, "new", "w")
    seen["fifo"] = error_of(os.mkfifo, "fifo")
    seen["symlink"] = error_of(os.symlink, "new", "old")
lock(QUEUE, after_landlock=behind_landlock)
answer(seen)
"""
    result = ask_role(body, "nobody")
    assert result == {"outside": "EACCES", "inside": "done", "fifo": "EACCES", "symlink": "EACCES"}
