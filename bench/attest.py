"""`make attest`: everything that proves the hardening, run once, and its figures written to docs/attestation.md.

The tests of the sandbox, of broken roles, of paths, of hostile names and of the self-test; a gateway of its own, looked at with `gatepost privs`
and `gatepost selftest`; the exposure that systemd reckons for the unit, where systemd-analyze is installed. The page is written whatever comes
out of it, and says what failed; the exit status is 1 then.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gatepost import __version__
from gatepost.privsep import landlock

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "attestation.md"
UNIT_NOTES = {
    "gatepost.service": "what the package installs and enables by default; at most 1.5 is asked for",
    "gatepost-separated.service": "the other choice, started as root; packaging/README.md says what its difference is made of",
}
UNITS = tuple(UNIT_NOTES)
GATEPOST = [sys.executable, "-I", "-m", "gatepost"]
READY_WAIT_S = 60

# what is proved -> the tests that prove it
PROOFS: dict[str, tuple[str, ...]] = {
    "the filters and Landlock, on small roles": ("tests/privsep/test_sandbox.py", "tests/privsep/test_unsafe_start.py"),
    "each row of the table of roles, against code of an attacker": ("tests/privsep/test_roles_compromised.py",),
    "code of an attacker inside the running gateway": ("tests/integration/test_gateway_broken_into.py",),
    "the tries at each start find holes": ("tests/privsep/test_trying.py", "tests/privsep/test_rights.py"),
    "the kernel's records against the table": (
        "tests/privsep/test_kernel.py", "tests/privsep/test_watch.py", "tests/integration/test_gateway_attests.py",
    ),
    "memory of keys is locked, and roles that hang are found": (
        "tests/privsep/test_memorylock.py", "tests/privsep/test_pulse.py", "tests/integration/test_gateway_hangs.py",
    ),
    "every mode bit of every path": ("tests/config/test_path_modes.py", "tests/config/test_paths.py", "tests/test_safeopen.py"),
    "hostile names reach no terminal": ("tests/integration/test_gateway_hostile_names.py", "tests/test_events.py"),
    "the self-test, and that it harms nobody": (
        "tests/selftest", "tests/integration/test_gateway_selftest.py", "tests/integration/test_gateway_selftest_tls.py",
    ),
    "the control socket and messages between roles": ("tests/integration/test_gateway_control.py", "tests/ipc"),
    "docs/security.md and docs/limits.md say what is there": ("tests/test_security_pages.py", "tests/test_layers.py"),
}  # fmt: skip


def main() -> int:
    """Run all of it; returns the exit status."""
    parser = argparse.ArgumentParser(description="Run the proofs of the hardening and write docs/attestation.md.")
    parser.add_argument("--output", type=Path, default=PAGE, help="where the page is written")
    output = parser.parse_args().output
    proofs = {name: run_tests(paths) for name, paths in PROOFS.items()}
    live = look_at_a_gateway()
    exposures = {unit: exposure(ROOT / "packaging" / "systemd" / unit) for unit in UNITS}
    output.write_text(build_page(proofs, live, exposures), encoding="utf-8")
    failed = [name for name, counts in proofs.items() if counts["failed"] or not counts["passed"]]
    is_good = not failed and live["as_declared"] and not live["selftest"]["failed"]
    print(
        f"{output}: {'all of it holds' if is_good else 'NOT all of it holds: ' + ', '.join(failed or ['the live gateway'])}"
    )
    return 0 if is_good else 1


def run_tests(paths: tuple[str, ...]) -> dict[str, int]:
    """How many passed, failed, were skipped."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *paths]
        subprocess.run(command, cwd=ROOT, check=False)
        if not report.exists():
            return {"passed": 0, "failed": 1, "skipped": 0}
        suite = ElementTree.parse(report).getroot()[0]
    number, failures, errors, skipped = (
        int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")
    )
    return {"passed": number - failures - errors - skipped, "failed": failures + errors, "skipped": skipped}


def look_at_a_gateway() -> dict[str, Any]:
    """What `privs` and `selftest` say of a gateway that is started for it."""
    directory = Path(tempfile.mkdtemp(prefix="gatepost-attest-"))
    directory.chmod(0o755)
    config = directory / "gatepost.toml"
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    config.write_text(
        f'hostname = "gate.example.test"\nlisten = ["127.0.0.1:{port}"]\nspool = "{directory}/spool"\n'
        f'domains = ["example.test"]\nnext_hop = "maildir:{directory}/boxes/{{local}}"\nrecipients = ["user"]\n'
        f'[queue]\nallow_volatile = true\n[smtp]\ngreeting_delay_s = 0.05\n[events]\noutput = "{directory}/events"\n'
    )
    config.chmod(0o600)
    process = subprocess.Popen([*GATEPOST, "run", "--config", str(config)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if "ready on" not in process.stdout.readline():
            return {
                "as_declared": False,
                "processes": [],
                "selftest": {"ok": 0, "warning": 0, "failed": 1, "skipped": 0},
            }
        privs = ask("privs", "--config", str(config))
        tested = ask("selftest", "--only", "smtp", "--only", "host", "--only", "inside", "--config", str(config))
        return {"as_declared": privs["as_declared"], "processes": privs["processes"], "selftest": tested["counts"]}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(READY_WAIT_S)
        shutil.rmtree(directory)


def ask(*arguments: str) -> Any:
    """The JSON answer of a command."""
    done = subprocess.run([*GATEPOST, *arguments, "--json"], capture_output=True, text=True, check=False)
    return json.loads(done.stdout)


def exposure(unit: Path) -> str:
    """What systemd reckons of a unit, from 0 (best) to 10; in words if it cannot be reckoned here."""
    program = shutil.which("systemd-analyze")
    if program is None or not unit.exists():
        return "not reckoned here: no systemd-analyze" if program is None else "no such unit"
    command = [program, "security", "--no-pager", "--offline=true", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if "exposure level" in line]
    return (
        lines[-1].partition(": ")[2].strip().encode("ascii", "ignore").decode().strip()
        if lines
        else "not reckoned here"
    )


def build_page(proofs: dict[str, dict[str, int]], live: dict[str, Any], exposures: dict[str, str]) -> str:
    """docs/attestation.md."""
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [
        "# Attestation",
        "",
        "Written by `make attest`; do not edit. [security.md](security.md) says what it means.",
        "",
        "| | |",
        "|---|---|",
        f"| date | {today} |",
        f"| Gatepost | {__version__} |",
        f"| kernel | {platform.system()} {platform.release()} {platform.machine()}, Landlock ABI {landlock.probe_abi()} |",
        f"| Python | {platform.python_version()} |",
        f"| run as | {'root: with users and root directories' if os.geteuid() == 0 else 'an ordinary user'} |",
        "",
        "## Proofs",
        "",
        "| what | passed | failed | skipped |",
        "|---|---|---|---|",
        *(f"| {name} | {c['passed']} | {c['failed']} | {c['skipped']} |" for name, c in proofs.items()),
        "",
        "## A running gateway",
        "",
        f"`gatepost privs`: {'as declared' if live['as_declared'] else 'NOT as declared'}.",
        "",
        "| process | forbidden acts refused | system calls | open descriptors | writable by name | Landlock | never swapped | differences |",
        "|---|---|---|---|---|---|---|---|",
        *(_process_row(process) for process in live["processes"]),
        "",
        "`gatepost selftest` (without DNS): " + ", ".join(f"{count} {name}" for name, count in live["selftest"].items()) + ".",
        "",
        "## Exposure of the unit, as systemd-analyze security reckons it",
        "",
        "| unit | exposure | |",
        "|---|---|---|",
        *(f"| {unit} | {figure} | {UNIT_NOTES[unit]} |" for unit, figure in exposures.items()),
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _process_row(process: dict[str, Any]) -> str:
    declared, kernel = process["declared"], process["kernel"] or {}
    calls = len(declared["syscalls"]) if declared else "not filtered"
    writable = process["writable"]
    files = "not looked at" if writable is None else ", ".join(writable) or "nothing"
    return (
        f"| {process['role']}/{process['instance']} | {process['refused']} of {process['tried']} | {calls} | "
        f"{len(kernel.get('descriptors', []))} | {files} | {process['landlock'] or 'none'} | "
        f"{kernel.get('locked_bytes', 0) >> 10} KiB | "
        f"{'; '.join(process['differences']) or 'none'} |"
    )


if __name__ == "__main__":
    sys.exit(main())
