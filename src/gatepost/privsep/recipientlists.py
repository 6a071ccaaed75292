"""The last good lists of recipients: a file that has lost many at a reload or start is not believed before an operator confirms it.

A script that writes a recipients file and fails half-way would have the rest of an organisation refused with 550. So the supervisor, which reads
these files, keeps what they said last (in memory, and for the next start in `run/recipients.kept` beside the control socket), and goes on
with it where more than `snapshot.max_shrink` of a list is gone. Lists in the configuration itself are believed: somebody wrote them there.
Not here: tables that are asked over the network (`roles/snapshot.py`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from gatepost.config.schema import Config
from gatepost.config.tables import LoadedConfig, TableData
from gatepost.safeopen import read_regular

NAME = "recipients.kept"
MAX_BYTES = 64 * 1024 * 1024
USE = "recipients "
SAMPLE = 5

Lists = dict[str, list[str]]
_decoder = msgspec.msgpack.Decoder(Lists)


class Held(msgspec.Struct, frozen=True):
    """A list that is not believed."""

    name: str  # of the domain, or of the table
    kept: int  # recipients of the last good list
    found: int  # in the file now
    gone: int
    sample: list[str]  # some of those that are gone


def lists_of(config: Config) -> Lists:
    """What files say of recipients: by domain, and by table in a file."""
    lists: Lists = {}
    for name, domain in config.domains.items():
        if domain.recipients_file is not None:
            lists[name] = [entry for entry in domain.recipients or () if ":" not in entry]
    if isinstance(config, LoadedConfig):
        for key, data in config.tables.items():
            if key.startswith(USE) and data.entries:
                lists[key.removeprefix(USE)] = list(data.entries)
            elif key.startswith(USE) and not data.rules:
                lists[key.removeprefix(USE)] = []
    return lists


def has_shrunk(old: list[str], new: list[str], most: float) -> list[str]:
    """Who is gone, if that is more than a set part of a list; one alone may always go, but not the last."""
    if not old or most >= 1.0:
        return []
    gone = sorted(set(old) - set(new))
    is_much = len(gone) > max(1.0, most * len(old)) or not new
    return gone if is_much else []


class RecipientLists:
    """Of one gateway; `event` is told of each list that is held."""

    def __init__(self, spool: str) -> None:
        self._path = os.path.join(spool, "run", NAME)
        self._good: Lists = {}
        self._next: Lists | None = None  # of a configuration that is about to be taken
        self._confirmed: set[str] = set()
        self._problem = ""  # with the file
        self._unwritten = ""  # why the lists in use are not on disk
        self.held: list[Held] = []
        self._held_next: list[Held] = []

    def load(self) -> str:
        """Read what was kept; returns what is wrong with it. A file that cannot be read counts as none."""
        try:
            self._good = _decoder.decode(read_regular(self._path, MAX_BYTES))
        except FileNotFoundError:
            return ""
        except (OSError, msgspec.MsgspecError) as error:
            return f"{self._path}: {error}"
        return ""

    def at_start(self, config: Config) -> Config:
        """The configuration to start with; `commit` when there is somewhere to write."""
        self._problem = self.load()
        return self.guard(config)

    def answer(self, arguments: dict[str, Any]) -> Any:
        """A question of control: what is held, after `confirm` of what it names."""
        names = arguments.get("names") or []
        confirmed = self.confirm(names) if arguments.get("confirm") and isinstance(names, list) else []
        lists = [{"list": name, "recipients": len(entries)} for name, entries in sorted(self._good.items())]
        held = [msgspec.to_builtins(one) for one in self.held]
        return {"lists": lists, "held": held, "confirmed": confirmed, "unwritten": self._unwritten}

    def guard(self, config: Config) -> Config:
        """The configuration with the last good list in place of each that has lost too many; `commit` if it is taken."""
        lists: Lists = {}
        held: list[Held] = []
        self._next, self._held_next = lists, held
        found = lists_of(config)
        domains, tables = dict(config.domains), dict(getattr(config, "tables", {}))
        for name, new in found.items():
            old = self._good.get(name, [])
            gone = [] if name in self._confirmed else has_shrunk(old, new, config.snapshot.max_shrink)
            lists[name] = old if gone else new
            if not gone:
                continue
            held.append(Held(name, len(old), len(new), len(gone), gone[:SAMPLE]))
            if name in domains:
                others = [entry for entry in domains[name].recipients or () if ":" in entry]
                domains[name] = msgspec.structs.replace(domains[name], recipients=[*old, *others])
            else:
                tables[USE + name] = _with_entries(tables[USE + name], old)
        if not held:
            return config
        changes: dict[str, Any] = {"domains": domains}
        if isinstance(config, LoadedConfig):
            changes["tables"] = tables
        return msgspec.structs.replace(config, **changes)

    def look(self, config: Config) -> tuple[Config, list[Held]]:
        """What `guard` would make of a configuration, and what it would hold; for who only looks."""
        guarded = self.guard(config)
        held, self._held_next, self._next = self._held_next, [], None
        return guarded, held

    def begin(self) -> None:
        """A reload begins: what one that was refused had found is of no use."""
        self._next = None

    def commit(self, event: Callable[..., None]) -> None:
        """The guarded configuration is the running one now."""
        found, self._next = self._next, None
        if found is None:  # the configuration is the one of before
            return
        if self._problem:
            event("error", where="recipients lists", reason=self._problem)
            self._problem = ""
        self._confirmed.clear()
        self.held = self._held_next
        for one in self.held:
            event("recipients_held", list=one.name, kept=one.kept, found=one.found, gone=one.gone, sample=one.sample)
        if found == self._good and not self._unwritten:
            return
        self._good = found
        self._unwritten = ""
        try:
            self._write()
        except OSError as error:
            self._unwritten = f"{self._path}: {error.strerror}"
            event("error", where=self._path, reason=str(error.strerror))

    def confirm(self, names: Iterable[str]) -> list[str]:
        """The next reload believes these lists; empty: all that are held. Returns which."""
        wanted = set(names)
        done = [one.name for one in self.held if not wanted or one.name in wanted]
        self._confirmed.update(done)
        return done

    def _write(self) -> None:
        new = f"{self._path}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        os.makedirs(os.path.dirname(self._path), mode=0o755, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(new, flags, 0o600), "wb") as file:
            file.write(msgspec.msgpack.encode(self._good))
            file.flush()
            os.fsync(file.fileno())
        os.rename(new, self._path)
        directory = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)  # what an operator has confirmed stays so over a power cut
        finally:
            os.close(directory)


def _with_entries(data: TableData, keys: list[str]) -> TableData:
    return msgspec.structs.replace(data, entries={key: data.entries.get(key, "") for key in keys})
