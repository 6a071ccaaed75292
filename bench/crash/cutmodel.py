"""A file system in memory that knows, at any moment, what a power cut may leave. Pure: no FUSE, no clock, no I/O.

By the rules of POSIX: the data of a file is durable only as of its last fsync, names only as of the last fsync of their
directory; fsync of a file does not keep its name. Of everything since then a cut keeps any part: pages of 4 KiB in any order,
sectors of a torn page, any length between old and new, any of the changed names. Owner and mode come with the file.
"""

from __future__ import annotations

import errno
import os
import random
import stat

PAGE = 4096
SECTOR = 512
TORN_SHARE = 0.1  # of the pages that a cut meets while they are written
ROOT_MODE = stat.S_IFDIR | 0o755


class Refused(Exception):
    """A call that the file system refuses; `number` is the errno."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


class Node:
    """A file, directory or socket. `data` and `names` are what processes see; `kept` and `kept_names` what a cut leaves."""

    __slots__ = (
        "changed_ns", "data", "dirty", "gid", "is_synced", "kept", "kept_names", "links", "mode", "names", "number", "rdev", "uid",
    )  # fmt: skip

    def __init__(self, number: int, mode: int, uid: int, gid: int, rdev: int = 0) -> None:
        self.number = number
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.rdev = rdev
        self.changed_ns = 0
        self.links = 2 if stat.S_ISDIR(mode) else 0
        self.data = bytearray()
        self.kept = bytearray()
        self.dirty: set[int] = set()  # pages written since the last fsync
        self.is_synced = True  # its length too
        self.names: dict[bytes, Node] = {}
        self.kept_names: dict[bytes, Node] = {}

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


Change = tuple[tuple[Node, bytes, Node | None], ...]  # directory, name, what it means from now on: all or nothing


class Model:
    """The whole tree."""

    def __init__(self) -> None:
        self._last = 1
        self.root = Node(1, ROOT_MODE, 0, 0)
        self._changes: list[Change] = []  # of names, not durable yet, oldest first

    def _new(self, mode: int, uid: int, gid: int, rdev: int = 0) -> Node:
        self._last += 1
        return Node(self._last, mode, uid, gid, rdev)

    # --- what processes do ------------------------------------------------------------------------------------------

    def look_up(self, directory: Node, name: bytes) -> Node:
        found = directory.names.get(name)
        if found is None:
            raise Refused(errno.ENOENT)
        return found

    def create(self, directory: Node, name: bytes, mode: int, uid: int, gid: int, rdev: int = 0) -> Node:
        """A new file, directory or socket."""
        if name in directory.names:
            raise Refused(errno.EEXIST)
        node = self._new(mode, uid, gid, rdev)
        self._change(((directory, name, node),))
        return node

    def link(self, node: Node, directory: Node, name: bytes) -> None:
        if name in directory.names:
            raise Refused(errno.EEXIST)
        self._change(((directory, name, node),))

    def unlink(self, directory: Node, name: bytes) -> None:
        if self.look_up(directory, name).is_directory:
            raise Refused(errno.EISDIR)
        self._change(((directory, name, None),))

    def remove_directory(self, directory: Node, name: bytes) -> None:
        node = self.look_up(directory, name)
        if not node.is_directory:
            raise Refused(errno.ENOTDIR)
        if node.names:
            raise Refused(errno.ENOTEMPTY)
        self._change(((directory, name, None),))

    def rename(self, directory: Node, name: bytes, target: Node, new_name: bytes) -> None:
        node = self.look_up(directory, name)
        self._change(((target, new_name, node), (directory, name, None)))

    def _change(self, change: Change) -> None:
        for directory, name, node in change:
            old = directory.names.pop(name, None)
            if old is not None:
                old.links -= 1
            if node is not None:
                directory.names[name] = node
                node.links += 1
        self._changes.append(change)

    def write(self, node: Node, offset: int, data: bytes) -> None:
        end = offset + len(data)
        if end > len(node.data):
            self.resize(node, end)
        node.data[offset:end] = data
        node.dirty.update(range(offset // PAGE, (end + PAGE - 1) // PAGE))

    def resize(self, node: Node, length: int) -> None:
        """Truncate, or extend with zeros."""
        if length < len(node.data):
            del node.data[length:]
        else:
            node.data.extend(bytes(length - len(node.data)))
        node.is_synced = False

    # --- what makes it durable --------------------------------------------------------------------------------------

    def sync_file(self, node: Node) -> None:
        """fsync or fdatasync of a file: its data and its length, not its name."""
        if not node.is_synced:
            length = len(node.data)
            if length < len(node.kept):
                del node.kept[length:]
            else:
                node.kept.extend(bytes(length - len(node.kept)))
        for page in node.dirty:
            node.kept[page * PAGE : (page + 1) * PAGE] = node.data[page * PAGE : (page + 1) * PAGE]
        node.dirty.clear()
        node.is_synced = True

    def sync_directory(self, directory: Node) -> None:
        """fsync of a directory: its names, and what a rename from or to it did elsewhere."""
        waiting: list[Change] = []
        for change in self._changes:
            if any(place is directory for place, _, _ in change):
                _keep(change)
            else:
                waiting.append(change)
        self._changes = waiting

    # --- what a power cut leaves ------------------------------------------------------------------------------------

    def cut(self, rng: random.Random, chance: float) -> Model:
        """The tree after a cut now; of what was not durable each part survives with this chance."""
        for change in self._changes:
            if rng.random() < chance:
                _keep(change)
        left = Model()
        copies: dict[int, Node] = {}
        left.root = _survivor(self.root, left, copies, rng, chance)
        left.root.number = 1
        return left


def _keep(change: Change) -> None:
    for directory, name, node in change:
        if node is None:
            directory.kept_names.pop(name, None)
        else:
            directory.kept_names[name] = node


def _survivor(node: Node, left: Model, copies: dict[int, Node], rng: random.Random, chance: float) -> Node:
    """The durable copy of a node and what is below it; hard links stay what they are."""
    known = copies.get(node.number)
    if known is not None:
        known.links += 1
        return known
    copy = copies[node.number] = left._new(node.mode, node.uid, node.gid, node.rdev)
    copy.links = 2 if node.is_directory else 1
    copy.changed_ns = node.changed_ns
    if node.is_directory:
        for name, child in node.kept_names.items():
            copy.names[name] = _survivor(child, left, copies, rng, chance)
        copy.kept_names = dict(copy.names)
    else:
        copy.kept = _mix(node, rng, chance)
        copy.data = bytearray(copy.kept)
    return copy


def _mix(node: Node, rng: random.Random, chance: float) -> bytearray:
    """The data of a file after a cut: what was kept, and any part of what was written since."""
    mixed = bytearray(node.kept)
    if node.is_synced and not node.dirty:
        return mixed
    if rng.random() < chance:
        low, high = sorted((len(node.kept), len(node.data)))
        length = len(node.data) if rng.random() < chance else rng.randint(low, high)
        del mixed[length:]
        mixed.extend(bytes(length - len(mixed)))
    for page in sorted(node.dirty):
        if rng.random() >= chance:
            continue
        step = SECTOR if rng.random() < TORN_SHARE else PAGE
        for begin in range(page * PAGE, (page + 1) * PAGE, step):
            if step == SECTOR and rng.random() < 0.5:
                continue
            end = min(begin + step, len(mixed), len(node.data))
            if end > begin:
                mixed[begin:end] = node.data[begin:end]
    return mixed
