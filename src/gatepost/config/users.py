"""Which user each role runs as.

Started as root, every role has a uid of its own: the user of its name from the password file, or one named in
`[processes.users]`. Where a default user does not exist the role gets a numeric uid that nobody has, from 64300 up (a range
that Debian leaves to the administrator), so that a gateway is separated even before a package has made users. Started
otherwise, every role keeps the uid of who starts it: separation by uid needs root.
"""

from __future__ import annotations

import grp
import os
import pwd

from gatepost.config.schema import Config

ROLE_USERS: dict[str, str] = {
    "receiver": "gatepost-in",
    "resolver": "gatepost-dns",
    "queue": "gatepost-queue",
    "deliverer": "gatepost-out",
    "maildir": "gatepost-box",
    "control": "gatepost-ctl",
    "signer": "gatepost-key",
    "scanner": "gatepost-scan",
}
SERVICE_USER = "gatepost"  # whom gatepost.service runs as: one user for all roles
FIRST_SPARE_UID = 64300
NOT_YET = ("signer", "scanner")  # roles that nothing starts so far


def role_ids(config: Config, starter: int | None = None) -> dict[str, tuple[int, int, str]]:
    """Role name to (uid, gid, user name or "uid N"); raises KeyError if a configured user does not exist.

    `starter` is the uid that the gateway is started with, None: of this process.
    """
    uid = os.geteuid() if starter is None else starter
    if uid != 0:
        gid = os.getegid() if uid == os.geteuid() else pwd.getpwuid(uid).pw_gid
        return dict.fromkeys(ROLE_USERS, (uid, gid, name_of_uid(uid)))
    return {role: _ids_of_role(config, role, number) for number, role in enumerate(ROLE_USERS)}


def _ids_of_role(config: Config, role: str, number: int) -> tuple[int, int, str]:
    configured = config.processes.users.get(role)
    if configured is not None:
        entry = pwd.getpwnam(configured)
        return entry.pw_uid, entry.pw_gid, configured
    try:
        entry = pwd.getpwnam(ROLE_USERS[role])
    except KeyError:
        uid = FIRST_SPARE_UID + number
        while _is_taken(uid):
            uid += len(ROLE_USERS)
        return uid, uid, f"uid {uid}"
    return entry.pw_uid, entry.pw_gid, entry.pw_name


def missing_users(config: Config) -> dict[str, str]:
    """The roles whose default user does not exist, with its name."""
    missing = {}
    for role, name in ROLE_USERS.items():
        if role in config.processes.users or role in NOT_YET:
            continue
        try:
            pwd.getpwnam(name)
        except KeyError:
            missing[role] = name
    return missing


def starter_of(config: Config) -> int:
    """The uid that the gateway will be started with, for root to look at it: SERVICE_USER if the spool belongs to that user."""
    if os.geteuid() == 0:
        try:
            service_uid = pwd.getpwnam(SERVICE_USER).pw_uid
            if os.lstat(config.spool).st_uid == service_uid:
                return service_uid
        except (KeyError, OSError):
            pass
    return os.geteuid()


def name_of_uid(uid: int) -> str:
    """The user name of a uid, or "uid N"."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _is_taken(number: int) -> bool:
    for look_up in (pwd.getpwuid, grp.getgrgid):
        try:
            look_up(number)
        except KeyError:
            continue
        return True
    return False
