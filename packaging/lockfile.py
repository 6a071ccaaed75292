"""Reads requirements/runtime.txt: what is pinned, with which hashes, and what of it the program needs to run.

The lock also holds what is needed to build (setuptools, wheel): those do not go into a package. Which is which follows from the
"via" comments that pip-compile writes. Standard library only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from sourcetree import ROOT

LOCK = ROOT / "requirements" / "runtime.txt"
PROJECT = "gatepost (pyproject.toml)"
_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s\\;]+)")
_HASH = re.compile(r"--hash=(sha256):([0-9a-f]{64})")


@dataclass(slots=True)
class Pin:
    """One pinned package; `via` names what asks for it."""

    name: str
    version: str
    hashes: list[str] = field(default_factory=list)
    via: list[str] = field(default_factory=list)


class LockError(Exception):
    """The lock cannot be relied upon; the text says why."""


def read_lock(path: Path = LOCK) -> list[Pin]:
    """Every pin, in the order of the file. Raises LockError for one without version or hash."""
    pins: list[Pin] = []
    in_via = False
    for line in path.read_text().splitlines():
        text = line.strip()
        if text.startswith("#"):
            comment = text[1:].strip()
            if comment.startswith("via"):
                in_via, comment = True, comment[3:].strip()
            if in_via and pins and comment:
                pins[-1].via.append(comment)
            continue
        in_via = False
        if found := _HASH.match(text):
            pins[-1].hashes.append(found[2])
        elif found := _PIN.match(text):
            pins.append(Pin(found[1], found[2]))
        elif text:
            raise LockError(f"{path}: not a pin: {text}")
    for pin in pins:
        if not pin.hashes:
            raise LockError(f"{path}: {pin.name}=={pin.version} has no hash; run make lock")
    return pins


def runtime_pins(path: Path = LOCK) -> list[Pin]:
    """The pins that the program itself needs, and what those need."""
    pins = read_lock(path)
    needed = {PROJECT}
    while True:
        more = {pin.name for pin in pins if needed & set(pin.via)} - needed
        if not more:
            return [pin for pin in pins if pin.name in needed]
        needed |= more


def write_requirements(pins: list[Pin]) -> str:
    """The pins as a requirements file with hashes."""
    return "".join(f"{p.name}=={p.version} {' '.join(f'--hash=sha256:{h}' for h in p.hashes)}\n" for p in pins)
