"""Files and lists of recipients: one local part or address a line, `#` begins a comment.

The supervisor reads these files before the roles lock themselves in. An entry is kept as "local" or "local@domain", lower
case, domain in A-labels. Local parts that an inside server might take for a route (`%`, `!`, a quoted `@`) cannot be listed.
"""

from __future__ import annotations

import functools
import os
import re
import unicodedata

from gatepost.config.errors import ConfigError, ConfigErrors
from gatepost.config.values import InvalidValue, parse_domain
from gatepost.safeopen import LinkInPath, read_regular

MAX_FILE_BYTES = 256 * 1024 * 1024

_COMMENT = re.compile(r"(?:^|\s)#.*")  # a "#" inside a local part is legal
_LOCAL = re.compile(r"[a-z0-9#$&'*+/=?^_`{|}~\x80-\U0010ffff-]+(?:\.[a-z0-9#$&'*+/=?^_`{|}~\x80-\U0010ffff-]+)*")

_cached_domain = functools.lru_cache(maxsize=256)(parse_domain)  # a file names few domains many times


def fold_local(local: str) -> str:
    """The form in which local parts of our own domains are compared: NFC, lower case."""
    return local.lower() if local.isascii() else unicodedata.normalize("NFC", local).lower()


def parse_recipient(text: str) -> str:
    """One entry, "local" or "local@domain", in the form in which it is compared."""
    local, at, domain = text.strip().rpartition("@")
    if not at:
        local = domain
    folded = fold_local(local)
    if not folded:
        raise InvalidValue(f'"{text}" has no local part', 'write "user" or "user@example.net"')
    if any(character in folded for character in '%!@"'):
        advice = "list plain local parts only, such as user or first.last"
        raise InvalidValue(f'"{text}" could be taken for a route to another host', advice)
    if len(folded.encode()) > 64:  # RFC 5321 4.5.3.1.1
        raise InvalidValue(f'"{text[:40]}..." has a local part of more than 64 octets', "write a shorter one")
    if not _LOCAL.fullmatch(folded):
        raise InvalidValue(f'"{text}" is not a local part or address', 'write "user" or "user@example.net"')
    return f"{folded}@{_cached_domain(domain)}" if at else folded


def read_recipients(path: str) -> tuple[dict[str, int], list[ConfigError]]:
    """The good entries of a recipients file with the line of each, and an error for every bad line."""
    errors: list[ConfigError] = []
    entries: dict[str, int] = {}
    try:
        text = _read_text(path)
    except ConfigErrors as unreadable:
        return entries, unreadable.errors
    for number, line in enumerate(text.split("\n"), 1):
        entry = _COMMENT.sub("", line).strip()
        if not entry:
            continue
        try:
            recipient = parse_recipient(entry)
        except InvalidValue as error:
            errors.append(ConfigError(path, number, "", error.problem, error.advice))
            continue
        if recipient in entries:
            problem = f'"{entry}" is given twice, first in line {entries[recipient]}'
            errors.append(ConfigError(path, number, "", problem, "remove one of the two"))
            continue
        entries[recipient] = number
    return entries, errors


def _read_text(path: str) -> str:
    try:
        data = read_regular(path, MAX_FILE_BYTES + 1)
    except LinkInPath:
        problem, advice = (
            "it, or a directory above it, is a symbolic link",
            f"write its real path, {os.path.realpath(path)}",
        )
        raise ConfigErrors([ConfigError(path, 0, "", problem, advice)]) from None
    except FileNotFoundError:
        raise ConfigErrors(
            [ConfigError(path, 0, "", "there is no such file", "create it, or correct the path")]
        ) from None
    except OSError as error:
        problem = f"it cannot be read ({error.strerror})"
        raise ConfigErrors([ConfigError(path, 0, "", problem, "see who may read it: ls -l, chown, chmod")]) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigErrors([ConfigError(path, 0, "", "it is larger than 256 MiB", "use a smaller list")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigErrors([ConfigError(path, line, "", "the line is not UTF-8", "save the file as UTF-8")]) from None
