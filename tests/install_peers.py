"""Installs the programs that the integration tests need, with apt, when run as root on Debian.

Elsewhere it says which are missing and what for, and the tests that need them are skipped. With CI=true a program that is
still missing at the end makes it fail. Only standard library: it runs before anything is set up. No service is left running.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGE_LIST = Path(__file__).resolve().parents[1] / "packaging" / "peers.txt"
SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
DOVECOT_LIBRARIES = "/usr/lib/dovecot:/usr/libexec/dovecot"
POLICY = Path("/usr/sbin/policy-rc.d")  # consulted before a package starts its service; 101 forbids it
NO_MAILER = "postfix postfix/main_mailer_type select No configuration\n"


def list_missing() -> dict[str, str]:
    """Program -> package, of those that are not there."""
    missing = {}
    for line in PACKAGE_LIST.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        program, package = line.split()
        found = shutil.which("lmtp", path=DOVECOT_LIBRARIES) if program == "dovecot-lmtp" else None
        if not found and not shutil.which(program, path=SEARCH_PATH):
            missing[program] = package
    return missing


def explain_no_apt() -> str | None:
    """Why packages cannot be installed here, or None if they can."""
    if not Path("/etc/debian_version").exists() or not shutil.which("apt-get"):
        return "this is not Debian"
    if os.geteuid() != 0:
        return "not run as root"
    return None


def install(packages: list[str]) -> bool:
    """Install with apt, no service started; whether apt was content."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    is_ours = not POLICY.exists()
    if is_ours:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        if "postfix" in packages and shutil.which("debconf-set-selections"):
            subprocess.run(["debconf-set-selections"], input=NO_MAILER, text=True, check=False)
        command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
        if subprocess.run(command, env=environment, check=False).returncode == 0:
            return True
        subprocess.run(["apt-get", "update", "-q"], env=environment, check=False)
        return subprocess.run(command, env=environment, check=False).returncode == 0
    finally:
        if is_ours:
            POLICY.unlink(missing_ok=True)


def main() -> int:
    """0 unless CI=true and a program is missing."""
    missing = list_missing()
    if not missing:
        return 0
    reason = explain_no_apt()
    if reason is None and not install(sorted(set(missing.values()))):
        reason = "apt-get failed"
    missing = list_missing()
    for program, package in missing.items():
        print(
            f"missing: {program} (Debian package {package}), not installed: {reason}; its tests are skipped",
            file=sys.stderr,
        )
    return 1 if missing and os.environ.get("CI") == "true" else 0


if __name__ == "__main__":
    sys.exit(main())
