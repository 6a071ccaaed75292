"""Clients of this host in a receiver: who has connected to a Unix socket, by the word of the kernel, and what it may do there.

In a user namespace (systemd's PrivateUsers=) the kernel calls everybody from outside of it by one number: who has that is nobody
here, and has no right, whoever is listed. Names of users and groups are read before the lock-in; who was added since is known by number only until the next reload, and has
no right. On an LMTP socket nobody may relay by being a user: a server delivers there, for our own domains; a rule may name its
identity.
"""

from __future__ import annotations

import grp
import pwd
import socket
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from gatepost.config.listening import is_unix, listener_rows
from gatepost.config.schema import Config
from gatepost.model import Address
from gatepost.policy.engine import Engine
from gatepost.policy.localusers import LocalUsers
from gatepost.smtp.reply import Reply, constant

if TYPE_CHECKING:
    from gatepost.net.smtp_in import SmtpIn

SO_PEERGROUPS = 59  # Linux 4.13; not in Python's socket module
MAX_GROUPS_BYTES = 1024  # the most that getsockopt of Python takes; who is in more groups is in none here
OUTSIDE = "#outside"
CANNOT_SEE = constant(
    450, "7.1", "The gateway cannot see which user you are: it runs in a user namespace (PrivateUsers=)"
)
_WHOLE = ["0", "0", "4294967295"]
_CREDENTIALS = struct.Struct("=iII")


def stranger_number(proc: str = "/proc") -> int:
    """The uid that stands for all that this user namespace does not have; -1: it has all."""
    try:
        if _read(f"{proc}/self/uid_map").split() == _WHOLE:
            return -1
        return int(_read(f"{proc}/sys/kernel/overflowuid"))
    except (OSError, ValueError):
        return 65534


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


class LocalPeer(NamedTuple):
    """Who has connected."""

    user: str
    groups: tuple[str, ...]

    @property
    def address(self) -> str:
        """What stands where a client's address stands; it is none, so that no range holds it."""
        return f"local/{self.user}"


class LocalClients:
    """One for a receiver."""

    def __init__(self, config: Config, engine: Engine) -> None:
        self._engine = engine
        self._users = LocalUsers(config)
        is_used = any(is_unix(row.address) for row in listener_rows(config))
        self._stranger = stranger_number() if is_used else -1
        self._names = {entry.pw_uid: entry.pw_name for entry in reversed(pwd.getpwall())} if is_used else {}
        self._groups = {entry.gr_gid: entry.gr_name for entry in reversed(grp.getgrall())} if is_used else {}

    def identify(self, sock: Any) -> LocalPeer:
        """The user and groups of the process at the other end; raises OSError."""
        _, uid, gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if uid == self._stranger:
            return LocalPeer(OUTSIDE, ())
        gids = {gid}
        try:
            data = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, MAX_GROUPS_BYTES)
            gids.update(struct.unpack(f"={len(data) // 4}I", data))
        except OSError:
            pass  # an older kernel, or more groups than fit: the first one counts alone
        return LocalPeer(self._names.get(uid, f"#{uid}"), tuple(sorted(filter(None, map(self._groups.get, gids)))))

    def attest(self, connection: SmtpIn, peer: LocalPeer) -> None:
        """Give the connection what its user has."""
        connection.local_peer = peer
        self._engine.attest(connection.facts, peer.user, peer.groups, relays=connection.port.kind != "lmtp")

    def decide_mail(self, connection: SmtpIn, reverse_path: Address | None) -> Reply | None:
        """Whether this client may send under this reverse-path; a server may under any, it passes on."""
        peer = connection.local_peer
        if connection.port.kind == "lmtp" or peer is None:
            return None
        if peer.user == OUTSIDE:
            return CANNOT_SEE
        verdict = self._users.check_reverse_path(peer.user, peer.groups, reverse_path)
        return Reply(verdict.code, verdict.detail, verdict.text) if verdict.code else None
