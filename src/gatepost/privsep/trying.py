"""Proof by trying: a child locks itself in as the role will, tries what the role must not do, and reports the kernel's answers.

Not here: the lock-in itself (`sandbox.py`). The role's own filter kills at the first forbidden call, so the tries are made by a
forked child whose filter, compiled from the same row, answers with an error instead. The child tries twice: behind Landlock alone,
which no file in /proc shows, and behind Landlock and filter. Every try is chosen so that it would succeed, or fail with another
error, if nothing refused it; each one listed must be refused. The only traffic is to this host's own loopback address.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from gatepost.privsep import landlock, sandbox, seccomp
from gatepost.privsep.rights import FILTER, LANDLOCK, RoleRights, TryResult

_LIMIT_S = 30  # half of what a role has for its start: on a busy machine a few milliseconds of work take long
# of process 0, which is none; PTRACE_TRACEME, if it succeeded, would stop the child at its next signal
_PTRACE_PEEKDATA = 2
_REFUSALS = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EAFNOSUPPORT}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


@dataclass(frozen=True, slots=True)
class _Act:
    name: str
    layer: str
    is_forbidden: Callable[[RoleRights, int], bool]  # rights, Landlock ABI
    perform: Callable[[], object]  # raises OSError if refused


def attest_by_trying(rights: RoleRights, root: str, uid: int, gid: int, mode: str = "enforce") -> list[TryResult]:
    """Fork a child that locks itself in and tries; return what became of each try.

    Call it right before `lock_in`, with the same arguments, before any thread. Takes a few milliseconds. Raises SandboxError if the
    child could not lock itself in, or died: the role cannot either.
    """
    reading, writing = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as target:
        target.bind(_abstract_name(os.getpid()))  # something the child could reach: without it a refusal does not show
        target.listen(1)
        child = os.fork()
        if child == 0:
            _child(writing, rights, root, uid, gid, mode)
        os.close(writing)
        with open(reading, "rb") as pipe:
            if not select.select([pipe], [], [], _LIMIT_S)[0]:
                os.kill(child, signal.SIGKILL)
            report = pipe.read()
        status = os.waitpid(child, 0)[1]
    try:
        answer = msgspec.json.decode(report, type=_Report)
    except msgspec.DecodeError as error:
        raise sandbox.SandboxError(
            f"role {rights.name}: the process that tries what is forbidden died (status {status})",
            "this is a bug in Gatepost, or a kernel that refuses more than the table asks",
        ) from error
    if answer.problem:
        raise sandbox.SandboxError(answer.problem, answer.advice)
    return answer.results


def try_forbidden(rights: RoleRights, layer: str, abi: int) -> list[TryResult]:
    """Try, in this process, what `rights` does not allow and `layer` must refuse. For a child that is thrown away."""
    return [_try(act) for act in _ACTS if act.layer == layer and act.is_forbidden(rights, abi)]


class _Report(msgspec.Struct):
    results: list[TryResult] = []
    problem: str = ""
    advice: str = ""


def _child(writing: int, rights: RoleRights, root: str, uid: int, gid: int, mode: str) -> None:
    """Lock in, try, report, end. Never returns, whatever happens."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_LIMIT_S)
        report = _Report()
        abi = landlock.probe_abi()

        def behind_landlock() -> None:
            if abi:
                report.results += try_forbidden(rights, LANDLOCK, abi)

        try:
            sandbox.lock_in(
                rights, root=root, uid=uid, gid=gid, mode=mode, denied="errno", after_landlock=behind_landlock
            )
            if seccomp.is_available():
                report.results += try_forbidden(rights, FILTER, abi)
        except sandbox.SandboxError as error:
            report = _Report(problem=error.problem, advice=error.advice)
        os.write(writing, msgspec.json.encode(report))
    finally:
        os._exit(0)


def _try(act: _Act) -> TryResult:
    try:
        act.perform()
    except OSError as error:
        code = error.errno or 0
        return TryResult(act.name, act.layer, code not in _REFUSALS, errno.errorcode.get(code, str(code)))
    return TryResult(act.name, act.layer, True, "done")


# --- acts -----------------------------------------------------------------------------------------------------------------


def _open_root() -> None:
    os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY))


def _open_outside() -> None:
    # In a chroot the name leads nowhere (ENOENT), and the parent of the root is the root: both are a refusal of the file meant.
    try:
        os.close(os.open("/etc/passwd", os.O_RDONLY))
    except FileNotFoundError as error:
        raise PermissionError(errno.EACCES, "not below the root") from error


def _write_outside() -> None:
    # Not /tmp: a Maildir that is a root directory has a tmp of its own. Everybody may write here, and it is a file system of its own.
    path = f"/dev/shm/gatepost-try-{os.getpid()}"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError as error:  # in a chroot there is no such directory
        raise PermissionError(errno.EACCES, "not below the root") from error
    os.unlink(path)
    try:
        if os.fstat(fd).st_dev == os.stat("/").st_dev:
            raise PermissionError(errno.EACCES, "below the root after all")
    finally:
        os.close(fd)


def _make_device_node() -> None:
    os.mkfifo("gatepost-try")
    os.unlink("gatepost-try")


def _tcp_bind() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))


def _tcp_connect() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.connect(("127.0.0.1", 9))


def _abstract_name(pid: int) -> str:
    return f"\0gatepost-try-{pid}"


def _abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.connect(_abstract_name(os.getppid()))


def _signal_parent() -> None:
    os.kill(os.getppid(), 0)


def _on_pair(act: Callable[[socket.socket], object]) -> Callable[[], None]:
    """The act on a socket the role may have: for calls that a role without socket(2) could still make on what it inherits."""

    def perform() -> None:
        left, right = socket.socketpair()
        with left, right:
            act(left)

    return perform


def _make_socket(family: int, kind: int) -> Callable[[], None]:
    def perform() -> None:
        socket.socket(family, kind).close()

    return perform


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _execute_memory() -> None:
    mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()


def _raw(name: str, *arguments: int) -> Callable[[], None]:
    """A system call by name, with arguments that do no harm where nothing refuses it."""

    def perform() -> None:
        number = seccomp.number_of(name)
        padded = [ctypes.c_long(argument) for argument in (*arguments, *([0] * (6 - len(arguments))))]
        if _libc.syscall(ctypes.c_long(number), *padded) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    return perform


def _lacks(*names: str) -> Callable[[RoleRights, int], bool]:
    return lambda rights, abi: not rights.syscalls.intersection(names)


def _always(rights: RoleRights, abi: int) -> bool:
    return True


_ACTS = (
    _Act("list the root directory", LANDLOCK, lambda rights, abi: not rights.has_files, _open_root),
    _Act("read /etc/passwd", LANDLOCK, _always, _open_outside),
    _Act("write a file outside its root", LANDLOCK, _always, _write_outside),
    _Act("make a FIFO", LANDLOCK, _always, _make_device_node),
    _Act("bind a TCP port", LANDLOCK, lambda rights, abi: abi >= 4, _tcp_bind),
    _Act(
        "connect to 127.0.0.1 port 9", LANDLOCK, lambda rights, abi: abi >= 4 and not rights.may_connect, _tcp_connect
    ),
    _Act("connect to an abstract UNIX socket", LANDLOCK, lambda rights, abi: abi >= 6, _abstract_socket),
    _Act("signal the parent", LANDLOCK, lambda rights, abi: abi >= 6, _signal_parent),
    _Act("read /etc/passwd", FILTER, _always, _open_outside),
    _Act("write a file outside its root", FILTER, _always, _write_outside),
    _Act("list the root directory", FILTER, _lacks("openat"), _open_root),
    _Act("bind", FILTER, _always, _on_pair(lambda pair: pair.bind("\0gatepost-try"))),
    _Act("listen", FILTER, _lacks("listen"), _on_pair(lambda pair: pair.listen(1))),
    _Act("accept", FILTER, _lacks("accept4"), _on_pair(lambda pair: pair.accept())),
    _Act("connect", FILTER, _lacks("connect"), _on_pair(lambda pair: pair.connect("\0gatepost-try"))),
    _Act("make a TCP socket", FILTER, _lacks("socket"), _make_socket(socket.AF_INET, socket.SOCK_STREAM)),
    _Act("make a netlink socket", FILTER, _always, _make_socket(socket.AF_NETLINK, socket.SOCK_RAW)),
    _Act("execute a program", FILTER, _always, lambda: os.execv("", ["true"])),
    _Act("fork", FILTER, _always, _fork),
    _Act("map executable memory", FILTER, _always, _execute_memory),
    _Act("signal the parent", FILTER, _always, _signal_parent),
    _Act("chroot", FILTER, _always, lambda: os.chroot("/")),
    _Act("change the user", FILTER, _always, lambda: os.setresuid(-1, -1, -1)),
    _Act("ptrace", FILTER, _always, _raw("ptrace", _PTRACE_PEEKDATA)),
    _Act("unshare", FILTER, _always, _raw("unshare")),
    _Act("io_uring_setup", FILTER, _always, _raw("io_uring_setup", 1)),
    _Act("memfd_create", FILTER, _always, lambda: os.close(os.memfd_create("gatepost-try"))),
    _Act("userfaultfd", FILTER, _always, _raw("userfaultfd", -1)),
    _Act("bpf", FILTER, _always, _raw("bpf", -1)),
    _Act("perf_event_open", FILTER, _always, _raw("perf_event_open")),
    _Act("keyctl", FILTER, _always, _raw("keyctl")),
    _Act("process_vm_readv", FILTER, _always, _raw("process_vm_readv")),
)
