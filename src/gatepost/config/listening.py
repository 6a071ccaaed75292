"""Every address a configuration listens on, internet or Unix socket, in one order that supervisor and receivers share.

A Unix socket is written "unix:/absolute/path". Here is what it may be and who may connect to it (mode, owner and group of its
file); who it is that has connected the kernel tells the receiver. Pure but for looking up users and groups.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
from typing import NamedTuple

from gatepost.config.errors import Findings, KeyPath
from gatepost.config.schema import Config, Listener
from gatepost.config.values import InvalidValue, parse_listen

UNIX = "unix:"
MAX_PATH_BYTES = 107  # of sun_path, less its NUL
LOCAL_MODE = "0666"  # of local.socket: whoever connects is asked by the kernel who he is

_MODE = re.compile(r"0?[0-7]{3}").fullmatch
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\$?").fullmatch


class SocketFile(NamedTuple):
    """The file of a Unix socket; -1: whoever starts the gateway."""

    mode: int
    uid: int
    gid: int


def is_unix(address: str) -> bool:
    """Whether an address is a Unix socket."""
    return address.startswith(UNIX)


def parse_listener(text: str) -> str:
    """ADDRESS:PORT, or unix:/path."""
    if not is_unix(text):
        return str(parse_listen(text))
    return UNIX + parse_socket_path(text.removeprefix(UNIX))


def parse_socket_path(text: str) -> str:
    """An absolute path that is short enough for a Unix socket."""
    if not text.startswith("/") or text.endswith("/"):
        raise InvalidValue(f'"{text}" is not the absolute path of a socket', 'write one such as "/run/gatepost/submit"')
    path = os.path.normpath(text)
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise InvalidValue(f'"{text}" is longer than {MAX_PATH_BYTES} bytes', "write a shorter path")
    return path


def parse_mode(text: str) -> str:
    """Four octal digits, the first 0."""
    if not _MODE(text):
        raise InvalidValue(f'"{text}" is not the mode of a socket', 'write one such as "0660"')
    return text.rjust(4, "0")


def parse_user(text: str) -> str:
    """The name of a user or group of this host, or "*"."""
    if text != "*" and not _NAME(text):
        raise InvalidValue(f'"{text}" is not the name of a user or group of this host', 'write a name, or "*" for all')
    return text


def listener_rows(config: Config) -> list[Listener]:
    """All listeners: those of `listen`, then `[[listeners]]`, then the socket of `[local]`."""
    tls = config.tls
    edge = [
        Listener(
            address=address,
            kind="edge",
            require_tls=tls.require,
            client_certificates=tls.client_certificates,
            proxy_from=config.smtp.proxy_from,
        )
        for address in config.listen
    ]
    local = [Listener(address=UNIX + config.local.socket, mode=LOCAL_MODE)] if config.local.socket else []
    return [*edge, *config.listeners, *local]


def listen_addresses(config: Config) -> list[str]:
    """The addresses of all listeners, in the same order."""
    local = [UNIX + config.local.socket] if config.local.socket else []
    return [*config.listen, *(listener.address for listener in config.listeners), *local]


def socket_files(config: Config) -> dict[str, SocketFile]:
    """How the file of each Unix socket is to be, by address."""
    return {
        row.address: SocketFile(
            int(row.mode, 8),
            -1 if row.owner is None else pwd.getpwnam(row.owner).pw_uid,
            -1 if row.group is None else grp.getgrnam(row.group).gr_gid,
        )
        for row in listener_rows(config)
        if is_unix(row.address)
    }


def groups_of_user(user: str) -> list[str]:
    """The groups of a user of this host, as they are now; none for one that does not exist."""
    try:
        gids = os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
        return [grp.getgrgid(gid).gr_name for gid in gids]
    except KeyError:
        return []


def takes_local_users(config: Config) -> bool:
    """Whether users of this host can submit by a Unix socket."""
    return any(is_unix(row.address) and row.kind == "submission" for row in listener_rows(config))


def check_listening(values: dict[str, object], findings: Findings) -> None:
    """What spans several keys of `[[listeners]]` and `[local]`."""
    rows = values.get("listeners")
    taken = set()
    for number, row in enumerate(rows if isinstance(rows, list) else ()):
        here: KeyPath = ("listeners", number)
        address, kind = str(row.get("address", "")), row.get("kind", "submission")
        if not address:  # told already
            continue
        taken.add(address)
        if is_unix(address):
            _check_unix(row, str(kind), here, findings)
        else:
            if kind == "lmtp":
                problem = "LMTP is for programs of this host, and this address is open to others"
                findings.add((*here, "kind"), problem, 'write address = "unix:/run/gatepost/lmtp"')
            for key in ("mode", "owner", "group"):
                if key in row:
                    findings.add((*here, key), "only a Unix socket has one", "remove it")
    local = values.get("local")
    if not isinstance(local, dict):
        return
    if UNIX + str(local.get("socket")) in taken:
        findings.add(("local", "socket"), "the same socket is in [[listeners]]", "remove one")
    senders = local.get("senders")
    for name in senders if isinstance(senders, dict) else ():
        if not _NAME(str(name)):
            findings.add(("local", "senders", name), f'"{name}" is not the name of a user', "write a user of this host")


def _check_unix(row: dict[str, object], kind: str, here: KeyPath, findings: Findings) -> None:
    if kind not in ("submission", "lmtp"):
        problem = f'a Unix socket cannot be of the kind "{kind}"'
        findings.add((*here, "kind"), problem, 'write kind = "lmtp" or kind = "submission"')
    for key in ("require_tls", "client_certificates", "proxy_from"):
        if row.get(key):
            findings.add((*here, key), "a Unix socket knows its client from the kernel", "remove it")
    for key, look_up in (("owner", pwd.getpwnam), ("group", grp.getgrnam)):
        name = row.get(key)
        try:
            if isinstance(name, str):
                look_up(name)
        except KeyError:
            what = "user" if key == "owner" else "group"
            findings.add((*here, key), f'there is no {what} "{name}"', f"create it, or name another {what}")
