"""Haraka from the npm registry, storing and forwarding: its outbound queue, one process for each CPU.

Haraka's usual gateway (`queue/smtp_forward`) has no queue: it asks the next hop while the client waits. Here a plugin of a few lines
accepts the one recipient and hands the message to Haraka's outbound queue, which is what the other servers do. That queue writes a
file and renames it but never calls fsync, so its 250 is not durable. Names of clients are not looked up, and only warnings are logged.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from certificate import make_certificate

from peers.peer import MAX_MESSAGE_BYTES, RECIPIENT, Peer

VERSION = "3.3.4"
PLUGIN = """\
'use strict';
exports.register = function () {
    this.register_hook('lookup_rdns', 'no_lookup');
    this.register_hook('rcpt', 'accept');
    this.register_hook('get_mx', 'next_hop');
};
exports.no_lookup = function (next) {
    next(OK, 'client.test');
};
exports.accept = function (next, connection, params) {
    if (params[0].address.toLowerCase() !== '%(recipient)s') return next(DENY, 'unknown');
    connection.relaying = true;
    next(OK);
};
exports.next_hop = function (next) {
    next(OK, { priority: 0, exchange: '127.0.0.1', port: %(sink)d });
};
"""


class Haraka(Peer):
    """A process for each CPU and one that starts them."""

    name = "haraka"
    speaks_tls = True
    installed: Path  # set by prepare

    @classmethod
    def prepare(cls, cache: Path) -> str | None:
        if not shutil.which("node") or not shutil.which("npm"):
            return "no node and npm here to install it with"
        home = cache / "haraka"
        cls.installed = home / "node_modules/Haraka"
        if cls.installed.exists():
            return None
        home.mkdir(parents=True, exist_ok=True)
        install = ["npm", "install", "--omit=dev", "--no-audit", "--no-fund", f"Haraka@{VERSION}"]
        try:
            done = subprocess.run(install, cwd=home, capture_output=True, text=True, timeout=300, check=False)
        except subprocess.TimeoutExpired:
            return "npm did not install it in 5 minutes"
        return None if done.returncode == 0 else f"npm could not install it: {done.stderr.strip()[-200:]}"

    @classmethod
    def version(cls) -> str:
        return VERSION

    def write(self, path: str, text: str) -> None:
        """A file below its directory."""
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def configure(self) -> list[str]:
        self.write("plugins/gateway.js", PLUGIN % {"recipient": RECIPIENT, "sink": self.sink_port})
        plugins = ["gateway"]
        if self.tls:
            certificate, key = make_certificate(self.directory, f"haraka.{self.domain}")
            self.write("config/tls_cert.pem", certificate.read_text())
            self.write("config/tls_key.pem", key.read_text())
            plugins.insert(0, "tls")
        self.write("config/plugins", "".join(f"{name}\n" for name in plugins))
        self.write("config/smtp.ini", f"listen=127.0.0.1:{self.port}\nnodes=cpus\n")
        self.write("config/me", f"haraka.{self.domain}\n")
        self.write("config/log.ini", "[main]\nlevel=warn\nformat=default\n")
        self.write("config/outbound.ini", "enable_tls=false\n")
        defaults = (self.installed / "config/connection.ini").read_text()
        self.write("config/connection.ini", re.sub(r"(?m)^bytes=.*$", f"bytes={MAX_MESSAGE_BYTES}", defaults))
        (self.directory / "queue").mkdir()
        return ["node", str(self.installed / "bin/haraka"), "-c", str(self.directory)]
