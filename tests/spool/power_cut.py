"""A power cut for tests: remembers what POSIX promises to have kept, and builds the directories that a cut may leave.

It wraps the functions of `os` while real files are written. A file keeps the data of its last fsync; a directory keeps the
names of its last fsync; of everything since then any part may be there or not, data in pages of any order. `on_point` is called
before each change of the disk, and may build images and recover from them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

PAGE = 512  # smaller than a real one, so that small files have several
_CHANGES = (
    "open",
    "write",
    "writev",
    "pwrite",
    "ftruncate",
    "posix_fallocate",
    "fsync",
    "fdatasync",
    "unlink",
    "link",
    "mkdir",
)


class PowerCut:
    """Watches one directory tree. Use `watch` with monkeypatch, then `image` at any point."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.on_point: Callable[[], None] = lambda: None
        self.points = 0
        self._active = True
        self._data: dict[int, bytes] = {}  # inode -> what its last fsync kept
        self._names: dict[str, dict[str, int]] = {}  # directory -> name -> inode, as of its last fsync
        self._held: list[int] = []  # removed files stay open, so that no new file gets their inode
        self._real = {name: getattr(os, name) for name in _CHANGES}
        self.settle()

    def settle(self) -> None:
        """Everything that is there now is durable."""
        self._data.clear()
        self._names.clear()
        for directory, subdirectories, files in os.walk(self.root):
            self._names[directory] = {name: _inode(f"{directory}/{name}") for name in subdirectories + files}
            for name in files:
                self._data[_inode(f"{directory}/{name}")] = Path(directory, name).read_bytes()

    def release(self) -> None:
        while self._held:
            os.close(self._held.pop())

    def watch(self, monkeypatch) -> None:
        for name in _CHANGES:
            monkeypatch.setattr(os, name, self._wrap(name))

    def _wrap(self, name: str) -> Callable:
        real = self._real[name]

        def call(*arguments, **keywords):
            if not self._active and name in ("fsync", "fdatasync"):
                return None  # an image is being recovered: nobody will cut its power
            if not self._active or not self._concerns(name, arguments):
                return real(*arguments, **keywords)
            self._active = False
            try:
                self.points += 1
                self.on_point()
                if name == "unlink":
                    self._held.append(self._real["open"](arguments[0], os.O_RDONLY))
                result = real(*arguments, **keywords)
                if name in ("fsync", "fdatasync"):
                    self._keep(arguments[0])
                return result
            finally:
                self._active = True

        return call

    def _concerns(self, name: str, arguments: tuple) -> bool:
        if name == "open":
            return str(arguments[0]).startswith(self.root) and bool(arguments[1] & os.O_CREAT)
        if isinstance(arguments[0], int):
            return os.readlink(f"/proc/self/fd/{arguments[0]}").startswith(self.root)
        return str(arguments[0]).startswith(self.root)

    def _keep(self, fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if os.path.isdir(path):
            self._names[path] = {name: _inode(f"{path}/{name}") for name in os.listdir(path)}
        else:
            with open(f"/proc/self/fd/{fd}", "rb") as file:
                self._data[os.fstat(fd).st_ino] = file.read()

    def image(self, target: Path, chance: random.Random | None) -> Path:
        """Build what a cut now may leave: without `chance` only what is promised, with it any part of the rest as well."""
        self._build(self.root, target, chance)
        return target

    def _build(self, directory: str, target: Path, chance: random.Random | None) -> None:
        target.mkdir(mode=0o700)
        kept = self._names.get(directory, {})
        now = (
            {name: _inode(f"{directory}/{name}") for name in os.listdir(directory)} if os.path.isdir(directory) else {}
        )
        for name in sorted(kept.keys() | now.keys()):
            inode = kept.get(name)
            if inode != now.get(name) and chance is not None and chance.random() < 0.5:
                inode = now.get(name)
            if inode is None:
                continue
            path = f"{directory}/{name}"
            if os.path.isdir(path):
                self._build(path, target / name, chance)
            else:
                current = Path(path).read_bytes() if inode == now.get(name) else self._data.get(inode, b"")
                (target / name).write_bytes(self._mix(self._data.get(inode, b""), current, chance))

    def _mix(self, kept: bytes, current: bytes, chance: random.Random | None) -> bytes:
        if chance is None or kept == current:
            return kept
        length = chance.choice((len(kept), len(current), chance.randint(0, max(len(kept), len(current)))))
        length = max(length, min(len(kept), len(current)))
        mixed = bytearray(length)
        for start in range(0, length, PAGE):
            source = current if chance.random() < 0.5 else kept
            page = source[start : min(start + PAGE, length)]
            mixed[start : start + len(page)] = page
        return bytes(mixed)


def _inode(path: str) -> int:
    return os.lstat(path).st_ino
