"""Which files are the program: the interpreter, what it imports from, this package; and which of them others could change.

Whoever may write one of them decides what the gateway does. A tree is walked whole (compiled files too: they are code) and what is
wrong below it is told once, with one command for all of it. Symbolic links are ordinary here (a virtual environment
links its interpreter); what counts is who may write the directory that holds the link, and its target.
"""

from __future__ import annotations

import os
import shlex
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterator

import gatepost

# below the standard library, where not named
NOT_IMPORTED = ("site-packages", "dist-packages", "test", "idlelib", "ensurepip")
MAX_ENTRIES = 200_000  # files looked at; a tree with more is told as one that cannot be looked through


def program_trees() -> list[str]:
    """The directories that the running interpreter imports from, none inside another."""
    named = [os.path.dirname(os.path.abspath(gatepost.__file__)), os.path.dirname(os.path.abspath(os.__file__))]
    named += [path for path in map(sysconfig.get_path, ("purelib", "platlib")) if path and os.path.isdir(path)]
    trees: list[str] = []
    for path in sorted({os.path.realpath(entry) for entry in named}):
        inside = any(path.startswith(tree + "/") for tree in trees)
        if not inside or os.path.basename(path) in NOT_IMPORTED:
            trees.append(path)
    return trees


def interpreter_files() -> list[str]:
    """The interpreter as it is called, each link on the way to it, and the configuration of its virtual environment."""
    found = [os.path.abspath(sys.executable)]
    while os.path.islink(found[-1]) and len(found) < 40:
        found.append(os.path.normpath(os.path.join(os.path.dirname(found[-1]), os.readlink(found[-1]))))
    found.append(os.path.join(sys.prefix, "pyvenv.cfg"))
    return [path for path in found if os.path.lexists(path)]


def foreign_files(tree: str, is_safe: Callable[[str, os.stat_result], bool]) -> Iterator[tuple[str, os.stat_result]]:
    """Everything in a tree that is not safe, the tree itself left out. Raises OverflowError behind MAX_ENTRIES."""
    waiting, count = [tree], 0
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue  # it cannot be imported from either
        for entry in entries:
            count += 1
            if count > MAX_ENTRIES:
                raise OverflowError(tree)
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue  # gone meanwhile
            if stat.S_ISLNK(status.st_mode):
                continue
            if not is_safe(entry.path, status):
                yield entry.path, status
            if stat.S_ISDIR(status.st_mode) and entry.name not in NOT_IMPORTED:
                waiting.append(entry.path)


def mend_command(tree: str, found: list[tuple[str, os.stat_result]], trusted: set[int], owner: str) -> str:
    """One command that mends a tree."""
    quoted = shlex.quote(tree)
    if any(status.st_uid not in trusted for _, status in found):
        return f"chown -R {owner} {quoted} && chmod -R go-w {quoted}"
    return f"chmod -R go-w {quoted}"
