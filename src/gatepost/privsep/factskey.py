"""The key of hashed addresses in recorded facts: made once, beside the sockets, readable for who starts the gateway only.

A receiver gets it in its Start message; `gatepost why` and `gatepost replay` read the file.
"""

from __future__ import annotations

import os

KEY_BYTES = 32


def facts_key_path(spool: str) -> str:
    """Where the key lies."""
    return os.path.join(spool, "run", "facts.key")


def read_facts_key(spool: str) -> bytes:
    """The key, or nothing if there is none (no address was ever hashed); raises OSError."""
    try:
        fd = os.open(facts_key_path(spool), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return b""
    with os.fdopen(fd, "rb") as file:
        return file.read(KEY_BYTES)


def make_facts_key(spool: str) -> bytes:
    """The key, made if there is none yet; raises OSError."""
    key = read_facts_key(spool)
    if len(key) == KEY_BYTES:
        return key
    key = os.urandom(KEY_BYTES)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(facts_key_path(spool), flags, 0o600)
    try:
        os.write(fd, key)
        os.fsync(fd)
    finally:
        os.close(fd)
    return key
