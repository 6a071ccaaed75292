"""libseccomp by ctypes: what the filter of a role needs of it, and nothing more.

A binding of our own because each role loads it and keeps it for ever: the one from the package registry looks for the library with
`ctypes.util`, which starts ldconfig and brings temporary files, archives and random numbers into memory, 0.9 MB in each role
(docs/decisions/0015-memory-of-roles.md). Numbers are those of seccomp.h, which are the library's ABI. Not here: any rule.
"""

from __future__ import annotations

import ctypes
import os

KILL_PROCESS, LOG, ALLOW = 0x80000000, 0x7FFC0000, 0x7FFF0000
NE, LT, EQ, GT, MASKED_EQ = 1, 2, 4, 6, 7
ACT_BADARCH, CTL_TSYNC = 2, 4
_NATIVE = 0


def errno_action(code: int) -> int:
    """The action that answers a call with an error."""
    return 0x00050000 | code & 0xFFFF


class Arg(ctypes.Structure):
    """One comparison: the argument's number, how, with what; for MASKED_EQ the mask and what is left."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def _load_library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None
    context, word = ctypes.c_void_p, ctypes.c_uint32
    for name, result, arguments in (
        ("seccomp_init", context, (word,)),
        ("seccomp_release", None, (context,)),
        ("seccomp_load", ctypes.c_int, (context,)),
        ("seccomp_attr_set", ctypes.c_int, (context, ctypes.c_int, word)),
        ("seccomp_syscall_resolve_name_arch", ctypes.c_int, (word, ctypes.c_char_p)),
        ("seccomp_syscall_priority", ctypes.c_int, (context, ctypes.c_int, ctypes.c_uint8)),
        ("seccomp_rule_add_array", ctypes.c_int, (context, word, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Arg))),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


library = _load_library()
"""None where libseccomp2 is not installed."""


class SyscallFilter:
    """A program that grows by rules; methods raise OSError."""

    def __init__(self, default: int) -> None:
        if library is None:
            raise OSError("libseccomp2 is not installed")
        self._library = library
        self._context = library.seccomp_init(default)
        if not self._context:
            raise MemoryError

    def __del__(self) -> None:
        if getattr(self, "_context", None):
            self._library.seccomp_release(self._context)

    def set_attr(self, attribute: int, value: int) -> None:
        """Set an attribute of the whole program."""
        _check(self._library.seccomp_attr_set(self._context, attribute, value))

    def syscall_priority(self, name: str, priority: int) -> None:
        """0 to 255; the highest is compared first."""
        _check(self._library.seccomp_syscall_priority(self._context, resolve_syscall(name), priority))

    def add_rule(self, action: int, name: str, *arguments: Arg) -> None:
        """What becomes of a call whose arguments compare as all of these say."""
        array = (Arg * len(arguments))(*arguments)
        number = resolve_syscall(name)
        _check(self._library.seccomp_rule_add_array(self._context, action, number, len(arguments), array))

    def load(self) -> None:
        """Put it in force in every thread."""
        _check(self._library.seccomp_load(self._context))


def resolve_syscall(name: str) -> int:
    """The number of a system call on this architecture: -1 for one that nobody knows, below it for one it does not have."""
    if library is None:
        raise OSError("libseccomp2 is not installed")
    return int(library.seccomp_syscall_resolve_name_arch(_NATIVE, name.encode("ascii")))


def _check(result: int) -> None:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
