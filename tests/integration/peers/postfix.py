"""A private Postfix: receiver with Maildirs, relay to another server, or both.

It shares nothing with an instance of the machine: its own configuration, queue, data directory and port. It must start as
root and then runs as the user postfix.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from integration.peers.maildir import Mailboxes
from integration.peers.packages import require, require_root
from integration.peers.process import PeerProcess, is_greeting, take_port, wait_until

UID = 65534  # nobody; owner of the Maildirs
QUEUE_DIRECTORIES = {
    **dict.fromkeys(
        ["active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace"],
        0o700,
    ),
    "maildrop": 0o730,
    "public": 0o710,
    "pid": 0o755,
}
EVERYONE = "everyone"  # the one Maildir, as virtual(8) takes no patterns

MASTER_CF = Path(__file__).resolve().parents[3] / "bench/peers/postfix.master.cf"


class PostfixServer(PeerProcess, Mailboxes):
    """`with PostfixServer(tmp_path) as postfix:`; mail for `domains` goes to Maildirs below it, or to `transport`.

    `relay_host` ("127.0.0.1:2525") takes all mail for other domains. `users` are the local parts that exist, with a Maildir
    for each; None: all exist, with one Maildir for all. `transport` is Postfix's notation, for example "lmtp:inet:127.0.0.1:24" or "discard:". `settings` are added to main.cf.
    """

    def __init__(
        self,
        directory: Path,
        *,
        domains: Sequence[str] = ("example.test",),
        users: Sequence[str] | None = None,
        transport: str = "virtual:",
        relay_host: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        require("postfix")
        require_root("postfix")
        super().__init__(directory)
        self.home = self.directory / f"postfix-{id(self):x}"
        self.port = take_port()
        self.domains = tuple(domains)
        self.users = users
        self.transport = transport
        self.relay_host = relay_host
        self.settings = dict(settings or {})

    @property
    def address(self) -> str:
        """Where it listens: "127.0.0.1:PORT"."""
        return f"127.0.0.1:{self.port}"

    def configure(self) -> list[str]:
        for name in ("queue", "data", "mail"):
            (self.home / name).mkdir(mode=0o755, parents=True, exist_ok=True)
        shutil.chown(self.home / "data", "postfix")
        shutil.chown(self.home / "mail", UID, UID)
        rows = [f"{user}@{domain} {domain}/{user}/\n" for domain in self.domains for user in self.users or ()]
        (self.home / "mailboxes").write_text("".join(rows))
        main = {
            "compatibility_level": "3.6",
            "queue_directory": self.home / "queue",
            "data_directory": self.home / "data",
            "maillog_file": self.home / "log",
            "maillog_file_prefixes": self.home,
            "myhostname": "postfix.test",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "mynetworks": "127.0.0.0/8",
            "mydestination": "",
            "alias_maps": "",
            "virtual_mailbox_domains": " ".join(self.domains),
            "virtual_mailbox_maps": f"static:{EVERYONE}/" if self.users is None else f"texthash:{self.home}/mailboxes",
            "virtual_mailbox_base": self.home / "mail",
            "virtual_uid_maps": f"static:{UID}",
            "virtual_gid_maps": f"static:{UID}",
            "virtual_transport": self.transport,
            "disable_dns_lookups": "yes",
            "smtp_tls_security_level": "none",
            "default_process_limit": "20",
            "minimal_backoff_time": "1s",
            "maximal_backoff_time": "1s",
            "queue_run_delay": "1s",
        }
        if self.relay_host is not None:
            host, _, port = self.relay_host.rpartition(":")
            main["relayhost"] = f"[{host}]:{port}"
        main.update(self.settings)
        (self.home / "main.cf").write_text("".join(f"{key} = {value}\n" for key, value in main.items()))
        (self.home / "master.cf").write_text(MASTER_CF.read_text().format(port=self.port))
        for name in ("main.cf", "master.cf", "mailboxes"):
            os.utime(self.home / name, (0, 0))  # Postfix waits until a file is a second old
        self.make_queue()
        command = [require("postconf"), "-d", "-h", "daemon_directory"]
        daemons = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
        return [f"{daemons}/master", "-c", str(self.home), "-s"]

    def make_queue(self) -> None:
        """The directories that `postfix start-fg` would make, as in postfix-files; its checks take seconds."""
        for name, mode in QUEUE_DIRECTORIES.items():
            directory = self.home / "queue" / name
            directory.mkdir(exist_ok=True)
            shutil.chown(directory, *(("root", "root") if name == "pid" else ("postfix", "postdrop")))
            directory.chmod(mode)

    def is_ready(self) -> bool:
        return is_greeting(self.port)

    def read_log(self) -> str:
        """What it printed and its mail log."""
        with contextlib.suppress(OSError):
            return super().read_log() + (self.home / "log").read_text(errors="replace")
        return super().read_log()

    def mailbox(self, recipient: str) -> Path:
        """The Maildir of an address; one for all when every user exists."""
        if self.users is None:
            return self.home / "mail" / EVERYONE
        local_part, _, domain = recipient.rpartition("@")
        return self.home / "mail" / domain / local_part

    def wait_for_log(self, text: str, timeout_s: float = 60.0) -> str:
        """The first line of the log with `text`."""

        def find_line() -> str:
            return next((line for line in self.read_log().splitlines() if text in line), "")

        return wait_until(find_line, f"{text!r} in Postfix's log", timeout_s)

    def submit(
        self,
        message: bytes,
        recipients: Sequence[str],
        reverse_path: str = "sender@outside.test",
        options: Sequence[str] = (),
    ) -> None:
        """Queue a message with its sendmail command, as a local program would; `options` as ("-N", "success")."""
        sendmail = shutil.which("sendmail", path="/usr/sbin:/usr/lib")
        command = [str(sendmail), "-C", str(self.home), "-i", "-f", reverse_path, *options, "--", *recipients]
        subprocess.run(command, input=message, check=True, capture_output=True, timeout=60)

    def queue(self) -> str:
        """What `postqueue -p` prints."""
        command = ["postqueue", "-c", str(self.home), "-p"]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    def flush(self) -> None:
        """Try everything in the queue now."""
        subprocess.run(["postqueue", "-c", str(self.home), "-f"], check=True, capture_output=True, timeout=60)

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self.home, ignore_errors=True)
