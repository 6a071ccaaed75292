"""Asks advisory services about every pinned package: `make audit`.

pip-audit does the asking, in an environment of its own, pinned with hashes. It ends 0 when it could not find out anything about a
package; here that is a failure of its own. Exit status: 0 every package was looked up and none has a known vulnerability; 1 some have;
3 some could not be looked up. Never is "not asked" taken for "nothing found".
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lockfile import Pin, read_lock, write_requirements
from sourcetree import CACHE, ROOT

TOOL = ROOT / "packaging" / "audit-requirements.txt"
LOCKS = (ROOT / "requirements" / "runtime.txt", ROOT / "requirements" / "test.txt")
SERVICES = ("pypi", "osv")  # the names that pip-audit has for them
WAIT_S = 120
FOUND, NOT_ASKED = 1, 3


@dataclass(slots=True)
class Verdict:
    """What the services together said. `answered` names the service by package."""

    answered: dict[str, str] = field(default_factory=dict)
    vulnerable: dict[str, list[str]] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)

    def take(self, service: str, answer: dict[str, Any]) -> None:
        """Take in one service's answer, the JSON of pip-audit; a package that it skipped was not looked up."""
        for package in answer.get("dependencies", []):
            name = package["name"]
            if "skip_reason" in package:
                continue
            self.answered.setdefault(name, service)
            known = [f"{v['id']} (mended in {', '.join(v['fix_versions']) or 'no version'})" for v in package["vulns"]]
            if known:
                self.vulnerable.setdefault(f"{name} {package['version']}", []).extend(known)

    def report(self, pins: list[Pin]) -> tuple[int, list[str]]:
        """Exit status and lines."""
        missing = [f"{pin.name} {pin.version}" for pin in pins if pin.name not in self.answered]
        lines = [
            f"VULNERABLE: {name}: {'; '.join(dict.fromkeys(known))}" for name, known in sorted(self.vulnerable.items())
        ]
        if missing:
            lines += [f"NOT AUDITED: {len(missing)} of {len(pins)} packages; no advisory service could be asked about:"]
            lines += [f"  {name}" for name in missing]
            lines += [f"  ({trouble})" for trouble in self.troubles]
            lines += ["This says nothing about them. Run it again where an advisory service can be reached."]
        if self.vulnerable:
            return FOUND, lines
        if missing:
            return NOT_ASKED, lines
        services = sorted(set(self.answered.values()))
        return 0, [f"{len(pins)} packages looked up ({', '.join(services)}), none has a known vulnerability"]


def read_pins() -> list[Pin]:
    """Every pin of the locks, each once."""
    pins = {(pin.name, pin.version): pin for lock in LOCKS for pin in read_lock(lock)}
    return sorted(pins.values(), key=lambda pin: (pin.name, pin.version))


def install_tool() -> Path:
    """pip-audit in an environment of its own in the cache; its path."""
    directory = CACHE / f"audit-{hashlib.sha256(TOOL.read_bytes()).hexdigest()[:16]}"
    tool = directory / "bin" / "pip-audit"
    if not tool.exists():
        venv.create(directory, with_pip=True, clear=True)
        pip = [str(directory / "bin" / "python"), "-m", "pip", "-q", "--disable-pip-version-check", "install"]
        if subprocess.run([*pip, "--require-hashes", "-r", str(TOOL)], check=False).returncode != 0:
            sys.exit(f"NOT AUDITED: {TOOL.relative_to(ROOT)} could not be installed; see above")
    return tool


def ask(tool: Path, service: str, requirements: Path, verdict: Verdict) -> None:
    """Let one service answer; what goes wrong is a trouble, not an end."""
    command = [str(tool), "-s", service, "-r", str(requirements), "--require-hashes", "--disable-pip"]
    command += ["--progress-spinner", "off", "-f", "json", "--timeout", "15"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
        verdict.take(service, json.loads(result.stdout))
    except subprocess.TimeoutExpired:
        verdict.troubles.append(f"{service}: no answer in {WAIT_S} s")
    except ValueError:
        last = result.stderr.strip().splitlines()[-1:] or ["no answer"]
        verdict.troubles.append(f"{service}: {last[0][:200]}")


def main() -> None:
    argparse.ArgumentParser(description="Ask advisory services about every pinned package.").parse_args()
    pins = read_pins()
    tool = install_tool()
    requirements = tool.parent / "asked.txt"
    requirements.write_text(write_requirements(pins))
    verdict = Verdict()
    for service in SERVICES:
        ask(tool, service, requirements, verdict)
    status, lines = verdict.report(pins)
    print("\n".join(lines))
    sys.exit(status)


if __name__ == "__main__":
    main()
