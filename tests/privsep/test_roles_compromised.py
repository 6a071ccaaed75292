"""Each row of the table of roles, locked in as it really is, against code of an attacker: no forbidden act succeeds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from gatepost.privsep.roles import ROLES

Start = Callable[..., Any]

CONNECTS = {name for name, row in ROLES.items() if row.may_connect}
ALL = set(ROLES)

# act -> (code, roles to whom it is forbidden)
ACTS: dict[str, tuple[str, set[str]]] = {
    "read a system file": ("open('/etc/passwd').read(1)", ALL),
    "read it by climbing": ("open('../' * 30 + 'etc/passwd').read(1)", ALL),
    "read a secret of another process": ("open(f'/proc/{os.getppid()}/environ').read(1)", ALL),
    "write outside its root": ("open(OUTSIDE + '/x', 'w')", ALL),
    "execute a shell": ("os.execv('/bin/sh', ['sh'])", ALL),
    "execute from memory": ("os.execve(os.memfd_create('x'), ['x'], {})", ALL),
    "fork": ("os.fork()", ALL),
    "new process by clone": ("raw('clone', 17)", ALL),
    "new namespaces by clone": ("raw('clone', 0x7c020000 | 17)", ALL),
    "clone3": ("raw('clone3', 0, 0)", ALL),
    "unshare": ("raw('unshare', 0x10000000)", ALL),
    "setns": ("raw('setns', 0, 0)", ALL),
    "mount": ("raw('mount')", ALL),
    "chroot": ("os.chroot('/')", ALL),
    "pivot_root": ("raw('pivot_root')", ALL),
    "become root": ("os.setresuid(0, 0, 0)", ALL),
    "take capabilities": ("raw('capset')", ALL),
    "ptrace its parent": ("raw('ptrace', 16, os.getppid())", ALL),
    "read memory of its parent": ("raw('process_vm_readv', os.getppid())", ALL),
    "write memory of its parent": ("raw('process_vm_writev', os.getppid())", ALL),
    "steal a descriptor": ("raw('pidfd_open', os.getppid(), 0)", ALL),
    "signal its parent": ("os.kill(os.getppid(), 0)", ALL),
    "signal everybody": ("os.kill(-1, 0)", ALL),
    "map executable memory": ("mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)", ALL),
    "make memory executable": ("raw('mprotect', page, 4096, 5)", ALL),
    "memory protection keys": ("raw('pkey_mprotect', page, 4096, 5, 0)", ALL),
    "shared memory, executable": ("raw('shmat', 0, 0, 0o100000)", ALL),
    "memfd": ("os.memfd_create('x')", ALL),
    "io_uring": ("raw('io_uring_setup', 8, page)", ALL),
    "bpf": ("raw('bpf')", ALL),
    "keyctl": ("raw('keyctl')", ALL),
    "add_key": ("raw('add_key')", ALL),
    "userfaultfd": ("raw('userfaultfd')", ALL),
    "perf_event_open": ("raw('perf_event_open')", ALL),
    "load a module": ("raw('finit_module')", ALL),
    "another filter": ("raw('seccomp', 1, 0, 0)", ALL),
    "filter by prctl": ("prctl(22, 2)", ALL),
    "become dumpable": ("prctl(4, 1)", ALL),
    "ambient capabilities": ("prctl(47, 2)", ALL),
    "push input into a terminal": ("fcntl.ioctl(0, 0x5412, b'x')", ALL),
    "raise its limits": ("resource.setrlimit(resource.RLIMIT_CORE, (1, 1))", ALL),
    "limits of its parent": ("resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)", ALL),
    "make a device": ("os.mknod('d', 0o20666, 0x103)", ALL),
    "make a FIFO": ("os.mkfifo('f')", ALL),
    "make a symbolic link": ("os.symlink('/etc/passwd', 'l')", ALL),
    "open by handle": ("raw('open_by_handle_at')", ALL),
    "bind a port": ("socket.socket(fileno=spare.fileno()).bind(('127.0.0.1', 0))", ALL),
    "bind a name": ("pair.bind('\\0broken')", ALL),
    "raw socket": ("socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)", ALL),
    "packet socket": ("socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", ALL),
    "netlink": ("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", ALL),
    "vsock": ("socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)", ALL),
    "kernel cryptography": ("socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)", ALL),
    "UNIX socket": ("socket.socket(socket.AF_UNIX)", ALL),
    "attach a BPF program": ("pair.setsockopt(socket.SOL_SOCKET, 50, 0)", ALL),
    "make a TCP socket": ("socket.socket()", ALL - CONNECTS),
    "make a UDP socket": ("socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", ALL - CONNECTS),
    "connect": ("spare.connect(('127.0.0.1', 9))", ALL - CONNECTS),
    "listen": ("spare.listen()", {name for name, row in ROLES.items() if not row.may_accept}),
    "remove a file": ("os.unlink('x')", {name for name, row in ROLES.items() if not row.has_files}),
    "list its root": ("os.listdir('/')", {name for name, row in ROLES.items() if not row.has_files}),
    "cut a file short": ("os.ftruncate(segment, 0)", ALL - {"queue"}),
    "punch a hole": ("raw('fallocate', segment, 3, 0, 4)", ALL - {"queue"}),
    "go back in a file": (
        "os.lseek(segment, 0, os.SEEK_SET)",
        {name for name, row in ROLES.items() if not row.has_files},
    ),
    "go back from its end": (
        "os.lseek(segment, -4, os.SEEK_END)",
        {name for name, row in ROLES.items() if not row.has_files},
    ),
    "go back from here": (
        "os.lseek(segment, -4, os.SEEK_CUR)",
        {name for name, row in ROLES.items() if not row.has_files},
    ),
    "write at a place": ("os.pwrite(segment, b'x', 0)", ALL - {"queue", "maildir", "deliverer"}),
    "map what it appends to": ("mmap.mmap(segment, 4, prot=mmap.PROT_WRITE)", ALL),
    "a call of 32-bit x86": ("raw_number(0x40000000)", ALL),
}

# Allowed, so that the test shows it can tell the difference.
ALLOWED: dict[str, tuple[str, set[str]]] = {
    "a socket for a role that connects": ("socket.socket().close()", CONNECTS),
    "its own files": ("open('own', 'w').close()", {name for name, row in ROLES.items() if row.has_files}),
    "where a file is": ("os.lseek(segment, 0, os.SEEK_CUR)", ALL),
    "to append": ("os.write(segment, b'x')", ALL),
    "its own number": ("os.kill(os.getpid(), 0)", ALL),
}

BODY = """
import fcntl, resource
from gatepost.privsep.roles import ROLES
asked = json.loads(sys.stdin.readline())
OUTSIDE = "/var/tmp"
libc = ctypes.CDLL(None, use_errno=True)
page = ctypes.addressof(ctypes.create_string_buffer(8192)) & ~4095
names = ("clone clone3 unshare setns mount pivot_root capset ptrace process_vm_readv process_vm_writev pidfd_open mprotect"
    " pkey_mprotect shmat io_uring_setup bpf keyctl add_key userfaultfd perf_event_open finit_module seccomp open_by_handle_at fallocate")
numbers = {name: seccomp.number_of(name) for name in names.split()}
REFUSALS = {"EACCES", "EPERM", "ENOSYS", "EINVAL", "ENOTTY", "EAFNOSUPPORT", "ENOENT"}

def raw_number(number, *arguments):
    if libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]) < 0:
        raise OSError(ctypes.get_errno(), "raw")

def raw(name, *arguments):
    raw_number(numbers[name], *arguments)

def prctl(option, value):
    if libc.prctl(option, value, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "refused")

def act_in_child(role, act, writing):
    try:
        pair, other = socket.socketpair()
        spare = socket.socket()
        name = f"{OUTSIDE}/segment-{os.getpid()}"
        segment = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(segment, b"acknowledged")
        os.unlink(name)
        code = compile(act, "act", "eval")
        lock(ROLES[role])
        scope = {**globals(), "pair": pair, "spare": spare, "segment": segment}
        answer = "done"
        try:
            eval(code, scope)
        except OSError as error:
            answer = errno.errorcode.get(error.errno, str(error.errno))
        os.write(writing, answer.encode())
    except BaseException as error:
        os.write(writing, repr(error).encode())
    finally:
        os._exit(0)

fates = {}
for name, (role, act) in asked.items():
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        act_in_child(role, act, writing)
    os.close(writing)
    said = os.read(reading, 200).decode()
    os.close(reading)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    fates[name] = "killed" if status == -31 else said or f"ended {status}"
answer({"fates": fates, "refusals": sorted(REFUSALS)})
"""


@pytest.mark.usefixtures("spool_directory")
@pytest.mark.parametrize("role", ROLES)
def test_no_forbidden_act_succeeds(
    start_role: Start, started_as: str, role: str, spool_directory, root_directory
) -> None:
    own = spool_directory if ROLES[role].has_files else root_directory
    if not ROLES[role].has_files:
        os.chown(own, os.geteuid(), -1)
        own.chmod(0o755)
    asked = {name: (role, act) for name, (act, roles) in (ACTS | ALLOWED).items() if role in roles}
    process = start_role(BODY, started_as)
    output, errors = process.communicate(json.dumps(asked) + "\n", timeout=120)
    assert process.returncode == 0, errors[-3000:]
    result = json.loads(output.splitlines()[-1])
    fates, good = result["fates"], {"killed", *result["refusals"]}
    assert fates.keys() == asked.keys()
    assert {name: fates[name] for name in ALLOWED if name in fates} == dict.fromkeys(
        (n for n in ALLOWED if n in fates), "done"
    )
    assert {name: fate for name, fate in fates.items() if name in ACTS and fate not in good} == {}
    assert len(fates) > 55
