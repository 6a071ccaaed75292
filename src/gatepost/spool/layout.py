"""The spool directory: names in it, who owns them, and whether its file system can keep a promise.

`prepare_spool` is called by the supervisor, perhaps as root, before the queue locks itself in; the rest by the queue, which may
see the spool as "/". A name is durable only after its directory was synced (POSIX): `sync_directory` is called before a
descriptor is handed out or a journal line depends on a name. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat

from gatepost.spool.errors import SpoolError, SpoolFull, SpoolRefused

DIRECTORIES = ("segments", "bodies", "journal", "deferred", "damaged", "facts", "tls", "recipients")
DEFERRED_DIRECTORIES = 256
SEGMENT_NAME = re.compile(r"([0-9]{8,})\.seg")
BODY_NAME = re.compile(r"([0-9]{8,})\.body")
JOURNAL_NAME = re.compile(r"([0-9]{8,})\.log")
DEFERRED_DIRECTORY_NAME = re.compile(r"[0-9a-f]{2}")
DEFERRED_NAME = re.compile(r"([0-9A-Za-z]{1,64})\.(eml|json)")

# They forget everything at a restart, or (overlay) when the container goes.
VOLATILE = frozenset(("tmpfs", "ramfs", "devtmpfs", "overlay", "aufs", "rootfs"))


def segment_path(root: str, number: int) -> str:
    return f"{root}/segments/{number:08d}.seg"


def body_path(root: str, number: int) -> str:
    return f"{root}/bodies/{number:08d}.body"


def journal_path(root: str, number: int) -> str:
    return f"{root}/journal/{number:08d}.log"


def deferred_path(root: str, directory: int, message_id: str, kind: str = "eml") -> str:
    return f"{root}/deferred/{directory:02x}/{message_id}.{kind}"


def is_id(text: str) -> bool:
    """Whether it can be a message id: it becomes a file name, and may come from a process that was broken into."""
    return text.isascii() and text.isalnum() and len(text) <= 64


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_path(path: str, mode: int) -> None:
    """Make a directory that is missing, and those above it, their names durable: what is acknowledged will lie below."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    make_path(parent, 0o755)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, mode)
    sync_directory(parent)


def close_anyway(fd: int) -> None:
    """Close a descriptor whose data is durable, or of no use any more: an error says nothing then, and it is closed all the same."""
    with contextlib.suppress(OSError):
        os.close(fd)


def create_file(path: str, flags: int) -> int:
    """Create a file that must not exist yet, for its owner only; SpoolFull or SpoolError if it cannot be."""
    try:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise disk_error(error, path) from error


def disk_error(error: OSError, what: str) -> SpoolError:
    """The spool's error for one of the operating system."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return (SpoolFull if full else SpoolError)(f"{what}: {error.strerror}")


def numbered(root: str, directory: str, pattern: re.Pattern[str]) -> list[int]:
    """Numbers of the files of a directory, ascending."""
    matches = (pattern.fullmatch(name) for name in os.listdir(f"{root}/{directory}"))
    return sorted(int(match[1]) for match in matches if match)


def put_aside(root: str, name: str, fd: int, offset: int, end: int) -> str:
    """Copy bytes of a damaged file into damaged/, durably, and return the copy's path below the spool.

    A copy that exists already, of an earlier recovery, is kept.
    """
    kept_as = f"damaged/{name}"
    try:
        target = create_file(f"{root}/{kept_as}", os.O_WRONLY)
    except SpoolError:
        return kept_as if os.path.exists(f"{root}/{kept_as}") else ""
    try:
        while offset < end:
            block = os.pread(fd, min(1 << 20, end - offset), offset)
            if not block:
                break
            offset += os.write(target, block)
        os.fsync(target)
        sync_directory(f"{root}/damaged")
    except OSError:
        return ""  # evidence is worth less than going on
    finally:
        os.close(target)
    return kept_as


def lock_spool(root: str) -> int:
    """Take the spool for this process, or raise SpoolRefused; the lock goes with the descriptor returned."""
    fd = os.open(f"{root}/lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        raise SpoolRefused(f"the spool {root} is in use by another queue", "stop it first") from error
    return fd


def find_filesystem(path: str, mountinfo: str) -> str:
    """Type of the file system that holds an absolute path, from the text of /proc/self/mountinfo; "" if not found."""
    best, kind = -1, ""
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) < 10 or "-" not in fields:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        below = path == point or point == "/" or path.startswith(point + "/")
        if below and len(point) >= best:  # a later mount on the same point hides the earlier
            best, kind = len(point), fields[fields.index("-") + 1]
    return kind


def prepare_spool(path: str, *, queue_uid: int, queue_gid: int, allow_volatile: bool) -> None:
    """Make the spool directory and those in it, or check them; -1 for an id means this process's own.

    SpoolRefused says what is wrong with what is there, and the command that mends it; nothing that exists is changed.
    """
    uid = os.geteuid() if queue_uid < 0 else queue_uid
    gid = os.getegid() if queue_gid < 0 else queue_gid
    path = os.path.abspath(path)
    try:
        make_path(os.path.dirname(path), 0o755)
        # It belongs to who starts, so that a queue that was broken into cannot replace run/ and what is in it.
        _make_directory(path, 0o711, os.geteuid(), os.getegid())
        path = os.path.realpath(path)
        _check_directory(path, os.geteuid())
        _check_filesystem(path, allow_volatile)
        for name in DIRECTORIES:
            _make_directory(f"{path}/{name}", 0o700, uid, gid)
            _check_directory(f"{path}/{name}", uid)
        _make_lock(f"{path}/lock", uid, gid)
        sync_directory(path)
        sync_directory(os.path.dirname(path))
    except OSError as error:
        where = error.filename or path
        raise SpoolRefused(
            f"cannot prepare the spool: {where}: {error.strerror}", f"check the path to {path}"
        ) from error


def _make_directory(path: str, mode: int, uid: int, gid: int) -> None:
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(fd, mode)
        if (uid, gid) != (os.geteuid(), os.getegid()):
            os.fchown(fd, uid, gid)
    finally:
        os.close(fd)


def _make_lock(path: str, uid: int, gid: int) -> None:
    """The lock file exists before the queue does, which cannot make files beside its directories."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        if (uid, gid) != (os.geteuid(), os.getegid()):
            os.fchown(fd, uid, gid)
    finally:
        os.close(fd)


def _check_directory(path: str, uid: int) -> None:
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise SpoolRefused(f"{path} is not a directory", f"mv {path} {path}.aside")
    if found.st_uid != uid:
        raise SpoolRefused(
            f"{path} belongs to uid {found.st_uid}, not to uid {uid} of the queue", f"chown -R {uid} {path}"
        )
    if found.st_mode & 0o022:
        mode = stat.S_IMODE(found.st_mode)
        raise SpoolRefused(f"{path} has mode {mode:04o}: others may write there", f"chmod go-w {path}")


def _check_filesystem(path: str, allow_volatile: bool) -> None:
    if allow_volatile:
        return
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        kind = find_filesystem(path, file.read())
    if kind in VOLATILE:
        raise SpoolRefused(
            f"{path} lies on {kind}, which does not survive a restart",
            "set `spool` to a directory on a disk, or, for a demonstration only, `queue.allow_volatile = true`",
        )
