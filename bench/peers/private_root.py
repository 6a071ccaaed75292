"""Servers whose packages exclude each other, unpacked beside the system and run as if installed.

The package and what it needs are downloaded with apt and unpacked into the bench's cache. The server is started in a mount
namespace of its own, where that tree is laid over the machine's root, so that its built-in paths hold; nothing of it
is visible outside and the mounts end with its last process. Its queue is a bind mount of a plain directory: no fsync
goes through the overlay. Needs root, apt and overlayfs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from peers.nameserver import start_name_server
from peers.peer import Peer, PeerError

ENTER_ROOT = Path(__file__).with_name("enter_root.sh")


class PrivateRoot(Peer):
    """A peer from a Debian package that is not installed."""

    package = ""
    queue_path = ""  # where the server has its queue, inside its root
    accounts: tuple[tuple[str, int], ...] = ()  # (name, uid and gid) that the package would have added
    unpacked: Path  # set by prepare

    @classmethod
    def prepare(cls, cache: Path) -> str | None:
        if os.geteuid() != 0:
            return "a private root needs root"
        if not shutil.which("apt-get"):
            return "no apt-get here to download it with"
        cls.unpacked = cache / cls.package / "root"
        if cls.unpacked.exists():
            return None
        downloads = cache / cls.package / "debs"
        (downloads / "partial").mkdir(parents=True, exist_ok=True)
        fetch = ["apt-get", "install", "-y", "--download-only", "--no-install-recommends"]
        fetch += ["-o", f"Dir::Cache::archives={downloads}", "-o", "APT::Sandbox::User=root", cls.package]
        try:
            done = subprocess.run(fetch, capture_output=True, text=True, timeout=300, check=False)
        except subprocess.TimeoutExpired:
            return "apt-get did not download it in 5 minutes"
        if done.returncode != 0:
            return f"apt-get could not download {cls.package}: {done.stderr.strip()[-200:]}"
        partial = cache / cls.package / "unpacking"
        for deb in sorted(downloads.glob("*.deb")):
            subprocess.run(["dpkg", "-x", deb, partial], check=True)
        for name in ("bin", "sbin", "lib", "lib64"):  # links into usr since Debian 12: a directory would hide them
            if (partial / name).is_dir():
                shutil.copytree(partial / name, partial / "usr" / name, symlinks=True, dirs_exist_ok=True)
                shutil.rmtree(partial / name)
        partial.rename(cls.unpacked)
        return None

    @classmethod
    def version(cls) -> str:
        debs = list((cls.unpacked.parent / "debs").glob(f"{cls.package}_*.deb"))
        return debs[0].name.split("_")[1].replace("%3a", ":") if debs else ""

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """A file inside the root."""
        target = self.directory / "upper" / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def configure_server(self) -> list[str]:
        """Write what the server needs inside its root; the command to run there."""
        raise NotImplementedError

    def configure(self) -> list[str]:
        shutil.copytree(self.unpacked, self.directory / "upper", symlinks=True)
        for name in ("work", "root", "queue"):
            (self.directory / name).mkdir(mode=0o755)
        for name in ("passwd", "group"):
            lines = Path("/etc", name).read_text()
            for account, number in self.accounts:
                if not lines.startswith(f"{account}:") and f"\n{account}:" not in lines:
                    tail = f"{number}::/nonexistent:/usr/sbin/nologin" if name == "passwd" else ""
                    lines += f"{account}:x:{number}:{tail}\n"
            self.write(f"/etc/{name}", lines)
        self.write("/etc/hosts", "127.0.0.1 localhost\n")
        self.write("/etc/resolv.conf", f"nameserver {start_name_server()}\n")
        self.write(self.queue_path + "/.keep", "")
        command = self.configure_server()
        return self.inside(command)

    def inside(self, command: list[str]) -> list[str]:
        """The command, run in the private root."""
        places = [str(self.directory), self.queue_path]
        return ["unshare", "--mount", "--propagation", "private", "sh", str(ENTER_ROOT), *places, *command]

    def run_inside(self, command: list[str]) -> str:
        """Run a tool of the package to its end; its output."""
        done = subprocess.run(
            self.inside(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode != 0:
            raise PeerError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def own_queue(self, uid: int, mode: int) -> None:
        """Give the queue directory to the server's user."""
        os.chown(self.directory / "queue", uid, uid)
        (self.directory / "queue").chmod(mode)
