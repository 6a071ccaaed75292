"""Whether the files and directories of a gateway can be changed by somebody else, and the command that mends it.

Looks at the configuration file, recipients files, spool, Maildir roots, event log and control socket, and at every directory
above them: who may write there may replace what is below. Only root and the user who starts the gateway are trusted. Only
looks (lstat); changes nothing. POSIX access lists are not read: they show as group permissions.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterator

import msgspec

from gatepost.config.nexthop import parse_next_hop
from gatepost.config.schema import Config
from gatepost.config.users import name_of_uid, role_ids

QUEUE_DIRECTORIES = ("segments", "journal", "deferred", "bodies", "damaged")

_GROUP_WRITE = stat.S_IWGRP
_WORLD_WRITE = stat.S_IWOTH


class PathProblem(msgspec.Struct, frozen=True, order=True):
    """One thing that is wrong with a path; `command` mends it."""

    path: str
    mode: str
    owner: str
    problem: str
    command: str

    def __str__(self) -> str:
        return f"{self.path} ({self.mode}, owner {self.owner}): {self.problem}; mend it with: {self.command}"


def inspect_paths(config: Config, config_path: str, starter: int | None = None) -> list[PathProblem]:
    """Everything wrong with the paths of a configuration; empty: safe to start. What does not exist yet is no problem.

    `starter` is the uid that the gateway is started with, None: of this process.
    """
    uid = os.geteuid() if starter is None else starter
    inspector = _Inspector(role_ids(config, uid), uid)
    inspector.file(os.path.abspath(config_path))
    for domain in config.domains.values():
        if domain.recipients_file is not None:
            inspector.file(domain.recipients_file)
    inspector.spool(config.spool)
    for root in _maildir_roots(config):
        inspector.maildir(root)
    if config.events.output != "stderr":
        inspector.file(config.events.output)
    if config.control_socket is not None:
        inspector.parents(config.control_socket)
    return sorted(set(inspector.problems))


class _Inspector:
    def __init__(self, ids: dict[str, tuple[int, int, str]], starter: int) -> None:
        self.problems: list[PathProblem] = []
        self._ids = ids
        self._starter = starter
        self._trusted = {0, starter}
        self._seen: set[str] = set()

    def file(self, path: str) -> None:
        """A file that only trusted users may change."""
        self.parents(path)
        status = _lstat(path)
        if status is None:
            return
        if self._is_link(path, status):
            return
        self._check_owner(path, status, self._trusted)
        self._check_writable(path, status)

    def parents(self, path: str) -> None:
        """Every directory above `path`; a sticky directory may be writable: its entries are safe from others."""
        for parent in _parents(path):
            if parent in self._seen:
                continue
            self._seen.add(parent)
            status = _lstat(parent)
            if status is None or self._is_link(parent, status):
                return
            self._check_owner(parent, status, self._trusted)
            if not status.st_mode & stat.S_ISVTX:
                self._check_writable(parent, status)

    def spool(self, path: str) -> None:
        """The spool: of the queue (it locks the spool with a file) or of who starts; what is in it of the queue alone."""
        self.parents(path)
        status = _lstat(path)
        if status is None or self._is_link(path, status) or self._is_no_directory(path, status):
            return
        queue_uid = self._ids["queue"][0]
        self._check_owner(path, status, {queue_uid, *self._trusted}, queue_uid)
        self._check_writable(path, status)
        for name in QUEUE_DIRECTORIES:
            self._queue_directory(os.path.join(path, name), queue_uid)
        run = os.path.join(path, "run")
        status = _lstat(run)
        if status is not None and not self._is_link(run, status):
            self._check_owner(run, status, self._trusted)
            self._check_writable(run, status)

    def maildir(self, path: str) -> None:
        """The root of a Maildir next hop: of who starts or of the role that writes there."""
        self.parents(path)
        status = _lstat(path)
        if status is None or self._is_link(path, status) or self._is_no_directory(path, status):
            return
        box_uid = self._ids["maildir"][0]
        self._check_owner(path, status, {box_uid, *self._trusted}, box_uid)
        self._check_writable(path, status)

    def _queue_directory(self, path: str, uid: int) -> None:
        status = _lstat(path)
        if status is None or self._is_link(path, status) or self._is_no_directory(path, status):
            return
        self._check_owner(path, status, {uid}, uid)
        if status.st_mode & 0o077:
            self._add(path, status, "others than the queue may look in", f"chmod 0700 {shlex.quote(path)}")

    def _check_owner(self, path: str, status: os.stat_result, allowed: set[int], wanted: int | None = None) -> None:
        if status.st_uid in allowed:
            return
        if wanted is None:
            wanted = self._starter
        problem = f"it belongs to {name_of_uid(status.st_uid)}, who could change what is there"
        self._add(path, status, problem, f"chown {_chown_name(wanted)} {shlex.quote(path)}")

    def _check_writable(self, path: str, status: os.stat_result) -> None:
        world = bool(status.st_mode & _WORLD_WRITE)
        group = bool(status.st_mode & _GROUP_WRITE) and not _is_private_group(status.st_gid, status.st_uid)
        if not world and not group:
            return
        who = "every user" if world else f"the group {_group_name(status.st_gid)}"
        bits = ("g" if status.st_mode & _GROUP_WRITE else "") + ("o" if world else "")
        self._add(path, status, f"{who} may change it", f"chmod {bits}-w {shlex.quote(path)}")

    def _is_link(self, path: str, status: os.stat_result) -> bool:
        if not stat.S_ISLNK(status.st_mode):
            return False
        real = os.path.realpath(path)
        problem = f"it is a symbolic link; write the real path ({real}) in the configuration instead"
        self._add(path, status, problem, f"readlink -f {shlex.quote(path)}")
        return True

    def _is_no_directory(self, path: str, status: os.stat_result) -> bool:
        if stat.S_ISDIR(status.st_mode):
            return False
        self._add(path, status, "a directory is wanted here", f"mv {shlex.quote(path)} {shlex.quote(path + '.old')}")
        return True

    def _add(self, path: str, status: os.stat_result, problem: str, command: str) -> None:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        self.problems.append(PathProblem(path, mode, name_of_uid(status.st_uid), problem, command))


def _parents(path: str) -> Iterator[str]:
    """`/`, `/var`, `/var/spool` for `/var/spool/gatepost`."""
    at = "/"
    yield at
    for part in path.strip("/").split("/")[:-1]:
        at = os.path.join(at, part)
        yield at


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def _is_private_group(gid: int, owner: int) -> bool:
    """Whether nobody but the owner and root is in a group: its write permission then gives nothing away."""
    try:
        members = {pwd.getpwnam(name).pw_uid for name in grp.getgrgid(gid).gr_mem}
    except KeyError:
        return False
    members.update(entry.pw_uid for entry in pwd.getpwall() if entry.pw_gid == gid)
    return members <= {owner, 0}


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"gid {gid}"


def _chown_name(uid: int) -> str:
    name = name_of_uid(uid)
    return str(uid) if " " in name else name


def _maildir_roots(config: Config) -> list[str]:
    texts = [text for domain in config.domains.values() for text in domain.next_hop] + config.relay.next_hop
    roots = set()
    for text in texts:
        for hop in parse_next_hop(text):
            if hop.kind == "maildir":
                roots.add(hop.path.partition("/{")[0])
    return sorted(roots)
