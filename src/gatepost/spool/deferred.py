"""The deferred store: a message that waits has two files of its own, for the operator as much as for the queue.

ID.eml is the content, the trace field and then the message, as it would be delivered. ID.json is the envelope and what has
happened when the file was written; the journal is the authority, and the JSON is used only if the journal is lost. A batch goes
into one directory, so that one fsync makes all its names durable.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from zlib import crc32

import msgspec

from gatepost.model import Envelope, Outcome, Recipient
from gatepost.spool.entry import IN_DEFERRED, Entry, State
from gatepost.spool.errors import SpoolError
from gatepost.spool.layout import (
    DEFERRED_DIRECTORY_NAME,
    DEFERRED_NAME,
    close_anyway,
    deferred_path,
    disk_error,
)

_RECIPIENT_FIELDS = Recipient.__struct_fields__
_ENVELOPE_FIELDS = Envelope.__struct_fields__
_OUTCOME_FIELDS = Outcome.__struct_fields__


def _named(value: msgspec.Struct, fields: tuple[str, ...]) -> dict[str, object]:
    return {field: getattr(value, field) for field in fields}


def build_description(entry: Entry, crc: int) -> bytes:
    """The JSON of a deferred message, with names for people."""
    envelope = entry.envelope
    described = _named(envelope, _ENVELOPE_FIELDS)
    described["recipients"] = [
        _named(recipient, _RECIPIENT_FIELDS) | {"state": State(entry.states[index]).name.lower()}
        for index, recipient in enumerate(envelope.recipients)
    ]
    return msgspec.json.format(
        msgspec.json.encode(
            {
                "envelope": described,
                "attempts": entry.attempts,
                "next_due_s": entry.next_due_s,
                "held": entry.held,
                "refused": entry.refused,
                "released_s": entry.released_s,
                "delay_notified": entry.delay_notified,
                "noticed": list(entry.noticed),
                "last": [_named(outcome, _OUTCOME_FIELDS) for outcome in entry.last],
                "content_bytes": entry.content_bytes,
                "content_crc32": crc,
            }
        ),
        indent=1,
    )


def parse_description(data: bytes) -> Entry:
    """The entry that the JSON describes; ValueError if it cannot be understood."""
    try:
        found = msgspec.json.decode(data)
        states = [State[recipient.pop("state").upper()] for recipient in found["envelope"]["recipients"]]
        fields = found["envelope"]
        recipients = [Recipient(**recipient) for recipient in fields.pop("recipients")]
        envelope = msgspec.convert(Envelope(recipients=recipients, **fields), Envelope, from_attributes=True)
        entry = Entry(msgspec.msgpack.encode(envelope), envelope.id, envelope.received_s, len(recipients))
        entry.states = bytearray(states)
        entry.pending = entry.states.count(State.PENDING)
        entry.attempts = int(found["attempts"])
        entry.next_due_s = float(found["next_due_s"])
        entry.held, entry.delay_notified = bool(found["held"]), bool(found["delay_notified"])
        entry.refused = bool(found.get("refused", False))
        entry.released_s = float(found.get("released_s", 0.0))
        entry.noticed = bytes(found["noticed"])
        entry.last = tuple(Outcome(**outcome) for outcome in found["last"])
        entry.content_bytes, entry.crc = int(found["content_bytes"]), int(found["content_crc32"])
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not the description of a message: {error}") from error
    entry.place = IN_DEFERRED
    entry.verified = False
    return entry


class Batch:
    """Files of one batch being written to one directory of the deferred store; all or none are kept."""

    def __init__(self, root: str, directory: int) -> None:
        self.root = root
        self.directory = directory
        self._fds: list[int] = []
        self._paths: list[str] = []

    def add(self, entry: Entry, content: bytes | None, body_path: str = "") -> int:
        """Write the files of one message, its content given or (None) linked from its body file; returns the content's CRC.

        For a body file the CRC must be in the entry. Not durable before `sync`.
        """
        path = deferred_path(self.root, self.directory, entry.id)
        if content is None:
            crc = entry.crc
            self._link(body_path, path)
        else:
            crc = crc32(content)
            self._write(path, content)
        self._write(deferred_path(self.root, self.directory, entry.id, "json"), build_description(entry, crc))
        return crc

    def _link(self, body_path: str, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # what a crash left
        os.link(body_path, path)
        self._paths.append(path)

    def _write(self, path: str, data: bytes) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._paths.append(path)
        self._fds.append(fd)
        view = memoryview(data)
        while view:
            count = os.write(fd, view)
            if count == 0:
                raise OSError(errno.EIO, "write of no bytes")
            view = view[count:]
        # Starts the writing without waiting; `sync` then begins with the last file, whose fsync finds most of the work of all.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def sync(self) -> None:
        """Make files and names durable."""
        while self._fds:
            os.fsync(self._fds[-1])
            os.close(self._fds.pop())
        fd = os.open(f"{self.root}/deferred/{self.directory:02x}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def abandon(self) -> list[str]:
        """Remove what was written, and return what could not be removed: recovery would take it for live messages."""
        while self._fds:
            close_anyway(self._fds.pop())
        left = []
        for path in self._paths:
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue
            except OSError:
                left.append(path)
        return left


def list_deferred(root: str) -> Iterator[tuple[int, str, set[str]]]:
    """Directory, message id and kinds ("eml", "json") of every message in the deferred store; opens no file."""
    for directory in sorted(os.listdir(f"{root}/deferred")):
        if not DEFERRED_DIRECTORY_NAME.fullmatch(directory):
            continue
        kinds: dict[str, set[str]] = {}
        for name in os.listdir(f"{root}/deferred/{directory}"):
            match = DEFERRED_NAME.fullmatch(name)
            if match:
                kinds.setdefault(match[1], set()).add(match[2])
        for message_id, found in kinds.items():
            yield int(directory, 16), message_id, found


def read_description(root: str, directory: int, message_id: str) -> Entry:
    """The entry that a deferred file describes; SpoolError if the files do not."""
    path = deferred_path(root, directory, message_id, "json")
    try:
        with open(path, "rb") as file:
            entry = parse_description(file.read())
    except OSError as error:
        raise disk_error(error, path) from error
    except ValueError as error:
        raise SpoolError(f"{path}: {error}") from error
    if entry.id != message_id:
        raise SpoolError(f"{path} describes message {entry.id}")
    entry.deferred_dir = directory
    return entry
