"""Imports go downwards only, and the supervisor loads nothing that reads what strangers sent.

Each package names in MAY_IMPORT what it may use of the others; what is for type checkers alone does not count. The order of the
rows is the order of the layers: a package uses only packages above its own row.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gatepost

SOURCE = Path(gatepost.__file__).parent

WORDS = {"safeopen", "model", "config", "events", "ipc"}
MAY_IMPORT: dict[str, set[str]] = {
    "safeopen": set(),
    "firstload": set(),
    "model": set(),
    "eventtable": set(),
    "events": {"safeopen", "eventtable"},
    "smtp": {"model"},
    "mail": {"model", "smtp"},
    "config": {"safeopen", "model", "smtp", "mail"},
    "ipc": {"model"},  # the words that roles say to each other, and how they travel
    "net": {*WORDS, "smtp"},
    "routing": {*WORDS},
    "policy": {*WORDS, "routing", "mail"},
    "spool": {*WORDS},
    "queue": {*WORDS, "mail"},
    "delivery": {*WORDS, "routing", "mail", "smtp", "net"},
    "lookup": {*WORDS, "net"},
    "privsep": {*WORDS, "net", "spool"},
    "roles": {
        *WORDS,
        "firstload",
        "smtp",
        "mail",
        "net",
        "routing",
        "policy",
        "spool",
        "queue",
        "delivery",
        "lookup",
        "privsep",
    },
    "admin": {*WORDS},
    "selftest": {*WORDS, "net", "privsep", "delivery"},
    "migrate": {*WORDS, "routing", "policy"},
    "sendmail": {"mail"},  # starts for each message of a local program: little to load
    "cli": {
        *WORDS,
        "firstload",
        "sendmail",
        "selftest",
        "migrate",
        "smtp",
        "net",
        "routing",
        "policy",
        "spool",
        "delivery",
        "privsep",
        "admin",
    },
}
NEVER_IN_THE_SUPERVISOR = {"asyncio", "ssl", "_ssl", "uvloop", "email", "hashlib", "smtplib", "http"}
PACKAGES_OF_THE_SUPERVISOR = {
    "safeopen",
    "firstload",
    "model",
    "config",
    "events",
    "eventtable",
    "ipc",
    "net",
    "spool",
    "privsep",
}


def imports_of(path: Path) -> set[str]:
    """The modules of ours that a file imports when it runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for_types.update(inner for statement in node.body for inner in ast.walk(statement))
    found = set()
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in found if name.startswith("gatepost.")}


def package_of(module: str) -> str:
    """The first part below `gatepost`; names of the package itself, such as its version, are of none."""
    name = module.split(".")[1]
    return name if (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").exists() else ""


def packages() -> list[str]:
    names = [path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()]
    return sorted(names + [path.stem for path in SOURCE.glob("*.py") if not path.stem.startswith("__")])


def test_every_package_has_its_row():
    assert set(packages()) <= set(MAY_IMPORT)


def test_the_rows_are_in_the_order_of_the_layers():
    order = list(MAY_IMPORT)
    for number, name in enumerate(order):
        assert MAY_IMPORT[name] <= set(order[:number]) | ({"events", "ipc"} if name == "config" else set()), name


@pytest.mark.parametrize("package", packages())
def test_imports_go_downwards(package):
    files = sorted((SOURCE / package).rglob("*.py")) or [SOURCE / f"{package}.py"]
    for file in files:
        for module in imports_of(file):
            other = package_of(module)
            assert other in ("", package) or other in MAY_IMPORT[package], (
                f"{file.relative_to(SOURCE)} imports {module}"
            )


def test_imports_stand_at_the_top():
    """One that runs later would need the file system that a role has no more."""
    for file in sorted(SOURCE.rglob("*.py")):
        for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                inside = [node for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
                assert not inside, f"{file.relative_to(SOURCE)}:{function.lineno} {function.name}"


def loaded_by(code: str) -> set[str]:
    """What a fresh interpreter has loaded after `code`, less what it loads for nothing at all."""
    show = "import sys; print(*sys.modules)"
    runs = [
        subprocess.run([sys.executable, "-I", "-c", f"{each}\n{show}"], capture_output=True, text=True, check=True)
        for each in (code, "")
    ]
    return set(runs[0].stdout.split()) - set(runs[1].stdout.split())


@pytest.mark.parametrize("code", ["import gatepost.privsep.supervisor", "import gatepost.cli.main, gatepost.cli.run"])
def test_the_supervisor_loads_nothing_that_reads_what_strangers_sent(code):
    loaded = loaded_by(code)
    assert "gatepost.privsep.supervisor" in loaded
    assert not NEVER_IN_THE_SUPERVISOR & loaded
    ours = {package_of(name) for name in loaded if name.startswith("gatepost.")}
    assert ours <= PACKAGES_OF_THE_SUPERVISOR | {"cli"}, ours


def test_names_of_test_files_are_unique():
    """Two of one name cannot both be collected."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_decisions_are_numbered():
    """Each has a number of its own, which its heading repeats."""
    files = sorted((Path(__file__).parents[1] / "docs" / "decisions").glob("*.md"))
    numbers = [int(path.name[:4]) for path in files]
    assert numbers == list(range(1, len(files) + 1))
    for number, path in zip(numbers, files, strict=True):
        assert path.read_text(encoding="utf-8").startswith(f"# {number}. ")
