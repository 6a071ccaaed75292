"""Which domains have been sent mail by verified TLS, and when last: kept over restarts in one small file below the spool.

Only the memory: what it is used for is `delivery/securing.py`; how the file is kept, `keptfile.py`. One that cannot be read is as if nothing
was remembered, and says so. Bounded: the domain unseen for longest goes. Not safe for threads, but for `write`.
"""

from __future__ import annotations

from typing import NamedTuple

from gatepost.spool.errors import SpoolError
from gatepost.spool.keptfile import KeptFile

NAME = "remembered"
MAX_BYTES = 64 * 1024 * 1024
MAX_RECORDS = 1_000_000
REFRESH_S = 86400.0  # a domain seen again within this time is not written again
MAX_DOMAIN = 255


class Seen(NamedTuple):
    """By what a domain was verified ("dane", "sts"), and when last, in seconds since the epoch."""

    how: str
    last_s: float


class TlsMemory:
    """`root` is the spool; `keep_s` 0 remembers nothing."""

    def __init__(self, root: str, keep_s: float, most: int) -> None:
        self._file = KeptFile(root, NAME, MAX_RECORDS, MAX_BYTES)
        self._seen: dict[str, Seen] = {}  # in the order in which they were seen last
        self.reconfigure(keep_s, most)

    def __len__(self) -> int:
        return len(self._seen)

    def reconfigure(self, keep_s: float, most: int) -> None:
        """New limits; they hold from the next change on."""
        self._keep_s = keep_s
        self._most = most

    def load(self, now_s: float) -> str:
        """Read the file; why it could not be, empty if it could or there is none."""
        found = {}
        try:
            self._file.load()
            for domain, record in self._file.records.items():
                how, _, last_s = record.decode("ascii").partition(" ")
                found[domain] = Seen(how, float(last_s))
        except (SpoolError, ValueError) as error:
            return str(error)
        finally:
            self._file.records = {}
        self._seen = dict(sorted(found.items(), key=lambda item: item[1].last_s))
        self.expire(now_s)
        return ""

    def note(self, domain: str, how: str, now_s: float) -> bool:
        """A domain was verified; whether that is worth telling and writing."""
        if not self._keep_s or not 0 < len(domain) <= MAX_DOMAIN:
            return False
        old = self._seen.get(domain)
        if old is not None and old.how == how and now_s - old.last_s < min(REFRESH_S, self._keep_s / 2):
            return False
        self._seen.pop(domain, None)
        self._seen[domain] = Seen(how, now_s)
        return True

    def forget(self, domain: str) -> bool:
        """The operator says that it may go in clear again; whether it was remembered."""
        return self._seen.pop(domain, None) is not None

    def expire(self, now_s: float) -> list[str]:
        """Forget what is too old or too much; which."""
        gone: list[str] = []
        for domain, seen in self._seen.items():
            if seen.last_s >= now_s - self._keep_s and len(self._seen) - len(gone) <= self._most:
                break
            gone.append(domain)
        for domain in gone:
            del self._seen[domain]
        return gone

    def rows(self) -> list[tuple[str, str, float]]:
        """Domain, how, when last."""
        return [(domain, seen.how, seen.last_s) for domain, seen in self._seen.items()]

    def encoded(self) -> bytes:
        """What `write` writes."""
        self._file.records = {domain: f"{how} {last_s:.0f}".encode() for domain, how, last_s in self.rows()}
        data = self._file.encoded()
        self._file.records = {}
        return data

    def write(self, data: bytes) -> None:
        """Replace the file; raises SpoolError, with the old one as it was."""
        self._file.write(data)
