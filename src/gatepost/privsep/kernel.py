"""What the kernel says a live process may do, read from /proc alone, and where that differs from the table.

Not here: asking the process itself, which may lie; only its tries (`trying.py`), made before it saw a byte from outside, are taken as
given, because no file in /proc shows Landlock. A locked-in process is not dumpable, so without root much of it cannot be read even by
its own user: what could not be read is listed in `unreadable` and is no difference. One of which nothing at all can be read is.
"""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from gatepost.privsep.rights import LOOP_DESCRIPTORS, RoleRights, TryResult

_CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_OWN_FILTERS = 2  # the one of before_loop, which shows as "filter" too, and the one that denies by default
_SECCOMP_MODES = {0: "none", 1: "strict", 2: "filter"}
_UNIX_KINDS = {1: "unix-stream", 2: "unix-dgram", 5: "unix-seqpacket"}
_UNIX_LISTENS = 0x10000  # __SO_ACCEPTCON
_TCP_STATES = (
    *("?", "established", "syn-sent", "syn-received", "fin-wait-1", "fin-wait-2", "time-wait", "close", "close-wait"),
    *("last-ack", "listen", "closing"),
)
_O_APPEND = 0o2000
_ACCESS = {os.O_RDONLY: "read", os.O_WRONLY: "write", os.O_RDWR: "read-write"}
_TRIES, _AGAIN_S = 500, 0.001
_TERMINAL_MAJORS = {4, 5, *range(136, 144)}
_STANDARD_KINDS = {"null", "terminal", "pipe", "device", "file-read", "file-write", "file-append", "unix-stream"}


class Descriptor(msgspec.Struct, frozen=True):
    """An open descriptor: `kind` is one of `rights.DESCRIPTOR_KINDS`, `target` its path, its addresses, or what the link says."""

    number: int
    kind: str
    target: str
    access: str = ""  # "read", "write", "read-write" for files
    state: str = ""  # of a TCP socket


class ProcessFacts(msgspec.Struct):
    """What /proc shows of one process. Sizes in bytes; -1 for a limit is "unlimited"."""

    pid: int
    name: str
    threads: int
    uids: list[int]  # real, effective, saved, file system
    gids: list[int]
    groups: list[int]
    capabilities: dict[str, str]  # CapInh CapPrm CapEff CapBnd CapAmb, hexadecimal
    no_new_privs: bool
    seccomp: str  # "none", "strict" or "filter"
    seccomp_filters: int  # with those inherited from a container or service manager; -1: the kernel does not say
    umask: str
    dumpable: bool | None = None  # None: cannot be told (a process of root's)
    root: str | None = None
    cwd: str | None = None
    namespaces: dict[str, str] = {}
    limits: dict[str, tuple[int, int]] = {}  # by its name in /proc/PID/limits: soft, hard
    descriptors: list[Descriptor] = []
    rss_bytes: int = 0
    locked_bytes: int = 0  # address space that is never swapped
    pss_bytes: int | None = None
    unreadable: list[str] = []


class Difference(msgspec.Struct, frozen=True):
    """Where the kernel and the table disagree."""

    what: str
    table: str
    kernel: str

    def __str__(self) -> str:
        return f"{self.what}: the table says {self.table}, the kernel says {self.kernel}"


class Records:
    """/proc/PID/status and /proc/PID/limits of a process, held open since it was started.

    Where /proc is mounted with hidepid (ProtectProc= of systemd), its own user does not see a process that is not dumpable
    (group 0 does); a file that was opened before it locked itself in can still be read.
    """

    def __init__(self, pid: int) -> None:
        """Of a child that was just started and does not lock itself in before it is told to. Raises OSError."""
        # posix_spawn returns a moment before the kernel sees that what is executed may be dumped
        for _ in range(_TRIES):
            if os.path.exists(f"/proc/{pid}/status") or not _is_alive(pid):
                break
            time.sleep(_AGAIN_S)
        self._files: dict[str, int] = {}
        try:
            for name in ("status", "limits"):
                self._files[name] = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.close()
            raise

    def read(self, name: str) -> str:
        """The file as it is now; raises ProcessLookupError if the process has ended."""
        return os.pread(self._files[name], 1 << 16, 0).decode(errors="replace")

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])


def read_process(pid: int, records: Records | None = None) -> ProcessFacts:
    """Everything /proc shows of a process. Raises ProcessLookupError if there is none, PermissionError if it is hidden from us."""
    directory = f"/proc/{pid}"
    read = records.read if records is not None else lambda name: _read(f"{directory}/{name}")
    try:
        status = read("status")
    except FileNotFoundError as error:
        if _is_alive(pid):
            raise PermissionError(f"/proc hides process {pid}") from error
        raise ProcessLookupError(f"no process {pid}") from error
    # it has given its memory back: it runs nothing any more, and what it had locked is gone
    if "\nVmSize:" not in status:
        raise ProcessLookupError(f"process {pid} is ending")
    facts = parse_status(pid, status)
    _read_into(facts, "root", lambda: os.readlink(f"{directory}/root"))
    _read_into(facts, "cwd", lambda: os.readlink(f"{directory}/cwd"))
    _read_into(facts, "namespaces", lambda: _read_namespaces(f"{directory}/ns"))
    _read_into(facts, "limits", lambda: parse_limits(read("limits")))
    _read_into(facts, "descriptors", lambda: _read_descriptors(directory))
    _read_into(facts, "pss_bytes", lambda: _parse_pss(_read(f"{directory}/smaps_rollup")))
    _read_into(facts, "dumpable", lambda: _read_dumpable(directory, facts.uids[1]))
    return facts


def compare(
    facts: ProcessFacts,
    rights: RoleRights,
    *,
    as_root: bool,
    uid: int,
    root: str = "",
    inherited_filters: int = 0,
    tries: Sequence[TryResult] = (),
) -> list[Difference]:
    """Where a live process may do other than its row says; empty if nowhere.

    `as_root` says whether Gatepost was started as root, `uid` the user the role was to become, `root` the directory it was to chroot
    into (empty: not checked), `inherited_filters` the `seccomp_filters` of the supervisor that started it, `tries` what the role reported of `trying.attest_by_trying`.
    """
    found = [
        *_compare_identity(facts, as_root, uid),
        *_compare_locks(facts, as_root, root, inherited_filters),
        *compare_dumps(facts),
        *_compare_limits(facts, _limits(rights)),
        *_compare_descriptors(facts, rights),
    ]
    return found + [Difference(f"{t.what} (tried behind {t.layer})", "refused", t.answer) for t in tries if t.succeeded]


def count_kinds(facts: ProcessFacts) -> dict[str, int]:
    """How many descriptors of each kind a process holds, most first."""
    return dict(Counter(descriptor.kind for descriptor in facts.descriptors).most_common())


# --- reading --------------------------------------------------------------------------------------------------------------


def parse_status(pid: int, text: str) -> ProcessFacts:
    """The facts of /proc/PID/status; the rest of ProcessFacts keeps its defaults."""
    rows = {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    return ProcessFacts(
        pid=pid,
        name=rows.get("Name", ""),
        threads=int(rows.get("Threads", "0")),
        uids=[int(word) for word in rows["Uid"].split()],
        gids=[int(word) for word in rows["Gid"].split()],
        groups=[int(word) for word in rows.get("Groups", "").split()],
        capabilities={name: rows[name] for name in _CAPABILITY_SETS if name in rows},
        no_new_privs=rows.get("NoNewPrivs") == "1",
        seccomp=_SECCOMP_MODES.get(int(rows.get("Seccomp", "0")), "?"),
        seccomp_filters=int(rows.get("Seccomp_filters", "-1")),  # Linux 5.9
        umask=rows.get("Umask", ""),
        rss_bytes=_kilobytes(rows.get("VmRSS", "0 kB")),
        locked_bytes=_kilobytes(rows.get("VmLck", "0 kB")),
    )


def parse_limits(text: str) -> dict[str, tuple[int, int]]:
    """/proc/PID/limits: (soft, hard) by name; -1 is "unlimited". Columns stand at fixed places, names hold blanks."""
    limits = {}
    for line in text.splitlines()[1:]:
        words = line[26:].split()
        if len(words) >= 2:
            soft, hard = (-1 if word == "unlimited" else int(word) for word in words[:2])
            limits[line[:26].strip()] = (soft, hard)
    return limits


def parse_internet_sockets(protocol: str, text: str) -> dict[int, tuple[str, str, str]]:
    """/proc/net/tcp and its like: (kind, "local -> remote", state) by inode."""
    sockets = {}
    for line in text.splitlines()[1:]:
        words = line.split()
        local, remote = _endpoint(words[1]), _endpoint(words[2])
        state = _TCP_STATES[min(int(words[3], 16), len(_TCP_STATES) - 1)] if protocol == "tcp" else ""
        kind = "tcp-listen" if state == "listen" else protocol
        sockets[int(words[9])] = (kind, local if state == "listen" else f"{local} -> {remote}", state)
    return sockets


def parse_unix_sockets(text: str) -> dict[int, tuple[str, str, str]]:
    """/proc/net/unix: (kind, path, "") by inode."""
    sockets = {}
    for line in text.splitlines()[1:]:
        words = line.split(maxsplit=7)
        kind = _UNIX_KINDS.get(int(words[4], 16), "socket")
        if int(words[3], 16) & _UNIX_LISTENS and kind in ("unix-stream", "unix-seqpacket"):
            kind += "-listen"
        sockets[int(words[6])] = (kind, words[7] if len(words) > 7 else "", "")
    return sockets


def _endpoint(text: str) -> str:
    address, port = text.split(":")
    # Each group of eight digits is a 32-bit word in the byte order of the machine; all that Gatepost runs on are little-endian.
    raw = b"".join(bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8))
    if len(raw) == 4:
        return f"{'.'.join(str(byte) for byte in raw)}:{int(port, 16)}"
    groups = ":".join(f"{raw[i] << 8 | raw[i + 1]:x}" for i in range(0, 16, 2))
    return f"[{groups}]:{int(port, 16)}"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return True


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _read_into(facts: ProcessFacts, name: str, read: Callable[[], object]) -> None:
    try:
        setattr(facts, name, read())
    except OSError:
        facts.unreadable.append(name)


def _read_namespaces(directory: str) -> dict[str, str]:
    return {name: os.readlink(f"{directory}/{name}") for name in sorted(os.listdir(directory))}


def _read_dumpable(directory: str, uid: int) -> bool | None:
    """The files in /proc/PID of a process that is not dumpable belong to root, whatever its user."""
    return None if uid == 0 else os.stat(f"{directory}/fd").st_uid == uid


def _parse_pss(text: str) -> int | None:
    return next((_kilobytes(line.split(":")[1]) for line in text.splitlines() if line.startswith("Pss:")), None)


def _kilobytes(text: str) -> int:
    return int(text.split()[0]) * 1024


def _read_descriptors(directory: str) -> list[Descriptor]:
    found = _describe(directory, (int(name) for name in os.listdir(f"{directory}/fd")))
    # made behind the look at the tables, or in none
    if late := [each.number for each in found if each.kind == "socket"]:
        again = {each.number: each for each in _describe(directory, late)}
        found = [again.get(each.number, each) for each in found if each.number not in late or each.number in again]
    return found


def _describe(directory: str, numbers: Iterable[int]) -> list[Descriptor]:
    sockets = _read_sockets(directory)
    found = []
    for number in sorted(numbers):
        try:
            found.append(_read_descriptor(directory, number, sockets))
        except FileNotFoundError:
            continue  # closed meanwhile
    return found


def _read_sockets(directory: str) -> dict[int, tuple[str, str, str]]:
    sockets: dict[int, tuple[str, str, str]] = {}
    for name in ("tcp", "tcp6", "udp", "udp6"):
        try:
            sockets |= parse_internet_sockets(name[:3], _read(f"{directory}/net/{name}"))
        except FileNotFoundError:  # a kernel without IPv6
            continue
    return sockets | parse_unix_sockets(_read(f"{directory}/net/unix"))


def _read_descriptor(directory: str, number: int, sockets: dict[int, tuple[str, str, str]]) -> Descriptor:
    target = os.readlink(f"{directory}/fd/{number}")
    if target.startswith("socket:["):
        kind, addresses, state = sockets.get(int(target[8:-1]), ("socket", target, ""))
        return Descriptor(number, kind, addresses or target, state=state)
    if target.startswith("anon_inode:"):
        return Descriptor(number, _name_anonymous(target), target)
    flags = int(_read(f"{directory}/fdinfo/{number}").split("flags:")[1].split()[0], 8)
    facts = os.stat(f"{directory}/fd/{number}")
    access = _ACCESS.get(flags & os.O_ACCMODE, "")
    return Descriptor(number, _name_file(facts, flags), target, access=access)


def _name_anonymous(target: str) -> str:
    name = target.removeprefix("anon_inode:").strip("[]")
    known = {"eventfd", "eventpoll", "timerfd", "signalfd", "io_uring", "pidfd", "inotify"}
    return name if name in known else "anonymous"


def _name_file(facts: os.stat_result, flags: int) -> str:
    if stat.S_ISFIFO(facts.st_mode):
        return "pipe"
    if stat.S_ISDIR(facts.st_mode):
        return "directory"
    if stat.S_ISCHR(facts.st_mode):
        if facts.st_rdev == os.makedev(1, 3):
            return "null"
        return "terminal" if os.major(facts.st_rdev) in _TERMINAL_MAJORS else "device"
    if stat.S_ISBLK(facts.st_mode):
        return "device"
    if flags & os.O_ACCMODE == os.O_RDONLY:
        return "file-read"
    return "file-append" if flags & _O_APPEND else "file-write"


# --- comparing ------------------------------------------------------------------------------------------------------------


def _compare_identity(facts: ProcessFacts, as_root: bool, uid: int) -> Iterable[Difference]:
    if set(facts.uids) != {uid}:
        yield Difference("user", str(uid), " ".join(str(found) for found in facts.uids))
    if as_root and 0 in facts.gids:
        yield Difference("group", "not 0", " ".join(str(found) for found in facts.gids))
    if as_root and facts.groups:
        yield Difference("supplementary groups", "none", " ".join(str(found) for found in facts.groups))
    for name, value in facts.capabilities.items():
        # Without CAP_SETPCAP nobody can empty the bounding set; behind no_new_privs it gives nothing.
        if int(value, 16) and (as_root or name != "CapBnd"):
            yield Difference(name, "none", value)


def _compare_locks(facts: ProcessFacts, as_root: bool, root: str, inherited_filters: int) -> Iterable[Difference]:
    if not facts.no_new_privs:
        yield Difference("no_new_privs", "set", "not set")
    if facts.seccomp != "filter":
        yield Difference("system call filter", "filter", facts.seccomp)
    filters = max(inherited_filters, 0) + _OWN_FILTERS
    if 0 <= facts.seccomp_filters < filters:
        yield Difference("system call filters", f"at least {filters}", str(facts.seccomp_filters))
    if as_root and root and facts.root is not None and facts.root != os.path.realpath(root):
        yield Difference("root directory", os.path.realpath(root), facts.root)


def compare_dumps(facts: ProcessFacts) -> Iterable[Difference]:
    """Whether a copy of its memory could be left in a core file or read by its own user; the supervisor's neither."""
    if facts.dumpable:
        yield Difference("dumpable", "no", "yes")
    yield from _compare_limits(facts, {"Max core file size": 0})


def _limits(rights: RoleRights) -> dict[str, int]:
    allowed = {"Max open files": rights.nofile}
    if rights.address_space_bytes:
        allowed["Max address space"] = rights.address_space_bytes
    return allowed


def _compare_limits(facts: ProcessFacts, allowed: Mapping[str, int]) -> Iterable[Difference]:
    for name, value in allowed.items():
        hard = facts.limits.get(name, (0, 0))[1]
        if hard == -1 or hard > value:
            yield Difference(name.lower(), str(value), "unlimited" if hard == -1 else str(hard))


def _compare_descriptors(facts: ProcessFacts, rights: RoleRights) -> Iterable[Difference]:
    allowed = LOOP_DESCRIPTORS | rights.descriptors
    if allowed & {"tcp", "udp"}:
        allowed |= {"socket"}  # one not connected yet, or no more, stands in no table of the kernel's
    for descriptor in facts.descriptors:
        standard = descriptor.number <= 2 and descriptor.kind in _STANDARD_KINDS  # as whoever started Gatepost set them
        if descriptor.kind not in allowed and not standard:
            yield Difference(
                f"descriptor {descriptor.number}",
                "no " + descriptor.kind,
                f"{descriptor.kind} {descriptor.target}".strip(),
            )
