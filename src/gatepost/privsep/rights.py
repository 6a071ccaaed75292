"""One row of the table of roles: the words in which `roles.py` says what a role may do.

Not here: the rows (`roles.py`), the means by which a row is enforced (`sandbox.py`, `landlock.py`, `seccomp.py`) and what the
kernel says of a live process (`kernel.py`). All of them read the same `RoleRights`.

Every system call a role may make stands in a group here with the reason it is there; a call in no group is never made. A
`RoleRights` that contradicts itself cannot be built. Paths in it are relative to the role's root directory, so a row means the
same with and without a chroot. This module loads nothing that parses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from gatepost.ipc.messages import Message

REASONS: dict[str, str] = {}
"""Why each system call is in a group, by name; `gatepost privs` and docs/security.md print it."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _group(reasons: dict[str, str]) -> frozenset[str]:
    REASONS.update(reasons)
    return frozenset(reasons)


BASE = _group(
    {
        "epoll_wait": "the event loop waits (libuv before epoll_pwait)",
        "epoll_pwait": "the event loop waits",
        "epoll_ctl": "the event loop adds and removes descriptors",
        "epoll_create1": "a second loop, and selectors, made after the lock-in",
        "eventfd2": "wakes the loop from a thread",
        "timerfd_create": "timers of an event loop",
        "timerfd_settime": "timers of an event loop",
        "poll": "waits for one descriptor (socket with a time-out)",
        "ppoll": "waits for one descriptor (glibc's form of poll on arm64)",
        "select": "time.sleep and select.select",
        "pselect6": "glibc's form of select on arm64",
        "close": "closes a descriptor",
        "close_range": "closes descriptors in one call",
        "dup": "duplicates a descriptor that came from a peer",
        "dup2": "duplicates a descriptor",
        "dup3": "duplicates a descriptor",
        "fcntl": "O_NONBLOCK, FD_CLOEXEC, F_GETFL, locks",
        "ioctl": "FIONBIO and FIONREAD only; see seccomp.py",
        "fstat": "size and kind of an open file",
        "newfstatat": "glibc 2.33 to 2.38 spell fstat so; only with AT_EMPTY_PATH unless the role has FILES",
        "lseek": "position of an open file; Python asks it when it wraps a descriptor; to ask is all that roles without files may",
        "mmap": "memory, never executable",
        "munmap": "memory",
        "mremap": "realloc of a large block",
        "mprotect": "stack of a new thread, memory, never executable",
        "madvise": "gives memory back",
        "brk": "memory",
        "futex": "locks",
        "sched_yield": "locks",
        "getrandom": "random numbers (ids, ports, TLS, hash seeds)",
        "clock_gettime": "the clock where the vDSO cannot answer",
        "clock_getres": "the clock's resolution (time.get_clock_info)",
        "clock_nanosleep": "time.sleep",
        "nanosleep": "time.sleep of older libraries",
        "gettimeofday": "the clock where the vDSO cannot answer",
        "time": "the clock where the vDSO cannot answer",
        "getcpu": "the allocator asks where it runs",
        "rt_sigaction": "signal handlers",
        "rt_sigprocmask": "signal masks",
        "rt_sigreturn": "returns from a signal handler",
        "rt_sigtimedwait": "waits for a signal",
        "signalfd4": "signals as a descriptor",
        "sigaltstack": "the stack of faulthandler",
        "restart_syscall": "the kernel resumes a sleep after a signal",
        "kill": "a signal to itself only",
        "tgkill": "abort() and raise(): a signal to itself only",
        "getpid": "its own number",
        "gettid": "its own number",
        "getppid": "its parent's number",
        "getuid": "its own identity",
        "geteuid": "its own identity",
        "getgid": "its own identity",
        "getegid": "its own identity",
        "getresuid": "its own identity",
        "getresgid": "its own identity",
        "getgroups": "its own identity",
        "umask": "reads the umask; harmless without files",
        "uname": "the kernel's version (socket.gethostname)",
        "getrlimit": "its own limits",
        "prlimit64": "reads its own limits; setting is refused",
        "getrusage": "its own consumption, for metrics",
        "times": "its own consumption, for metrics",
        "sysinfo": "glibc's qsort asks for the memory size",
        "sched_getaffinity": "glibc asks for the number of processors",
        "prctl": "PR_SET_NAME and PR_GET_NAME only",
        "socketpair": "AF_UNIX only: uvloop's wake-up pair for signals",
        "exit": "the end of a thread",
        "exit_group": "the end",
    }
)

READ_WRITE = _group(
    {
        "read": "reads a descriptor",
        "write": "writes a descriptor",
        "readv": "reads into several buffers",
        "writev": "writes several buffers: the group commit, a pipelined group of replies",
        "recvfrom": "socket.recv",
        "sendto": "socket.send",
        "recvmsg": "a packet of a peer role with its descriptors",
        "sendmsg": "a packet to a peer role with descriptors",
        "shutdown": "ends one direction of a connection",
        "getsockopt": "SO_ERROR, SO_TYPE, SO_PEERCRED",
        "setsockopt": "a list of options only; see seccomp.py",
        "getsockname": "the address of a socket",
        "getpeername": "the address of a peer",
        "pipe2": "a pipe between its own threads",
    }
)

DATAGRAMS = _group(
    {
        "recvmmsg": "libuv reads datagrams several at a time",
        "sendmmsg": "libuv sends datagrams several at a time",
    }
)

SOCKET_ACCEPT = _group(
    {
        "accept4": "takes a connection from a listening socket that was handed to it",
        "accept": "the same, older form",
        "listen": "uvloop calls it again on a socket that listens already; without bind it opens no new port of choice",
    }
)

SOCKET_CONNECT = _group(
    {
        "socket": "a socket of the listed families only",
        "connect": "an outgoing connection",
    }
)

POSITIONED = _group(
    {
        "pread64": "reads at an offset of a passed descriptor",
        "pwrite64": "writes at an offset of a passed descriptor",
        "preadv": "reads at an offset into several buffers",
        "pwritev": "writes several buffers at an offset",
        "sendfile": "a body from its descriptor to a socket without a copy",
    }
)

SYNC = _group(
    {
        "fdatasync": "makes what was written durable",
        "fsync": "makes what was written durable",
        "sync_file_range": "starts writing back early",
        "fadvise64": "tells the cache what comes next",
    }
)

RESIZE = _group(
    {
        "ftruncate": "cuts an unacknowledged tail off",
        "fallocate": "reserves room for the journal",
    }
)
"""Apart from SYNC: who only appends must not be able to take back what was acknowledged."""

FILES = _group(
    {
        "openat": "opens a file below the role's root",
        "open": "the same, older form",
        "stat": "a file's size and owner",
        "lstat": "a file's size and owner",
        "statx": "a file's size and owner",
        "access": "whether a file is there",
        "faccessat": "whether a file is there",
        "faccessat2": "whether a file is there",
        "getcwd": "the working directory",
        "readlink": "os.path.realpath",
        "readlinkat": "os.path.realpath",
        "getdents64": "lists a directory",
        "unlink": "removes a file",
        "unlinkat": "removes a file",
        "rename": "moves a file",
        "renameat": "moves a file",
        "renameat2": "moves a file",
        "link": "a second name for a file (Maildir's tmp to new)",
        "linkat": "a second name for a file",
        "mkdir": "makes a directory",
        "mkdirat": "makes a directory",
        "rmdir": "removes a directory",
        "fchmod": "the mode of a new file",
        "utimensat": "the times of a file",
        "futimesat": "the times of a file, older form",
        "flock": "one owner of the spool",
        "statfs": "room left",
        "fstatfs": "room left, and the kind of file system",
        "copy_file_range": "a message from its segment to a file of its own without a copy through memory",
        "chdir": "the working directory, below the root",
        "fchdir": "the working directory, below the root",
    }
)

THREADS = _group(
    {
        "clone": "a new thread; never a new process",
        "set_robust_list": "start of a thread",
        "rseq": "start of a thread",
        "set_tid_address": "start of a thread",
        "membarrier": "memory order between threads",
        "sched_getparam": "pthread_getattr_np",
        "sched_getscheduler": "pthread_getattr_np",
    }
)

NEVER = _names(
    "execve execveat fork vfork clone3 ptrace bpf keyctl add_key request_key userfaultfd perf_event_open process_vm_readv "
    "process_vm_writev memfd_create memfd_secret unshare setns mount umount2 move_mount open_tree fsopen fsmount pivot_root chroot "
    "init_module finit_module delete_module kexec_load kexec_file_load io_uring_setup io_uring_enter io_uring_register "
    "bind setuid setgid setreuid setregid setresuid setresgid setgroups capset personality swapon reboot pkey_mprotect "
    "shmat remap_file_pages modify_ldt pidfd_open pidfd_getfd pidfd_send_signal open_by_handle_at name_to_handle_at "
    "mknod mknodat symlink symlinkat seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self"
)
"""No row may hold these: a row that does cannot be built."""

SOCKET_FAMILIES = frozenset({"unix", "inet", "inet6"})

DESCRIPTOR_KINDS = _names(
    "tcp-listen tcp udp unix-stream-listen unix-stream unix-seqpacket unix-seqpacket-listen unix-dgram socket pipe eventfd eventpoll "
    "timerfd signalfd io_uring pidfd inotify anonymous null terminal device file-read file-write file-append directory"
)
"""How `kernel.py` names an open descriptor, and a row what it may hold."""

LOOP_DESCRIPTORS = frozenset({"pipe", "eventfd", "eventpoll", "timerfd", "signalfd", "unix-stream", "null"})
"""What the interpreter and the event loop hold by themselves, in every role."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleRights:
    """What one role may do. The empty set of everything is the default; each row adds to it.

    `root`: "empty" (a directory of root's without content), "spool" or "maildir". `landlock_fs` lists (path, access), path relative
    to the root ("/" is the root itself), access "read" or "read-write"; empty: no file can be opened. `socket_families` are what
    socket(2) may make: "inet", "inet6", "unix". `peers` are the roles it talks to with the message types it accepts from each.
    """

    name: str
    user: str
    root: str = "empty"
    syscalls: frozenset[str] = BASE | READ_WRITE | THREADS
    socket_families: frozenset[str] = frozenset()
    landlock_fs: tuple[tuple[str, str], ...] = ()
    may_connect: bool = False
    may_accept: bool = False
    # "uvloop", or "asyncio": half as fast, 3 MB smaller, and without OpenSSL, for a role that has little to do
    loop: str = "uvloop"
    holds_keys: bool = False  # its memory is never swapped, where the limits of the start allow that
    nofile: int = 1024
    address_space_bytes: int = 0  # RLIMIT_AS; 0: none
    nproc: int = 256  # threads of its user, all processes of that user together; set only where it has a uid of its own
    descriptors: frozenset[str] = frozenset()  # kinds beside LOOP_DESCRIPTORS, from DESCRIPTOR_KINDS
    peers: Mapping[str, frozenset[type[Message]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a row that contradicts itself: a table with a mistake in it must not start."""
        if problems := self._contradictions():
            raise ValueError(f"role {self.name}: {'; '.join(problems)}")

    @property
    def has_files(self) -> bool:
        """Whether it may open files at all."""
        return bool(self.landlock_fs)

    def _contradictions(self) -> list[str]:
        calls = self.syscalls
        found = []
        if forbidden := sorted(calls & NEVER):
            found.append(f"no role may have {', '.join(forbidden)}")
        if unknown := sorted(calls - REASONS.keys()):
            found.append(f"no reason is given for {', '.join(unknown)}")
        if self.root not in ("empty", "spool", "maildir"):
            found.append(f"root {self.root!r} is none of empty, spool, maildir")
        if unknown := sorted(self.socket_families - SOCKET_FAMILIES):
            found.append(f"unknown socket family {', '.join(unknown)}")
        if unknown := sorted(self.descriptors - DESCRIPTOR_KINDS):
            found.append(f"unknown kind of descriptor {', '.join(unknown)}")
        if self.may_connect != ("connect" in calls):
            found.append("may_connect and the connect system call go together")
        if bool(self.socket_families) != ("socket" in calls):
            found.append("socket_families and the socket system call go together")
        if self.may_accept != ("accept4" in calls):
            found.append("may_accept and the accept4 system call go together")
        # listen(2) on a new socket binds it to a port of the kernel's choice
        if self.may_accept and self.socket_families:
            found.append("a role that accepts must not make sockets")
        if self.has_files != ("openat" in calls):
            found.append("landlock_fs and the openat system call go together")
        if self.has_files and self.root == "empty":
            found.append("a role with files needs a root of its own")
        if wrong := [access for _, access in self.landlock_fs if access not in ("read", "read-write")]:
            found.append(f"access {wrong[0]!r} is neither read nor read-write")
        return found


LANDLOCK, FILTER = "landlock", "filter"


class TryResult(msgspec.Struct, frozen=True):
    """One forbidden act that was tried: it must not have succeeded.

    `succeeded` is true also if it failed with an error that no refusal gives: it got past what must stop it. `answer` is the name of
    the error, or "done".
    """

    what: str
    layer: str  # LANDLOCK or FILTER: what stood between the act and its success
    succeeded: bool
    answer: str
