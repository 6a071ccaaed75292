"""Argon2id (RFC 9106) by argon2-cffi; a module of its own, so that it is loaded only where a user has such a verifier."""

from __future__ import annotations

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MEMORY_KIB = 19456  # with two passes OWASP's first choice; bounds the memory of all checks at once
PASSES = 2

_hasher = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=1)


def derive(password: str) -> str:
    """The encoded verifier of a prepared password."""
    return _hasher.hash(password)


def is_password(verifier: str, password: str) -> bool:
    """Whether a prepared password belongs to it; the library releases the interpreter's lock."""
    try:
        return _hasher.verify(verifier, password)
    except (VerificationError, InvalidHashError):
        return False
