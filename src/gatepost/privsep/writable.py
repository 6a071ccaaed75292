"""What a live process could write to by name: everything below its root directory that its uid and groups may change.

Found by walking from /proc/PID/root and reading owner and mode of each entry, as whoever asks (root sees all of it). This is
what would be left if Landlock and the call filter were not there; both forbid more. A directory that the process owns or may
write is named with what is below it and not walked further. A process that shares the root directory of the
machine is not walked: there only Landlock stands between it and what its user may write, and that is what is said.
"""

from __future__ import annotations

import os
import stat

MAX_ENTRIES = 20_000


def writable_paths(root: str, uid: int, groups: set[int], limit: int = MAX_ENTRIES) -> tuple[list[str], bool]:
    """Paths as the process sees them, "/" its root; and whether all of it was looked at. Raises OSError for the root."""
    top = os.stat(root)
    if may_write(top, uid, groups):
        return ["/ and below"], True
    found: list[str] = []
    waiting, count = [""], 0
    while waiting:
        below = waiting.pop()
        try:
            entries = sorted(os.scandir(f"{root}/{below}"), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            count += 1
            if count > limit:
                return found, False
            name = f"{below}/{entry.name}"
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue  # gone meanwhile
            is_directory = stat.S_ISDIR(status.st_mode)
            if stat.S_ISLNK(status.st_mode):
                continue  # what it leads to is below the root too, or cannot be reached
            if may_write(status, uid, groups):
                found.append(f"{name} and below" if is_directory else name)
            elif is_directory:
                waiting.append(name)
    return found, True


def may_write(status: os.stat_result, uid: int, groups: set[int]) -> bool:
    """Whether a process without capabilities may write, or give itself the right to (its own file)."""
    if status.st_uid == uid:
        return True
    if status.st_gid in groups:
        return bool(status.st_mode & stat.S_IWGRP)
    return bool(status.st_mode & stat.S_IWOTH)
