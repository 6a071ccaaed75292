"""Opens a file by its full path without ever following a symbolic link, in the last part or in any directory above it.

Used for whatever is read or written with the rights of who starts the gateway: configuration, recipients files, tables, keys,
event log. openat2(2) with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS; where the kernel or a container has
no openat2 (Linux before 5.6) the path is walked, directory by directory, with O_NOFOLLOW. Not here: who may change
what is found (`paths.py`). Only regular files are opened: a FIFO would hold up the start, a device do worse.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct

_OPENAT2 = 437  # the same number on every architecture
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
_ABSENT = (errno.ENOSYS, errno.EPERM)  # of a kernel without it, of a container that refuses what it does not know

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class LinkInPath(OSError):
    """A symbolic link stands in the path."""


def open_regular(path: str, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """A descriptor of the regular file at an absolute `path`; raises LinkInPath or another OSError."""
    if not path.startswith("/"):
        raise ValueError(f"not an absolute path: {path}")
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        descriptor = _open_beneath(root, os.path.normpath(path).lstrip("/"), flags, mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EXDEV):
            raise LinkInPath(error.errno, "a symbolic link stands in the path", path) from error
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(root)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return descriptor


def read_regular(path: str, limit_bytes: int) -> bytes:
    """The first `limit_bytes` of the file at `path`; raises LinkInPath or another OSError."""
    with open(open_regular(path), "rb") as file:
        return file.read(limit_bytes)


def _open_beneath(root: int, relative: str, flags: int, mode: int) -> int:
    try:
        return openat2(root, relative, flags, mode)
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
    return walk(root, relative, flags, mode)


def openat2(directory: int, path: str, flags: int, mode: int) -> int:
    """The system call; `path` may leave `directory` by nothing."""
    how = struct.pack("=3Q", flags, mode if flags & os.O_CREAT else 0, _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH)
    result = _libc.syscall(
        ctypes.c_long(_OPENAT2), ctypes.c_int(directory), os.fsencode(path), how, ctypes.c_size_t(len(how))
    )
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return int(result)


def walk(directory: int, path: str, flags: int, mode: int) -> int:
    """The same by steps: every directory is opened below the one before it, and none through a link."""
    *parents, name = path.split("/")
    at = os.dup(directory)
    try:
        for part in parents:
            below = _enter(at, part)
            os.close(at)
            at = below
        return os.open(name, flags, mode, dir_fd=at)
    finally:
        os.close(at)


def _enter(at: int, part: str) -> int:
    if part in ("", ".", ".."):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), part)
    below = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)  # O_DIRECTORY would hide the link
    kind = os.fstat(below).st_mode
    if stat.S_ISDIR(kind):
        return below
    os.close(below)
    code = errno.ELOOP if stat.S_ISLNK(kind) else errno.ENOTDIR
    raise OSError(code, os.strerror(code), part)
