"""A Debian of its own to install packages in: a root directory, namespaces, and either nothing or systemd as its first process.

The root is made once by debootstrap and kept below packaging/.cache; each box is an overlay of it, but for /var/spool, where a
spool wants a disk. A box has a network of its own with a loopback only. Needs root; `find_obstacle` says why it cannot be done here.
"""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import signal
import subprocess
import time
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "packaging" / ".cache"
SUITE = "bookworm"
# what the package depends on and recommends: a box has no network
PACKAGES = "python3,libseccomp2,adduser,ca-certificates"
NAME = f"{SUITE}-{zlib.crc32(PACKAGES.encode()):08x}"
UNIFIED = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
WAIT_S = 60.0

# Runs in the new namespaces: what a container manager prepares, then the first process.
_ENTER = """
set -e
mkdir "$BOX/upper" "$BOX/work" "$BOX/spool" "$BOX/root"
ROOT="$BOX/root"
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$BOX/upper,workdir=$BOX/work" "$ROOT"
mount --bind "$BOX/spool" "$ROOT/var/spool"
mount -t proc proc "$ROOT/proc"
mount -t sysfs -o ro sysfs "$ROOT/sys"
[ -z "$CGROUP" ] || mount -t cgroup2 cgroup2 "$ROOT/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$ROOT/run"
mount -t tmpfs -o mode=755 tmpfs "$ROOT/dev"
for device in null zero full random urandom tty; do
    touch "$ROOT/dev/$device"
    mount --bind "/dev/$device" "$ROOT/dev/$device"
done
touch "$ROOT/dev/console"
mount --bind "$CONSOLE" "$ROOT/dev/console"
mkdir "$ROOT/dev/shm" "$ROOT/dev/pts"
mount -t tmpfs tmpfs "$ROOT/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$ROOT/dev/pts"
ln -s pts/ptmx "$ROOT/dev/ptmx"
ip link set lo up
cd "$ROOT"
pivot_root . mnt
umount -l /mnt
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=gatepost-test "$@"
"""
_FIRST = (
    "python3",
    "-c",
    "import os, signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True: signal.pause()",
)
_SYSTEMD = ("/lib/systemd/systemd", "--log-target=console", "--show-status=no")


def find_obstacle() -> str:
    """Why no box can be made here; empty if one can."""
    if os.geteuid() != 0:
        return "needs root, for a root directory and namespaces of its own"
    for program in ("debootstrap", "unshare", "nsenter", "dpkg-deb", "ip"):
        if not shutil.which(program):
            return f"{program} is not installed: apt install debootstrap util-linux dpkg iproute2"
    return ""


def find_systemd_obstacle() -> str:
    """Why systemd cannot be the first process of a box here."""
    return find_obstacle() or ("" if _find_unified() else "no cgroup2 file system is mounted")


def _find_unified() -> Path | None:
    return next(
        (path for path in UNIFIED if (path / "cgroup.procs").exists() and (path / "cgroup.controllers").exists()), None
    )


def cached_root(with_systemd: bool) -> Path:
    """The root directory to copy; made at its first use."""
    plain = CACHE / f"root-{NAME}"
    if not plain.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        making = CACHE / f"making-{NAME}"
        shutil.rmtree(making, ignore_errors=True)
        _run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(making))
        making.rename(plain)
    if not with_systemd:
        return plain
    booting = CACHE / f"root-{NAME}-systemd"
    if not booting.is_dir():
        making = CACHE / f"making-{NAME}-systemd"
        shutil.rmtree(making, ignore_errors=True)
        _run("cp", "-a", str(plain), str(making))
        for name in Path("/etc/apt/apt.conf.d").glob("*"):  # how this machine reaches its archive
            shutil.copy(name, making / "etc/apt/apt.conf.d")
        install = "apt-get update -qq && apt-get install -y -qq --no-install-recommends systemd systemd-sysv"
        _run("chroot", str(making), "env", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", install)
        making.rename(booting)
    return booting


def _run(*command: str) -> None:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert result.returncode == 0, f"{command[0]}: {result.stdout[-3000:]}"


class Box:
    """A copy of a root, running."""

    def __init__(self, directory: Path, with_systemd: bool) -> None:
        self._directory = directory / "box"
        self._directory.mkdir()
        self.with_systemd = with_systemd
        self._cgroup: Path | None = None
        self._first_pid = 0
        self._started: list[subprocess.Popen[str]] = []
        self._log = (directory / "console.txt").open("w+b")
        self._lower = cached_root(with_systemd)
        console, terminal = pty.openpty()
        os.set_blocking(console, False)
        self._console, self._terminal = console, terminal
        self._holder = self._start(os.ttyname(terminal))
        self._wait_started()

    def _start(self, terminal: str) -> subprocess.Popen[bytes]:
        command = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--fork", "--kill-child"]
        command += ["--propagation", "private", "sh", "-c", _ENTER, "sh", *(_SYSTEMD if self.with_systemd else _FIRST)]
        environment = {"PATH": os.environ["PATH"], "BOX": str(self._directory), "LOWER": str(self._lower)}
        environment |= {"CONSOLE": terminal, "CGROUP": ""}
        unified = _find_unified() if self.with_systemd else None
        if unified is not None:
            self._cgroup = unified / f"gatepost-test-{os.getpid()}"
            self._cgroup.mkdir()
            environment["CGROUP"] = "yes"
            command = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self._cgroup / "cgroup.procs"), *command]
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)

    def _wait_started(self) -> None:
        wanted = "systemd" if self.with_systemd else "python3"
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            assert self._holder.poll() is None, self.console()
            children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text().split()
            if children and Path(f"/proc/{children[0]}/comm").read_text().strip() == wanted:
                self._first_pid = int(children[0])
                if not self.with_systemd or self.run("systemctl", "is-system-running", check=False) in (
                    "running",
                    "degraded",
                ):
                    return
            time.sleep(0.05)
        raise TimeoutError(f"the box did not start: {self.console()}")

    def console(self) -> str:
        """What was written to its console so far."""
        with contextlib.suppress(BlockingIOError, OSError):
            while block := os.read(self._console, 65536):
                self._log.write(block)
        self._log.flush()
        return Path(self._log.name).read_text(errors="replace")

    def command(self, *command: str) -> list[str]:
        """A command line that runs `command` in the box."""
        flags = ["-m", "-p", "-u", "-i", "-n", "-C"]
        clean = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"]
        return ["nsenter", "-t", str(self._first_pid), *flags, *clean, *command]

    def run(self, *command: str, check: bool = True, give: str | None = None) -> str:
        """Run a command in the box; its output, both kinds."""
        result = subprocess.run(
            self.command(*command),
            input=give,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        self.console()  # a full terminal would hold up who writes to it
        assert not check or result.returncode == 0, f"{' '.join(command)}: {result.stdout}\n{self.console()[-3000:]}"
        return result.stdout.strip()

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command in the box and go on; it ends with the box."""
        process = subprocess.Popen(
            self.command(*command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._started.append(process)
        return process

    def path(self, path: str) -> Path:
        """A path of the box as seen from outside."""
        return Path(f"/proc/{self._first_pid}/root") / path.lstrip("/")

    def exists(self, path: str) -> bool:
        return os.path.lexists(self.path(path))

    def close(self) -> None:
        """End everything in it, and remove it."""
        self._holder.send_signal(signal.SIGKILL)  # its child, the first process, goes with it
        self._holder.wait()
        for process in self._started:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        for descriptor in (self._console, self._terminal):
            os.close(descriptor)
        self._log.close()
        if self._cgroup is not None:
            self._remove_cgroups(self._cgroup)
        shutil.rmtree(self._directory)

    @staticmethod
    def _remove_cgroups(top: Path) -> None:
        deadline = time.monotonic() + 10
        while top.is_dir() and time.monotonic() < deadline:
            for directory, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)
            time.sleep(0.02)
