"""What files in Maildirs are like: mode and group of `[maildir]`, and who may be let read mail.

Others than the owner never may write, and others than the group may do nothing: what is refused is refused here, when the
configuration is loaded. The group is a name; whoever starts the gateway looks its number up. Pure but for that.
"""

from __future__ import annotations

import grp
import os
import re
import stat

from gatepost.config.errors import Findings
from gatepost.config.nexthop import parse_next_hop
from gatepost.config.schema import Config
from gatepost.config.users import ROLE_USERS
from gatepost.config.values import InvalidValue

NO_GROUP = -1

_MODE = re.compile(r"0?[0-7]{3}").fullmatch
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\$?").fullmatch
_KEYS = (("file_mode", stat.S_IRGRP), ("directory_mode", stat.S_IRGRP | stat.S_IXGRP))


def parse_file_mode(text: str) -> str:
    """The mode of a message: "0600" or "0640"."""
    mode = _parse(text, '"0640"')
    if mode & 0o111:
        raise InvalidValue(f'"{text}" lets a message be executed', 'write "0640", or "0600"')
    if mode & 0o600 != 0o600:
        raise InvalidValue(f'"{text}" does not let its owner read and write a message', 'write "0640", or "0600"')
    return f"{mode:04o}"


def parse_directory_mode(text: str) -> str:
    """The mode of a directory: "0700", "0750" or "0710"."""
    mode = _parse(text, '"0750"')
    if mode & 0o700 != 0o700:
        raise InvalidValue(f'"{text}" does not let its owner make files there', 'write "0750", or "0700"')
    return f"{mode:04o}"


def parse_group(text: str) -> str:
    """The name of a group of this host."""
    if not _NAME(text):
        raise InvalidValue(f'"{text}" is not the name of a group of this host', "write the name of a group")
    return text


def parse_root(text: str) -> str:
    """A directory: a whole path, without placeholders."""
    if not text.startswith("/") or "{" in text or text.rstrip("/") != os.path.normpath(text):
        raise InvalidValue(f'"{text}" is not the path of a directory', 'write one such as "/var/mail/gatepost"')
    return text.rstrip("/")


def maildir_roots(config: Config) -> list[str]:
    """The distinct directories that Maildir next hops deliver below, in a stable order; each gets a process of its own.

    Next hops that only a table names are not among them: tables change, and processes with their rights do not.
    """
    texts = [text for domain in config.domains.values() for text in domain.next_hop] + list(config.relay.next_hop)
    texts += [text for rule in config.relay.rules for text in rule.next_hop]
    hops = [hop for text in texts if text != "mx" for hop in parse_next_hop(text)]
    return sorted({fixed_part(hop.path) for hop in hops if hop.kind == "maildir"} | set(config.maildir.roots))


def fixed_part(path: str) -> str:
    """The part of a Maildir path template before its first placeholder, as a directory."""
    fixed = path.partition("{")[0]
    return fixed.rstrip("/") if fixed == path else os.path.dirname(fixed) or "/"


def check_maildir(values: dict[str, object], findings: Findings) -> None:
    """What spans several keys of `[maildir]`, and whether the group can be had."""
    section = values.get("maildir")
    group = section.get("group") if isinstance(section, dict) else None
    if not isinstance(section, dict) or not isinstance(group, str):
        return
    here = ("maildir", "group")
    if not any(int(str(section.get(key, "0700")), 8) & bits for key, bits in _KEYS):
        advice = 'write file_mode = "0640" and directory_mode = "0750", or remove the group'
        findings.add(here, "the modes give the group nothing, and it would read nothing", advice)
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        findings.add(
            here, f'there is no group "{group}"', f"create it: addgroup --system {group}; or name another group"
        )
        return
    if gid == 0:
        findings.add(
            here, f'"{group}" is the group of root, which no role may be in', "name a group for the readers of mail"
        )
    if group in set(ROLE_USERS.values()) - {ROLE_USERS["maildir"]}:
        problem = f'"{group}" is the group of another role, which would let each into files of the other'
        findings.add(here, problem, "name a group for the readers of mail")
    if os.geteuid() != 0 and gid not in {os.getegid(), *os.getgroups()}:
        problem = f'who starts the gateway is not in the group "{group}", and cannot give files to it without root'
        advice = f"add the user: adduser USER {group} (in a service: SupplementaryGroups={group}); or start the gateway as root"
        findings.add(here, problem, advice)


def group_id(config: Config) -> int:
    """The number of the group, NO_GROUP if none is configured; raises OSError if it is gone."""
    name = config.maildir.group
    if name is None:
        return NO_GROUP
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise OSError(f'there is no group "{name}" (maildir.group) any more; create it, or name another') from None


def root_mode(config: Config, *, as_root: bool) -> int:
    """The mode of the root of Maildirs. A role that root started has the group itself; another gets it from the setgid bit."""
    needs_setgid = config.maildir.group is not None and not as_root
    return int(config.maildir.directory_mode, 8) | (stat.S_ISGID if needs_setgid else 0)


def _parse(text: str, example: str) -> int:
    if not _MODE(text):
        raise InvalidValue(f'"{text}" is not a mode', f"write one such as {example}")
    mode = int(text, 8)
    if mode & 0o022:
        raise InvalidValue(
            f'"{text}" lets others than the gateway write there, and so change, forge and remove mail',
            f"write {example}",
        )
    if mode & 0o007:
        raise InvalidValue(f'"{text}" lets every user of this host at the mail', f"write {example}, and name a group")
    return mode
