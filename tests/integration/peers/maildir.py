"""Reading what a server delivered into a Maildir.

A message is complete once its file is in `new`: the rename there is the delivery.
"""

from __future__ import annotations

from pathlib import Path

from integration.peers.process import wait_until


class Mailboxes:
    """For a server that delivers into Maildirs."""

    def mailbox(self, recipient: str) -> Path:
        """The Maildir of an address."""
        raise NotImplementedError

    def messages(self, recipient: str = "user@example.test") -> list[bytes]:
        """What has been delivered so far, octets as the server stores them."""
        return read_maildir(self.mailbox(recipient))

    def wait_for_messages(
        self, count: int = 1, recipient: str = "user@example.test", timeout_s: float = 60.0
    ) -> list[bytes]:
        """At least `count` messages for an address; TimeoutError if they do not come."""
        return wait_for_messages(self.mailbox(recipient), count, timeout_s)


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
