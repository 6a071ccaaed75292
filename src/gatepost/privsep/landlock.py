"""Landlock: the calling thread gives up file, TCP and signal rights for good, by three system calls of Linux.

Not here: which rights a role keeps (`rights.py`). Landlock binds the calling thread and what it starts later, so the caller has one
thread only. The kernel's ABI number says what it can restrict: 1 files (5.13), 2 moving between directories (5.19), 3 truncation
(6.2), 4 TCP bind and connect (6.7), 5 device ioctls (6.10), 6 abstract UNIX sockets and signals (6.12). Everything the running
kernel knows is restricted. ABI 1 refuses every move between directories, so a role with files needs ABI 2.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same number on every architecture
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

_EXECUTE = 1 << 0
_READ = (1 << 2) | (1 << 3)  # READ_FILE, READ_DIR
_MAKE_CHAR, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = 1 << 6, 1 << 9, 1 << 10, 1 << 11, 1 << 12
_IOCTL_DEV = 1 << 15
_NOT_FOR_MAIL = _EXECUTE | _MAKE_CHAR | _MAKE_SOCK | _MAKE_FIFO | _MAKE_BLOCK | _MAKE_SYM | _IOCTL_DEV
_FS_BY_ABI = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF}  # later ABIs add no right to files
_NET_BIND_TCP, _NET_CONNECT_TCP = 1, 2
_SCOPE_ABSTRACT_UNIX, _SCOPE_SIGNAL = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def probe_abi() -> int:
    """The Landlock ABI of the running kernel; 0 if there is none or it is switched off."""
    try:
        return _call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_CREATE_RULESET_VERSION))
    except OSError:
        return 0


def restrict(paths: Iterable[tuple[str, str]], *, may_connect: bool, abi: int) -> str:
    """Deny every file but those below `paths`, TCP bind, TCP connect unless `may_connect`; return what is in force, in words.

    `paths` are (directory, "read" or "read-write") as this process sees them now. Nothing can be executed, and no device, socket,
    FIFO or symbolic link be made, anywhere. Needs no_new_privs. Raises OSError.
    """
    handled_fs = _FS_BY_ABI[min(abi, max(_FS_BY_ABI))]
    handled_net = 0
    if abi >= 4:
        handled_net = _NET_BIND_TCP if may_connect else _NET_BIND_TCP | _NET_CONNECT_TCP
    scoped = _SCOPE_ABSTRACT_UNIX | _SCOPE_SIGNAL if abi >= 6 else 0
    fields = [handled_fs, handled_net, scoped][: 1 if abi < 4 else 2 if abi < 6 else 3]
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    allowed = list(paths)
    try:
        for path, access in allowed:
            rights = _READ if access == "read" else handled_fs & ~_NOT_FOR_MAIL
            directory = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                rule = struct.pack("=Qi", rights & handled_fs, directory)
                _call(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_RULE_PATH_BENEATH), rule, ctypes.c_uint(0))
            finally:
                os.close(directory)
        _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(0))
    finally:
        os.close(ruleset)
    return _describe(allowed, abi, may_connect)


def _describe(allowed: list[tuple[str, str]], abi: int, may_connect: bool) -> str:
    files = ", ".join(f"{path} {access}" for path, access in allowed) or "none"
    words = [f"files {files}"]
    if abi >= 4:
        words.append("tcp connect" if may_connect else "tcp none")
    if abi >= 6:
        words.append("signals and abstract sockets none")
    return f"landlock abi {abi} ({'; '.join(words)})"
