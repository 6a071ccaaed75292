"""Whether the files and directories of a gateway can be changed, or its secrets read, by somebody else, and the command that mends it.

Looks at the configuration file, the files it names (recipients, tables, keys, users), spool, Maildir roots, event log and sockets, at
every directory above them, and at the program itself: who may write there may replace what is below. Only root and the user who
starts the gateway are trusted. Only looks (lstat, access lists); changes nothing. What `[[exceptions]]` names is left out until its date.
"""

from __future__ import annotations

import datetime
import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterator

import msgspec

from gatepost.config.accesslists import READ, WRITE, opens_to_others
from gatepost.config.exceptions import is_expired
from gatepost.config.listening import UNIX, SocketFile, socket_files
from gatepost.config.maildirfiles import maildir_roots, root_mode
from gatepost.config.programfiles import foreign_files, interpreter_files, mend_command, program_trees
from gatepost.config.schema import Config
from gatepost.config.users import name_of_uid, role_ids

QUEUE_DIRECTORIES = ("segments", "journal", "deferred", "bodies", "damaged")
# in the name of a key that ends in _file: nobody else may read it
SECRET_WORDS = ("key", "secret", "password", "users", "credentials", "token")

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
        owner = f", owner {self.owner}" if self.owner else ""
        return f"{self.path} ({self.mode}{owner}): {self.problem}; mend it with: {self.command}"


def inspect_paths(
    config: Config, config_path: str, starter: int | None = None, today: datetime.date | None = None
) -> list[PathProblem]:
    """Everything wrong with the paths of a configuration; empty: safe to start. What does not exist yet is no problem.

    `starter` is the uid that the gateway is started with, None: of this process. `today` decides which exceptions hold.
    """
    day = today or datetime.datetime.now(datetime.UTC).date()
    found = _inspect(config, config_path, starter)
    holding = {exception.path for exception in config.exceptions if not is_expired(exception, day)}
    config_file = os.path.abspath(config_path)
    for exception in config.exceptions:
        if is_expired(exception, day):
            problem = (
                f"the exception for {exception.path}, for which {exception.owner} answers, ended on {exception.until}"
            )
            command = f"# mend {exception.path} and remove the exception, or have {exception.owner} renew it"
            found.append(_problem_of(config_file, problem, command))
    return sorted({problem for problem in found if problem.path not in holding})


def unused_exceptions(config: Config, config_path: str, starter: int | None = None) -> list[str]:
    """The paths of exceptions with which nothing is wrong."""
    if not config.exceptions:
        return []
    wrong = {problem.path for problem in _inspect(config, config_path, starter)}
    return [exception.path for exception in config.exceptions if exception.path not in wrong]


def _inspect(config: Config, config_path: str, starter: int | None) -> list[PathProblem]:
    uid = os.geteuid() if starter is None else starter
    inspector = _Inspector(role_ids(config, uid), uid)
    inspector.file(os.path.abspath(config_path))
    for path, is_secret in sorted(named_files(config)):
        inspector.file(path, is_secret=is_secret)
    inspector.spool(config.spool)
    for root in maildir_roots(config):
        inspector.maildir(root, config.maildir.group, root_mode(config, as_root=uid == 0))
    if config.events.output != "stderr":
        inspector.file(config.events.output)
        inspector.log(config.events.output)
    if config.control_socket is not None:
        inspector.parents(config.control_socket)
    for address, file in socket_files(config).items():
        inspector.listening_socket(address.removeprefix(UNIX), file)
    if config.auth.dovecot is not None and config.auth.dovecot.startswith("unix:"):
        inspector.parents(config.auth.dovecot.removeprefix("unix:"))  # who puts another one there gets passwords
    inspector.control_socket(config.control_socket or os.path.join(config.spool, "run", "control.sock"))
    inspector.program()
    return inspector.problems


def named_files(config: Config) -> set[tuple[str, bool]]:
    """Every file that a configuration names by a key ending in `_file`, and the files of its tables; whether it is secret."""
    found: set[tuple[str, bool]] = set()

    def collect(value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                if str(key).endswith("_file") and isinstance(inner, str) and inner.startswith("/"):
                    found.add((inner, any(word in key for word in SECRET_WORDS)))
                collect(inner)
        elif isinstance(value, (list, tuple)):
            for inner in value:
                if isinstance(inner, (dict, list, tuple, msgspec.Struct)):
                    collect(inner)
        elif isinstance(value, msgspec.Struct):
            collect({name: getattr(value, name) for name in value.__struct_fields__ if name != "tables"})

    collect(config)
    for table in getattr(config, "tables", {}).values():
        found.update((path, False) for path in getattr(table, "files", ()) if path.startswith("/"))
    return found


def _problem_of(path: str, problem: str, command: str) -> PathProblem:
    status = _lstat(path)
    mode = f"{stat.S_IMODE(status.st_mode):04o}" if status else "absent"
    return PathProblem(path, mode, name_of_uid(status.st_uid) if status else "", problem, command)


class _Inspector:
    def __init__(self, ids: dict[str, tuple[int, int, str]], starter: int) -> None:
        self.problems: list[PathProblem] = []
        self._ids = ids
        self._starter = starter
        self._trusted = {0, starter}
        self._seen: set[str] = set()
        self._private_groups: dict[tuple[int, int], bool] = {}

    def file(self, path: str, *, is_secret: bool = False) -> None:
        """A file that only trusted users may change; and read, if it is secret."""
        self.parents(path)
        status = _lstat(path)
        if status is None:
            return
        if self._is_link(path, status):
            return
        self._check_owner(path, status, self._trusted)
        self._check_writable(path, status)
        if is_secret:
            self._check_secret(path, status)

    def log(self, path: str) -> None:
        """The event log names who writes to whom: a group may be let read it, the world not."""
        status = _lstat(path)
        directory = os.path.dirname(path)
        if _lstat(directory) is None:
            command = f"mkdir -p -m 0755 {shlex.quote(directory)}"
            self.problems.append(_problem_of(directory, "there is no such directory for the event log", command))
        if status is not None and stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IROTH:
            self._add(path, status, "every user may read who writes to whom", f"chmod o-r {shlex.quote(path)}")

    def control_socket(self, path: str) -> None:
        """The administrator's socket."""
        status = _lstat(path)
        if status is None or not stat.S_ISSOCK(status.st_mode):
            return
        self._check_owner(path, status, self._trusted)
        if status.st_mode & 0o077:
            self._add(path, status, "others may command the gateway", f"chmod 0600 {shlex.quote(path)}")

    def listening_socket(self, path: str, file: SocketFile) -> None:
        """A socket for clients of this host: as it is configured, and nobody else's to replace."""
        self.parents(path)
        status = _lstat(path)
        if status is None or not stat.S_ISSOCK(status.st_mode):
            return
        self._check_owner(path, status, {file.uid, *self._trusted})
        if stat.S_IMODE(status.st_mode) & ~file.mode:
            self._add(path, status, "more may connect than is configured", f"chmod {file.mode:04o} {shlex.quote(path)}")

    def program(self) -> None:
        """What the gateway executes and imports."""
        for path in interpreter_files():
            self.parents(path, links=True)
            status = _lstat(path)
            if status is not None and not stat.S_ISLNK(status.st_mode):
                self._check_owner(path, status, self._trusted, 0)
                self._check_writable(path, status)
        for tree in program_trees():
            self.parents(tree, links=True)
            status = _lstat(tree)
            if status is None:
                continue
            self._check_owner(tree, status, self._trusted, 0)
            self._check_writable(tree, status)
            self._tree(tree, status)

    def _tree(self, tree: str, status: os.stat_result) -> None:
        try:
            found = list(foreign_files(tree, self._is_safe))
        except OverflowError:
            self._add(
                tree, status, "it holds too many files to look through", "install the gateway in a venv of its own"
            )
            return
        if not found:
            return
        first, first_status = found[0]
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        problem = (
            f"{first}{more} below it can be changed by others (mode {stat.S_IMODE(first_status.st_mode):04o}, "
            f"owner {name_of_uid(first_status.st_uid)}), and the gateway executes it"
        )
        command = mend_command(tree, found, self._trusted, _chown_name(self._starter))
        self._add(tree, status, problem, command)

    def _is_safe(self, path: str, status: os.stat_result) -> bool:
        mode = status.st_mode
        if status.st_uid not in self._trusted or (mode & _WORLD_WRITE and not mode & stat.S_ISVTX):
            return False
        return not mode & _GROUP_WRITE or (self._is_private(status) and not self._is_listed(path, WRITE))

    def _is_listed(self, path: str, right: int) -> bool:
        return opens_to_others(path, right, self._trusted)

    def _is_private(self, status: os.stat_result) -> bool:
        key = (status.st_gid, status.st_uid)
        if key not in self._private_groups:
            # Who starts the gateway is trusted as the owner is: a key of root's that only the service's group may read.
            self._private_groups[key] = _is_private_group(*key) or _is_private_group(key[0], self._starter)
        return self._private_groups[key]

    def parents(self, path: str, *, links: bool = False) -> None:
        """Every directory above `path`; a sticky directory may be writable: its entries are safe from others.

        With `links` a symbolic link is followed, and what it leads to is looked at in its place.
        """
        for parent in _parents(path):
            if parent in self._seen:
                continue
            self._seen.add(parent)
            status = _lstat(parent)
            if links and status is not None and stat.S_ISLNK(status.st_mode):
                self._check_owner(parent, status, self._trusted)
                self.parents(os.path.join(os.path.realpath(parent), "x"), links=True)
                continue
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
        self._empty_root(os.path.join(run, "empty"))

    def maildir(self, path: str, group: str | None = None, mode: int = 0o700) -> None:
        """The root of a Maildir next hop: of who starts or of the role that writes there."""
        self.parents(path)
        status = _lstat(path)
        if status is None or self._is_link(path, status) or self._is_no_directory(path, status):
            return
        box_uid = self._ids["maildir"][0]
        self._check_owner(path, status, {box_uid, *self._trusted}, box_uid)
        self._check_writable(path, status)
        if group is not None:
            self._check_group(path, status, group, mode)

    def _check_group(self, path: str, status: os.stat_result, group: str, mode: int) -> None:
        """The group must come in, and be that of what is made below."""
        try:
            gid = grp.getgrnam(group).gr_gid
        except KeyError:
            return  # told when the configuration is loaded
        if status.st_gid != gid or stat.S_IMODE(status.st_mode) & mode & 0o2070 != mode & 0o2070:
            problem = f"the group {group} of maildir.group would not reach, or not be given, what is delivered there"
            self._add(
                path, status, problem, f"chgrp {group} {shlex.quote(path)} && chmod {mode:04o} {shlex.quote(path)}"
            )

    def _queue_directory(self, path: str, uid: int) -> None:
        status = _lstat(path)
        if status is None or self._is_link(path, status) or self._is_no_directory(path, status):
            return
        self._check_owner(path, status, {uid}, uid)
        if status.st_mode & 0o077:
            self._add(path, status, "others than the queue may look in", f"chmod 0700 {shlex.quote(path)}")

    def _empty_root(self, path: str) -> None:
        """The root directory of the roles that have none: nobody may put something there."""
        status = _lstat(path)
        if status is None or self._is_link(path, status) or self._is_no_directory(path, status):
            return
        self._check_owner(path, status, self._trusted)
        self._check_writable(path, status)

    def _check_secret(self, path: str, status: os.stat_result) -> None:
        world = bool(status.st_mode & stat.S_IROTH)
        group = bool(status.st_mode & stat.S_IRGRP) and not self._is_private(status)
        if world or group:
            who = "every user" if world else f"the group {_group_name(status.st_gid)}"
            bits = ("g" if status.st_mode & _GROUP_WRITE else "") + ("o" if world else "")
            self._add(path, status, f"{who} may read this secret", f"chmod {bits}-r {shlex.quote(path)}")
        elif status.st_mode & stat.S_IRGRP and self._is_listed(path, READ):
            self._add(path, status, "its access list lets others read this secret", f"setfacl -b {shlex.quote(path)}")

    def _check_owner(self, path: str, status: os.stat_result, allowed: set[int], wanted: int | None = None) -> None:
        if status.st_uid in allowed:
            return
        if wanted is None:
            wanted = self._starter
        problem = f"it belongs to {name_of_uid(status.st_uid)}, who could change what is there"
        self._add(path, status, problem, f"chown {_chown_name(wanted)} {shlex.quote(path)}")

    def _check_writable(self, path: str, status: os.stat_result) -> None:
        world = bool(status.st_mode & _WORLD_WRITE)
        group = bool(status.st_mode & _GROUP_WRITE) and not self._is_private(status)
        if not world and not group:
            if status.st_mode & _GROUP_WRITE and self._is_listed(path, WRITE):
                self._add(path, status, "its access list lets others change it", f"setfacl -b {shlex.quote(path)}")
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
    """Whether a group is the owner's, with nobody else but root in it: its write permission then gives nothing away.

    One that nobody is in is not harmless: programs are set-gid to such groups (mail, shadow), and daemons take them.
    """
    try:
        members = {pwd.getpwnam(name).pw_uid for name in grp.getgrgid(gid).gr_mem}
    except KeyError:
        return False
    members.update(entry.pw_uid for entry in pwd.getpwall() if entry.pw_gid == gid)
    return owner in members and members <= {owner, 0}


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"gid {gid}"


def _chown_name(uid: int) -> str:
    name = name_of_uid(uid)
    return str(uid) if " " in name else name
