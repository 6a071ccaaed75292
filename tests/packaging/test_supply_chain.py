"""The lock, the bill of materials made from it, the verdict on advisories, and archives that are the same bytes each time."""

from __future__ import annotations

import json
import re
import tarfile
import tomllib
import zipfile
from pathlib import Path

import audit
import build_sbom
import lockfile
import pytest
from boxes import ROOT
from building import run_script
from lockfile import LockError, Pin

LOCK = """\
alpha==1.0 \\
    --hash=sha256:{0} \\
    --hash=sha256:{1}
    # via gatepost (pyproject.toml)
beta==2.0 \\
    --hash=sha256:{0}
    # via
    #   alpha
    #   wheel
wheel==3.0 \\
    --hash=sha256:{0}
    # via -r requirements/build.in

# The following packages are considered to be unsafe in a requirements file:
setuptools==4.0 \\
    --hash=sha256:{0}
    # via -r requirements/build.in
""".format("a" * 64, "b" * 64)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "runtime.txt"
    path.write_text(LOCK)
    return path


def test_a_package_gets_what_the_program_needs_and_not_what_builds_it(lock: Path) -> None:
    assert [pin.name for pin in lockfile.read_lock(lock)] == ["alpha", "beta", "wheel", "setuptools"]
    needed = lockfile.runtime_pins(lock)
    assert [(pin.name, pin.version, len(pin.hashes)) for pin in needed] == [("alpha", "1.0", 2), ("beta", "2.0", 1)]


@pytest.mark.parametrize("line", ["gamma==1.0", "gamma>=1.0 \\\n    --hash=sha256:" + "a" * 64, "-e ."])
def test_a_lock_without_hash_or_version_is_refused(lock: Path, line: str) -> None:
    lock.write_text(LOCK + line + "\n")
    with pytest.raises(LockError):
        lockfile.read_lock(lock)


def test_the_lock_of_this_tree_has_every_dependency_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[^A-Za-z0-9._-]", text)[0] for text in project["dependencies"]}
    pinned = {pin.name for pin in lockfile.runtime_pins()}
    assert declared <= pinned
    assert not pinned & {"setuptools", "wheel", "pip", "pytest"}
    assert all(pin.hashes for pin in lockfile.read_lock())
    lockfile.read_lock(ROOT / "requirements" / "test.txt")
    lockfile.read_lock(audit.TOOL)


def test_the_bill_of_materials_is_whole_and_the_same_each_time() -> None:
    text = build_sbom.build_sbom()
    assert text == build_sbom.build_sbom()
    bill = json.loads(text)
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.5", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"])
    components = {component["name"]: component for component in bill["components"]}
    for pin in lockfile.runtime_pins():
        component = components.pop(pin.name)
        assert (component["version"], component["purl"]) == (pin.version, f"pkg:pypi/{pin.name}@{pin.version}")
        assert sorted(p["value"] for p in component["properties"]) == sorted(pin.hashes)
    assert set(components) == set(build_sbom.DEBIAN)
    references = {component["bom-ref"] for component in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    assert {row["ref"] for row in bill["dependencies"]} == references
    assert all(set(row["dependsOn"]) <= references for row in bill["dependencies"])


ALPHA, BETA = Pin("alpha", "1.0"), Pin("beta", "2.0")
CLEAN = {"name": "alpha", "version": "1.0", "vulns": []}
BAD = {"name": "beta", "version": "2.0", "vulns": [{"id": "CVE-1", "fix_versions": ["2.1"]}]}
SKIPPED = {"name": "beta", "skip_reason": "Dependency not found"}


def judge(*answers: list[dict[str, object]]) -> tuple[int, str]:
    verdict = audit.Verdict(troubles=["osv: no route"])
    for service, answer in zip(("first", "second"), answers, strict=False):
        verdict.take(service, {"dependencies": answer})
    status, lines = verdict.report([ALPHA, BETA])
    return status, "\n".join(lines)


def test_what_no_service_looked_up_is_never_passed() -> None:
    status, text = judge([CLEAN, SKIPPED])
    assert status == audit.NOT_ASKED
    assert "NOT AUDITED: 1 of 2 packages" in text and "beta 2.0" in text and "osv: no route" in text
    assert judge()[0] == audit.NOT_ASKED
    assert judge([CLEAN])[0] == audit.NOT_ASKED  # left out of the answer


def test_a_vulnerability_counts_whichever_service_knows_it() -> None:
    status, text = judge([CLEAN, SKIPPED], [BAD])
    assert status == audit.FOUND
    assert "VULNERABLE: beta 2.0: CVE-1 (mended in 2.1)" in text


def test_a_clean_verdict_names_who_gave_it() -> None:
    status, text = judge([CLEAN, SKIPPED], [{"name": "beta", "version": "2.0", "vulns": []}])
    assert (status, text) == (0, "2 packages looked up (first, second), none has a known vulnerability")


@pytest.fixture(scope="module")
def archives(source: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two directories, each with what one run has built."""
    targets = [tmp_path_factory.mktemp("archives") for _ in range(2)]
    for target in targets:
        run_script("build_dist.py", "--output", str(target), root=source, SOURCE_DATE_EPOCH="1767225600")
    return targets


def test_wheel_and_source_archive_are_the_same_bytes_each_time(archives: list[Path]) -> None:
    first, second = (sorted(target.iterdir()) for target in archives)
    assert [path.name for path in first] == [path.name for path in second]
    assert len(first) == 2
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_the_archives_tell_nothing_of_who_built_them(archives: list[Path]) -> None:
    with tarfile.open(next(archives[0].glob("*.tar.gz"))) as archive:
        members = archive.getmembers()
        assert {(m.uid, m.gid, m.uname, m.mtime) for m in members} == {(0, 0, "root", 1767225600)}
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    for needed in (
        "packaging/build_deb.py",
        "requirements/runtime.txt",
        "docs/config.md",
        "Makefile",
        "src/gatepost/model.py",
    ):
        assert needed in names
    assert not any(".cache" in name or name.endswith(".pyc") for name in names)
    with zipfile.ZipFile(next(archives[0].glob("*.whl"))) as wheel:
        assert {info.date_time for info in wheel.infolist()} == {(2026, 1, 1, 0, 0, 0)}
        assert all(name.startswith("gatepost") for name in wheel.namelist())
