"""How much room the file system has, asked at most once a second.

The spool stops accepting while there is still space for what it needs itself: journal, bounces, deferred files.
"""

from __future__ import annotations

import os
import time

from gatepost.config import schema

INTERVAL_S = 1.0


class Disk:
    """The file system of one path, against the limits of the configuration."""

    def __init__(self, path: str, config: schema.Queue) -> None:
        self.path = path
        self.config = config
        self._due = 0.0
        self._trouble = ""

    def reconfigure(self, config: schema.Queue) -> None:
        """Go on with other limits."""
        self.config = config
        self._due = 0.0

    def trouble(self) -> str:
        """What is wrong, or empty."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + INTERVAL_S
            self._trouble = self._look()
        return self._trouble

    def _look(self) -> str:
        try:
            found = os.statvfs(self.path)
        except OSError as error:
            return f"statvfs: {error.strerror}"
        free = found.f_bavail * found.f_frsize
        if free < self.config.min_free_bytes:
            return f"{free} bytes are free (queue.min_free_bytes is {self.config.min_free_bytes})"
        # Some file systems (btrfs) make inodes as needed and say 0 of 0.
        if found.f_files and found.f_favail < self.config.min_free_inodes:
            return f"{found.f_favail} inodes are free (queue.min_free_inodes is {self.config.min_free_inodes})"
        return ""
