"""A private Dovecot that does nothing but LMTP on a loopback TCP port, into Maildirs.

Users are a static list: any other recipient is refused with 550 5.1.1. It delivers as nobody.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from integration.peers.dovecot import Dovecot
from integration.peers.maildir import Mailboxes
from integration.peers.packages import require
from integration.peers.process import is_greeting

UID = 65534  # nobody, nogroup; owner of the Maildirs


class DovecotLmtp(Dovecot, Mailboxes):
    """`with DovecotLmtp(tmp_path) as dovecot:`; `users` are full addresses, `settings` lines of dovecot.conf."""

    SERVES = """\
protocols = lmtp
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
protocol lmtp {{
  mail_plugins =
}}
"""

    def __init__(self, directory: Path, *, users: Sequence[str] = ("user@example.test",), settings: str = "") -> None:
        require("dovecot-lmtp")
        super().__init__(directory)
        self.addresses = tuple(users)
        self.settings = settings

    @property
    def address(self) -> str:
        """Where it listens: "127.0.0.1:PORT"."""
        return f"127.0.0.1:{self.port}"

    def users(self) -> list[str]:
        return [f"{address}::{UID}:{UID}::{self.home}/mail::" for address in self.addresses]

    def shape(self) -> dict[str, str]:
        return {"settings": self.settings}

    def configure(self) -> list[str]:
        (self.home / "mail").mkdir(mode=0o755, parents=True, exist_ok=True)
        os.chown(self.home / "mail", UID, UID)
        return super().configure()

    def is_ready(self) -> bool:
        return is_greeting(self.port)

    def mailbox(self, recipient: str) -> Path:
        """The Maildir of an address."""
        local_part, _, domain = recipient.rpartition("@")
        return self.home / "mail" / domain / local_part
