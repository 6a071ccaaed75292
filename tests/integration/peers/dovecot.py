"""A private Dovecot that does nothing but LMTP on a loopback TCP port, into Maildirs.

Users are a static list: any other recipient is refused with 550 5.1.1. It must start as root and delivers as nobody.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from integration.peers.maildir import read_maildir, wait_for_messages
from integration.peers.packages import require, require_root
from integration.peers.process import PeerProcess, is_greeting, take_port

UID = 65534  # nobody, nogroup; owner of the Maildirs

CONFIG = """\
base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/log
protocols = lmtp
listen = 127.0.0.1
ssl = no
default_internal_user = dovecot
default_login_user = dovenull
first_valid_uid = 1
mail_location = maildir:{home}/mail/%d/%n
hostname = dovecot.test
postmaster_address = postmaster@example.test
lmtp_save_to_detail_mailbox = no
{settings}
passdb {{
  driver = passwd-file
  args = username_format=%u {home}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%u {home}/users
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
protocol lmtp {{
  mail_plugins =
}}
"""


class DovecotLmtp(PeerProcess):
    """`with DovecotLmtp(tmp_path) as dovecot:`; `users` are full addresses, `settings` lines of dovecot.conf."""

    def __init__(self, directory: Path, *, users: Sequence[str] = ("user@example.test",), settings: str = "") -> None:
        require("dovecot")
        require("dovecot-lmtp")
        require_root("dovecot")
        super().__init__(directory)
        self.home = self.directory / f"dovecot-{id(self):x}"
        self.port = take_port()
        self.users = tuple(users)
        self.settings = settings

    @property
    def address(self) -> str:
        """Where it listens: "127.0.0.1:PORT"."""
        return f"127.0.0.1:{self.port}"

    def configure(self) -> list[str]:
        (self.home / "mail").mkdir(mode=0o755, parents=True, exist_ok=True)
        os.chown(self.home / "mail", UID, UID)
        rows = [f"{user}::{UID}:{UID}::{self.home}/mail::\n" for user in self.users]
        (self.home / "users").write_text("".join(rows))
        config = self.home / "dovecot.conf"
        config.write_text(CONFIG.format(home=self.home, port=self.port, settings=self.settings))
        return [require("dovecot"), "-F", "-c", str(config)]

    def is_ready(self) -> bool:
        return is_greeting(self.port)

    def read_log(self) -> str:
        """What it printed and its log."""
        with contextlib.suppress(OSError):
            return super().read_log() + (self.home / "log").read_text(errors="replace")
        return super().read_log()

    def mailbox(self, recipient: str) -> Path:
        """The Maildir of an address."""
        local_part, _, domain = recipient.rpartition("@")
        return self.home / "mail" / domain / local_part

    def messages(self, recipient: str = "user@example.test") -> list[bytes]:
        """What has been delivered so far, as Dovecot stores it: lines as they came, its own trace fields in front."""
        return read_maildir(self.mailbox(recipient))

    def wait_for_messages(
        self, count: int = 1, recipient: str = "user@example.test", timeout_s: float = 20.0
    ) -> list[bytes]:
        """At least `count` messages for an address; TimeoutError if they do not come."""
        return wait_for_messages(self.mailbox(recipient), count, timeout_s)

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self.home, ignore_errors=True)
