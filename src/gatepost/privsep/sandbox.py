"""A role locks itself in: root directory, limits, user, capabilities, no_new_privs, Landlock, system call filter, in this order.

Not here: what a role may do (`rights.py`, `roles.py`). Both steps are for good and come in this order: `before_loop()`, then
imports, the event loop, `warm_loop()`, then `lock_in()`, then the first byte from outside. `lock_in` wants exactly one thread (Landlock
binds the calling thread only); threads started later inherit everything. It leaves the working directory at the role's root, with
and without a chroot, so a role with files uses relative paths. A failure raises SandboxError and the role must exit: what was
given up before stays given up.
"""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import gc
import os
import resource
import socket
import stat
import struct
from asyncio import Protocol
from collections.abc import Callable
from typing import Any

from gatepost.privsep import landlock, seccomp
from gatepost.privsep.memorylock import LOCKED, lock_all
from gatepost.privsep.rights import RoleRights

_PR_SET_DUMPABLE, _PR_CAPBSET_READ, _PR_CAPBSET_DROP = 4, 23, 24
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _KEPT_BYTES = -1, -3, 4 << 20
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class SandboxError(Exception):
    """The role cannot be locked in as its row asks. `problem` says what is the matter, `advice` what the operator should do."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(f"{problem}; {advice}")
        self.problem = problem
        self.advice = advice


def before_loop() -> None:
    """Take io_uring away and load what glibc loads late; call it first of all, before an event loop exists.

    Where it cannot, it does nothing: `lock_in` finds the io_uring that the loop then has, and refuses it.
    """
    preload()
    if seccomp.is_available():
        with contextlib.suppress(OSError):
            seccomp.deny_io_uring()


def preload() -> None:
    """Load now what is otherwise loaded from files at its first use.

    glibc opens libgcc_s when a thread is cancelled or exits early, and aborts if it cannot; Python imports a codec when it is
    first named, and getaddrinfo names idna even for an IP address.
    """
    for codec in ("ascii", "latin-1", "utf-8", "idna"):
        codecs.lookup(codec)
    with contextlib.suppress(OSError):  # musl has no such need
        ctypes.CDLL("libgcc_s.so.1")


def release_memory() -> None:
    """Give back to the kernel what the start needed and nobody needs any more.

    From now on a few megabytes at the end of the heap stay: by default each message of 100 KiB would cost up to ten page faults in the
    receiver, because the heap shrinks behind it and grows again, and one of 1 MiB a hundred in the deliverer.
    """
    gc.collect()
    with contextlib.suppress(AttributeError):  # musl has no such call
        _libc.malloc_trim(0)
        _libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        _libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def warm_loop(loop: Any) -> None:
    """Let the event loop open its spare descriptor, before `lock_in` and while the loop does not run.

    libuv keeps /dev/null open, to close it and refuse a connection when descriptors run out. It opens it with the first stream, and
    tries again with each stream if it cannot: two system calls for every connection, and a busy loop at EMFILE. The spare serves one
    shortage, as it cannot be opened again: a role's limit of connections has to lie below its `nofile`.
    """
    loop.run_until_complete(_open_stream(loop))


class _Mute(Protocol):
    """Hears nothing."""


async def _open_stream(loop: Any) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        transport, _ = await loop.create_connection(_Mute, sock=ours)
        transport.abort()


def lock_in(
    rights: RoleRights,
    *,
    root: str,
    uid: int,
    gid: int,
    mode: str = "enforce",
    denied: str = "kill",
    after_landlock: Callable[[], None] | None = None,
) -> str:
    """Give up everything `rights` does not list, for good; return the one line that names what is left.

    `root` is the directory to chroot into, empty for none; `uid` and `gid` -1 keep the user. Both are used only if started as root;
    else `root` is where Landlock lets a role with files work. `mode` "enforce" raises where the kernel lacks Landlock or seccomp,
    "best-effort" goes on and says so in the line. `denied` see `seccomp.load_filter`; `after_landlock` runs between Landlock
    and the filter, for `trying.py`. Raises SandboxError.
    """
    _check_single_thread()
    preload()
    as_root = os.geteuid() == 0
    _check_descriptors(root, mode)
    locked = lock_all() if rights.holds_keys else ""  # as long as it has /proc, and a limit can still be raised
    words = [_enter_root(rights, root, as_root)]
    limits = _set_limits(rights, as_root, locked)  # as long as a limit can still be raised
    words.append(_become_user(rights, uid, gid, as_root))
    _drop_capabilities()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    os.umask(0o077)
    words.append("no capabilities, no_new_privs")
    words.append(limits)
    words.append(_restrict_files(rights, root, as_root, mode))
    if after_landlock is not None:
        after_landlock()
    words.append(_load_filter(rights, mode, denied))
    return f"{rights.name}: {', '.join(words)}"


# --- steps ----------------------------------------------------------------------------------------------------------------


def _check_single_thread() -> None:
    try:
        count = len(os.listdir("/proc/self/task"))
    except OSError as error:
        raise SandboxError("cannot read /proc/self/task", "mount /proc where Gatepost starts") from error
    if count != 1:
        raise SandboxError(f"{count} threads run already", "this is a bug in Gatepost: lock_in comes before any thread")


def _check_descriptors(root: str, mode: str) -> None:
    """Refuse what undoes the rest: an io_uring (no filter sees its calls), a directory (with openat it leads out of a chroot).

    A directory at or below the role's own root is no way out.
    """
    real_root = os.path.realpath(root) if root else None
    for name in os.listdir("/proc/self/fd"):
        try:
            is_directory = stat.S_ISDIR(os.fstat(int(name)).st_mode)
            path = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the descriptor of the listing itself
            continue
        if "[io_uring]" in path:
            _insist(mode, "an io_uring is open", "this is a bug in Gatepost: before_loop comes before the event loop")
        if is_directory and not (real_root and (path == real_root or path.startswith(real_root.rstrip("/") + "/"))):
            raise SandboxError(
                f"descriptor {name} is the directory {path}", "this is a bug in Gatepost: close it first"
            )


def _enter_root(rights: RoleRights, root: str, as_root: bool) -> str:
    if not as_root:
        target = root if root and rights.has_files else "/"
        _do(lambda: os.chdir(target), f"cannot enter {target}", "make it a directory of the user who starts Gatepost")
        return "no chroot"
    if not root:
        os.chdir("/")
        return "no chroot"
    _do(lambda: _check_root(rights, root), f"cannot read {root}", "make the directory")
    _do(lambda: os.chroot(root), f"cannot chroot into {root}", "give Gatepost CAP_SYS_CHROOT")
    os.chdir("/")
    return f"root {root}"


def _check_root(rights: RoleRights, root: str) -> None:
    if rights.root != "empty":
        return
    facts = os.stat(root)
    if facts.st_uid != 0 or facts.st_mode & 0o022:
        raise SandboxError(
            f"{root} can be written to by others than root", f"chown root:root {root} && chmod 0755 {root}"
        )
    if os.listdir(root):
        raise SandboxError(f"{root} is not empty", "empty it, or name another directory")


def _become_user(rights: RoleRights, uid: int, gid: int, as_root: bool) -> str:
    if not as_root:
        return f"uid {os.getuid()} gid {os.getgid()} (kept)"
    if uid <= 0 or gid <= 0:
        raise SandboxError(
            f"started as root, and role {rights.name} has no user",
            f"make the user with: adduser --system --group --no-create-home {rights.user}",
        )
    _drop_bounding_set()
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid) or os.getgroups():
        raise SandboxError("the user did not change", "this is a bug in the kernel or in Gatepost")
    return f"uid {uid} gid {gid}"


def _drop_bounding_set() -> None:
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) < 0:
            return  # one more than the kernel knows
        _prctl(_PR_CAPBSET_DROP, capability)


def _drop_capabilities() -> None:
    """Empty the ambient, inheritable, permitted and effective sets."""
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, bytes(24)) != 0:
        raise SandboxError(f"capabilities stay: {os.strerror(ctypes.get_errno())}", "this is a bug in Gatepost")


def _set_limits(rights: RoleRights, as_root: bool, locked: str) -> str:
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_MSGQUEUE: 0}
    if locked != LOCKED:  # the lock needs its limit for what is allocated later
        limits[resource.RLIMIT_MEMLOCK] = 0
    if rights.address_space_bytes:
        limits[resource.RLIMIT_AS] = rights.address_space_bytes
    if as_root:
        limits[resource.RLIMIT_NPROC] = rights.nproc
    for limit, value in limits.items():
        _set_limit(limit, value)
    nofile = _set_limit(resource.RLIMIT_NOFILE, rights.nofile)
    short = "" if nofile >= rights.nofile else f" (wants {rights.nofile})"
    return f"nofile {nofile}{short}" + (f", {locked}" if locked else "")


def _set_limit(limit: int, value: int) -> int:
    """Set soft and hard limit; where the hard limit is lower and cannot be raised, to that. Returns what is set."""
    try:
        resource.setrlimit(limit, (value, value))
    except (ValueError, OSError):
        value = resource.getrlimit(limit)[1]
        resource.setrlimit(limit, (value, value))
    return value


def _restrict_files(rights: RoleRights, root: str, as_root: bool, mode: str) -> str:
    abi = landlock.probe_abi()
    needed = 2 if rights.has_files else 1
    if abi < needed:
        _insist(mode, f"the kernel has no Landlock (ABI {abi}, {needed} needed)", _LANDLOCK_ADVICE)
        return "NO LANDLOCK"
    if rights.has_files and not root:
        raise SandboxError(f"role {rights.name} has files and no root", "this is a bug in Gatepost")
    start = "" if as_root else os.path.realpath(root)
    paths = [(start + path if path != "/" else start or "/", access) for path, access in rights.landlock_fs]
    try:
        return landlock.restrict(paths, may_connect=rights.may_connect, abi=abi)
    except OSError as error:
        _insist(mode, f"Landlock failed: {error}", _LANDLOCK_ADVICE)
        return "NO LANDLOCK"


def _load_filter(rights: RoleRights, mode: str, denied: str) -> str:
    if not seccomp.is_available():
        _insist(mode, "libseccomp or the kernel's seccomp is not there", _SECCOMP_ADVICE)
        return "NO SECCOMP"
    try:
        return seccomp.load_filter(rights, denied)
    except OSError as error:
        _insist(mode, f"the system call filter was refused: {error.strerror}", _SECCOMP_ADVICE)
        return "NO SECCOMP"


# --- errors ---------------------------------------------------------------------------------------------------------------

_LANDLOCK_ADVICE = 'use Linux 5.19 or later with landlock in its lsm= list, or set sandbox = "best-effort"'
_SECCOMP_ADVICE = 'install libseccomp2 on a kernel with CONFIG_SECCOMP_FILTER, or set sandbox = "best-effort"'


def _insist(mode: str, problem: str, advice: str) -> None:
    if mode != "best-effort":
        raise SandboxError(problem, advice)


def _do(act: Callable[[], object], problem: str, advice: str) -> None:
    try:
        act()
    except OSError as error:
        raise SandboxError(f"{problem}: {error.strerror}", advice) from error


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise SandboxError(f"prctl {option} failed: {os.strerror(ctypes.get_errno())}", "this is a bug in Gatepost")
