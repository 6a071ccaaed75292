"""What the supervisor prepares with its own rights before a role exists: directories, sockets, the event log, start messages."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence

from gatepost.config.encoded import encode_config
from gatepost.config.listening import listen_addresses, socket_files
from gatepost.config.maildirfiles import NO_GROUP, group_id, maildir_roots, root_mode
from gatepost.config.schema import Config
from gatepost.config.users import role_ids
from gatepost.events import EventLog, open_output
from gatepost.ipc.messages import Start
from gatepost.net.dnsnames import read_resolv_conf
from gatepost.privsep.activation import Inherited
from gatepost.privsep.control_path import control_path
from gatepost.privsep.factskey import make_facts_key
from gatepost.privsep.listeners import Listeners, bind_control, own_addresses
from gatepost.privsep.material import Materials
from gatepost.privsep.memorylock import lock_supervisor, refuse_dumps
from gatepost.privsep.plan import Placement
from gatepost.privsep.roles import ROLES
from gatepost.spool.layout import make_path, prepare_spool

FALLBACK_SERVER = "127.0.0.1:53"  # what a C library asks when resolv.conf names nobody


class Ground:
    """Holds every descriptor that roles inherit. `prepare` raises SpoolRefused, ListenError or OSError."""

    def __init__(self, config: Config, inherited: Sequence[Inherited] = ()) -> None:
        self._config = config
        self._ids = role_ids(config)
        self._as_root = os.geteuid() == 0
        self.listeners = Listeners(inherited)
        self.event_descriptor = 2
        self._maildir_groups: dict[str | None, int] = {}  # as they were when a configuration was taken
        self.materials = Materials()
        self._control: socket.socket | None = None

    @property
    def control_path(self) -> str:
        return control_path(self._config)

    def prepare(self) -> None:
        refuse_dumps()
        config = self._config
        queue_uid, queue_gid, _ = self._ids["queue"]
        prepare_spool(
            config.spool, queue_uid=queue_uid, queue_gid=queue_gid, allow_volatile=config.queue.allow_volatile
        )
        run = os.path.join(config.spool, "run")
        _make_directory(run, 0o755)
        _make_directory(os.path.join(run, "empty"), 0o555)
        self.make_maildir_roots(config)
        self.reopen_events(config)
        lock_supervisor()  # as the supervisor reads keys; where it cannot, the files of keys are locked by themselves
        self.materials.add(config)
        self.bind_listeners(config)
        self._control = bind_control(self.control_path)

    def bind_listeners(self, config: Config) -> list[str]:
        """Bind what is not bound yet; returns the newly bound addresses. Raises ListenError."""
        return self.listeners.bind_all(listen_addresses(config), socket_files(config))

    def make_maildir_roots(self, config: Config) -> None:
        """Make the roots of Maildirs that are not there yet; raises OSError."""
        uid, gid, _ = self._ids["maildir"]
        group = self._maildir_groups[config.maildir.group] = group_id(config)
        for root in maildir_roots(config):
            if not os.path.isdir(root):
                make_path(root, 0o700)
                if self._as_root:
                    os.chown(root, uid, gid if group == NO_GROUP else group)
                elif group != NO_GROUP:
                    os.chown(root, -1, group)
                _set_mode(root, root_mode(config, as_root=self._as_root), config.maildir.group)

    def replace_events(self, config: Config, log: EventLog) -> None:
        """Open the event log anew for a reload; raises OSError."""
        log.flush()
        old = self.reopen_events(config)
        log.replace(self.event_descriptor)
        if old != 2:
            os.close(old)

    def reopen_events(self, config: Config) -> int:
        """Open the event log anew (start, reload); returns the old descriptor, for the caller to close if it is not 2."""
        try:
            new = open_output(config.events.output)
        except OSError as error:
            why = f"events.output: {config.events.output} cannot be opened for writing ({error.strerror or error})"
            advice = 'let whoever starts the gateway write there (systemd: LogsDirectory=, ReadWritePaths=), or write "stderr"'
            raise OSError(f"{why}; {advice}") from error
        old, self.event_descriptor = self.event_descriptor, new
        return old

    def start_message(self, placement: Placement, config: Config) -> tuple[Start, list[int]]:
        """The Start of a role and the descriptors that go with it: event log first, then what its row names."""
        uid, gid, _ = self._ids[placement.role]
        root = root_of(config, placement.role, placement.instance)
        descriptors = [self.event_descriptor]
        extra: dict[str, str] = {}
        if placement.role == "receiver":
            descriptors += self.listeners.descriptors(listen_addresses(config))
        elif placement.role == "control" and self._control is not None:
            descriptors.append(self._control.fileno())
        elif placement.role == "resolver":
            extra["servers"] = " ".join(config.dns.servers or read_resolv_conf() or [FALLBACK_SERVER])
        elif placement.role == "deliverer":
            extra["own"] = " ".join(own_addresses(self.listeners.bound()))
        elif placement.role == "maildir" and (group := self._maildir_groups[config.maildir.group]) != NO_GROUP:
            gid = group  # what it makes is that group's; it has no other
            extra["group"] = str(group)
        descriptors += self.materials.of(config, placement.role)
        if placement.role == "receiver" and config.facts.hash_addresses:
            extra["facts_key"] = make_facts_key(config.spool).hex()
        start = Start(
            role=placement.role,
            instance=placement.instance,
            generation=placement.generation,
            config=encode_config(config, placement.role),
            root=root,
            uid=uid if self._as_root else -1,
            gid=gid if self._as_root else -1,
            extra=extra,
        )
        return start, descriptors

    def release(self) -> None:
        """Close what is ours; the control socket's name goes."""
        self.listeners.close_except([])
        if self._control is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.control_path)
            self._control.close()


def root_of(config: Config, role: str, instance: int) -> str:
    """The directory that is a role's root directory, if the gateway was started as root."""
    match ROLES[role].root:
        case "spool":
            return config.spool
        case "maildir":
            return maildir_roots(config)[instance]
        case _:
            return os.path.join(config.spool, "run", "empty")


def _set_mode(root: str, mode: int, group: str | None) -> None:
    try:
        os.chmod(root, mode)
    except PermissionError as error:  # RestrictSUIDSGID= of systemd refuses the setgid bit
        advice = f"make it beforehand: chgrp {group} {root} && chmod {mode:04o} {root}"
        raise OSError(f"cannot set the mode {mode:04o} of {root} ({error.strerror}); {advice}") from None


def _make_directory(path: str, mode: int) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, mode)
    os.chmod(path, mode)
