"""smtp-sink, Postfix's test server: takes everything as fast as can be, counts or keeps it, or misbehaves as told."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from integration.peers.packages import require
from integration.peers.process import PeerProcess, is_greeting, take_port, wait_until


class SmtpSink(PeerProcess):
    """`with SmtpSink(tmp_path) as sink:`; `options` are those of smtp-sink, for example ("-q", "data") or ("-L",).

    With `keep_messages` each message becomes a file, with the envelope in X- header fields.
    """

    def __init__(self, directory: Path, *, options: Sequence[str] = (), keep_messages: bool = False) -> None:
        require("smtp-sink")
        super().__init__(directory)
        self.port = take_port()
        self.options = tuple(options)
        self.dump = self.directory / f"sink-{id(self):x}" if keep_messages else None

    @property
    def address(self) -> str:
        """Where it listens: "127.0.0.1:PORT"."""
        return f"127.0.0.1:{self.port}"

    def configure(self) -> list[str]:
        command = [require("smtp-sink"), "-c", "-m", "1000", *self.options]
        if os.geteuid() == 0:
            command += ["-u", "nobody"]
        if self.dump is not None:
            self.dump.mkdir(mode=0o777, exist_ok=True)
            self.dump.chmod(0o777)
            command += ["-d", f"{self.dump}/%M."]
        return [*command, self.address, "1000"]

    def is_ready(self) -> bool:
        return is_greeting(self.port)

    def count(self) -> int:
        """The messages taken so far."""
        number = self.read_log().rpartition("mesg=")[2].split("\r")[0]
        return int(number) if number.strip().isdigit() else 0

    def wait_for_count(self, count: int, timeout_s: float = 60.0) -> int:
        """Wait until it has at least `count` messages."""
        wait_until(lambda: self.count() >= count, f"{count} messages at the sink", timeout_s)
        return self.count()

    def messages(self) -> list[bytes]:
        """The messages kept, in no order."""
        if self.dump is None:
            raise ValueError("this sink keeps no messages")
        return [file.read_bytes() for file in self.dump.iterdir()]
