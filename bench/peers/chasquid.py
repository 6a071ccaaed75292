"""chasquid in a private root.

chasquid has no next hop for a domain: it always asks for MX records. Here an alias forwards the recipient to a domain that
exists in the private root's hosts file only, its testing option sets the port, and a name server of the bench answers
every question with "no such name". So its figures contain about five questions per message that the others do not ask.
"""

from __future__ import annotations

import socket
import subprocess

from peers.peer import DOMAIN, PeerError
from peers.private_root import PrivateRoot

CONFIG = """\
hostname: "chasquid.example.test"
max_data_size_mb: 50
smtp_address: "127.0.0.1:{port}"
submission_address: "127.0.0.1:{submission_port}"
data_dir: "{queue}"
mail_log_path: "{queue}/mail.log"
"""
NEXT_HOP = "sink.test"


class Chasquid(PrivateRoot):
    """One process, a goroutine for each session and delivery."""

    name = "chasquid"
    package = "chasquid"
    queue_path = "/var/lib/chasquid"
    accounts = (("chasquid", 995),)

    def configure_server(self) -> list[str]:
        text = CONFIG.format(port=self.port, submission_port=take_other_port(self.port), queue=self.queue_path)
        self.write("/etc/chasquid/chasquid.conf", text)
        self.write(f"/etc/chasquid/domains/{DOMAIN}/aliases", f"bench: bench@{NEXT_HOP}\n")
        self.write("/etc/hosts", f"127.0.0.1 localhost {NEXT_HOP}\n")
        certificates = self.directory / "upper/etc/chasquid/certs" / f"chasquid.{DOMAIN}"
        certificates.mkdir(parents=True)
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        make += ["-days", "30", "-subj", f"/CN=chasquid.{DOMAIN}", "-addext", f"subjectAltName=DNS:chasquid.{DOMAIN}"]
        make += ["-keyout", str(certificates / "privkey.pem"), "-out", str(certificates / "fullchain.pem")]
        done = subprocess.run(make, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise PeerError(f"openssl: {done.stderr.strip()[-300:]}")
        return ["/usr/bin/chasquid", "-logtime", f"-testing__outgoing_smtp_port={self.sink_port}"]


def take_other_port(port: int) -> int:
    """A free port other than `port`."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        other = sock.getsockname()[1]
    return other if other != port else take_other_port(port)
