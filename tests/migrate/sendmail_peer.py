"""Real sendmail in a private root: Debian's packages laid over the machine's root in a mount namespace of its own.

Nothing is installed and nothing of it is visible outside; its mounts end with its last process. Its sendmail.cf is made with its own
m4 macros from the sendmail.mc of a test. It asks no DNS. Needs root, unshare and overlayfs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from integration.peers.packages import miss, require_root
from integration.peers.process import PeerProcess, is_greeting, take_port
from migrate.debian import unpacked

PACKAGES = ("sendmail-base", "sendmail-bin", "sendmail-cf", "m4", "liblockfile1")
ACCOUNTS = (("smmta", 993), ("smmsp", 994))
QUEUE = "/var/spool/mqueue"
ENTER_ROOT = Path(__file__).resolve().parents[2] / "bench/peers/enter_root.sh"


# How every sendmail.mc of a test begins: what the sandbox needs, no questions to anybody, and no regard for the load of the machine.
MC_HEAD = """\
divert(-1)
divert(0)dnl
OSTYPE(`linux')dnl
define(`confTO_IDENT', `0')dnl
define(`confSERVICE_SWITCH_FILE', `/etc/mail/service.switch-files')dnl
define(`confDONT_PROBE_INTERFACES', `True')dnl
define(`confDONT_BLAME_SENDMAIL', `GroupWritableDirPathSafe')dnl
define(`STATUS_FILE', `/var/spool/mqueue/statistics')dnl
define(`confPID_FILE', `/var/spool/mqueue/pid')dnl
define(`confQUEUE_LA', `1000')dnl
define(`confREFUSE_LA', `1000')dnl
define(`confDELAY_LA', `0')dnl
"""


class SendmailServer(PeerProcess):
    """`with SendmailServer(tmp_path, mail) as sendmail:`; `mail` is a directory that becomes /etc/mail, with `{port}` in its sendmail.mc."""

    def __init__(self, directory: Path, mail: Path, hosts: str = "") -> None:
        """`hosts` are further lines of its /etc/hosts."""
        require_root("sendmail")
        if not shutil.which("unshare"):
            miss("unshare is missing")
        super().__init__(directory)
        self.port = take_port()
        self.mail = mail
        self.home = self.directory / "private"
        self._hosts = hosts

    def configure(self) -> list[str]:
        files = unpacked(*PACKAGES).resolve()
        shutil.copytree(files, self.home / "upper", symlinks=True)  # a layer may not lie within another
        for name in ("work", "root", "queue"):
            (self.home / name).mkdir(parents=True, mode=0o755)
        (self.home / "queue").chmod(0o700)
        inside = self.home / "upper"
        shutil.copytree(self.mail, inside / "etc/mail", dirs_exist_ok=True)
        text = (inside / "etc/mail/sendmail.mc").read_text().replace("{port}", str(self.port))
        (inside / "etc/mail/sendmail.mc").write_text(text)
        (inside / "etc/mail/service.switch-files").write_text("hosts files\naliases files\npasswd files\n")
        (inside / "etc/hosts").write_text("127.0.0.1 localhost\n" + self._hosts)
        (inside / "var/spool/mqueue").mkdir(parents=True, exist_ok=True)
        for name in ("passwd", "group"):
            rows = Path("/etc", name).read_text()
            for account, number in ACCOUNTS:
                tail = f"{number}::/nonexistent:/usr/sbin/nologin" if name == "passwd" else ""
                rows += f"{account}:x:{number}:{tail}\n"
            (inside / "etc" / name).write_text(rows)
        macros = (
            "cd /usr/share/sendmail/cf/cf && m4 -D_CF_DIR_=/usr/share/sendmail/cf/ ../m4/cf.m4 /etc/mail/sendmail.mc"
        )
        (inside / "etc/mail/sendmail.cf").write_text(self.run_inside(["sh", "-c", macros]))
        for name in ("access", "mailertable", "virtusertable", "genericstable", "domaintable"):
            if (self.mail / name).exists():
                self.run_inside(["sh", "-c", f"makemap hash /etc/mail/{name} </etc/mail/{name}"])
        return self._inside(["/usr/libexec/sendmail/sendmail", "-bD", "-C", "/etc/mail/sendmail.cf"])

    def _inside(self, command: list[str]) -> list[str]:
        places = [str(self.home), QUEUE]
        return ["unshare", "--mount", "--propagation", "private", "sh", str(ENTER_ROOT), *places, *command]

    def run_inside(self, command: list[str]) -> str:
        """Run a tool of the packages to its end; its output."""
        done = subprocess.run(
            self._inside(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode != 0:
            miss(f"{command[-1][:40]} does not run in a private root: {done.stderr.strip()[-300:]}")
        return done.stdout

    def is_ready(self) -> bool:
        return is_greeting(self.port)

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self.home, ignore_errors=True)

    @staticmethod
    def may_run() -> bool:
        """Whether this process may mount."""
        return os.geteuid() == 0
