"""A private Dovecot that does nothing but SASL: on a Unix socket for Gatepost, on a loopback TCP port for a Postfix beside it."""

from __future__ import annotations

from pathlib import Path

from integration.peers.dovecot import Dovecot
from integration.peers.process import is_greeting


class DovecotLogins(Dovecot):
    """`with DovecotLogins(tmp_path, {"anna": "secret"}) as dovecot:`; Postfix names it as inet:127.0.0.1:`port`."""

    SERVES = """\
protocols =
disable_plaintext_auth = no
auth_mechanisms = {mechanisms}
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  args = username_format=%u {home}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%u {home}/users
}}
service auth {{
  unix_listener {home}/auth {{
    mode = 0600
  }}
  inet_listener {{
    address = 127.0.0.1
    port = {port}
  }}
}}
service anvil {{
  chroot =
}}
"""

    def __init__(self, directory: Path, passwords: dict[str, str], mechanisms: str = "plain") -> None:
        super().__init__(directory)
        self.passwords = passwords
        self.mechanisms = mechanisms

    @property
    def socket(self) -> Path:
        """The Unix socket."""
        return self.home / "auth"

    def users(self) -> list[str]:
        return [f"{name}:{{PLAIN}}{password}:65534:65534::/nonexistent::" for name, password in self.passwords.items()]

    def shape(self) -> dict[str, str]:
        return {"mechanisms": self.mechanisms}

    def is_ready(self) -> bool:
        return self.socket.exists() and is_greeting(self.port, b"VERSION")
