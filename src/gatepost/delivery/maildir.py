"""Delivery into Maildirs (https://cr.yp.to/proto/maildir.html): tmp/, fsync, link into new/, fsync of the directory.

Everything is opened below one root directory, step by step with O_NOFOLLOW, so that no symbolic link in a Maildir and no
character of an address leads out of it. Mail stores keep lines with LF: each CRLF of the content becomes LF, all other
octets stay. In front come Return-Path and Delivered-To. One file for each recipient.

Invariants: a recipient is DELIVERED only when file and name are on disk; a file in new/ is never overwritten and never
partial; what goes wrong on our side defers. `MaildirEngine` has the interface of `DeliveryEngine`, and does the blocking
work in one thread, many messages between two synchronisations.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import queue
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from gatepost.config.schema import Config
from gatepost.ipc.messages import Attempt, AttemptDone
from gatepost.model import Envelope, NextHopTrouble, Outcome, Result

BLOCK_BYTES = 256 * 1024
BATCH = 64  # attempts between two synchronisations
MAX_PART = 64
MAX_OPEN = 64  # files, and Maildirs, open at once

Read = Callable[[int, int], bytes]  # offset, count

_UNSAFE_HOST = re.compile(r"[^A-Za-z0-9.-]")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_count = itertools.count(1)
_host = _UNSAFE_HOST.sub("_", socket.gethostname())[:MAX_PART] or "localhost"


class Rights(NamedTuple):
    """Modes of what is made; `gid` is the group that files must have, -1: any."""

    file: int = 0o600
    directory: int = 0o700
    gid: int = -1

    @classmethod
    def of_config(cls, config: Config, gid: int = -1) -> Rights:
        """As the operator wants them."""
        return cls(int(config.maildir.file_mode, 8), int(config.maildir.directory_mode, 8), gid)

    @property
    def umask(self) -> int:
        """With which exactly these modes come to be."""
        return 0o777 & ~(self.file | self.directory)


PRIVATE = Rights()


class BadMailbox(Exception):
    """The address cannot be the name of a Maildir."""


class _Delivery:
    """One file on its way: in tmp/ at first, then in new/."""

    __slots__ = ("directory", "fd", "index", "name", "new", "tmp")

    def __init__(self, index: int, directory: str, tmp: int, new: int) -> None:
        self.index = index
        self.directory = directory
        self.tmp = tmp
        self.new = new
        now = time.time_ns()
        # The parts are those of the Maildir description; the counter makes it unique within the process.
        self.name = f"{now // 1_000_000_000}.M{now // 1000 % 1_000_000}P{os.getpid()}Q{next(_count)}.{_host}"
        self.fd = -1


class MaildirBatch:
    """Messages written together: `add` each, then `commit` once. For one thread."""

    def __init__(self, root: int | str, rights: Rights = PRIVATE) -> None:
        self._rights = rights
        self._owns_root = isinstance(root, str)
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if isinstance(root, str) else root
        self._directories: dict[str, tuple[int, int]] = {}  # path -> tmp, new
        self._pending: list[tuple[_Delivery, list[Outcome]]] = []

    def add(
        self, path: str, envelope: Envelope, recipients: Iterable[int], read: Read, content_bytes: int
    ) -> list[Outcome]:
        """Write a file for each recipient; the list holds its outcomes after `commit`."""
        outcomes: list[Outcome] = []
        for index in recipients:
            if len(self._pending) >= MAX_OPEN or len(self._directories) >= MAX_OPEN:
                self.commit()
                self._close_directories()
            recipient = envelope.recipients[index]
            try:
                directory = expand_path(path, recipient.address, recipient.domain)
                delivery = _Delivery(index, directory, *self._open_maildir(directory))
                self._write(delivery, envelope, read, content_bytes)
            except BadMailbox as error:
                outcomes.append(Outcome(index, Result.FAILED, "maildir", 0, "5.1.1", str(error)))
            except OSError as error:
                outcomes.append(_deferred(index, error))
            else:
                self._pending.append((delivery, outcomes))
        return outcomes

    def commit(self) -> None:
        """Make all files durable, then their names; fills in the outcomes."""
        linked: list[tuple[_Delivery, list[Outcome]]] = []
        for delivery, outcomes in self._pending:
            try:
                os.fsync(delivery.fd)
                os.link(delivery.name, delivery.name, src_dir_fd=delivery.tmp, dst_dir_fd=delivery.new)
            except OSError as error:
                outcomes.append(_deferred(delivery.index, error))
                _discard(delivery)
            else:
                linked.append((delivery, outcomes))
        failed: dict[int, OSError] = {}
        for new in {delivery.new for delivery, _ in linked}:
            try:
                os.fsync(new)
            except OSError as error:
                failed[new] = error
        for delivery, outcomes in linked:
            _discard(delivery)
            found = failed.get(delivery.new)
            if found is not None:
                outcomes.append(_deferred(delivery.index, found))
            else:
                text = f"delivered to {delivery.directory}/new/{delivery.name}"
                outcomes.append(Outcome(delivery.index, Result.DELIVERED, "maildir", 0, "2.0.0", text))
        self._pending = []

    def close(self) -> None:
        """Release the directories; files that were not committed are removed."""
        for delivery, _ in self._pending:
            _discard(delivery)
        self._pending = []
        self._close_directories()
        if self._owns_root:
            os.close(self._root)
            self._owns_root = False

    def _close_directories(self) -> None:
        for pair in self._directories.values():
            os.close(pair[0])
            os.close(pair[1])
        self._directories = {}

    def _open_maildir(self, directory: str) -> tuple[int, int]:
        found = self._directories.get(directory)
        if found is not None:
            return found
        mode = self._rights.directory
        with contextlib.ExitStack() as stack:
            fd = self._root
            for part in directory.split("/"):
                if part:
                    fd = _open_directory(fd, part, mode)
                    stack.callback(os.close, fd)
            tmp = _open_directory(fd, "tmp", mode)
            try:
                new = _open_directory(fd, "new", mode)
            except OSError:
                os.close(tmp)
                raise
            try:
                os.close(_open_directory(fd, "cur", mode))
            except OSError:
                os.close(tmp)
                os.close(new)
                raise
        self._directories[directory] = tmp, new
        return tmp, new

    def _write(self, delivery: _Delivery, envelope: Envelope, read: Read, content_bytes: int) -> None:
        recipient = envelope.recipients[delivery.index]
        address, reverse_path = recipient.address, recipient.reverse_path or envelope.reverse_path
        head = f"Return-Path: <{_one_line(reverse_path)}>\nDelivered-To: {_one_line(address)}\n"
        rights = self._rights
        delivery.fd = os.open(delivery.name, _NEW_FILE, rights.file, dir_fd=delivery.tmp)
        try:
            if rights.gid >= 0 and os.fstat(delivery.fd).st_gid != rights.gid:  # setgid, with another group
                raise OSError(errno.EPERM, "what is made there is not of the group of maildir.group")
            _write_all(delivery.fd, head.encode("utf-8", "surrogateescape"))
            held = b""  # a CR whose LF may come with the next block
            offset = 0
            while offset < content_bytes:
                count = min(BLOCK_BYTES, content_bytes - offset)
                block = read(offset, count)
                if len(block) != count:
                    raise OSError(errno.EIO, "the content is shorter than it was")
                offset += count
                if envelope.body_type == "BINARYMIME":  # octets, not lines
                    _write_all(delivery.fd, block)
                    continue
                block = held + block
                held = b"\r" if block.endswith(b"\r") and offset < content_bytes else b""
                if held:
                    block = block[:-1]
                _write_all(delivery.fd, block.replace(b"\r\n", b"\n"))
        except BaseException:
            _discard(delivery)
            raise


def deliver_maildir(
    root: int | str,
    path: str,
    envelope: Envelope,
    recipients: Iterable[int],
    read: Read,
    content_bytes: int,
    rights: Rights = PRIVATE,
) -> list[Outcome]:
    """Deliver one message to a Maildir for each recipient below `root` (a directory or its descriptor); may block."""
    try:
        batch = MaildirBatch(root, rights)
    except OSError as error:
        return [_deferred(index, error) for index in recipients]
    try:
        outcomes = batch.add(path, envelope, recipients, read, content_bytes)
        batch.commit()
    finally:
        batch.close()
    return sorted(outcomes, key=lambda outcome: outcome.recipient)


def expand_path(path: str, address: str, domain: str) -> str:
    """The Maildir of a recipient below the root: `{domain}` and `{local}` filled in; raises BadMailbox."""
    parts = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            raise BadMailbox("the next hop holds ..")
        if "{" in part:
            local = address.rpartition("@")[0] or address
            if local.startswith('"'):
                raise BadMailbox("a quoted local part has no mailbox here")
            part = part.replace("{domain}", domain).replace("{local}", local.lower())
            if not part or part.startswith(".") or "/" in part or not part.isprintable():
                raise BadMailbox("this address has no mailbox here")
            if len(part.encode("utf-8", "surrogateescape")) > MAX_PART:
                raise BadMailbox("the address is too long for a mailbox here")
        parts.append(part)
    return "/".join(parts)


def _open_directory(parent: int, name: str, mode: int) -> int:
    """Open a directory below another without following a link; make it, durably, if it is missing."""
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, mode, dir_fd=parent)
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            os.fsync(parent)  # without it a power cut could take the directory and what is in it
        except OSError:
            os.close(fd)
            raise
        return fd


def _discard(delivery: _Delivery) -> None:
    if delivery.fd >= 0:
        with contextlib.suppress(OSError):
            os.close(delivery.fd)
        delivery.fd = -1
        with contextlib.suppress(OSError):
            os.unlink(delivery.name, dir_fd=delivery.tmp)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _one_line(text: str) -> str:
    return "".join(character for character in text if character.isprintable())


def _deferred(index: int, error: OSError) -> Outcome:
    if error.errno == errno.EDQUOT:
        status = "4.2.2"
    elif error.errno == errno.ENOSPC:
        status = "4.3.1"
    else:
        status = "4.3.0"
    text = f"cannot write to the Maildir: {error.strerror or error}"
    return Outcome(index, Result.DEFERRED, "maildir", 0, status, text)


class MaildirEngine:
    """Maildir delivery of one deliverer: `submit`, `done` and `drain` as in `DeliveryEngine`.

    `root` is the directory (or its descriptor) below which next hops lie; `prefix` is taken off their paths first: what the
    configuration calls "/var/mail/x" is "/x" to a role whose root is /var/mail. The thread starts with the first attempt,
    so that it is born behind the lock-in of the role.
    """

    def __init__(
        self,
        config: Config,
        *,
        root: int | str = "/",
        prefix: str = "",
        gid: int = -1,
        read: Callable[[int, int, int], bytes],
        done: Callable[[AttemptDone], None],
        event: Callable[..., None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._rights = Rights.of_config(config, gid)
        self._prefix = prefix.rstrip("/")
        self._read = read
        self._done = done
        self._event = event
        self._clock = clock
        self._inbox: queue.SimpleQueue[tuple[Attempt, float] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._jobs = 0
        self._done_count = 0
        self._drained: asyncio.Future[None] | None = None

    def submit(self, attempt: Attempt) -> None:
        """Start an attempt; its end is reported to `done`, in the loop."""
        self._jobs += 1
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._work, name="maildir", daemon=True)
            self._thread.start()
        self._inbox.put((attempt, self._clock()))

    def forget_waiting(self) -> None:
        """Who gave these attempts is gone: those that the thread has not begun are done, deferred; the others go on."""
        waiting: list[tuple[Attempt, float]] = []
        ends = 0
        with contextlib.suppress(queue.Empty):
            while True:
                entry = self._inbox.get_nowait()
                if entry is None:
                    ends += 1
                else:
                    waiting.append(entry)
        for _ in range(ends):
            self._inbox.put(None)
        self._report(self._defer_all(waiting, OSError(errno.ECANCELED, "delivery was stopped")))

    async def drain(self) -> None:
        """Wait until all attempts are done, then end the thread."""
        if self._jobs:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
        self.close()

    def close(self) -> None:
        """End the thread behind what was submitted."""
        if self._thread is not None:
            self._inbox.put(None)
            self._thread.join()
            self._thread = None

    def stats(self) -> dict[str, int]:
        """Figures of the moment, and counters since the start."""
        return {"attempts": self._jobs, "done": self._done_count}

    # --- the thread --------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (first := self._inbox.get()) is not None:
            batch = [first]
            ended = False
            while len(batch) < BATCH and not self._inbox.empty():
                entry = self._inbox.get()
                if entry is None:
                    ended = True
                    break
                batch.append(entry)
            try:
                results = self._deliver(batch)
            except Exception as error:  # noqa: BLE001 - the one broad catch of this thread
                self._event("internal_error", what="maildir", error=repr(error))
                results = self._defer_all(batch, OSError(errno.EIO, "internal error"))
            assert self._loop is not None
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                self._loop.call_soon_threadsafe(self._report, results)
            if ended:
                return

    def _deliver(self, entries: list[tuple[Attempt, float]]) -> list[AttemptDone]:
        results: list[tuple[Attempt, float, list[Outcome]]] = []
        try:
            batch = MaildirBatch(self._root, self._rights)
        except OSError as error:
            return self._defer_all(entries, error)
        try:
            for attempt, since_s in entries:
                results.append((attempt, since_s, self._add(batch, attempt)))
            batch.commit()
        finally:
            batch.close()
        return [self._build_done(*result) for result in results]

    def _defer_all(self, entries: list[tuple[Attempt, float]], error: OSError) -> list[AttemptDone]:
        return [
            self._build_done(attempt, since_s, [_deferred(index, error) for index in attempt.recipients])
            for attempt, since_s in entries
        ]

    def _add(self, batch: MaildirBatch, attempt: Attempt) -> list[Outcome]:
        path = attempt.next_hop.removeprefix("maildir:")
        if self._prefix and (path == self._prefix or path.startswith(self._prefix + "/")):
            path = path[len(self._prefix) :]

        def read(offset: int, count: int) -> bytes:
            return self._read(attempt.source, attempt.content_offset + offset, count)

        return batch.add(path, attempt.envelope, attempt.recipients, read, attempt.content_bytes)

    def _build_done(self, attempt: Attempt, since_s: float, outcomes: list[Outcome]) -> AttemptDone:
        trouble = NextHopTrouble.NONE
        if outcomes and all(outcome.result is Result.DEFERRED and outcome.status != "4.2.2" for outcome in outcomes):
            trouble = NextHopTrouble.DOWN  # the store itself, not one mailbox over its quota
        return AttemptDone(attempt.job, trouble, outcomes, False, self._clock() - since_s)

    def _report(self, results: list[AttemptDone]) -> None:
        for result in results:
            self._jobs -= 1
            self._done_count += 1
            self._done(result)
        if self._drained is not None and not self._jobs and not self._drained.done():
            self._drained.set_result(None)
