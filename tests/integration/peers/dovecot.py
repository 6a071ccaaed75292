"""A private Dovecot: its own configuration, run and state directories, log and port. It must start as root."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from integration.peers.packages import require, require_root
from integration.peers.process import PeerProcess, take_port

COMMON = """\
base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/log
listen = 127.0.0.1
ssl = no
default_internal_user = dovecot
default_login_user = dovenull
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
"""


class Dovecot(PeerProcess):
    """What every private Dovecot shares; a subclass says what it serves."""

    SERVES = ""  # lines of dovecot.conf, with {home}, {port} and what `shape` adds

    def __init__(self, directory: Path) -> None:
        require("dovecot")
        require_root("dovecot")
        super().__init__(directory)
        self.home = self.directory / f"dovecot-{id(self):x}"
        self.port = take_port()

    def users(self) -> list[str]:
        """The lines of its passwd-file."""
        raise NotImplementedError

    def shape(self) -> dict[str, str]:
        """What else stands in braces in SERVES."""
        return {}

    def configure(self) -> list[str]:
        self.home.mkdir(mode=0o755, parents=True, exist_ok=True)
        (self.home / "users").write_text("".join(f"{line}\n" for line in self.users()))
        config = self.home / "dovecot.conf"
        config.write_text((COMMON + self.SERVES).format(home=self.home, port=self.port, **self.shape()))
        return [require("dovecot"), "-F", "-c", str(config)]

    def read_log(self) -> str:
        """What it printed and its log."""
        with contextlib.suppress(OSError):
            return super().read_log() + (self.home / "log").read_text(errors="replace")
        return super().read_log()

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self.home, ignore_errors=True)
