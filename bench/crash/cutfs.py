"""Serves a `cutmodel.Model` as a mounted file system, until the power is cut. A process of its own: `python -m bench.crash.cutfs`.

It speaks the kernel's FUSE protocol itself (linux/fuse.h): files are known by number, so hard links and files without a name are what
they are, and no library is needed. An fsync takes a moment and counts only when it is answered. Commands come on
standard input: `cut AFTER CHANCE SEED` cuts the power before the AFTER-th change from now; the image of what is left goes to
--image, "cut" and the time to standard output, and every later call gets EIO. --syncs gets a row for each fsync of a journal that was
answered: what was written before it began is on the disk, and the proof knows it.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import heapq
import itertools
import os
import pickle
import random
import re
import select
import stat
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.crash import processes
from bench.crash.books import Book, Sync
from bench.crash.cutmodel import Model, Node, Refused

MAX_WRITE = 128 * 1024
BUFFER_BYTES = MAX_WRITE + 4096
SYNC_S = 0.004  # the longest fsync
BLOCK = 4096
BLOCKS = 4 << 20  # 16 GiB, as statfs tells
FILES = 1 << 20
VALID_S = 1

_IN = struct.Struct("<IIQQIIII")
_OUT = struct.Struct("<IiQ")
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_ENTRY = struct.Struct("<QQQQII")
_SETATTR = struct.Struct("<IIQQQQQQIIIIIIII")
_READ = struct.Struct("<QQIIQII")
_INIT_OUT = struct.Struct("<IIIIHHIIHHI7I")
_STATFS = struct.Struct("<QQQQQIIII6I")
FLAG_ATOMIC_TRUNCATE, FLAG_BIG_WRITES, FLAG_MAX_PAGES = 1 << 3, 1 << 5, 1 << 22
SET_MODE, SET_UID, SET_GID, SET_SIZE = 1, 2, 4, 8
FORGET, INTERRUPT, BATCH_FORGET = 2, 36, 42
_JOURNAL = re.compile(rb"[0-9]+\.log").fullmatch


class Server:
    """One mounted file system."""

    def __init__(self, model: Model, device: int, image: Path, syncs: Book) -> None:
        self.model = model
        self._syncs = syncs
        self.journals: set[int] = set()  # numbers of the nodes that are journals of the queue
        self.device = device
        self.image = image
        self.rng = random.Random()
        self.is_dead = False
        self.cut_after = -1
        self.chance = 0.0
        self.changes = 0
        self._nodes: dict[int, Node] = {1: model.root}
        self._lookups: dict[int, int] = {}
        self._listings: dict[int, list[tuple[bytes, Node]]] = {}
        self._numbers = itertools.count(1)
        self._late: list[tuple[float, int, int, Callable[[], None]]] = []

    # --- loop -------------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Until unmounted."""
        poll = select.poll()
        poll.register(self.device, select.POLLIN)
        poll.register(0, select.POLLIN)
        while True:
            timeout_ms = max(0.0, self._late[0][0] - time.monotonic()) * 1000 if self._late else None
            ready = dict(poll.poll(timeout_ms))
            self._answer_late()
            if 0 in ready and not self._command():
                return
            if self.device in ready and not self._request():
                return

    def _command(self) -> bool:
        words = os.read(0, 4096).split()
        if not words:
            return False
        self.cut_after = self.changes + int(words[1])
        self.chance = float(words[2])
        self.rng.seed(words[3])
        return True

    def _request(self) -> bool:
        try:
            data = os.read(self.device, BUFFER_BYTES)
        except OSError as error:
            return error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT)
        _, code, unique, number, uid, gid, _, _ = _IN.unpack_from(data)
        body = data[_IN.size :]
        if code in (FORGET, BATCH_FORGET, INTERRUPT):
            self._forget(code, number, body)
            return True
        name, handler = _HANDLERS.get(code, ("", None))
        if name in _CHANGES and not self.is_dead:
            self.changes += 1
            if 0 <= self.cut_after <= self.changes:
                self._cut()
        if self.is_dead:
            self._reply(unique, -errno.EIO)
        elif handler is None:
            self._reply(unique, -errno.ENOSYS)
        else:
            self._handle(handler, unique, number, uid, gid, body)
        return True

    def _handle(
        self, handler: Callable[..., bytes | None], unique: int, number: int, uid: int, gid: int, body: bytes
    ) -> None:
        try:
            node = self._nodes.get(number) or self.model.root
            answer = handler(self, node, body, uid, gid) if handler not in (_fsync, _fsync_directory) else None
        except Refused as error:
            self._reply(unique, -error.number)
            return
        if answer is None:
            keep = self.model.sync_file if handler is _fsync else self.model.sync_directory
            begun_s = time.monotonic()

            def end() -> None:
                keep(node)
                if node.number in self.journals:
                    self._syncs.add(Sync(begun_s, time.monotonic()))

            due_s = begun_s + self.rng.random() * SYNC_S
            heapq.heappush(self._late, (due_s, next(self._numbers), unique, end))
        else:
            self._reply(unique, 0, answer)

    def _answer_late(self) -> None:
        """An fsync that has taken its time: now it counts."""
        now_s = time.monotonic()
        while self._late and (self._late[0][0] <= now_s or self.is_dead):
            _, _, unique, keep = heapq.heappop(self._late)
            if not self.is_dead:
                keep()
            self._reply(unique, -errno.EIO if self.is_dead else 0)

    def _reply(self, unique: int, error: int, data: bytes = b"") -> None:
        with contextlib.suppress(OSError):  # the caller was killed meanwhile
            os.write(self.device, _OUT.pack(_OUT.size + len(data), error, unique) + data)

    def _cut(self) -> None:
        """The power goes: nothing that comes later has happened."""
        self.is_dead = True
        cut_s = time.monotonic()
        left = self.model.cut(self.rng, self.chance)
        with open(self.image, "wb") as file:
            pickle.dump(left, file)
        print(f"cut {cut_s}", flush=True)

    # --- nodes ------------------------------------------------------------------------------------------------------

    def entry(self, node: Node) -> bytes:
        """The answer that names a node; the kernel knows it from now on."""
        self._nodes[node.number] = node
        self._lookups[node.number] = self._lookups.get(node.number, 0) + 1
        return _ENTRY.pack(node.number, 0, VALID_S, VALID_S, 0, 0) + pack_attributes(node)

    def _forget(self, code: int, number: int, body: bytes) -> None:
        if code == BATCH_FORGET:
            count = struct.unpack_from("<I", body)[0]
            pairs = [struct.unpack_from("<QQ", body, 8 + 16 * index) for index in range(count)]
        elif code == FORGET:
            pairs = [(number, struct.unpack_from("<Q", body)[0])]
        else:
            return
        for known, times in pairs:
            left = self._lookups.get(known, 0) - times
            if left > 0:
                self._lookups[known] = left
            elif known != 1:
                self._lookups.pop(known, None)
                self._nodes.pop(known, None)

    def listing(self, handle: int, node: Node | None = None) -> list[tuple[bytes, Node]]:
        """The names of a directory as they were when it was opened."""
        if node is not None:
            self._listings[handle] = list(node.names.items())
        return self._listings.get(handle, [])

    def new_handle(self) -> int:
        return next(self._numbers)

    def close_listing(self, handle: int) -> None:
        self._listings.pop(handle, None)

    def node(self, number: int) -> Node:
        found = self._nodes.get(number)
        if found is None:
            raise Refused(errno.ESTALE)
        return found


def pack_attributes(node: Node) -> bytes:
    """struct fuse_attr."""
    size = len(node.data)
    seconds, rest = divmod(node.changed_ns, 1_000_000_000)
    blocks = (size + 511) // 512
    return _ATTR.pack(
        node.number, size, blocks, seconds, seconds, seconds, rest, rest, rest, node.mode, max(node.links, 0), node.uid, node.gid,
        node.rdev, BLOCK, 0,
    )  # fmt: skip


# --- handlers: (server, node, body, uid, gid) -> answer ---------------------------------------------------------------


def _name(body: bytes, skip: int = 0) -> bytes:
    return body[skip:].split(b"\0", 1)[0]


def _init(server: Server, node: Node, body: bytes, uid: int, gid: int) -> bytes:
    _, minor, readahead, offered = struct.unpack_from("<IIII", body)
    flags = offered & (FLAG_ATOMIC_TRUNCATE | FLAG_BIG_WRITES | FLAG_MAX_PAGES)
    return _INIT_OUT.pack(7, min(minor, 31), readahead, flags, 16, 12, MAX_WRITE, 1, MAX_WRITE // BLOCK, 0, *[0] * 8)


def _lookup(server: Server, node: Node, body: bytes, uid: int, gid: int) -> bytes:
    return server.entry(server.model.look_up(node, _name(body)))


def _getattr(server: Server, node: Node, body: bytes, uid: int, gid: int) -> bytes:
    return struct.pack("<QII", VALID_S, 0, 0) + pack_attributes(node)


def _setattr(server: Server, node: Node, body: bytes, uid: int, gid: int) -> bytes:
    fields = _SETATTR.unpack_from(body)
    valid, size, mode, new_uid, new_gid = fields[0], fields[3], fields[11], fields[13], fields[14]
    if valid & SET_MODE:
        node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
    if valid & SET_UID:
        node.uid = new_uid
    if valid & SET_GID:
        node.gid = new_gid
    if valid & SET_SIZE:
        server.model.resize(node, size)
    return _getattr(server, node, body, uid, gid)


def _create_node(server: Server, node: Node, name: bytes, mode: int, uid: int, gid: int, rdev: int = 0) -> Node:
    made = server.model.create(node, name, mode, uid, gid, rdev)
    made.changed_ns = node.changed_ns = time.time_ns()
    if _JOURNAL(name):
        server.journals.add(made.number)
    return made


def _mknod(server: Server, node: Node, body: bytes, uid: int, gid: int) -> bytes:
    mode, rdev, _, _ = struct.unpack_from("<IIII", body)
    return server.entry(_create_node(server, node, _name(body, 16), mode, uid, gid, rdev))


def _mkdir(server: Server, node: Node, body: bytes, uid: int, gid: int) -> bytes:
    mode, _ = struct.unpack_from("<II", body)
    return server.entry(_create_node(server, node, _name(body, 8), stat.S_IFDIR | stat.S_IMODE(mode), uid, gid))


def _create(server: Server, node: Node, body: bytes, uid: int, gid: int) -> bytes:
    _, mode, _, _ = struct.unpack_from("<IIII", body)
    return server.entry(_create_node(server, node, _name(body, 16), mode, uid, gid)) + struct.pack("<QII", 0, 0, 0)


def _unlink(server: Server, node: Node, body: bytes, uid: int, gid: int) -> bytes:
    server.model.unlink(node, _name(body))
    return b""


def _rmdir(server: Server, node: Node, body: bytes, uid: int, gid: int) -> bytes:
    server.model.remove_directory(node, _name(body))
    return b""


def _rename(server: Server, node: Node, body: bytes, uid: int, gid: int, skip: int = 8) -> bytes:
    target = server.node(struct.unpack_from("<Q", body)[0])
    name, new_name = body[skip:].split(b"\0")[:2]
    server.model.rename(node, name, target, new_name)
    return b""


def _rename2(server: Server, node: Node, body: bytes, uid: int, gid: int) -> bytes:
    if struct.unpack_from("<QI", body)[1]:
        raise Refused(errno.EINVAL)
    return _rename(server, node, body, uid, gid, skip=16)


def _link(server: Server, node: Node, body: bytes, uid: int, gid: int) -> bytes:
    linked = server.node(struct.unpack_from("<Q", body)[0])
    server.model.link(linked, node, _name(body, 8))
    return server.entry(linked)


def _open(server: Server, node: Node, body: bytes, uid: int, gid: int) -> bytes:
    if struct.unpack_from("<I", body)[0] & os.O_TRUNC:
        server.model.resize(node, 0)
    return struct.pack("<QII", 0, 0, 0)


def _read(server: Server, node: Node, body: bytes, uid: int, gid: int) -> bytes:
    _, offset, size, _, _, _, _ = _READ.unpack_from(body)
    return bytes(node.data[offset : offset + size])


def _write(server: Server, node: Node, body: bytes, uid: int, gid: int) -> bytes:
    _, offset, size, _, _, _, _ = _READ.unpack_from(body)
    server.model.write(node, offset, body[_READ.size : _READ.size + size])
    node.changed_ns = time.time_ns()
    return struct.pack("<II", size, 0)


def _fallocate(server: Server, node: Node, body: bytes, uid: int, gid: int) -> bytes:
    _, offset, length, mode, _ = struct.unpack_from("<QQQII", body)
    if mode:
        raise Refused(errno.EOPNOTSUPP)
    if offset + length > len(node.data):
        server.model.resize(node, offset + length)
    return b""


def _statfs(server: Server, node: Node, body: bytes, uid: int, gid: int) -> bytes:
    return _STATFS.pack(BLOCKS, BLOCKS // 2, BLOCKS // 2, FILES, FILES // 2, BLOCK, 255, BLOCK, 0, *[0] * 6)


def _open_directory(server: Server, node: Node, body: bytes, uid: int, gid: int) -> bytes:
    handle = server.new_handle()
    server.listing(handle, node)
    return struct.pack("<QII", handle, 0, 0)


def _read_directory(server: Server, node: Node, body: bytes, uid: int, gid: int) -> bytes:
    handle, offset, size, _, _, _, _ = _READ.unpack_from(body)
    answer = b""
    for index, (name, child) in enumerate(server.listing(handle)[offset:], offset + 1):
        record = struct.pack("<QQII", child.number, index, len(name), stat.S_IFMT(child.mode) >> 12) + name
        record += bytes(-len(record) % 8)
        if len(answer) + len(record) > size:
            break
        answer += record
    return answer


def _release_directory(server: Server, node: Node, body: bytes, uid: int, gid: int) -> bytes:
    server.close_listing(struct.unpack_from("<Q", body)[0])
    return b""


def _nothing(server: Server, node: Node, body: bytes, uid: int, gid: int) -> bytes:
    return b""


def _fsync(server: Server, node: Node, body: bytes, uid: int, gid: int) -> bytes:
    raise AssertionError("answered late")


def _fsync_directory(server: Server, node: Node, body: bytes, uid: int, gid: int) -> bytes:
    raise AssertionError("answered late")


_HANDLERS: dict[int, tuple[str, Callable[..., bytes]]] = {
    1: ("lookup", _lookup), 3: ("getattr", _getattr), 4: ("setattr", _setattr), 8: ("mknod", _mknod), 9: ("mkdir", _mkdir),
    10: ("unlink", _unlink), 11: ("rmdir", _rmdir), 12: ("rename", _rename), 13: ("link", _link), 14: ("open", _open),
    15: ("read", _read), 16: ("write", _write), 17: ("statfs", _statfs), 18: ("release", _nothing), 20: ("fsync", _fsync),
    25: ("flush", _nothing), 26: ("init", _init), 27: ("opendir", _open_directory), 28: ("readdir", _read_directory),
    29: ("releasedir", _release_directory), 30: ("fsyncdir", _fsync_directory), 35: ("create", _create), 38: ("destroy", _nothing),
    43: ("fallocate", _fallocate), 45: ("rename2", _rename2),
}  # fmt: skip
_CHANGES = frozenset(
    (
        "write",
        "create",
        "mknod",
        "mkdir",
        "unlink",
        "rmdir",
        "rename",
        "rename2",
        "link",
        "setattr",
        "fallocate",
        "fsync",
        "fsyncdir",
    )
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mount", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True, help="read at the start if it exists, written at the cut")
    parser.add_argument("--syncs", required=True, help="the book of journals that were synced")
    options = parser.parse_args()
    model = pickle.loads(options.image.read_bytes()) if options.image.exists() else Model()  # ours, written by a cut
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    flags = f"fd={device},rootmode=40755,user_id=0,group_id=0,default_permissions,allow_other"
    processes.mount("cutfs", options.mount, "fuse", flags)
    print("ready", flush=True)
    Server(model, device, options.image, Book(options.syncs)).serve()
    sys.stdout.close()


if __name__ == "__main__":
    main()
