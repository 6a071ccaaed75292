"""A private Dovecot that does nothing but SASL, on a loopback TCP port, for a Postfix beside it."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from integration.peers.packages import require, require_root
from integration.peers.process import PeerProcess, is_greeting, take_port

CONFIG = """\
base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/log
protocols =
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
default_internal_user = dovecot
default_login_user = dovenull
auth_mechanisms = {mechanisms}
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {home}/users
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home=/nonexistent
}}
service auth {{
  inet_listener auth {{
    address = 127.0.0.1
    port = {port}
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
"""


class DovecotAuth(PeerProcess):
    """`with DovecotAuth(tmp_path, {"user": "password"}) as sasl:`; Postfix names it as inet:127.0.0.1:`port`."""

    def __init__(self, directory: Path, users: dict[str, str], mechanisms: str = "plain login scram-sha-256") -> None:
        require("dovecot")
        require_root("dovecot")
        super().__init__(directory)
        self.home = self.directory / f"dovecot-auth-{id(self):x}"
        self.port = take_port()
        self.users = users
        self.mechanisms = mechanisms

    def configure(self) -> list[str]:
        self.home.mkdir(mode=0o755, parents=True, exist_ok=True)
        users = self.home / "users"
        users.write_text("".join(f"{user}:{{PLAIN}}{password}\n" for user, password in self.users.items()))
        users.chmod(0o644)
        config = self.home / "dovecot.conf"
        config.write_text(CONFIG.format(home=self.home, port=self.port, mechanisms=self.mechanisms))
        return [require("dovecot"), "-F", "-c", str(config)]

    def is_ready(self) -> bool:
        return is_greeting(self.port, b"VERSION")

    def read_log(self) -> str:
        """What it printed and its log."""
        with contextlib.suppress(OSError):
            return super().read_log() + (self.home / "log").read_text(errors="replace")
        return super().read_log()

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self.home, ignore_errors=True)
