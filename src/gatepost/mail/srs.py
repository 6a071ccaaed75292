"""The Sender Rewriting Scheme: reverse-paths of forwarded mail in a domain of ours, and the way back for its bounces.

The form and the signature are those of libsrs2 and postsrsd (HMAC-SHA1, base64), so that addresses made by one of them with the same
secret are understood. The first secret signs, all of them verify. Only what verifies, and is not too old, is turned back; a
caller never gets the address in an unsigned one. The clock is an argument.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence

MAX_LOCAL_BYTES = 64  # RFC 5321 4.5.3.1.1
MAX_PATH_BYTES = 254
DAY_S = 86400
_DAYS = 1024  # two letters of base 32, as days
_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_SRS0 = re.compile(r"srs0([-+=])(.+)", re.IGNORECASE | re.DOTALL)
_SRS1 = re.compile(r"srs1[-+=]([^=]+)=([^=]+)=(.+)", re.IGNORECASE | re.DOTALL)
_ANY = re.compile(r"srs[01][-+=]", re.IGNORECASE)
_DOMAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_LOCAL = re.compile(r"[^\x00-\x20\x7f@<>()\[\]\\,;:\"]{1,64}")


class SrsError(Exception):
    """No address can be made; `args[0]` says why, for the log."""


class SrsRefused(Exception):
    """An address that is not ours to turn back; `args[0]` says why."""


class Srs:
    """One domain and its secrets."""

    __slots__ = ("_hash_length", "_secrets", "_separator", "_valid_days", "domain")

    def __init__(
        self, domain: str, secrets: Sequence[bytes], *, hash_length: int = 6, valid_days: int = 21, separator: str = "="
    ) -> None:
        self.domain = domain
        self._secrets = tuple(secrets)
        self._hash_length = hash_length
        self._valid_days = valid_days
        self._separator = separator

    def forward(self, local: str, domain: str, now_s: float) -> str:
        """The reverse-path to write instead of `local@domain` (unquoted, canonical); raises SrsError."""
        if not self._secrets:
            raise SrsError("no secret is there")
        if not _LOCAL.fullmatch(local) or not _DOMAIN.fullmatch(domain):
            raise SrsError("the reverse-path cannot stand in another one")
        first, second = _SRS1.fullmatch(local), _SRS0.fullmatch(local)
        if first is not None:
            host, rest = first.group(2), first.group(3)
            new = f"SRS1{self._separator}{self._sign(self._secrets[0], host, rest)}={host}={rest}"
        elif second is not None:
            rest = second.group(1) + second.group(2)
            new = f"SRS1{self._separator}{self._sign(self._secrets[0], domain, rest)}={domain}={rest}"
        else:
            day = int(now_s // DAY_S) % _DAYS
            stamp = _BASE32[day >> 5] + _BASE32[day & 31]
            signature = self._sign(self._secrets[0], stamp, domain, local)
            new = f"SRS0{self._separator}{signature}={stamp}={domain}={local}"
        if len(new.encode()) > MAX_LOCAL_BYTES or len(new.encode()) + 1 + len(self.domain) > MAX_PATH_BYTES:
            raise SrsError("it would be longer than a path may be")
        return f"{new}@{self.domain}"

    def reverse(self, local: str, now_s: float) -> tuple[str, str]:
        """Local part and domain of whom a bounce for `local` at our domain is for; raises SrsRefused."""
        first = _SRS1.fullmatch(local)
        if first is not None:
            signature, host, rest = first.groups()
            if rest[:1] not in "-+=":
                rest = "=" + rest
            self._check(signature, host, rest)
            return self._made(f"SRS0{rest}", host)
        parts = local[5:].split("=", 3) if _SRS0.fullmatch(local) else []
        if len(parts) != 4:
            raise SrsRefused("it is not of the form that we make")
        signature, stamp, host, user = parts
        self._check(signature, stamp, host, user)
        self._check_day(stamp, now_s)
        return self._made(user, host)

    def _made(self, local: str, host: str) -> tuple[str, str]:
        """Signed by us is not yet fit for a path: a secret of another program may have signed anything."""
        if not _LOCAL.fullmatch(local) or not _DOMAIN.fullmatch(host):
            raise SrsRefused("what it stands for is no address")
        return local, host.lower()

    def _sign(self, secret: bytes, *parts: str) -> str:
        digest = hmac.new(secret, "".join(parts).lower().encode(), "sha1").digest()
        return base64.b64encode(digest)[: self._hash_length].decode("ascii")

    def _check(self, signature: str, *parts: str) -> None:
        """Case does not count: some hosts write local parts in lower case."""
        given = signature.lower().encode()
        good = False
        for secret in self._secrets:
            good |= hmac.compare_digest(self._sign(secret, *parts).lower().encode(), given)
        if not good:
            raise SrsRefused("it does not have our signature")

    def _check_day(self, stamp: str, now_s: float) -> None:
        upper = stamp.upper()
        if len(upper) != 2 or not set(upper) <= set(_BASE32):
            raise SrsRefused("its date is none")
        day = _BASE32.index(upper[0]) << 5 | _BASE32.index(upper[1])
        age = (int(now_s // DAY_S) - day) % _DAYS
        if age > self._valid_days and age != _DAYS - 1:  # a clock that is a day behind
            raise SrsRefused("it is too old")


def is_srs(local: str) -> bool:
    """Whether a local part has the form of a rewritten one."""
    return _ANY.match(local) is not None
