"""Where the files of the old server lie: the directory that was given stands for its standard place.

`/etc/mail/access` of a sendmail.mc is `DIR/access`; other absolute paths are taken below what stands in front of DIR, so that a
copy of a server's files is read and not the files of this machine. Reads only; every failure is a text for the report.
"""

from __future__ import annotations

import os

MAX_FILE_BYTES = 64 * 1024 * 1024


class Unreadable(Exception):
    """A file that cannot be read; `args[0]` says why."""


class Places:
    """Paths of the old configuration and where they are here."""

    def __init__(self, directory: str, standard: str) -> None:
        self.directory = os.path.realpath(directory)
        self.standard = standard
        ending = standard
        self.root = self.directory[: -len(ending)] if self.directory.endswith(ending) else ""
        self.is_copy = self.directory != standard

    def path(self, text: str) -> str:
        """The path here of a path there."""
        if not text.startswith("/"):
            return os.path.join(self.directory, text)
        if text == self.standard or text.startswith(self.standard + "/"):
            return self.directory + text[len(self.standard) :]
        return os.path.join(self.root or "/", text.lstrip("/"))

    def read(self, path: str) -> str:
        """The text of a file here; raises Unreadable."""
        try:
            with open(path, "rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise Unreadable(f"it cannot be read ({error.strerror})") from None
        if len(data) > MAX_FILE_BYTES:
            raise Unreadable("it is larger than 64 MiB")
        return data.decode(errors="replace").replace("\r\n", "\n")

    def exists(self, path: str) -> bool:
        """Whether a file is here."""
        return os.path.isfile(path)
