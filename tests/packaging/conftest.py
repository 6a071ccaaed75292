"""The packaging scripts as modules; the packages and boxes that the installation tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "packaging"), str(Path(__file__).parent)]

from boxes import Box, find_obstacle, find_systemd_obstacle
from building import build, snapshot

INSTALLATION = "GATEPOST_TEST_DEB"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "installation: needs boxes of its own and minutes; `make test-deb` runs it")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get(INSTALLATION):
        return
    for item in items:
        if item.get_closest_marker("installation"):
            item.add_marker(pytest.mark.skip(reason="takes minutes; make test-deb runs it"))


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source as it is now, whatever becomes of the working tree meanwhile."""
    return snapshot(tmp_path_factory.mktemp("source") / "gatepost")


@pytest.fixture(scope="session")
def package(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package of this tree."""
    return build(source, tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="session")
def newer_package(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a higher version."""
    directory = tmp_path_factory.mktemp("newer")
    tree, path = directory / "tree", directory / "gatepost_99.0_amd64.deb"
    subprocess.run(["dpkg-deb", "-R", str(package), str(tree)], check=True)
    control = tree / "DEBIAN" / "control"
    lines = control.read_text().splitlines()
    control.write_text("\n".join("Version: 99.0" if line.startswith("Version:") else line for line in lines) + "\n")
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(path)], check=True, stdout=subprocess.DEVNULL
    )
    return path


@pytest.fixture
def make_box(tmp_path: Path) -> Iterator[Callable[[bool], Box]]:
    """Makes a box, with systemd or without; it is gone after the test."""
    boxes: list[Box] = []

    def make(with_systemd: bool = False) -> Box:
        if obstacle := find_systemd_obstacle() if with_systemd else find_obstacle():
            pytest.fail(f"the installation tests cannot run here: {obstacle}")
        boxes.append(Box(tmp_path, with_systemd))
        return boxes[-1]

    yield make
    for box in boxes:
        box.close()


@pytest.fixture
def box(make_box: Callable[..., Box]) -> Box:
    """A Debian without a service manager."""
    return make_box(False)


@pytest.fixture
def systemd_box(make_box: Callable[..., Box]) -> Box:
    """A Debian that systemd runs."""
    return make_box(True)
