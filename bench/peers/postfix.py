"""Postfix as installed, as a private instance beside whatever the machine runs.

Debian's defaults for process limits, concurrency, connection cache and durability. Deviations: no chroot (Debian sets it
for most daemons; without it Postfix is no slower), the log in a file through its own postlogd, tables in memory.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from certificate import make_certificate

from peers.peer import MAX_MESSAGE_BYTES, RECIPIENT, Peer, first_line

MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {queue}
data_directory = {data}
maillog_file = {directory}/maillog
maillog_file_prefixes = {directory}
myhostname = postfix.example.test
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
alias_maps =
relay_domains = {domain}
relay_recipient_maps = texthash:{directory}/recipients
transport_maps = texthash:{directory}/transport
message_size_limit = {limit}
{extra}
"""

MASTER_CF = Path(__file__).with_name("postfix.master.cf")


class Postfix(Peer):
    """The instance to compare with."""

    name = "postfix"
    speaks_tls = True
    idle_limit = 1000
    idle_note = "a process for each session: default_process_limit raised from 100 for this row"

    @classmethod
    def prepare(cls, cache: Path) -> str | None:
        if not shutil.which("postfix"):
            return "package postfix is not installed"
        return None if os.geteuid() == 0 else "its master must be started as root"

    @classmethod
    def version(cls) -> str:
        return first_line(["postconf", "-d", "-h", "mail_version"])

    def configure(self) -> list[str]:
        shape = {
            "directory": self.directory,
            "queue": self.directory / "queue",
            "data": self.directory / "data",
            "port": self.port,
            "domain": self.domain,
            "limit": MAX_MESSAGE_BYTES,
            "extra": f"default_process_limit = {self.idle_sessions + 100}" if self.idle_sessions else "",
        }
        (self.directory / "queue").mkdir()
        (self.directory / "data").mkdir()
        shutil.chown(self.directory / "data", "postfix")
        if self.tls:
            certificate, key = make_certificate(self.directory, f"postfix.{self.domain}")
            shape["extra"] = (
                f"{shape['extra']}\nsmtpd_tls_security_level = may\nsmtpd_tls_cert_file = {certificate}\n"
                f"smtpd_tls_key_file = {key}\n"
            )
        (self.directory / "main.cf").write_text(MAIN_CF.format(**shape))
        (self.directory / "master.cf").write_text(MASTER_CF.read_text().format(**shape))
        (self.directory / "recipients").write_text(f"{RECIPIENT} ok\n")
        (self.directory / "transport").write_text(f"{self.domain} relay:[127.0.0.1]:{self.sink_port}\n")
        return ["postfix", "-c", str(self.directory), "start-fg"]
