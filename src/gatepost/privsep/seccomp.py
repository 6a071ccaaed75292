"""The system call filter of a role: what its row does not list kills the process.

Not here: which calls a role has (`rights.py`). libseccomp compiles the program; this module says which arguments are allowed where a
call would be too wide by itself, and which refused calls get an error instead of death because Python or glibc makes them of
its own accord and can live without (a traceback opens source files, isatty asks for a terminal, clone3 falls back to clone). An
error opens nothing: the call is not made in either case.

Invariants: no executable memory, no new process, no signal to another process, io_uring never.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

from gatepost.privsep import libseccomp
from gatepost.privsep.rights import RoleRights

_INT_MASK = 0xFFFFFFFF
_THREAD_FLAGS = 0x3D0F00  # what pthread_create passes to clone: everything shared, CLONE_THREAD, no new namespace
_PROT_EXEC = 4
_AT_EMPTY_PATH = 0x1000
_FIONREAD, _FIONBIO, _FIOCLEX = 0x541B, 0x5421, 0x5451
_PR_SET_NAME, _PR_GET_NAME = 15, 16
_IO_URING = ("io_uring_setup", "io_uring_enter", "io_uring_register")

_SOCKET_OPTIONS = {
    socket.SOL_SOCKET: (2, 3, 4, 7, 8, 9, 13, 15, 17, 30, 38, 39),  # no BPF program can be attached by any of these
    # NODELAY CORK KEEP* QUICKACK USER_TIMEOUT FASTOPEN NOTSENT_LOWAT; no ULP
    socket.IPPROTO_TCP: (1, 3, 4, 5, 6, 12, 18, 23, 25),
    socket.IPPROTO_IP: (1, 10, 11),  # TOS MTU_DISCOVER RECVERR
    socket.IPPROTO_IPV6: (23, 25, 26, 67),  # MTU_DISCOVER RECVERR V6ONLY TCLASS
}
"""What setsockopt may set; SOL_SOCKET: REUSEADDR TYPE ERROR SNDBUF RCVBUF KEEPALIVE LINGER REUSEPORT PEERCRED ACCEPTCONN PROTOCOL DOMAIN."""

_FAMILIES = {"unix": socket.AF_UNIX, "inet": socket.AF_INET, "inet6": socket.AF_INET6}

_READING_FILES = "openat open stat lstat statx access faccessat faccessat2 getcwd readlink readlinkat statfs getdents64"  # linecache, realpath
SOFT: dict[str, int] = {
    **dict.fromkeys(_READING_FILES.split(), errno.EACCES),
    **dict.fromkeys(_IO_URING, errno.ENOSYS),
    "clone3": errno.ENOSYS,  # its arguments lie in memory, where no filter can see them; glibc then uses clone
    "set_robust_list": errno.ENOSYS,
    "rseq": errno.ENOSYS,
    "membarrier": errno.ENOSYS,
    "sched_getparam": errno.EPERM,
    "sched_getscheduler": errno.EPERM,
    "sched_setaffinity": errno.EPERM,
}
"""Calls that get this error where the role does not have them; every other call it does not have is the default action."""

# Compared first. Since Linux 5.11 the kernel remembers what is allowed whatever its arguments, and the order matters for the rest only.
_HOT = (
    "read write epoll_pwait epoll_wait sendto recvfrom writev sendmsg recvmsg accept4 close futex fdatasync epoll_ctl shutdown"
    " pread64 setsockopt ioctl"
)


def is_available() -> bool:
    """Whether libseccomp is installed; whether the kernel takes filters shows when one is loaded."""
    return libseccomp.library is not None


def deny_io_uring() -> None:
    """Make io_uring answer ENOSYS from now on: its rings bypass a filter, so it must be gone before the event loop exists.

    Sets no_new_privs. Raises OSError.
    """
    program = _start_program(libseccomp.ALLOW)
    for name in _IO_URING:
        program.add_rule(libseccomp.errno_action(errno.ENOSYS), name)
    program.load()


def load_filter(rights: RoleRights, denied: str = "kill") -> str:
    """Load the default-deny filter of a role into every thread; return what is in force, in words.

    `denied` is what becomes of a call that is not listed: "kill" the process; "errno" EPERM, to try what is refused; "log" lets it
    pass and notes it in the kernel's log, to find what a row lacks. Raises OSError.
    """
    compile_filter(rights, denied).load()
    families = ", ".join(sorted(rights.socket_families)) or "none"
    return f"seccomp {denied} ({len(rights.syscalls)} system calls; sockets {families})"


def compile_filter(rights: RoleRights, denied: str = "kill") -> libseccomp.SyscallFilter:
    """The filter of a role, not loaded yet; it names this process where a call may only reach the process itself."""
    default = {"kill": libseccomp.KILL_PROCESS, "errno": libseccomp.errno_action(errno.EPERM), "log": libseccomp.LOG}[
        denied
    ]
    program = _start_program(default)
    for rank, name in enumerate(_HOT.split()):
        if name in rights.syscalls:
            program.syscall_priority(name, 255 - rank)
    for name in sorted(rights.syscalls):
        if number_of(name) < 0:
            continue
        if narrow := _NARROWED.get(name):
            narrow(program, rights)
        else:
            program.add_rule(libseccomp.ALLOW, name)
    if denied != "log":
        for name, code in SOFT.items():
            action = libseccomp.errno_action(code)
            # a rule must differ from the default
            if name not in rights.syscalls and action != default and number_of(name) >= 0:
                program.add_rule(action, name)
    return program


def _start_program(default: int) -> libseccomp.SyscallFilter:
    program = libseccomp.SyscallFilter(default)
    program.set_attr(libseccomp.ACT_BADARCH, libseccomp.KILL_PROCESS)  # 32-bit and x32 calls have other numbers
    program.set_attr(libseccomp.CTL_TSYNC, 1)
    return program


def number_of(name: str) -> int:
    """The number of a system call here; negative where this architecture has none (arm64: open, rename, fork)."""
    return libseccomp.resolve_syscall(name)


# --- calls that are too wide by themselves --------------------------------------------------------------------------------


def _allow(program: libseccomp.SyscallFilter, name: str, *arguments: libseccomp.Arg) -> None:
    program.add_rule(libseccomp.ALLOW, name, *arguments)


def _narrow_memory(name: str) -> Callable[[libseccomp.SyscallFilter, RoleRights], None]:
    def narrow(program: libseccomp.SyscallFilter, rights: RoleRights) -> None:
        _allow(program, name, libseccomp.Arg(2, libseccomp.MASKED_EQ, _PROT_EXEC, 0))

    return narrow


def _narrow_to_self(name: str) -> Callable[[libseccomp.SyscallFilter, RoleRights], None]:
    def narrow(program: libseccomp.SyscallFilter, rights: RoleRights) -> None:
        _allow(program, name, libseccomp.Arg(0, libseccomp.MASKED_EQ, _INT_MASK, os.getpid()))

    return narrow


def _narrow_clone(program: libseccomp.SyscallFilter, rights: RoleRights) -> None:
    _allow(program, "clone", libseccomp.Arg(0, libseccomp.EQ, _THREAD_FLAGS))


def _narrow_ioctl(program: libseccomp.SyscallFilter, rights: RoleRights) -> None:
    for request in (_FIONREAD, _FIONBIO, _FIOCLEX):
        _allow(program, "ioctl", libseccomp.Arg(1, libseccomp.EQ, request))
    # Below lie the terminal's requests, above everything of devices: an error for those, isatty and termios ask.
    program.add_rule(libseccomp.errno_action(errno.ENOTTY), "ioctl", libseccomp.Arg(1, libseccomp.LT, _FIONREAD))
    program.add_rule(libseccomp.errno_action(errno.ENOTTY), "ioctl", libseccomp.Arg(1, libseccomp.GT, _FIOCLEX))


def _narrow_prctl(program: libseccomp.SyscallFilter, rights: RoleRights) -> None:
    _allow(program, "prctl", libseccomp.Arg(0, libseccomp.EQ, _PR_SET_NAME))
    _allow(program, "prctl", libseccomp.Arg(0, libseccomp.EQ, _PR_GET_NAME))
    program.add_rule(libseccomp.errno_action(errno.EINVAL), "prctl", libseccomp.Arg(0, libseccomp.LT, _PR_SET_NAME))
    program.add_rule(libseccomp.errno_action(errno.EINVAL), "prctl", libseccomp.Arg(0, libseccomp.GT, _PR_GET_NAME))


def _narrow_newfstatat(program: libseccomp.SyscallFilter, rights: RoleRights) -> None:
    if rights.has_files:
        _allow(program, "newfstatat")
        return
    _allow(program, "newfstatat", libseccomp.Arg(3, libseccomp.EQ, _AT_EMPTY_PATH))
    program.add_rule(
        libseccomp.errno_action(errno.EACCES), "newfstatat", libseccomp.Arg(3, libseccomp.NE, _AT_EMPTY_PATH)
    )


def _narrow_lseek(program: libseccomp.SyscallFilter, rights: RoleRights) -> None:
    """Without files only to ask where it is: who can clear O_APPEND and go back in a segment could write over acknowledged mail."""
    if rights.has_files:
        _allow(program, "lseek")
        return
    _allow(program, "lseek", libseccomp.Arg(1, libseccomp.EQ, 0), libseccomp.Arg(2, libseccomp.EQ, os.SEEK_CUR))
    refusal = libseccomp.errno_action(errno.EACCES)
    program.add_rule(refusal, "lseek", libseccomp.Arg(1, libseccomp.NE, 0))
    program.add_rule(
        refusal, "lseek", libseccomp.Arg(1, libseccomp.EQ, 0), libseccomp.Arg(2, libseccomp.NE, os.SEEK_CUR)
    )


def _narrow_prlimit(program: libseccomp.SyscallFilter, rights: RoleRights) -> None:
    _allow(program, "prlimit64", libseccomp.Arg(0, libseccomp.EQ, 0), libseccomp.Arg(2, libseccomp.EQ, 0))


def _narrow_socketpair(program: libseccomp.SyscallFilter, rights: RoleRights) -> None:
    _allow(program, "socketpair", libseccomp.Arg(0, libseccomp.EQ, socket.AF_UNIX))


def _narrow_socket(program: libseccomp.SyscallFilter, rights: RoleRights) -> None:
    numbers = sorted(_FAMILIES[family] for family in rights.socket_families)
    for number in numbers:
        # no raw and no packet socket; the mask leaves NONBLOCK and CLOEXEC
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            _allow(
                program,
                "socket",
                libseccomp.Arg(0, libseccomp.EQ, number),
                libseccomp.Arg(1, libseccomp.MASKED_EQ, 0xF, kind),
            )
    # getaddrinfo tries netlink and nscd: an error, not death.
    program.add_rule(
        libseccomp.errno_action(errno.EAFNOSUPPORT), "socket", libseccomp.Arg(0, libseccomp.LT, numbers[0])
    )
    program.add_rule(
        libseccomp.errno_action(errno.EAFNOSUPPORT), "socket", libseccomp.Arg(0, libseccomp.GT, numbers[-1])
    )


def _narrow_setsockopt(program: libseccomp.SyscallFilter, rights: RoleRights) -> None:
    for level, options in _SOCKET_OPTIONS.items():
        for option in options:
            _allow(
                program,
                "setsockopt",
                libseccomp.Arg(1, libseccomp.EQ, level),
                libseccomp.Arg(2, libseccomp.EQ, option),
            )


_NARROWED: dict[str, Callable[[libseccomp.SyscallFilter, RoleRights], None]] = {
    "mmap": _narrow_memory("mmap"),
    "mprotect": _narrow_memory("mprotect"),
    "kill": _narrow_to_self("kill"),
    "tgkill": _narrow_to_self("tgkill"),
    "clone": _narrow_clone,
    "ioctl": _narrow_ioctl,
    "prctl": _narrow_prctl,
    "newfstatat": _narrow_newfstatat,
    "lseek": _narrow_lseek,
    "prlimit64": _narrow_prlimit,
    "socketpair": _narrow_socketpair,
    "socket": _narrow_socket,
    "setsockopt": _narrow_setsockopt,
}
