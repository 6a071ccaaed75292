"""The file system that forgets: what each call promises, by the rules of POSIX, and what a cut may leave of the rest."""

from __future__ import annotations

import random

import pytest

from bench.crash.cutmodel import PAGE, Model, Node, Refused

FILE = 0o100600
DIRECTORY = 0o040700


@pytest.fixture
def model() -> Model:
    return Model()


def add(model: Model, name: bytes = b"f", data: bytes = b"", directory: Node | None = None) -> Node:
    node = model.create(directory or model.root, name, FILE, 0, 0)
    if data:
        model.write(node, 0, data)
    return node


def left(model: Model, chance: float = 0.0, seed: int = 1) -> dict[bytes, bytes]:
    """Names and data of the root directory after a cut."""
    return {name: bytes(node.data) for name, node in model.cut(random.Random(seed), chance).root.names.items()}


def test_nothing_was_synced(model):
    add(model, data=b"text")
    assert left(model) == {}
    assert left(model, 1.0) == {b"f": b"text"}


def test_fsync_of_a_file_does_not_keep_its_name(model):
    model.sync_file(add(model, data=b"text"))
    assert left(model) == {}


def test_fsync_of_a_directory_does_not_keep_data(model):
    add(model, data=b"text")
    model.sync_directory(model.root)
    assert left(model) == {b"f": b""}


def test_both_keep_the_file(model):
    node = add(model, data=b"text")
    model.sync_file(node)
    model.sync_directory(model.root)
    model.write(node, 4, b" and more")
    assert left(model) == {b"f": b"text"}


def test_overwritten_pages_survive_one_by_one(model):
    node = add(model, data=b"a" * PAGE * 8)
    model.sync_file(node)
    model.sync_directory(model.root)
    model.write(node, 0, b"b" * PAGE * 8)
    found = {left(model, 0.5, seed)[b"f"] for seed in range(20)}
    assert len(found) > 10
    assert all(set(data) <= set(b"ab") and len(data) == PAGE * 8 for data in found)


def test_a_longer_file_may_have_holes(model):
    node = add(model)
    model.sync_directory(model.root)
    model.write(node, 0, b"a" * PAGE * 4)
    found = [left(model, 0.5, seed)[b"f"] for seed in range(30)]
    assert any(b"\0" in data and b"a" in data for data in found)
    assert {len(data) for data in found} >= {0, PAGE * 4}


def test_truncation_is_durable_with_fsync(model):
    node = add(model, data=b"long text")
    model.sync_file(node)
    model.sync_directory(model.root)
    model.resize(node, 4)
    assert left(model) == {b"f": b"long text"}
    model.sync_file(node)
    assert left(model) == {b"f": b"long"}


def test_unlink_is_undone(model):
    model.sync_file(add(model, data=b"text"))
    model.sync_directory(model.root)
    model.unlink(model.root, b"f")
    assert left(model) == {b"f": b"text"}
    model.sync_directory(model.root)
    assert left(model) == {}


@pytest.mark.parametrize("seed", range(10))
def test_rename_is_one_change(model, seed):
    model.sync_file(add(model, b"new", b"new"))
    model.sync_file(add(model, b"old", b"old"))
    model.sync_directory(model.root)
    model.rename(model.root, b"new", model.root, b"old")
    assert left(model, 0.5, seed) in ({b"new": b"new", b"old": b"old"}, {b"old": b"new"})


def test_hard_links_stay_one_file(model):
    node = add(model, data=b"text")
    model.link(node, model.root, b"g")
    model.sync_file(node)
    model.sync_directory(model.root)
    names = model.cut(random.Random(1), 0.0).root.names
    assert names[b"f"] is names[b"g"] and names[b"f"].links == 2


def test_a_directory_without_a_name_takes_its_files_along(model):
    directory = model.create(model.root, b"d", DIRECTORY, 0, 0)
    model.sync_file(add(model, data=b"text", directory=directory))
    model.sync_directory(directory)
    assert left(model) == {}
    model.sync_directory(model.root)
    [name] = model.cut(random.Random(1), 0.0).root.names[b"d"].names
    assert name == b"f"


def test_what_is_left_is_durable(model):
    model.sync_file(add(model, data=b"text"))
    model.sync_directory(model.root)
    again = model.cut(random.Random(1), 0.0)
    assert left(again) == {b"f": b"text"}


def test_refusals(model):
    add(model)
    directory = model.create(model.root, b"d", DIRECTORY, 0, 0)
    add(model, directory=directory)
    for call in (
        lambda: add(model),
        lambda: model.look_up(model.root, b"x"),
        lambda: model.unlink(model.root, b"d"),
        lambda: model.remove_directory(model.root, b"d"),
        lambda: model.remove_directory(model.root, b"f"),
    ):
        with pytest.raises(Refused):
            call()
