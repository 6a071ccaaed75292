"""Reading what a server delivered into a Maildir.

A message is complete once its file is in `new`: the rename there is the delivery.
"""

from __future__ import annotations

from pathlib import Path

from integration.peers.process import wait_until


def read_maildir(directory: Path) -> list[bytes]:
    """The messages in `new` and `cur`, in order of delivery, octets as stored."""
    files = [file for part in ("new", "cur") if (directory / part).is_dir() for file in (directory / part).iterdir()]
    return [file.read_bytes() for file in sorted(files, key=lambda file: (file.stat().st_mtime_ns, file.name))]


def wait_for_messages(directory: Path, count: int, timeout_s: float = 60.0) -> list[bytes]:
    """At least `count` messages; TimeoutError if they do not come."""

    def read_enough() -> list[bytes] | None:
        messages = read_maildir(directory)
        return messages if len(messages) >= count else None

    return wait_until(read_enough, f"{count} messages in {directory}", timeout_s) or []
