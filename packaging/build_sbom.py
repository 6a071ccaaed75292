"""Writes the bill of materials (CycloneDX 1.5, JSON) of what a package of Gatepost holds, from the lock alone.

Components are the pinned packages that the program needs, with every hash the lock allows for them, and what Debian gives. The
same lock gives the same bytes: time and serial number come from the source, not from the clock.
"""

from __future__ import annotations

import argparse
import datetime
import json
import uuid
from pathlib import Path
from typing import Any

from lockfile import Pin, runtime_pins
from sourcetree import ROOT, read_version, source_epoch

_NAMESPACE = uuid.UUID("8f6c3a52-6d0b-4c1c-9a43-2f0d2b1f7a10")
DEBIAN = {"python3": "interpreter (>= 3.11, << 3.12)", "libseccomp2": "compiles system call filters (>= 2.5)"}


def _component(pin: Pin) -> dict[str, Any]:
    purl = f"pkg:pypi/{pin.name}@{pin.version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": pin.name,
        "version": pin.version,
        "purl": purl,
        "scope": "required",
        "properties": [{"name": "gatepost:lock:sha256", "value": digest} for digest in sorted(pin.hashes)],
    }


def _from_debian(name: str, what: str) -> dict[str, Any]:
    return {
        "type": "library" if name.startswith("lib") else "platform",
        "bom-ref": f"pkg:deb/debian/{name}",
        "name": name,
        "purl": f"pkg:deb/debian/{name}",
        "description": what,
        "scope": "required",
        "properties": [{"name": "gatepost:origin", "value": "the Debian system it is installed on"}],
    }


def build_sbom() -> str:
    """The document."""
    version, pins = read_version(), runtime_pins()
    program = f"pkg:pypi/gatepost@{version}"
    components = [*map(_component, pins), *(_from_debian(name, what) for name, what in DEBIAN.items())]
    references = {pin.name: f"pkg:pypi/{pin.name}@{pin.version}" for pin in pins}
    time = datetime.datetime.fromtimestamp(source_epoch(), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    asked_by: dict[str, list[str]] = {name: [] for name in references}
    for pin in pins:
        for parent in pin.via:
            if parent in asked_by:
                asked_by[parent].append(references[pin.name])
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": time,
            "component": {
                "type": "application",
                "bom-ref": program,
                "name": "gatepost",
                "version": version,
                "purl": program,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
        },
        "components": components,
        "dependencies": [
            {"ref": program, "dependsOn": sorted(str(component["bom-ref"]) for component in components)},
            *({"ref": references[name], "dependsOn": sorted(asked_by[name])} for name in references),
            *({"ref": f"pkg:deb/debian/{name}", "dependsOn": []} for name in DEBIAN),
        ],
    }
    content = json.dumps(document, sort_keys=True)
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(_NAMESPACE, content)}"
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the bill of materials.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / f"gatepost-{read_version()}.cdx.json")
    output = parser.parse_args().output
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(build_sbom())
    print(output)


if __name__ == "__main__":
    main()
