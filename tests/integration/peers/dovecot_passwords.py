"""A private Dovecot that does nothing but check passwords, on a Unix socket and a loopback TCP port. It must start as root."""

from __future__ import annotations

import shutil
from pathlib import Path

from integration.peers.packages import require, require_root
from integration.peers.process import PeerProcess, take_port

CONFIG = """\
base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/log
protocols =
listen = 127.0.0.1
ssl = no
default_internal_user = dovecot
default_login_user = dovenull
auth_mechanisms = plain
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
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
"""


class DovecotPasswords(PeerProcess):
    """`with DovecotPasswords(tmp_path, {"anna": "secret"}) as dovecot:`."""

    def __init__(self, directory: Path, users: dict[str, str]) -> None:
        require("dovecot")
        require_root("dovecot")
        super().__init__(directory)
        self.home = self.directory / f"dovecot-{id(self):x}"
        self.port = take_port()
        self.users = users

    @property
    def socket(self) -> Path:
        """The Unix socket."""
        return self.home / "auth"

    def configure(self) -> list[str]:
        self.home.mkdir(mode=0o755, parents=True, exist_ok=True)
        rows = [f"{name}:{{PLAIN}}{password}:65534:65534::/nonexistent::\n" for name, password in self.users.items()]
        (self.home / "users").write_text("".join(rows))
        config = self.home / "dovecot.conf"
        config.write_text(CONFIG.format(home=self.home, port=self.port))
        return [require("dovecot"), "-F", "-c", str(config)]

    def is_ready(self) -> bool:
        return self.socket.exists()

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self.home / "run", ignore_errors=True)
        self.socket.unlink(missing_ok=True)
